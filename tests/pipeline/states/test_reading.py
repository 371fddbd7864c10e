"""States are read alike from any store that can be opened, whatever the order of its axes and levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.states.layout import StateLayout
from pipeline.states.reading import StateReader
from pipeline.stores.reading import open_store
from transforms.errors import InputError

LAYOUT = StateLayout(("geopotential", "2m_temperature"), (500, 850))
POSITIONS = np.array([[4, 5], [0, 1], [4, 3]])


@pytest.fixture(scope="module")
def states() -> xr.Dataset:
    rng = np.random.default_rng(0)
    fields = {
        "geopotential": (("time", "level", "latitude", "longitude"), rng.normal(size=(6, 3, 4, 8)).astype("f4")),
        "2m_temperature": (("time", "latitude", "longitude"), rng.normal(size=(6, 4, 8)).astype("f4")),
    }
    times = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    axes = {"level": [500, 700, 850], "latitude": [-67.5, -22.5, 22.5, 67.5], "longitude": np.arange(8) * 45.0}
    return xr.Dataset(fields, {"time": times, **axes})


def expected(states: xr.Dataset) -> np.ndarray:
    surface = states["2m_temperature"].expand_dims(level=[0], axis=1)
    channels = np.concatenate([states.geopotential.sel(level=[500, 850]).values, surface.values], axis=1)
    return channels[POSITIONS]


@pytest.mark.parametrize("name", ["v3.zarr", "v2.zarr", "turned.zarr", "turned.nc", "doubles.zarr"])
def test_every_store_gives_the_same_states(states: xr.Dataset, tmp_path: Path, name: str):
    path = tmp_path / name
    stored = states
    if name.startswith("turned"):
        stored = states.isel(latitude=slice(None, None, -1), level=[2, 0, 1]).roll(longitude=3, roll_coords=True)
        stored = stored.transpose("longitude", "level", "latitude", "time")
    if name.startswith("doubles"):
        stored = states.astype("f8")
    if path.suffix == ".nc":
        stored.to_netcdf(path)
    else:
        stored.to_zarr(path, zarr_format=2 if name.startswith("v2") else 3, consolidated=False)
    reader = StateReader(open_store(path, "states"), LAYOUT, "states")
    assert reader.state_shape == (3, 4, 8)
    got = reader.read(POSITIONS)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected(states))
    np.testing.assert_array_equal(reader.with_cache(1000).read(POSITIONS, slice(1, 3)), got[..., 1:3, :])


def test_arrays_in_memory_are_read_too(states: xr.Dataset):
    np.testing.assert_array_equal(StateReader(states, LAYOUT, "states").read(POSITIONS), expected(states))


def test_what_is_missing_is_named(states: xr.Dataset):
    with pytest.raises(InputError, match="2m_temperature: missing; the store has geopotential"):
        StateReader(states.drop_vars("2m_temperature"), LAYOUT, "the store")
    with pytest.raises(InputError, match="the store: geopotential: level 850 hPa is missing"):
        StateReader(states.sel(level=[500]), LAYOUT, "the store")
