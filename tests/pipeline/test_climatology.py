"""The climatology of a store: layout, the official result, bounded memory and few data."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.climatology import climatology_store
from pipeline.stores.reading import read_times
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
@pytest.mark.parametrize("frequency", ["hourly", "daily"])
@pytest.mark.parametrize("memory_mb", [1024, 0.3])
def test_equals_weatherbench(tmp_path, reference, reference_stores, method, frequency, memory_mb):
    seeps = ("seeps",) if (method, frequency) == ("explicit", "hourly") else ()
    climatology_store(
        reference_stores("clim4y") / "obs.zarr",
        tmp_path / "climatology.zarr",
        method=method,
        daily=frequency == "daily",
        statistics=("mean", "std", *seeps),
        memory_mb=memory_mb,
    )
    result = xr.open_zarr(tmp_path / "climatology.zarr").load()
    official = xr.load_dataset(reference / "results" / f"clim_{frequency}_{method}.nc")
    assert set(result) == set(official)
    for name in official:
        assert result[name].dims == official[name].dims
        np.testing.assert_allclose(result[name], official[name], rtol=3e-7, err_msg=name)


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


EVERYTHING = {"statistics": ("mean", "std", "quantile", "seeps"), "quantiles": (0.1, 0.5, 1.0)}


def wet_store(path: Path, source: Path) -> Path:
    dataset = xr.open_zarr(source, consolidated=False).load().drop_encoding()
    rain = 1e-6 * np.maximum(dataset.mean_sea_level_pressure - 1e5, 0)
    rain[3::5, 1, 2:4] = np.nan
    dataset.assign(total_precipitation_6hr=rain).chunk(time=37).to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.mark.slow
def test_memory_and_processes_do_not_change_the_result(tmp_path):
    source = wet_store(tmp_path / "b.zarr", store(tmp_path / "a.zarr", "2003-12-01", 60, 24))
    climatology_store(source, tmp_path / "whole.zarr", **EVERYTHING)
    whole = xr.open_zarr(tmp_path / "whole.zarr").load()
    two = ("--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    for memory_mb, options in ((0.05, ("--runner=DirectRunner",)), (0.3, two)):
        climatology_store(source, tmp_path / "parts.zarr", memory_mb=memory_mb, beam_options=options, **EVERYTHING)
        xr.testing.assert_identical(xr.open_zarr(tmp_path / "parts.zarr").load(), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr", "parts.zarr", "whole.zarr"]


def test_what_is_there_is_kept(tmp_path, monkeypatch):
    source = store(tmp_path / "a.zarr", "2003-12-01", 100)
    climatology_store(source, tmp_path / "whole.zarr", fingerprint="f")
    calls: list[str] = []

    def counting(variable, *args):
        calls.append(str(variable.name))
        if len(calls) == 4:
            raise OSError("cut off")
        return read_times(variable, *args)

    monkeypatch.setattr("pipeline.climatologies.jobs.read_times", counting)
    monkeypatch.setattr("pipeline.climatologies.jobs._BLOCK_BYTES", 1.0)
    with pytest.raises(OSError, match="cut off"):
        climatology_store(source, tmp_path / "b.zarr", fingerprint="f", memory_mb=0.2)
    calls.append("again")
    climatology_store(source, tmp_path / "b.zarr", fingerprint="f", memory_mb=0.2)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "b.zarr").load(), xr.open_zarr(tmp_path / "whole.zarr").load())


def test_quantiles_lie_as_the_official_ones(tmp_path):
    source = store(tmp_path / "a.zarr", "2001-01-01", 730)
    climatology_store(source, tmp_path / "b.zarr", statistics=["quantile"], quantiles=[0.25, 0.75], hour_interval=12)
    result = xr.open_zarr(tmp_path / "b.zarr")
    assert set(result) == {"temperature_quantile", "mean_sea_level_pressure_quantile"}
    assert result.temperature_quantile.dims == ("hour", "quantile", "dayofyear", "level", "latitude", "longitude")
    np.testing.assert_array_equal(result["quantile"], [0.25, 0.75])


def test_settings_that_do_not_go_together(tmp_path):
    source = store(tmp_path / "a.zarr", "2001-01-01", 30)
    for options, message in (
        ({"method": "slow"}, "expected one of explicit, fast, got slow"),
        ({"method": "fast", "statistics": ["seeps"]}, "seeps: expected one of|seeps: defined for the method explicit"),
        ({"statistics": ["seeps"]}, "seeps: expected one of total_precipitation_24hr"),
        ({"statistics": ["quantile"]}, "quantiles: expected levels"),
        ({"window_days": 60}, "window_days: expected an odd number, got 60"),
        ({"hour_interval": 6}, "hour_interval: 6 needs hours"),
        ({"years": (1990, 1991)}, "no valid time within 1990-01-01"),
    ):
        with pytest.raises(InputError, match=message):
            climatology_store(source, tmp_path / "b.zarr", **options)


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
