"""The simulated atmosphere: a few days of it, checked for physics rather than for looks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.config_data import GridConfig, SimulationConfig
from pipeline.simulate import simulate_store, source_description
from transforms.grids import Grid
from transforms.variables import VARIABLES
from transforms.vertical import GAS_CONSTANT

pytest.importorskip("jcm", reason="the extra `simulate` is not installed")
pytestmark = pytest.mark.slow

SETTINGS = SimulationConfig(
    start=datetime(2001, 1, 1),
    days=3,
    spinup_days=30,  # The first weeks from rest are one large adjustment.
    grid=GridConfig(latitude=33, longitude=64, poles=True),
    levels=[250, 500, 700, 850, 1000],
)


def _make(path: Path, settings: SimulationConfig) -> xr.Dataset:
    simulate_store(path, "simulation", settings, source_description("simulation", settings))
    return xr.open_zarr(path, consolidated=False).load()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> xr.Dataset:
    return _make(tmp_path_factory.mktemp("simulation") / "source.zarr", SETTINGS)


def _global_mean(field: xr.DataArray) -> np.ndarray:
    weights = Grid(field.latitude.values, field.longitude.values).latitude_weights()
    return (field.mean("longitude").values * weights).mean(axis=-1)


def test_schema_units_and_ranges(dataset):
    assert dataset.sizes["time"] == 12
    assert dataset.time.values[0] == np.datetime64("2001-01-01T00")
    assert dataset.attrs["source"].startswith("Simulated")
    assert len(dataset.data_vars) == 13
    for name, field in dataset.data_vars.items():
        variable = VARIABLES[name]
        assert field.attrs["units"] == variable.units
        assert np.isfinite(field.values).all(), name
        assert variable.minimum <= field.min() <= field.max() <= variable.maximum, name


def test_thickness_agrees_with_the_temperature_between(dataset):
    for upper, lower in ((500, 700), (700, 850)):
        thickness = dataset.geopotential.sel(level=upper) - dataset.geopotential.sel(level=lower)
        mean = 0.5 * (dataset.temperature.sel(level=upper) + dataset.temperature.sel(level=lower))
        expected = GAS_CONSTANT * mean * np.log(lower / upper)
        np.testing.assert_allclose(thickness, expected, rtol=0.02)
        assert abs(float((thickness / expected).mean()) - 1) < 0.004


def test_as_much_air_rises_as_sinks(dataset):
    for level in (500, 700):
        omega = dataset.vertical_velocity.sel(level=level)
        assert np.abs(_global_mean(omega)).max() < 0.02 * float(omega.std())


def test_air_rises_where_the_flow_below_converges(dataset):
    """Mass balance: omega at 850 hPa goes with the divergence between there and the surface, over the open sea."""
    omega = dataset.vertical_velocity.sel(level=850)
    u, v = (dataset[f"{name}_component_of_wind"].sel(level=[850, 1000]).mean("level") for name in "uv")
    radius, cosine = 6.371e6, np.cos(np.deg2rad(dataset.latitude))
    latitude, longitude = np.deg2rad(dataset.latitude.values), np.deg2rad(dataset.longitude.values)
    northward = np.gradient((v * cosine).transpose("time", "latitude", "longitude").values, latitude, axis=1)
    eastward = np.gradient(u.transpose("time", "latitude", "longitude").values, longitude, axis=2)
    divergence = (eastward + northward)[:, 4:-4] / (radius * cosine.values[4:-4, None])
    sea = (dataset.land_sea_mask.values < 0.05)[4:-4]
    got = omega.values[:, 4:-4][:, sea].ravel()
    assert np.corrcoef(divergence[:, sea].ravel(), got)[0, 1] > 0.5


def test_rain_falls_at_a_plausible_rate_and_is_never_negative(dataset):
    rain = dataset.total_precipitation_6hr
    assert rain.min() >= 0
    assert 0.5 < _global_mean(rain).mean() * 4000 < 6  # mm a day


def test_sea_level_pressure_and_winds_are_those_of_an_atmosphere(dataset):
    assert _global_mean(dataset.mean_sea_level_pressure).mean() == pytest.approx(101_100, abs=400)
    # At the pole every column holds the same vector, turned to its own meridian.
    longitude = np.deg2rad(dataset.longitude.values)
    u, v = (dataset[f"{name}_component_of_wind"].sel(level=500).values[:, -1] for name in "uv")
    x = -u * np.sin(longitude) - v * np.cos(longitude)
    np.testing.assert_allclose(x, x[:, :1] + 0 * x, atol=1e-3)


def test_the_same_seed_gives_the_same_bits_whatever_the_length(dataset, tmp_path):
    shorter = _make(tmp_path / "source.zarr", SETTINGS.model_copy(update={"days": 1}))
    for name, field in shorter.data_vars.items():
        expected = dataset[name].isel(time=slice(0, 4)) if "time" in field.dims else dataset[name]
        np.testing.assert_array_equal(field.values, expected.values)
