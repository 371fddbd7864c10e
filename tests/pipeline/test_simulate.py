"""The stage that makes its own source: schema, determinism and refusals."""

from __future__ import annotations

import sys
from datetime import datetime

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.config_data import GridConfig, SimulationConfig
from pipeline.simulate import simulate_store, source_description
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.variables import VARIABLES
from transforms.waves import rossby_haurwitz

GRID = GridConfig(latitude=9, longitude=16, poles=True)
SETTINGS = SimulationConfig(start=datetime(2003, 2, 27), days=30, grid=GRID, levels=[500, 850], seed=5)


def _make(path, kind="waves", settings=SETTINGS):
    simulate_store(path, kind, settings, source_description(kind, settings, "abc"))
    return xr.open_zarr(path, consolidated=False)


def test_store_has_eras_schema(tmp_path):
    dataset = _make(tmp_path / "source.zarr")
    assert dict(dataset.sizes) == {"time": 120, "level": 2, "latitude": 9, "longitude": 16}
    assert dataset.time.values[0] == np.datetime64("2003-02-27T00")
    assert (np.diff(dataset.time.values) == np.timedelta64(6, "h")).all()
    assert Grid(dataset.latitude.values, dataset.longitude.values).matches(Grid.equiangular(9, 16, poles=True))
    assert dataset.level.values.tolist() == [500, 850]
    assert {str(name) for name in dataset.data_vars} == {
        "geopotential",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "specific_humidity",
        "vertical_velocity",
        "2m_temperature",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "mean_sea_level_pressure",
        "total_precipitation_6hr",
        "geopotential_at_surface",
        "land_sea_mask",
    }
    axes = {
        "pressure": ("time", "level", "latitude", "longitude"),
        "surface": ("time", "latitude", "longitude"),
        "static": ("latitude", "longitude"),
    }
    for name, variable in dataset.data_vars.items():
        assert variable.dims == axes[VARIABLES[name].kind]
        assert variable.dtype == np.float32
        assert variable.attrs["units"] == VARIABLES[name].units
        assert np.isfinite(variable.values).all()
    assert dataset.latitude.attrs["units"] == "degrees_north"
    assert dataset.level.attrs["units"] == "hPa"


def test_store_says_that_it_is_simulated(tmp_path):
    dataset = _make(tmp_path / "source.zarr")
    description = read_description(tmp_path / "source.zarr")
    assert description["kind"] == "source store"
    assert description["fingerprint"] == "abc"
    assert description["simulated"] is True
    assert description["period"] == ["2003-02-27T00:00", "2003-03-28T18:00"]
    assert dataset.attrs["source"].startswith("Simulated")


def test_blocks_join_without_a_seam(tmp_path):
    dataset = _make(tmp_path / "source.zarr")
    expected = rossby_haurwitz(dataset.time.values, Grid.equiangular(9, 16, poles=True), [500, 850], seed=5)
    for name, values in expected.items():
        np.testing.assert_array_equal(dataset[name].values, values)


def test_same_settings_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "first.zarr", tmp_path / "second.zarr"
    _make(first)
    _make(second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": datetime(2001, 1, 1, 6)}, "simulation.start: expected 00 UTC"),
        ({"levels": [500, 510]}, "simulation.levels"),
        ({"levels": [500, 500]}, "simulation.levels"),
        ({"levels": []}, "simulation.levels"),
    ],
)
def test_settings_that_cannot_be_simulated_are_refused(tmp_path, change, message):
    settings = SETTINGS.model_copy(update=change)
    with pytest.raises(InputError, match=message):
        simulate_store(tmp_path / "source.zarr", "waves", settings, {})
    assert not any(tmp_path.iterdir())


def test_a_missing_simulation_package_is_named_with_its_mend(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "pipeline.simulating.simulation", raising=False)
    for name in [name for name in sys.modules if name == "jcm" or name.startswith("jcm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jcm", None)
    with pytest.raises(InputError, match=r"pip install 'spherecast\[simulate\]'"):
        simulate_store(tmp_path / "source.zarr", "simulation", SETTINGS, {})
    assert not any(tmp_path.iterdir())
