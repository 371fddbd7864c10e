"""Levels and derived variables together, as every stage asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.config_data import DataConfig
from pipeline.sources.opening import open_source
from pipeline.sources.prepare import prepare
from transforms.errors import InputError


@pytest.fixture
def source(era5_like, tmp_path) -> xr.Dataset:
    era5_like(times=4).to_zarr(tmp_path / "source.zarr", zarr_format=2)
    return open_source(tmp_path / "source.zarr")


def test_nothing_is_done_unasked(source):
    xr.testing.assert_identical(prepare(source), source)
    xr.testing.assert_identical(prepare(source, variables=["temperature"], statics=["land_sea_mask"]), source)


def test_levels_come_in_the_order_wanted(source):
    result = prepare(source, levels=[850, 250])
    assert result["level"].values.tolist() == [850, 250]
    xr.testing.assert_identical(result, source.sel(level=[850, 250]))


def test_derived_variables_are_on_the_levels_wanted_or_made_of_their_own(source):
    names = ["temperature", "wind_speed", "vorticity", "geopotential_thickness_500_850"]
    result = prepare(source, variables=names, levels=[250], step_hours=6)
    assert result.wind_speed.dims == ("time", "level", "latitude", "longitude")
    assert result["level"].values.tolist() == [250]
    geopotential = source.geopotential.drop_vars("level")
    expected = geopotential.isel(level=1) - geopotential.isel(level=2)
    np.testing.assert_array_equal(result["geopotential_thickness_500_850"], expected)
    np.testing.assert_array_equal(result.vorticity, prepare(source, variables=names)["vorticity"].sel(level=[250]))


def test_values_do_not_depend_on_how_a_source_is_stored(era5_like, tmp_path):
    data = era5_like(times=4)
    upside_down = data.isel(latitude=slice(None, None, -1)).transpose("time", "level", "latitude", "longitude")
    data.to_zarr(tmp_path / "one.zarr", zarr_format=2)
    upside_down.chunk(time=1).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    names = ["vorticity", "divergence", "wind_speed"]
    one, other = (
        prepare(open_source(tmp_path / name), variables=names)[names].compute() for name in ("one.zarr", "other.zarr")
    )
    xr.testing.assert_equal(one, other)


def test_what_is_missing_is_said_for_the_variable_that_was_asked_for(source):
    with pytest.raises(InputError, match="geopotential_thickness_500_1000: level 1000 hPa of geopotential is missing"):
        prepare(source, variables=["geopotential_thickness_500_1000"])
    with pytest.raises(InputError, match=r"relative_humidity: .* specific_humidity to derive it from is missing"):
        prepare(source, variables=["relative_humidity"])
    with pytest.raises(InputError, match="level 925 hPa is missing"):
        prepare(source, variables=["wind_speed"], levels=[925])


def test_a_configuration_names_derived_variables_like_any_other():
    names = [
        "temperature",
        "vorticity",
        "relative_humidity",
        "geopotential_thickness_500_1000",
        "total_precipitation_24hr",
    ]
    assert DataConfig(variables=names, levels=[500]).variables == names
    # No levels are needed for what lies between two of them.
    assert DataConfig(variables=["geopotential_thickness_500_1000"], levels=[]).levels == []
    with pytest.raises(ValueError, match="geopotential_thickness_UPPER_LOWER"):
        DataConfig(variables=["geopotential_thickness"])
