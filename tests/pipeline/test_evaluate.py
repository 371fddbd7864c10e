"""Evaluation of stores: the official results, missing truth, alignment, layout and messages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.evaluate import SYSTEMS, evaluate_stores, score_store
from pipeline.scoring import blocks
from pipeline.scoring.request import Request
from transforms.errors import InputError
from transforms.grids import Grid

GRID = Grid.equiangular(12, 24, poles=False)
METRICS = ["mse", "rmse", "mae", "bias", "acc", "rmse_sqrt_before_time_avg"]
REGIONS = ["global", "tropics", "extra-tropics", "northern-hemisphere", "europe", "global_land", "tropics_land"]
HOUR = np.timedelta64(1, "h")


class Stores:
    """A truth of noise, its forecasts with a constant error that grows with the lead, and a climatology of zeros."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        space = {"level": [500, 850], "latitude": GRID.latitude, "longitude": GRID.longitude}
        times = np.datetime64("2001-02-25", "ns") + np.arange(24) * 6 * HOUR
        rng = np.random.default_rng(0)
        names = ("u_component_of_wind", "v_component_of_wind")
        dims = ("level", "latitude", "longitude")
        shape = (2, *GRID.shape)
        self.truth = xr.Dataset(
            {name: (("time", *dims), rng.normal(0, 5, (24, *shape)).astype("f4")) for name in names}
            | {"10m_u_component_of_wind": (("time", *dims[1:]), rng.normal(0, 5, (24, *GRID.shape)).astype("f4"))}
            | {"10m_v_component_of_wind": (("time", *dims[1:]), rng.normal(0, 5, (24, *GRID.shape)).astype("f4"))}
            | {"land_sea_mask": (dims[1:], rng.random(GRID.shape).astype("f4"))},
            {"time": times, **space},
        )
        initial, leads = times[:8], np.arange(1, 5) * 6 * HOUR
        lead = xr.DataArray(leads, dims="prediction_timedelta")
        valid = xr.DataArray(initial, dims="time") + lead
        at = self.truth.drop_vars("land_sea_mask").sel(time=valid).drop_vars("time")
        error = xr.DataArray(np.arange(1.0, 5.0).astype("f4"), dims="prediction_timedelta")
        self.forecast = (at + error).assign_coords(time=initial, prediction_timedelta=leads)
        self.climatology = xr.Dataset(
            {
                name: (
                    ("hour", "dayofyear", *self.truth[name].dims[1:]),
                    np.zeros((4, 366, *self.truth[name].shape[1:]), "f4"),
                )
                for name in at
            },
            {"hour": [0, 6, 12, 18], "dayofyear": np.arange(1, 367), **space},
        )

    def evaluate(self, **options) -> dict[str, xr.Dataset]:
        """Write the stores as they now are, and score them."""
        for name in ("forecast", "truth", "climatology"):
            getattr(self, name).drop_encoding().to_zarr(
                self.folder / f"{name}.zarr", zarr_format=3, consolidated=False, mode="w"
            )
        options = {"systems": SYSTEMS, "regions": ["global", "tropics"], "metrics": METRICS, **options}
        paths = [self.folder / f"{name}.zarr" for name in ("forecast", "truth", "climatology")]
        return evaluate_stores(*paths, **options)


@pytest.fixture
def stores(tmp_path) -> Stores:
    return Stores(tmp_path)


def assert_equals_official(result: xr.Dataset, official: xr.Dataset) -> None:
    """Compare all metrics; the official package subtracts in float32, which leaves noise on a bias of nearly zero."""
    for name in official.data_vars:
        scale = np.nanmax(np.abs(official[name].sel(metric="rmse")))
        for metric in official.metric.values:
            expected = official[name].sel(
                metric=metric, region=[r for r in official.region.values if r in result.region]
            )
            got = result[name].sel(metric=metric, region=expected.region).transpose(*expected.dims)
            np.testing.assert_allclose(
                got.values, expected.values, rtol=1e-6, atol=1e-8 * scale, err_msg=f"{metric} {name}"
            )


@pytest.mark.parametrize("skipna", [False, True])
def test_model_equals_weatherbench(reference, reference_stores, skipna):
    folder = reference_stores("64x32p")
    paths = [folder / f"{name}.zarr" for name in ("forecast", "truth", "climatology")]
    result = evaluate_stores(*paths, regions=REGIONS, metrics=METRICS, skipna=skipna)["model"]
    official = xr.load_dataset(
        reference / "results" / f"64x32p_skipna{int(skipna)}_deterministic.nc", decode_timedelta=True
    )
    assert set(official.data_vars) | {"valid_samples"} == set(result.data_vars)
    assert set(REGIONS) < set(official.region.values)
    assert_equals_official(result, official)


def test_baselines_equal_weatherbench(reference, reference_stores):
    folder = reference_stores("64x32p")
    paths = [folder / f"{name}.zarr" for name in ("forecast", "truth", "climatology")]
    results = evaluate_stores(*paths, systems=SYSTEMS, regions=REGIONS[:3], metrics=METRICS)
    for system, name in (("persistence", "persistence_beam"), ("climatology", "climatology")):
        official = xr.load_dataset(reference / "results" / f"64x32p_{name}_deterministic.nc", decode_timedelta=True)
        assert_equals_official(results[system], official)


def test_constant_errors_and_layout(stores):
    results = stores.evaluate()
    model = results["model"]
    assert set(model.data_vars) == {*stores.forecast.data_vars, "wind_vector", "10m_wind_vector", "valid_samples"}
    assert model.wind_vector.dims == ("metric", "region", "lead_time", "level")
    assert model["10m_wind_vector"].dims == ("metric", "region", "lead_time")
    errors = np.arange(1.0, 5.0)
    for name, expected in {"rmse": errors, "mse": errors**2, "mae": errors, "bias": errors}.items():
        np.testing.assert_allclose(
            model["10m_u_component_of_wind"].sel(metric=name, region="global"), expected, rtol=1e-5
        )
    np.testing.assert_allclose(
        model.wind_vector.sel(metric="rmse", region="tropics", level=850), np.sqrt(2) * errors, rtol=1e-5
    )
    assert np.isnan(model.wind_vector.sel(metric=["mae", "bias", "acc"])).all()
    np.testing.assert_array_equal(model.valid_samples, 8)
    assert np.isnan(results["climatology"].u_component_of_wind.sel(metric="acc")).all()


def test_persistence_is_the_state_at_the_initial_time(stores):
    result = stores.evaluate()["persistence"]["10m_u_component_of_wind"].sel(metric="mae", region="global")
    wind = stores.truth["10m_u_component_of_wind"].values  # Differences are those of the stores' precision.
    weights = np.broadcast_to(GRID.latitude_weights()[:, None], GRID.shape)
    expected = [
        np.mean([np.average(abs(wind[i] - wind[i + k]).astype(float), weights=weights) for i in range(8)])
        for k in (1, 2, 3, 4)
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize("fields", [1, 3, 9])
def test_batches_do_not_change_the_result(stores, monkeypatch, fields):
    # Room for some leads of one initial time, or for some initial times.
    stores.truth = stores.truth.isel(time=np.delete(np.arange(24), 5))
    whole = stores.evaluate()
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", fields * 2 * 4 * np.prod(GRID.shape))
    for system, result in stores.evaluate().items():
        xr.testing.assert_allclose(result, whole[system], rtol=1e-12)


def test_missing_truth_is_left_out_and_counted(stores, caplog):
    # Valid times 5 and 6 are absent or not valid: initial times 1 to 5 lose leads.
    stores.truth["valid"] = ("time", np.arange(24) != 6)
    stores.truth["10m_u_component_of_wind"][6] = np.nan
    stores.truth = stores.truth.isel(time=np.delete(np.arange(24), 5))
    results = stores.evaluate()
    model = results["model"]
    np.testing.assert_array_equal(model.valid_samples, [6, 6, 6, 6])
    np.testing.assert_allclose(
        model["10m_u_component_of_wind"].sel(metric="bias", region="global"), np.arange(1.0, 5.0), rtol=1e-5
    )
    assert "8 of 32 forecasts have no truth at their valid time" in caplog.text
    description = json.loads(model.attrs["spherecast"])
    assert description["forecasts_without_truth"] == 8
    # Persistence also lacks the states at initial times 5 and 6.
    np.testing.assert_array_equal(results["persistence"].valid_samples, [5, 4, 4, 4])


def test_missing_values_are_reported(stores, caplog):
    stores.climatology["u_component_of_wind"][:, 55:58] = np.nan
    results = stores.evaluate()
    assert "model: acc of u_component_of_wind cannot be given at some leads" in caplog.text
    assert np.isnan(results["model"].u_component_of_wind.sel(metric="acc")).any()
    assert np.isfinite(results["model"].u_component_of_wind.sel(metric="rmse")).all()
    assert "v_component_of_wind" not in caplog.text


def test_truth_missing_altogether_is_an_error(stores):
    stores.truth = stores.truth.assign_coords(time=stores.truth.time + np.timedelta64(365, "D"))
    with pytest.raises(InputError, match=r"truth: none at any valid time; the forecasts are valid from 2001-02-25T06"):
        stores.evaluate()


def test_orientation_and_coordinates_in_single_precision_do_not_matter(stores):
    plain = stores.evaluate()
    turned = stores.truth.isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude", "time", "level")
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180).sortby("longitude")
    stores.truth = turned.assign_coords(latitude=turned.latitude.astype("f4") + 1e-5)
    stores.forecast = stores.forecast.transpose("prediction_timedelta", "longitude", "level", "latitude", "time")
    for system, result in stores.evaluate().items():
        xr.testing.assert_allclose(result, plain[system], rtol=1e-12)


def test_levels_are_matched_by_value(stores):
    plain = stores.evaluate()["model"]
    stores.truth = stores.truth.isel(level=[1, 0])
    xr.testing.assert_equal(stores.evaluate()["model"], plain)
    stores.truth = stores.truth.sel(level=[850])
    with pytest.raises(InputError, match=r"truth: level 500 hPa is missing; it has \[850\]"):
        stores.evaluate()


def test_day_of_year_and_hour_of_the_climatology(stores):
    stamp = stores.climatology.hour + 100.0 * stores.climatology.dayofyear
    stores.climatology = stores.climatology * 0 + stamp.astype("f4")
    stores.truth = stores.truth * 0
    bias = stores.evaluate()["climatology"]["10m_u_component_of_wind"].sel(metric="bias", region="global")
    valid = stores.forecast.time.values[:, None] + stores.forecast.prediction_timedelta.values
    days = (valid.astype("datetime64[D]") - np.datetime64("2001-01-01")).astype(int) + 1
    hours = (valid - valid.astype("datetime64[D]")) // HOUR
    np.testing.assert_allclose(bias, (100.0 * days + hours).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: setattr(s, "truth", s.truth.drop_vars("10m_u_component_of_wind")),
            "truth: 10m_u_component_of_wind ",
        ),
        (
            lambda s: setattr(s, "truth", s.truth.assign_coords(longitude=s.truth.longitude + 1.0)),
            "truth: is on 12 latitudes x 24 longitudes",
        ),
        (lambda s: setattr(s, "climatology", s.climatology.isel(hour=[0, 2])), "climatology: hour 6 UTC is missing"),
        (
            lambda s: setattr(s, "forecast", s.forecast.isel(prediction_timedelta=0, drop=True)),
            "no axis prediction_timedelta",
        ),
    ],
)
def test_stores_that_do_not_fit_are_refused(stores, change, message):
    change(stores)
    with pytest.raises(InputError, match=message):
        stores.evaluate()


def test_metrics_that_cannot_be_computed_are_refused(stores):
    with pytest.raises(InputError, match="metric 'crp': not known; known are rmse"):
        stores.evaluate(metrics=["crp"])
    with pytest.raises(InputError, match="acc: needs a climatology"):
        evaluate_stores(stores.folder / "forecast.zarr", stores.folder / "truth.zarr", metrics=["acc"])


def test_score_store_without_climatology(stores):
    stores.evaluate()
    paths = [str(stores.folder / f"{name}.zarr") for name in ("forecast", "truth")]
    for name in ("a.nc", "b.nc"):
        score_store(Request(*paths, metrics=("rmse", "mae")), stores.folder / name)
    assert (stores.folder / "a.nc").read_bytes() == (stores.folder / "b.nc").read_bytes()
    result = xr.load_dataset(stores.folder / "a.nc", decode_timedelta=True)
    assert "acc" not in result.metric
    np.testing.assert_array_equal(result.lead_time, np.arange(1, 5) * 6 * HOUR)
    description = read_description(stores.folder / "a.nc")
    assert (description["kind"], description["system"], description["initial_times"]) == ("metrics", "model", 8)
    assert description["simulated"] is False
