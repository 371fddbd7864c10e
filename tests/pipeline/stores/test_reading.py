"""Opening stores: lazy reads in the orientation of the house equal plain ones, whatever the order on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.stores.reading import blocks, fields_of, open_store, read_times, select_period
from transforms.errors import InputError
from transforms.grids import Grid

GRID = Grid.equiangular(6, 8, poles=False)
HOUSE = ("time", "level", "latitude", "longitude")


@pytest.fixture
def plain() -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(40, 2, *GRID.shape)).astype("f4")
    times = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(6, "h")
    coordinates = {"time": times, "level": [500, 850], "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset({"temperature": (HOUSE, values)}, coordinates)


def written(plain: xr.Dataset, folder: Path, kind: str) -> Path:
    """Write the data turned in every way: axes reversed, north first, longitudes from -180."""
    turned = plain.isel(latitude=slice(None, None, -1)).transpose(*reversed(HOUSE))
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180).sortby("longitude")
    if kind == "netcdf":
        turned.to_netcdf(folder / "store.nc")
        return folder / "store.nc"
    packing = {"dtype": "int16", "scale_factor": 1e-3, "add_offset": 0.0, "_FillValue": -32768}
    encoding = {"temperature": packing if kind == "packed" else {"chunks": (8, 6, 2, 1)}}
    form = {"zarr_format": 2 if kind == "zarr2" else 3, "consolidated": kind == "zarr2"}
    turned.to_zarr(folder / "store.zarr", encoding=encoding, **form)
    return folder / "store.zarr"


@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "packed", "netcdf"])
def test_reads_in_the_orientation_of_the_house(plain, tmp_path, kind):
    store = open_store(written(plain, tmp_path, kind), "source")
    assert store.temperature.dims == HOUSE
    tolerance = 6e-4 if kind == "packed" else 0.0
    for selection in (
        {},
        {"time": slice(3, 30, 4), "latitude": slice(None, None, -2)},
        {"time": 5, "level": [1, 0]},
        {"time": slice(7, 7)},
        {"longitude": [6, 1], "latitude": -1},
    ):
        got, expected = store.temperature.isel(selection), plain.temperature.isel(selection)
        xr.testing.assert_allclose(got, expected, rtol=0.0, atol=tolerance)


def test_read_times_keeps_wanted_positions_only(plain, tmp_path):
    variable = open_store(written(plain, tmp_path, "zarr3"), "source").temperature
    for positions in ([0, 1, 2], [3, 5, 9], [0, 2, 30, 31, 39]):
        np.testing.assert_array_equal(
            read_times(variable, np.array(positions)), plain.temperature.values[positions], err_msg=str(positions)
        )


def test_blocks_end_where_shards_do(plain, tmp_path):
    plain.to_zarr(
        tmp_path / "store.zarr",
        encoding={"temperature": {"chunks": (1, 2, 6, 8), "shards": (16, 2, 6, 8)}},
        zarr_format=3,
        consolidated=False,
    )
    variable = open_store(tmp_path / "store.zarr", "source").temperature
    cut = list(blocks(np.arange(5, 40), variable, target_bytes=1.0))
    assert [(block[0], block[-1]) for block in cut] == [(5, 15), (16, 31), (32, 39)]
    whole = list(blocks(np.arange(5, 40), variable))
    assert len(whole) == 1


def test_fields_are_listed_in_a_fixed_order(plain, tmp_path):
    for name in ("z", "a", "m"):
        plain[name] = plain.temperature
    plain.to_zarr(tmp_path / "store.zarr", zarr_format=3, consolidated=False)
    assert fields_of(open_store(tmp_path / "store.zarr", "source"), "time") == ["a", "m", "temperature", "z"]


def test_what_is_not_a_store_is_refused(plain, tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"truth: .*cannot be read as a zarr store"):
        open_store(tmp_path / "empty.zarr", "truth")
    plain.mean("latitude").to_netcdf(tmp_path / "zonal.nc")
    with pytest.raises(InputError, match="has no latitude axis with coordinates; its axes are"):
        open_store(tmp_path / "zonal.nc", "truth")


@pytest.mark.filterwarnings("error")
def test_published_stores_open_without_a_warning(tiny_run: Path):
    for name in ("source", "training", "climatology", "forecast"):
        with xr.open_zarr(tiny_run / f"{name}.zarr") as dataset:
            assert dataset.sizes["latitude"] in (16, 25)


def test_no_valid_time_at_all_means_a_masked_variable(plain):
    few = plain.assign(valid=("time", np.arange(40) % 2 == 0))
    assert select_period(few, None, "store").tolist() == list(range(0, 40, 2))
    none = plain.assign(valid=("time", np.zeros(40, bool)))
    assert select_period(none, None, "store").size == 40
