"""Scores of stores: the definitions, the official results, and that the way they are computed changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pipeline.evaluate import score, score_store
from pipeline.scoring import blocks
from pipeline.scoring.request import BASELINES, Request
from tests.pipeline.scoring.conftest import GRID
from transforms.metrics import METRICS
from transforms.regions import region_weights
from transforms.selections import parse_leads, parse_times

EVERYTHING = tuple(name for name in METRICS if name != "seeps_6hr")
OPTIONS = {"metrics": EVERYTHING, "quantiles": (0.3, 0.7), "regions": ("global", "tropics", "global_land")}


def one(request, **options) -> xr.Dataset:
    """Return the result of the first system."""
    return score(request, **options)[request.systems[0]]


def assert_same(first: xr.Dataset, second: xr.Dataset, rtol: float = 1e-12) -> None:
    """Compare relative to the size of each field's scores of a kind, so that a bias of nearly 0 is no problem."""
    assert set(first.data_vars) == set(second.data_vars)
    for name in first.data_vars:
        for metric in first.metric.values if "metric" in first[name].dims else [None]:
            a, b = (d[name] if metric is None else d[name].sel(metric=metric) for d in (first, second))
            b = b.transpose(*a.dims)
            finite = np.abs(a.values[np.isfinite(a.values)])
            scale = finite.max() if finite.size else 1.0
            np.testing.assert_allclose(a.values, b.values, rtol=rtol, atol=rtol * scale, err_msg=f"{name} {metric}")


def naive(stores, field: str, integrand, region: str = "global") -> np.ndarray:
    """Return the average of an integrand of (forecast, truth), (lead, level), by plain loops."""
    forecast, truth = stores.datasets["forecast"], stores.datasets["truth"]
    mask = truth.land_sea_mask.values
    (weights,) = region_weights([region], GRID, mask)
    values = np.zeros((forecast.sizes["prediction_timedelta"], 2))
    for time in forecast.time.values:
        for lead in range(len(values)):
            valid = time + forecast.prediction_timedelta.values[lead]
            f = forecast[field].sel(time=time).isel(prediction_timedelta=lead).values
            o = truth[field].sel(time=valid).values
            for level in range(2):
                values[lead, level] += np.average(integrand(f[level], o[level]), weights=weights)
    return values / forecast.sizes["time"]


@pytest.mark.parametrize("region", ["global", "tropics", "global_land", "tropics_land_gt_0.5"])
def test_scores_equal_plain_loops(written, region):
    result = one(written.request(metrics=("mse", "mae", "bias"), regions=(region,))).geopotential.sel(region=region)
    for metric, integrand in (
        ("mse", lambda f, o: (f - o).astype(float) ** 2),
        ("mae", lambda f, o: abs(f - o).astype(float)),
        ("bias", lambda f, o: (f - o).astype(float)),
    ):
        expected = naive(written, "geopotential", integrand, region)
        np.testing.assert_allclose(result.sel(metric=metric), expected, rtol=1e-12, atol=1e-14)


def test_the_ensemble_scores_equal_plain_loops(written):
    request = written.request(
        "ensemble", metrics=("crps", "rank_histogram", "brier_score", "rps"), quantiles=(0.3, 0.7)
    )
    result = one(request).geopotential.sel(region="global")
    ensemble, truth = (written.datasets[name].geopotential for name in ("ensemble", "truth"))
    climatology = written.datasets["climatology"].geopotential_quantile
    (weights,) = region_weights(["global"], GRID)
    lead, level = 2, 1
    expected = {name: [] for name in ("crps", "rank", "brier", "rps")}
    for start in ensemble.time.values:
        valid = start + ensemble.prediction_timedelta.values[lead]
        x = (
            ensemble.sel(time=start, level=850)
            .isel(prediction_timedelta=lead)
            .transpose("number", ...)
            .values.astype(float)
        )
        y = truth.sel(time=valid, level=850).values.astype(float)
        stamp = valid.astype("datetime64[s]").item()
        limits = climatology.sel(level=850, hour=stamp.hour, dayofyear=stamp.timetuple().tm_yday).values
        members = len(x)
        spread = sum(abs(x[i] - x[j]) for i in range(members) for j in range(members)) / (members * (members - 1))
        expected["crps"].append(np.average(np.mean(abs(x - y), axis=0) - spread / 2, weights=weights))
        rank = (x < y).sum(axis=0)
        expected["rank"].append([np.average(rank == k, weights=weights) for k in range(members + 1)])
        events = [((x > limit).mean(axis=0) - (y > limit)) ** 2 for limit in limits]
        expected["brier"].append([np.average(event, weights=weights) for event in events])
        below = sum(((x < limit).mean(axis=0) - (y < limit)) ** 2 for limit in limits)
        expected["rps"].append(np.average(below, weights=weights))
    found = result.isel(lead_time=lead, level=level)
    assert result.sel(metric="rank_histogram").sizes["bins"] == 6
    np.testing.assert_allclose(found.sel(metric="crps").isel(bins=0, quantile=0), np.mean(expected["crps"]), rtol=1e-12)
    np.testing.assert_allclose(found.sel(metric="crps").isel(bins=3, quantile=1), np.mean(expected["crps"]), rtol=1e-12)
    histogram = found.sel(metric="rank_histogram").isel(quantile=0)
    np.testing.assert_allclose(histogram, np.mean(expected["rank"], axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        found.sel(metric="brier_score").isel(bins=0), np.mean(expected["brier"], axis=0), rtol=1e-12
    )
    np.testing.assert_allclose(found.sel(metric="rps").isel(bins=0, quantile=0), np.mean(expected["rps"]), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("average", ["mean", "temporal", "spatial"])
@pytest.mark.parametrize("skipna", [False, True])
def test_cutting_the_work_changes_nothing(broken, monkeypatch, average, skipna):
    metrics = EVERYTHING
    if average == "spatial":
        metrics = tuple(n for n in EVERYTHING if "energy" not in n and "sqrt_before" not in n and n != "acc")
    request = broken.request("ensemble", **{**OPTIONS, "metrics": metrics}, average=average, skipna=skipna)
    whole = one(request, workers=1)
    # One forecast lacks a whole lead, which averages over forecasts leave out.
    assert np.isnan(whole.geopotential.sel(metric="rmse")).any() == (not skipna or average == "temporal")
    for room, portion, workers in ((3 * 1280.0, 1e4, 1), (17 * 1280.0, 1e5, 4), (1.0, 1.0, 2)):
        monkeypatch.setattr(blocks, "_BLOCK_BYTES", room)
        monkeypatch.setattr(blocks, "_PORTION_BYTES", portion)
        assert_same(one(request, workers=workers), whole)


@pytest.mark.parametrize("average", ["mean", "temporal", "spatial"])
def test_order_and_chunks_of_the_stores_change_nothing(broken, tmp_path, average):
    request = broken.request(average=average, skipna=True, metrics=("rmse", "bias", "count"))
    whole = one(request)
    turned = broken.datasets["forecast"].isel(time=slice(None, None, -1), latitude=slice(None, None, -1))
    turned = turned.transpose("longitude", "prediction_timedelta", "latitude", "time", "level").drop_encoding()
    turned.chunk({"time": 3, "prediction_timedelta": 1, "longitude": 5}).to_zarr(
        tmp_path / "turned.zarr", zarr_format=2, consolidated=True
    )
    other = one(replace(request, forecast=str(tmp_path / "turned.zarr")))
    other = other.sortby("init_time") if average == "temporal" else other
    assert_same(other, whole)


@pytest.mark.parametrize(
    ("average", "options"),
    [("mean", ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]), ("spatial", []), ("temporal", [])],
)
def test_a_beam_job_says_the_same(broken, tmp_path, monkeypatch, average, options):
    request = broken.request("ensemble", average=average, skipna=True, metrics=("rmse", "crps", "count"))
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 3e4)
    score_store(request, tmp_path / "a.nc", fingerprint="x")
    score_store(request, tmp_path / "b.nc", beam_options=["--runner=DirectRunner", *options], fingerprint="x")
    with xr.open_dataset(tmp_path / "a.nc") as first, xr.open_dataset(tmp_path / "b.nc") as second:
        xr.testing.assert_identical(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nc", "b.nc"]


@pytest.mark.parametrize("average", ["spatial", "temporal"])
def test_portions_are_written_with_the_same_bytes_each_time(written, tmp_path, monkeypatch, average):
    request = written.request(metrics=("rmse", "bias"), average=average)
    whole = one(request)
    monkeypatch.setattr(blocks, "_PORTION_BYTES", 1e4)
    for name in ("a.nc", "b.nc"):
        score_store(request, tmp_path / name, fingerprint="x")
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    with xr.open_dataset(tmp_path / "a.nc", decode_timedelta=True) as written_result:
        assert_same(written_result, whole)


def test_maps_average_to_the_scores(written):
    request = written.request(metrics=("mse", "bias"), regions=("global",))
    weights = xr.DataArray(GRID.latitude_weights(), dims="latitude", coords={"latitude": GRID.latitude})
    maps = one(replace(request, average="spatial"))
    for name in ("geopotential", "total_precipitation_24hr"):
        mean = maps[name].weighted(weights).mean(["latitude", "longitude"])
        xr.testing.assert_allclose(mean, one(request)[name].isel(region=0, drop=True), rtol=1e-10)
    assert maps.geopotential.dims == ("metric", "lead_time", "level", "latitude", "longitude")


def test_single_forecasts_average_to_the_scores(written):
    request = written.request(metrics=("mse", "acc", "mae"))
    single = one(replace(request, average="temporal"))
    assert single.wind_vector.dims == ("metric", "region", "init_time", "lead_time", "level")
    np.testing.assert_array_equal(single.init_time, written.datasets["forecast"].time)
    xr.testing.assert_allclose(
        single.mean("init_time").drop_vars("valid_samples"), one(request).drop_vars("valid_samples")
    )


def test_a_selection_is_a_part_of_the_whole(written):
    request = written.request()
    chosen = replace(
        request,
        leads=parse_leads("12h:48h:24h"),
        initial_times=parse_times("2003-12-28:2003-12-30"),
        levels=(850.0,),
        variables=("geopotential",),
        average="temporal",
    )
    part, whole = one(chosen), one(replace(request, average="temporal"))
    assert list(part.data_vars) == ["geopotential", "valid_samples"]
    expected = whole.geopotential.sel(level=[850], init_time=slice("2003-12-28", "2003-12-30")).isel(lead_time=[0, 2])
    assert part.geopotential.sizes["init_time"] == 6
    xr.testing.assert_allclose(part.geopotential, expected, rtol=1e-12)


def test_forecasts_by_valid_time(written, tmp_path):
    """Of forecasts stored by valid time every lead is averaged over the same valid times."""
    by_initial, leads = written.datasets["forecast"], written.datasets["forecast"].prediction_timedelta.values
    valid = by_initial.time.values[4:]
    rows = [
        by_initial.isel(prediction_timedelta=i).sel(time=valid - lead).assign_coords(time=valid)
        for i, lead in enumerate(leads)
    ]
    store = xr.concat(rows, dim="prediction_timedelta").transpose("time", ...).drop_encoding()
    store.to_zarr(tmp_path / "valid.zarr", zarr_format=3, consolidated=False)
    request = replace(
        written.request(), forecast=str(tmp_path / "valid.zarr"), by_valid=True, systems=("model", *BASELINES)
    )
    results = score(request)
    single = one(replace(written.request(), average="temporal"))
    for i, lead in enumerate(leads):
        expected = single.geopotential.isel(lead_time=i).sel(init_time=valid - lead)
        for metric in ("mae", "acc"):
            np.testing.assert_allclose(
                results["model"].geopotential.isel(lead_time=i).sel(metric=metric),
                expected.sel(metric=metric).mean("init_time"),
                rtol=1e-12,
            )
    # Persistence is the truth at the initial time, which differs by lead.
    plain = score(replace(written.request(), average="temporal", systems=("persistence",)))["persistence"]
    got = results["persistence"].geopotential.sel(metric="mae").isel(lead_time=1)
    np.testing.assert_allclose(
        got, plain.geopotential.sel(metric="mae", init_time=valid - leads[1]).isel(lead_time=1).mean("init_time")
    )
    temporal = one(replace(request, systems=("model",), average="temporal"))
    assert temporal.geopotential.dims == ("metric", "region", "time", "lead_time", "level")


def test_count_says_how_many_forecasts_entered(broken):
    metrics = ("rmse", "count")
    result = one(broken.request(metrics=metrics, skipna=True))
    # The truth at position 7 is missing: leads 1 to 4 lose one initial time each; initial time 4 lacks lead 2 as well.
    np.testing.assert_array_equal(result.valid_samples, [9, 9, 9, 9])
    count = result.geopotential.sel(metric="count", region="global", level=500)
    np.testing.assert_array_equal(count, [9, 8, 9, 9])
    assert (result.total_precipitation_24hr.sel(metric="count") == 9).all()


def test_seeps_belongs_to_precipitation_alone(written):
    result = one(written.request(metrics=("seeps_24hr", "mae"), regions=("global",)))
    assert np.isfinite(result.total_precipitation_24hr.sel(metric="seeps_24hr")).all()
    assert np.isnan(result.geopotential.sel(metric="seeps_24hr")).all()
    perfect = one(replace(written.request(metrics=("seeps_24hr",)), systems=("persistence",)))
    assert (perfect.total_precipitation_24hr.sel(metric="seeps_24hr") > 0.1).all()


def test_an_ensemble_of_one_is_a_single_forecast(written, tmp_path):
    single = (
        written.datasets["forecast"].expand_dims(number=[3]).transpose("time", "prediction_timedelta", "number", ...)
    )
    single.drop_encoding().to_zarr(tmp_path / "one.zarr", zarr_format=3, consolidated=False)
    metrics = ("rmse", "mae", "bias", "acc", "crps", "crps_spread", "ensemble_mean_mse", "energy_score")
    request = written.request(metrics=metrics)
    # The mean over members is float64, a single forecast is subtracted in its own precision.
    assert_same(one(replace(request, forecast=str(tmp_path / "one.zarr"))), one(request), rtol=1e-6)
    result = one(request).geopotential
    np.testing.assert_allclose(result.sel(metric="crps"), result.sel(metric="mae"), rtol=1e-6)
    assert (result.sel(metric="crps_spread") == 0).all()


OFFICIAL = {
    # By the result's name: store, systems, average and metrics.
    "64x32p_skipna0_deterministic_temporal": (
        "model",
        "temporal",
        ("mse", "rmse_sqrt_before_time_avg", "mae", "bias", "acc"),
    ),
    "64x32p_skipna0_deterministic_spatial": ("model", "spatial", ("mse", "bias", "mae")),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_results(reference, reference_stores, name):
    folder = reference_stores("64x32p")
    system, average, metrics = OFFICIAL[name]
    official = xr.load_dataset(reference / "results" / f"{name}.nc", decode_timedelta=True)
    request = Request(
        *(str(folder / f"{store}.zarr") for store in ("forecast", "truth", "climatology")),
        systems=(system,),
        metrics=metrics,
        regions=("global", "tropics", "extra-tropics"),
        average=average,
        variables=tuple(name for name in official.data_vars if name != "wind_vector"),
    )
    assert_official(one(request), official)


def assert_official(result: xr.Dataset, official: xr.Dataset) -> None:
    for name in official.data_vars:
        for metric in official.metric.values:
            expected = official[name].sel(metric=metric)
            got = result[name].sel(metric=metric).transpose(*expected.dims)
            np.testing.assert_allclose(got.values, expected.values, rtol=1e-6, atol=1e-9, err_msg=f"{metric} {name}")


@pytest.mark.parametrize(
    ("name", "stores", "metrics"),
    [
        ("ens_probabilistic", ("ens/forecast", "64x32p/truth"), None),
        ("seeps_deterministic", ("ens/tp_forecast", "ens/tp_truth", "ens/tp_climatology"), None),
    ],
)
def test_official_ensembles_and_seeps(reference, reference_stores, name, stores, metrics):
    official = xr.load_dataset(reference / "results" / f"{name}.nc", decode_timedelta=True)
    paths = [reference_stores(store.split("/")[0]).parent / f"{store}.zarr" for store in stores]
    request = Request(*map(str, paths), metrics=tuple(official.metric.values), regions=tuple(official.region.values))
    assert_official(one(request), official)


def test_a_beam_job_leaves_nothing_behind(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = written.request(metrics=("mse",))
    xr.testing.assert_equal(one(request, beam_options=["--runner=DirectRunner"]), one(request))
    assert list(tmp_path.iterdir()) == []
