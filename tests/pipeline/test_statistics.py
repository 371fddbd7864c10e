"""The statistics of a store: layout, period, gaps, static variables and messages."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.statistics import statistics_store
from pipeline.stores.reading import read_times
from transforms.errors import InputError
from transforms.grids import Grid

GRID = Grid.equiangular(8, 16, poles=False)


def store(folder: Path, count: int = 24, drop: tuple[int, ...] = (), invalid: tuple[int, ...] = ()) -> Path:
    rng = np.random.default_rng(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(6, "h")
    valid = np.ones(count, bool)
    valid[list(invalid)] = False
    temperature = rng.normal(280, 10, (count, 2, *GRID.shape)).astype(np.float32)
    temperature[list(invalid)] = np.nan
    dataset = xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), temperature),
            "2m_temperature": (
                ("time", "latitude", "longitude"),
                rng.normal(280, 10, (count, *GRID.shape)).astype("f4"),
            ),
            "land_sea_mask": (("latitude", "longitude"), rng.random(GRID.shape).astype("f4")),
            "valid": ("time", valid),
        },
        {"time": times, "level": [500, 850], "latitude": GRID.latitude, "longitude": GRID.longitude},
    ).isel(time=np.delete(np.arange(count), list(drop)))
    dataset.to_zarr(folder / "training.zarr", zarr_format=3, consolidated=False)
    return folder / "training.zarr"


def test_layout_and_values(tmp_path):
    source = store(tmp_path)
    statistics_store(source, tmp_path / "statistics.nc")
    result, data = xr.load_dataset(tmp_path / "statistics.nc"), xr.open_zarr(source, consolidated=False).load()
    assert set(result.data_vars) == {"temperature", "2m_temperature", "land_sea_mask"}
    assert result.temperature.dims == ("statistic", "level")
    assert result["2m_temperature"].dims == ("statistic",)
    assert result.temperature.dtype == np.float64
    assert (int(result.samples), int(result.tendency_samples)) == (24, 23)
    weights = xr.DataArray(GRID.latitude_weights(), dims="latitude")
    everywhere = weights * xr.ones_like(data.land_sea_mask, dtype=float)
    expected = data[["temperature"]].astype(float).weighted(everywhere)
    np.testing.assert_allclose(
        result.temperature.sel(statistic="std"), expected.std(["time", "latitude", "longitude"]).temperature, rtol=1e-9
    )
    tendency = data["2m_temperature"].astype(float).diff("time").mean("longitude").weighted(weights).mean()
    assert float(result["2m_temperature"].sel(statistic="tendency_mean")) == pytest.approx(float(tendency), rel=1e-9)
    assert np.isnan(result.land_sea_mask.sel(statistic="tendency_std"))
    description = read_description(tmp_path / "statistics.nc")
    assert description["kind"] == "statistics"
    assert description["step"] == "6 h"


def test_period_and_invalid_times_are_respected(tmp_path):
    source = store(tmp_path, drop=(10,), invalid=(3,))
    period = (datetime(2001, 1, 1), datetime(2001, 1, 4, 18))
    statistics_store(source, tmp_path / "a.nc", period=period, step=np.timedelta64(6, "h"))
    result = xr.load_dataset(tmp_path / "a.nc")
    # 16 stamps in the period, one absent and one invalid; each takes two pairs with it.
    assert (int(result.samples), int(result.tendency_samples)) == (14, 11)
    assert np.isfinite(result.temperature).all()


def test_storage_order_does_not_matter(tmp_path):
    source = store(tmp_path)
    data = xr.open_zarr(source, consolidated=False).load().drop_encoding()
    turned = data.isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude", "level", "time")
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180).sortby("longitude")
    turned.to_zarr(tmp_path / "turned.zarr", zarr_format=2, consolidated=True)
    statistics_store(source, tmp_path / "a.nc")
    statistics_store(tmp_path / "turned.zarr", tmp_path / "b.nc")
    xr.testing.assert_allclose(xr.load_dataset(tmp_path / "a.nc"), xr.load_dataset(tmp_path / "b.nc"), rtol=1e-12)


def test_same_input_same_bytes(tmp_path):
    source = store(tmp_path)
    for name in ("a.nc", "b.nc"):
        statistics_store(source, tmp_path / name)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


@pytest.mark.parametrize("chunks", [1, 5, 24])
def test_same_bits_whatever_the_chunks_and_memory(tmp_path, chunks, monkeypatch):
    source = store(tmp_path, drop=(10,), invalid=(3,))
    data = xr.open_zarr(source, consolidated=False).load().drop_encoding()
    data.chunk(time=chunks).to_zarr(tmp_path / "cut.zarr", zarr_format=3, consolidated=False)
    statistics_store(source, tmp_path / "a.nc")
    monkeypatch.setattr("pipeline.statistics._BLOCK_BYTES", 1.0)
    statistics_store(tmp_path / "cut.zarr", tmp_path / "b.nc", memory_mb=0.05)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_same_bytes_from_two_processes(tmp_path):
    source = store(tmp_path)
    statistics_store(source, tmp_path / "a.nc")
    options = ("--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    statistics_store(source, tmp_path / "b.nc", beam_options=options)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_what_is_there_is_kept(tmp_path, monkeypatch):
    source = store(tmp_path)
    statistics_store(source, tmp_path / "a.nc", fingerprint="f")
    read: list[str] = []

    def counting(variable, *args):
        read.append(str(variable.name))
        if variable.name == "temperature" and read.count("temperature") == 1:
            raise OSError("cut off")
        return read_times(variable, *args)

    monkeypatch.setattr("pipeline.statistics.read_times", counting)
    with pytest.raises(OSError, match="cut off"):
        statistics_store(source, tmp_path / "b.nc", fingerprint="f")
    statistics_store(source, tmp_path / "b.nc", fingerprint="f")
    assert read == ["2m_temperature", "temperature", "temperature"]
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nc", "b.nc", "training.zarr"]


def test_single_time_is_noted(tmp_path, caplog):
    statistics_store(store(tmp_path, count=1), tmp_path / "a.nc", step=np.timedelta64(6, "h"))
    assert "No two valid times are 6 h apart" in caplog.text
    result = xr.load_dataset(tmp_path / "a.nc")
    assert np.isnan(result.temperature.sel(statistic=["tendency_mean", "tendency_std"])).all()
    assert np.isfinite(result.temperature.sel(statistic=["mean", "std"])).all()


def test_errors_name_the_fault(tmp_path):
    source = store(tmp_path)
    with pytest.raises(
        InputError, match=r"no valid time within 2005-01-01 00 to 2005-02-01 00 UTC; the store has 2001"
    ):
        statistics_store(source, tmp_path / "a.nc", period=(datetime(2005, 1, 1), datetime(2005, 2, 1)))
    with pytest.raises(InputError, match="nothing is at"):
        statistics_store(tmp_path / "absent.zarr", tmp_path / "a.nc")
    assert not (tmp_path / "a.nc").exists()
