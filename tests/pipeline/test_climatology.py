"""The climatology of a store: layout, the official result, bounded memory and few data."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.climatology import climatology_store
from transforms.errors import InputError
from transforms.grids import Grid

GRID = Grid.equiangular(6, 8, poles=False)


def store(path: Path, start: str, count: int, hours: int = 12) -> Path:
    rng = np.random.default_rng(0)
    times = np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(hours, "h")
    dataset = xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), rng.normal(280, 9, (count, 2, *GRID.shape))),
            "mean_sea_level_pressure": (("time", "latitude", "longitude"), rng.normal(1e5, 900, (count, *GRID.shape))),
        },
        {"time": times, "level": [500, 850], "latitude": GRID.latitude, "longitude": GRID.longitude},
    ).astype("f4")
    dataset["temperature"].attrs["units"] = "K"
    dataset.to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.mark.parametrize("method", ["explicit", "fast"])
def test_equals_weatherbench(tmp_path, reference, reference_stores, method):
    climatology_store(reference_stores("clim4y") / "obs.zarr", tmp_path / "climatology.zarr", method=method)
    result = xr.open_zarr(tmp_path / "climatology.zarr").load()
    official = xr.load_dataset(reference / "results" / f"clim_hourly_{method}.nc")
    names = [name for name in official if "seeps" not in name]
    assert set(result) == set(names)
    for name in names:
        expected = official[name].transpose(*result[name].dims)
        np.testing.assert_allclose(result[name], expected, rtol=3e-7, err_msg=name)


def test_layout(tmp_path):
    climatology_store(store(tmp_path / "a.zarr", "2001-01-01", 730), tmp_path / "climatology.zarr")
    result = xr.open_zarr(tmp_path / "climatology.zarr")
    assert result.temperature.dims == ("hour", "dayofyear", "level", "latitude", "longitude")
    assert result.temperature.dtype == np.float32
    assert result.temperature.units == "K"
    np.testing.assert_array_equal(result.hour, [0, 12])
    np.testing.assert_array_equal(result.dayofyear, np.arange(1, 367))
    assert np.isfinite(result.mean_sea_level_pressure_std).all()
    description = read_description(tmp_path / "climatology.zarr")
    assert description["kind"] == "climatology"
    assert description["period"] == ["2001-01-01T00:00", "2001-12-31T12:00"]


def test_memory_bound_does_not_change_the_result(tmp_path):
    source = store(tmp_path / "a.zarr", "2003-12-01", 200)
    climatology_store(source, tmp_path / "whole.zarr")
    whole = xr.open_zarr(tmp_path / "whole.zarr").load()
    for memory in (1.0, 2 * 366 * 8 * 24 * 4, 2 * 366 * 8 * 24 * 7):
        climatology_store(source, tmp_path / "parts.zarr", memory_bytes=memory)
        xr.testing.assert_allclose(xr.open_zarr(tmp_path / "parts.zarr").load(), whole, rtol=1e-6)


def test_a_single_time(tmp_path):
    source = store(tmp_path / "a.zarr", "2001-03-01T06", 1)
    climatology_store(source, tmp_path / "climatology.zarr")
    result = xr.open_zarr(tmp_path / "climatology.zarr").load()
    np.testing.assert_array_equal(result.hour, [6])
    finite = np.isfinite(result.temperature).all(["hour", "level", "latitude", "longitude"])
    # 1 March is day 60; the ends of the 61-day window carry no weight.
    np.testing.assert_array_equal(result.dayofyear[finite.values], np.arange(31, 90))
    expected = xr.open_zarr(source, consolidated=False).temperature.values[0]
    np.testing.assert_allclose(result.temperature.sel(dayofyear=45, hour=6), expected, rtol=1e-6)


def test_the_period_is_respected(tmp_path):
    source = store(tmp_path / "a.zarr", "2001-01-01", 730)
    climatology_store(source, tmp_path / "b.zarr", period=(datetime(2001, 2, 1), datetime(2001, 2, 28, 12)))
    data = xr.open_zarr(tmp_path / "b.zarr").temperature
    assert np.isnan(data.sel(dayofyear=120)).all()
    assert np.isfinite(data.sel(dayofyear=45)).all()
    with pytest.raises(InputError, match="no valid time within 1990-01-01 00"):
        climatology_store(source, tmp_path / "c.zarr", period=(datetime(1990, 1, 1), datetime(1991, 1, 1)))
