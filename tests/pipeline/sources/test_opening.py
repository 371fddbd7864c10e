"""Sources of every kind leave the door in one form, and unread."""

from __future__ import annotations

import re
import shutil
import warnings

import dask
import numpy as np
import pytest
import xarray as xr

from pipeline.sources.chunks import absent_chunk_times
from pipeline.sources.opening import open_source
from pipeline.stores.axes import grid_of
from transforms.errors import InputError
from transforms.grids import Grid

PRESSURE = ("time", "level", "latitude", "longitude")


@pytest.fixture(params=[2, 3], ids=["zarr2", "zarr3"])
def zarr_format(request):
    return request.param


def write(dataset: xr.Dataset, path, **keywords) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.to_zarr(path, **keywords)
    return str(path)


def assert_canonical(opened: xr.Dataset, expected: xr.Dataset) -> None:
    assert opened["temperature"].dims == PRESSURE
    assert opened["2m_temperature"].dims == ("time", "latitude", "longitude")
    assert opened["land_sea_mask"].dims == ("latitude", "longitude")
    assert all(dask.is_dask_collection(variable.data) for variable in opened.values())
    assert opened["time"].dtype == "datetime64[ns]"
    expected = expected.sortby("latitude").sortby("longitude").transpose(*PRESSURE)
    np.testing.assert_array_equal(opened["time"], expected["time"])
    np.testing.assert_array_equal(opened["level"], expected["level"])
    for name in expected:
        np.testing.assert_array_equal(opened[name], expected[name])
        assert opened[name].dtype == np.float32
        assert opened[name].attrs["units"] == expected[name].attrs["units"]


@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr_opens_lazily_and_without_a_word(era5_like, tmp_path, zarr_format, consolidated, recwarn):
    data = era5_like(times=4)
    path = write(data, tmp_path / "source.zarr", zarr_format=zarr_format, consolidated=consolidated)
    (tmp_path / "source.zarr" / "README.txt").write_text("a stray file")
    opened = open_source(path)
    assert_canonical(opened, data)
    assert grid_of(opened).matches(Grid.equiangular(32, 64, poles=False))
    assert [str(warning.message) for warning in recwarn] == []


def test_an_address_is_read_through_fsspec(era5_like):
    data = era5_like(times=2)
    write(data, "memory://door/source.zarr", zarr_format=3)
    assert_canonical(open_source("memory://door/source.zarr"), data)
    assert absent_chunk_times("memory://door/source.zarr", list(data)) == {}


@pytest.mark.parametrize("turned", ["descending", "from -180", "both"])
def test_orientation_is_settled(era5_like, tmp_path, turned):
    data = era5_like(times=2)
    stored = data
    if turned != "from -180":
        stored = stored.isel(latitude=slice(None, None, -1))
    if turned != "descending":
        stored = stored.assign_coords(longitude=(stored.longitude + 180) % 360 - 180).sortby("longitude")
        assert stored.longitude[0] == -180
    assert_canonical(open_source(write(stored, tmp_path / "source.zarr")), data)


def test_copernicus_names_and_pascals(era5_like, tmp_path):
    data = era5_like(times=2)
    foreign = data.rename(
        time="valid_time",
        level="plev",
        latitude="lat",
        longitude="lon",
        temperature="t",
        u_component_of_wind="u",
        v_component_of_wind="ua",
        geopotential="z",
        land_sea_mask="lsm",
    )
    foreign["2m_temperature"] = foreign["2m_temperature"].expand_dims(number=1)
    foreign["plev"] = ("plev", foreign.plev.values * 100.0, {"units": "Pa"})
    foreign["lsm"] = foreign["lsm"].expand_dims(valid_time=foreign.valid_time)
    foreign.to_netcdf(tmp_path / "source.nc")
    opened = open_source(tmp_path / "source.nc", rename={"ua": "v_component_of_wind"})
    assert_canonical(opened, data)
    assert opened["level"].values.tolist() == [250, 500, 850]
    assert np.issubdtype(opened["level"].dtype, np.integer)


def test_renaming_comes_before_aliases(era5_like, tmp_path):
    data = era5_like(times=1).rename(temperature="t").drop_vars("2m_temperature").isel(level=0, drop=True)
    opened = open_source(write(data, tmp_path / "source.zarr"), rename={"t": "2m_temperature"})
    assert "2m_temperature" in opened
    assert "temperature" not in opened


def test_levels_between_hectopascals_are_left_out(era5_like, tmp_path):
    data = era5_like(times=1).assign_coords(level=[0.5, 500.0, 850.0])
    assert open_source(write(data, tmp_path / "source.zarr"))["level"].values.tolist() == [500, 850]


def test_a_single_state_gets_a_time_axis(era5_like, tmp_path):
    data = era5_like(times=1)
    opened = open_source(write(data.isel(time=0), tmp_path / "source.zarr"))
    assert_canonical(opened, data)


def test_files_are_joined_along_time_and_by_variable(era5_like, tmp_path):
    data = era5_like(times=4)
    for i in range(4):
        part = data.isel(time=i)
        part.drop_vars("temperature").to_netcdf(tmp_path / f"a{i}.nc")
        part[["temperature"]].to_netcdf(tmp_path / f"t{i}.nc")
    assert_canonical(open_source(tmp_path), data)
    assert open_source(str(tmp_path / "t*.nc")).sizes["time"] == 4


def test_integer_times_with_units_in_the_attributes(era5_like, tmp_path):
    data = era5_like(times=3, start="2017-01-01T00")
    hours = ((data.time.values - np.datetime64("1940-01-01")) // np.timedelta64(1, "h")).astype(np.int64)
    coded = data.rename(time="time_index").assign_coords(time_index=hours)
    coded.attrs["time_units"] = "hours since 1940-01-01 00:00 (proleptic_gregorian)"
    assert_canonical(open_source(write(coded, tmp_path / "source.zarr")), data)
    del coded.attrs["time_units"]
    with pytest.raises(InputError, match=r"time: .*without saying since when.*units attribute"):
        open_source(write(coded, tmp_path / "bare.zarr"))


def test_other_calendars_are_refused(era5_like, tmp_path):
    data = era5_like(times=2).convert_calendar("noleap", use_cftime=True)
    with pytest.raises(InputError, match=r"calendar 'noleap'; expected one of standard"):
        open_source(write(data, tmp_path / "source.zarr"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d.drop_vars("time").isel(time=0), r"no time coordinate.*source.rename"),
        (lambda d: d.rename(latitude="row"), r"latitude: .*no axis of that name.*row.*source.rename"),
        (
            lambda d: d.assign_coords(level=("level", [1, 2, 3], {"units": "sigma"})),
            r"levels in 'sigma'; expected .*hPa",
        ),
        (lambda d: d.assign_coords(longitude=d.longitude.where(d.longitude > 0)), r"longitude: .* not finite"),
        (lambda d: d.assign_coords(level=[np.nan, 500.0, 850.0]), r"level: .* has nan, 500, 850 hPa; expected"),
        (lambda d: d.assign_coords(level=[250.0, 500.0, np.inf]), r"level: .* has 250, 500, inf hPa; expected"),
    ],
)
def test_axes_that_cannot_be_used_are_named(era5_like, tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        open_source(write(make(era5_like(times=2)), tmp_path / "source.zarr"))


def test_what_cannot_be_opened_is_named(tmp_path, era5_like):
    with pytest.raises(InputError, match=r"nothing is at .*absent.zarr"):
        open_source(tmp_path / "absent.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty cannot be read"):
        open_source(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no file matches"):
        open_source(str(tmp_path / "*.nc"))
    (tmp_path / "broken.nc").write_text("not netCDF")
    with pytest.raises(InputError, match=r"broken.nc cannot be read"):
        open_source(tmp_path / "broken.nc")
    path = write(era5_like(times=1), tmp_path / "source.zarr")
    with pytest.raises(InputError, match=r"source.rename: tC is not in .*which has .*temperature"):
        open_source(path, rename={"tC": "temperature"})


def test_grib_without_its_reader_names_the_package(real_data):
    try:
        import cfgrib  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"pip install cfgrib"):
            open_source(real_data / "era5-levels-members.grib")
    else:
        opened = open_source(real_data / "era5-levels-members.grib")
        assert opened["geopotential"].sizes["level"] == 2


def test_a_regional_grid_is_refused(era5_like, tmp_path):
    opened = open_source(write(era5_like(times=1).isel(latitude=slice(8, 20)), tmp_path / "source.zarr"))
    with pytest.raises(InputError, match=r"latitude: expected values symmetric"):
        grid_of(opened)


def test_chunks_that_were_never_written_are_found(era5_like, tmp_path, zarr_format):
    data = era5_like(times=7)
    encoding = {"temperature": {"chunks": (2, 3, 64, 32)}, "2m_temperature": {"chunks": (1, 64, 32)}}
    path = write(data, tmp_path / "source.zarr", zarr_format=zarr_format, encoding=encoding)
    names = ["temperature", "2m_temperature", "geopotential"]
    assert absent_chunk_times(path, names) == {}
    folder = tmp_path / "source.zarr"
    if zarr_format == 2:
        (folder / "temperature" / "3.0.0.0").unlink()
        (folder / "2m_temperature" / "4.0.0").unlink()
    else:
        shutil.rmtree(folder / "temperature" / "c" / "3")
        shutil.rmtree(folder / "2m_temperature" / "c" / "4")
    absent = absent_chunk_times(path, names)
    assert {name: positions.tolist() for name, positions in absent.items()} == {
        "temperature": [6],
        "2m_temperature": [4],
    }


REAL = {
    "era5_tl31_19590102T00.nc": ("32 latitudes x 64 longitudes, Gaussian", 1, ["temperature", "specific_humidity"]),
    "eraint_1p5deg_20050123": ("121 latitudes x 240 longitudes, equiangular, with poles", 1, ["temperature"]),
    "gfs_10m_wind_f000.nc": ("181 latitudes x 360", 37, ["10m_u_component_of_wind"]),
    "gfs_10m_wind_f003.nc": ("181 latitudes x 360", 16, ["10m_v_component_of_wind"]),
    "era5_surface_1deg_2026-03.zarr": ("181 latitudes x 360", 24, ["2m_temperature", "mean_sea_level_pressure"]),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sources(real_data, name):
    grid, times, variables = REAL[name]
    opened = open_source(real_data / name)
    assert re.match(re.escape(grid), str(grid_of(opened)))
    assert opened.sizes["time"] == times
    assert set(variables) <= set(opened)


def test_real_values_keep_their_place(real_data):
    path = real_data / "eraint_1p5deg_20050123"
    opened = open_source(path)
    with xr.open_dataset(path / "2005-01-23-0000-u.nc") as raw:
        place = {"latitude": 60.0, "longitude": 30.0, "level": 300}
        got = opened["u_component_of_wind"].sel(place).values
        assert got == pytest.approx(raw["u"].sel(place).values[None], rel=1e-6)
    forecast = open_source(real_data / "gfs_10m_wind_f003.nc")
    assert forecast["time"].values[0] == np.datetime64("2018-10-06T21")
    celsius = open_source(real_data / "t_in_Celsius_1.nc", rename={"tC": "2m_temperature"})
    with xr.open_dataset(real_data / "t_in_Celsius_1.nc") as raw:
        west = raw["tC"].isel(lon=10)
        got = celsius["2m_temperature"].sel(longitude=float(west.lon) + 360, method="nearest")
        np.testing.assert_array_equal(got.values, west.values[:, ::-1])
