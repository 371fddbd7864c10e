"""Skill against baselines and other forecasts in results, and what is refused before work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pipeline.evaluate import evaluate_stores, score, score_store
from pipeline.scoring.bands import read_blocks
from pipeline.scoring.request import BASELINES, Bootstrap, Request
from tests.pipeline.scoring.conftest import GRID
from transforms.errors import InputError
from transforms.selections import parse_leads, parse_times

ENDS = ("lower", "upper")


def test_skill_is_one_minus_the_ratio_of_errors(written):
    results = score(written.request(metrics=("mse", "crps"), systems=("model", *BASELINES), against=BASELINES))
    model = results["model"]
    for baseline in BASELINES:
        expected = 1 - model.drop_vars("valid_samples").sel(metric="mse") / results[baseline].sel(metric="mse")
        got = model.sel(metric=f"mse_skill_score_vs_{baseline}")
        for name in ("geopotential", "wind_vector", "total_precipitation_24hr"):
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-12)
    assert "mse_skill_score_vs_persistence" not in results["persistence"].metric
    # Two initial times a day over five days make too few blocks of three days for an interval.
    assert np.isnan(model.geopotential.sel(metric="mse_skill_score_vs_persistence_lower")).all()


def test_intervals_and_significance(written):
    request = written.request(metrics=("mse",), against=("persistence",), bootstrap=Bootstrap(12.0, resamples=200))
    result = score(request)["model"].geopotential
    score_, lower, upper, significant = (
        result.sel(metric=f"mse_skill_score_vs_persistence{end}") for end in ("", "_lower", "_upper", "_significant")
    )
    assert ((lower <= score_) & (score_ <= upper)).all()
    np.testing.assert_array_equal(significant, (lower > 0) | (upper < 0))
    # Noise of one unit a lead against persistence of noise of five: skill at first, none to speak of later.
    assert (significant.isel(lead_time=0) == 1).all()


def test_skill_against_another_store(written, tmp_path):
    worse = written.datasets["truth"].drop_vars("land_sea_mask")
    forecast = written.datasets["forecast"]
    leads = forecast.prediction_timedelta
    at = worse.sel(time=forecast.time + leads).drop_vars("time").assign_coords(time=forecast.time)
    half = (at + 2 * (forecast - at)).transpose("time", "prediction_timedelta", ...)
    half.drop_encoding().to_zarr(tmp_path / "worse.zarr", zarr_format=3, consolidated=False)
    request = written.request(metrics=("mse",), others={"worse": str(tmp_path / "worse.zarr")}, against=("worse",))
    result = score(request)["model"].sel(metric="mse_skill_score_vs_worse")
    np.testing.assert_allclose(result.geopotential, 0.75, rtol=1e-5)
    np.testing.assert_allclose(result.wind_vector, 0.75, rtol=1e-5)


def test_bands_and_sums_of_blocks(written, tmp_path):
    request = written.request(metrics=("rmse", "acc", "mse"), bands=True, bootstrap=Bootstrap(12.0, resamples=200))
    score_store(request, tmp_path / "scores.nc")
    with xr.open_dataset(tmp_path / "scores.nc", decode_timedelta=True) as result:
        assert list(result.metric) == ["rmse", "acc", "mse", *(f"{n}_{e}" for n in ("rmse", "acc") for e in ENDS)]
        for name in ("geopotential", "wind_vector"):
            for metric in ("rmse", "acc") if name == "geopotential" else ("rmse",):
                value, lower, upper = (result[name].sel(metric=f"{metric}{e}") for e in ("", "_lower", "_upper"))
                assert ((lower <= value) & (value <= upper)).all()
                assert (lower < upper).any()
        blocks = read_blocks(tmp_path / "scores.nc")
        assert blocks.sizes["block"] == blocks.sizes["time"] > 8
        for name in ("geopotential", "wind_vector"):
            mean = blocks[name].sum("block") / blocks[f"{name}_count"].sum("block")
            np.testing.assert_allclose(mean, result[name].sel(metric="mse"), rtol=1e-12)
    np.testing.assert_array_equal(blocks.included.sum("time"), score(request)["model"].valid_samples)
    plain = score(replace(request, bands=False))["model"]
    xr.testing.assert_equal(score(request)["model"].sel(metric=plain.metric), plain)


def test_a_result_without_bands_has_no_sums(written, tmp_path):
    score_store(written.request(metrics=("mse",)), tmp_path / "scores.nc")
    assert read_blocks(tmp_path / "scores.nc") is None


def test_skill_of_an_ensemble_is_that_of_its_crps_too(written):
    request = written.request(
        "ensemble", metrics=("crps", "mse"), systems=("model", "climatology"), against=("climatology",)
    )
    results = score(request)
    expected = 1 - results["model"].geopotential.sel(metric="crps") / results["climatology"].geopotential.sel(
        metric="crps"
    )
    got = results["model"].geopotential.sel(metric="crps_skill_score_vs_climatology")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_maps_of_skill(written):
    request = written.request(metrics=("mse",), average="spatial", against=("climatology",))
    maps = score(request)["model"].geopotential
    baseline = score(replace(request, systems=("climatology",), against=()))["climatology"].geopotential
    np.testing.assert_allclose(
        maps.sel(metric="mse_skill_score_vs_climatology"), 1 - maps.sel(metric="mse") / baseline.sel(metric="mse")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("rms",)}, "metric 'rms': not known; known are rmse, mse"),
        ({"systems": ("best",)}, "'best': no such forecast; known are model, persistence, climatology"),
        ({"against": ("other",)}, "'other': no such forecast"),
        ({"others": {"model": "a.zarr"}}, "'model': names a forecast of its own here"),
        ({"metrics": ("brier_score",)}, "brier_score: needs quantiles"),
        ({"metrics": ("brier_score",), "quantiles": (0.7, 0.3)}, "quantiles: got .* expected ascending levels"),
        ({"metrics": ("brier_score",), "quantiles": (0.5,)}, "quantiles: 0.5 is not in the climatology, which has"),
        ({"metrics": ("acc",), "average": "spatial"}, "acc: has no map"),
        ({"metrics": ("mse",), "average": "temporal", "against": ("persistence",)}, "against: skill is not taken"),
        ({"metrics": ("mse",), "average": "temporal", "bands": True}, "bands: are taken of averages"),
        ({"metrics": ("seeps_6hr",)}, "seeps_6hr: is a score of total_precipitation_6hr, which the forecast lacks"),
        ({"regions": ("atlantis",)}, "region 'atlantis': not known"),
        ({"levels": (700.0,)}, r"forecast: level 700 hPa is missing; it has \[500, 850\]"),
        ({"variables": ("temperature",)}, "forecast: temperature is missing; it has geopotential"),
        ({"leads": parse_leads("5h")}, "--leads '5h': nothing there; there is 12 h to 48 h"),
        ({"initial_times": parse_times("2020-01-01")}, "--initial-times '2020-01-01': nothing there"),
    ],
)
def test_what_cannot_be_scored_is_refused(written, options, message):
    with pytest.raises(InputError, match=message):
        score(written.request(**options))


def test_a_climatology_is_needed_for_some(written):
    paths = [written.path(name) for name in ("forecast", "truth")]
    for options, message in (
        ({"metrics": ("acc",)}, "acc: needs a climatology"),
        ({"metrics": ("mse",), "against": ("climatology",)}, "needs a climatology"),
        ({"metrics": ("seeps_24hr",)}, "seeps_24hr: needs a climatology"),
    ):
        with pytest.raises(InputError, match=message):
            Request(*paths, **options)
    result = evaluate_stores(*paths, regions=["global"])["model"]
    assert result.metric.values.tolist() == ["rmse", "mse", "mae", "bias"]
    ensemble = evaluate_stores(written.path("ensemble"), paths[1], regions=["global"])["model"]
    assert {"crps", "spread_skill_ratio"} < set(ensemble.metric.values.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["truth"]["geopotential"].attrs.update(units="m"),
            r"geopotential: is in m in the truth, but in m\*\*2 s\*\*-2 in the forecast. Convert one of them",
        ),
        (lambda d: d.update(climatology=d["climatology"].isel(hour=[0])), "climatology: hour 12 UTC is missing"),
        (lambda d: d.update(climatology=d["climatology"].isel(dayofyear=slice(365))), "dayofyear: expected 1 to 366"),
        (
            lambda d: d.update(climatology=d["climatology"].drop_vars("geopotential")),
            "climatology: geopotential over hour, dayofyear",
        ),
        (
            lambda d: d.update(truth=d["truth"].assign_coords(latitude=d["truth"].latitude * 0.9)),
            "truth: is on 8 latitudes x 16 longitudes",
        ),
        (
            lambda d: d.update(forecast=xr.concat([d["forecast"], d["forecast"].isel(time=[2])], "time")),
            "forecast: time: .* holds some of them twice",
        ),
        (
            lambda d: d.update(truth=d["truth"].assign_coords(time=d["truth"].time + np.timedelta64(900, "D"))),
            "truth: none at any valid time; the forecasts are valid from 2003-12-27T12",
        ),
        (
            lambda d: d.update(forecast=d["forecast"].rename(prediction_timedelta="lead")),
            "forecast: .* has no axis prediction_timedelta of lead times; expected the WeatherBench 2 layout",
        ),
    ],
)
def test_stores_that_do_not_fit_are_refused(stores, change, message):
    change(stores.datasets)
    stores.write()
    with pytest.raises(InputError, match=message):
        score(stores.request())


def test_other_forecasts_must_be_of_the_same_times(stores):
    stores.datasets["other"] = stores.datasets["forecast"].isel(time=slice(3, None))
    stores.write()
    with pytest.raises(
        InputError, match=r"other: time 2003-12-27T00:00 and 2 more are missing. Skill is taken of the same"
    ):
        score(stores.request(others={"other": stores.path("other")}, against=("other",)))


def test_a_climatology_of_days_holds_at_every_hour(stores):
    daily = stores.datasets["climatology"].mean("hour").transpose("dayofyear", ...)
    stores.datasets["climatology"] = daily
    result = score(stores.write().request(metrics=("mse", "acc"), systems=("climatology", "model")))
    truth = stores.datasets["truth"].geopotential
    forecast = stores.datasets["forecast"]
    valid = forecast.time + forecast.prediction_timedelta.isel(prediction_timedelta=1)
    normal = daily.geopotential.sel(dayofyear=valid.dt.dayofyear)
    squared = (normal.values - truth.sel(time=valid).values) ** 2
    weights = np.broadcast_to(GRID.latitude_weights()[:, None], squared.shape[-2:])
    expected = [
        np.average(squared[:, level], weights=np.broadcast_to(weights, squared[:, level].shape)) for level in (0, 1)
    ]
    got = result["climatology"].geopotential.sel(metric="mse", region="global").isel(lead_time=1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
