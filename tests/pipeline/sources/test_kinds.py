"""Presets, units, model levels, packed values and GRIB: what sources differ in, settled at the door."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from pipeline.presets import PRESETS, preset_named
from pipeline.sources.chunks import absent_chunks
from pipeline.sources.opening import in_blocks, open_source
from pipeline.stores import lazy_arrays as tensorstore_arrays
from transforms.errors import InputError

PRESSURE = ("time", "level", "latitude", "longitude")


def written(dataset: xr.Dataset, path, zarr_format: int = 3, **encoding) -> str:
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding=encoding)
    return str(path)


def test_units_are_converted_when_read(era5_like, tmp_path):
    data = era5_like(times=2)
    stored = data.copy()
    stored["temperature"] = (data["temperature"] - 273.15).assign_attrs(units="degC")
    stored["geopotential"] = (data["geopotential"] / 9.80665).drop_attrs()
    opened = open_source(
        written(stored, tmp_path / "source.zarr"), units={"temperature": "degC", "geopotential": "gpm"}
    )
    for name in ("temperature", "geopotential"):
        np.testing.assert_allclose(opened[name], data[name].transpose(*PRESSURE), rtol=2e-7)
        assert opened[name].dtype == np.float32
        assert opened[name].attrs["units"] == data[name].attrs["units"]


def test_units_that_cannot_be_converted_or_have_no_variable_are_named(era5_like, tmp_path):
    path = written(era5_like(times=1), tmp_path / "source.zarr")
    with pytest.raises(InputError, match=r"temperature: .*'mm'"):
        open_source(path, units={"temperature": "mm"})
    with pytest.raises(InputError, match=r"source.units: sea_surface_temperature is not in"):
        open_source(path, units={"sea_surface_temperature": "degC"})
    with pytest.raises(InputError, match=r"source.preset: 'era6' is not known; known are weatherbench2, arco-era5, cf"):
        open_source(path, preset="era6")


def test_presets_know_how_buckets_are_reached():
    for preset in ("weatherbench2", "arco-era5"):
        assert preset_named(preset).options_for(PRESETS[preset].example) == {"token": "anon"}
        assert preset_named(preset).options_for("/data/copy.zarr") == {}
    assert PRESETS["arco-era5"].step_hours == 1


def test_a_store_like_arco_era5(era5_like, tmp_path):
    data = era5_like(times=6, step_hours=1, start="2016-12-31T20")
    stored = data.isel(latitude=slice(None, None, -1)).transpose("time", "level", "latitude", "longitude")
    stored.attrs = {"valid_time_start": "2016-12-31", "valid_time_stop": "2016-12-31"}
    stored["time"].encoding = {"units": "hours since 1900-01-01", "dtype": "int64"}
    path = written(stored, tmp_path / "source.zarr", temperature={"chunks": (1, 3, 32, 64)})
    opened = open_source(path, preset="arco-era5", variables=["temperature"])
    assert list(opened) == ["temperature"]
    expected = data["temperature"].isel(time=slice(0, 4)).transpose(*PRESSURE)
    np.testing.assert_array_equal(opened["time"], expected["time"])
    np.testing.assert_array_equal(opened["temperature"], expected)
    (tmp_path / "source.zarr" / "temperature" / "c" / "5" / "0" / "0" / "0").unlink()
    assert absent_chunks(path, ["temperature"]) == {}


def test_a_cf_file_is_known_by_its_standard_names(tmp_path):
    rng = np.random.default_rng(0)
    axes = {"time": np.arange("2001-01-01", "2001-01-03", dtype="datetime64[D]").astype("datetime64[ns]")}
    axes |= {"plev": ("plev", [50_000.0, 85_000.0], {"units": "Pa"})}
    axes |= {"lat": np.linspace(-90, 90, 7), "lon": np.arange(12) * 30.0}
    on_levels, surface = ("time", "plev", "lat", "lon"), ("time", "lat", "lon")
    zg, tas = rng.uniform(1e3, 5e3, (2, 2, 7, 12)), rng.uniform(-5, 25, (2, 7, 12))
    data = xr.Dataset(
        {
            "ta": (on_levels, zg / 20, {"standard_name": "air_temperature", "units": "K"}),
            "zg": (on_levels, zg, {"standard_name": "geopotential_height", "units": "m"}),
            "tas": (surface, tas, {"standard_name": "air_temperature", "units": "degC"}),
            "psl": (surface, tas + 1000, {"standard_name": "air_pressure_at_mean_sea_level", "units": "hPa"}),
            "uas": (surface, tas, {"standard_name": "eastward_wind", "units": "m s-1"}),
            "orog": (("lat", "lon"), tas[0], {"standard_name": "surface_altitude", "units": "m"}),
        },
        {**axes, "height": ((), 2.0, {"units": "m"})},
    )
    data["uas"] = data["uas"].drop_vars("height")
    data.to_netcdf(tmp_path / "source.nc")
    opened = open_source(tmp_path / "source.nc", preset="cf", rename={"uas": "10m_u_component_of_wind"})
    assert set(opened) == {
        *("temperature", "geopotential", "2m_temperature", "mean_sea_level_pressure"),
        *("10m_u_component_of_wind", "geopotential_at_surface"),
    }
    np.testing.assert_allclose(opened["geopotential"], 9.80665 * zg, rtol=1e-6)
    np.testing.assert_allclose(opened["2m_temperature"], tas + 273.15, rtol=1e-6)
    np.testing.assert_allclose(opened["mean_sea_level_pressure"], 100 * (tas + 1000), rtol=1e-6)
    np.testing.assert_allclose(opened["geopotential_at_surface"], 9.80665 * tas[0], rtol=1e-6)
    assert opened["level"].values.tolist() == [500, 850]


A, B = np.array([5000.0, 8000.0, 0.0]), np.array([0.0, 0.3, 0.995])


def _terms(data: xr.Dataset) -> xr.Dataset:
    terms = {
        "standard_name": "atmosphere_hybrid_sigma_pressure_coordinate",
        "formula_terms": "a: ak b: bk ps: surface_pressure p0: pref",
    }
    data = data.assign(pref=((), 1000.0, {"units": "hPa"}))
    return data.assign(
        ak=("level", A / 100_000.0, {"units": "1"}), bk=("level", B), level=("level", [0.1, 0.4, 0.9], terms)
    )


HYBRID = {
    "formula terms": _terms,
    "ECMWF": lambda d: d.assign(hyam=("level", A, {"units": "Pa"}), hybm=("level", B), level=("level", [58, 90, 137])),
    "reference pressure": lambda d: d.assign(hyam=("level", A / 1e5), hybm=("level", B)),
    "sigma": lambda d: d.assign_coords(level=("level", B[1:])).rename(level="sigma"),
}


@pytest.mark.parametrize("kind", HYBRID)
def test_model_levels_come_with_their_coefficients(era5_like, tmp_path, kind):
    data = era5_like(times=2)
    stored = data.isel(level=[1, 2]) if kind == "sigma" else data
    opened = open_source(written(HYBRID[kind](stored), tmp_path / "source.zarr"))
    a, b = (np.zeros(2), B[1:]) if kind == "sigma" else (A, B)
    np.testing.assert_allclose(opened["hybrid_a"], a, rtol=1e-6)
    np.testing.assert_allclose(opened["hybrid_b"], b)
    assert opened["hybrid_a"].dims == opened["hybrid_b"].dims == ("level",)
    expected = {"ECMWF": [58, 90, 137], "sigma": [1, 2], "reference pressure": [250, 500, 850]}.get(kind, [1, 2, 3])
    assert opened["level"].values.tolist() == expected
    assert np.issubdtype(opened["level"].dtype, np.integer)
    assert "hPa" not in opened["level"].attrs.values()
    np.testing.assert_array_equal(opened["temperature"], stored["temperature"].transpose(*PRESSURE))


def test_sigma_levels_below_a_top(era5_like, tmp_path):
    attributes = {
        "standard_name": "atmosphere_sigma_coordinate",
        "formula_terms": "sigma: level ps: surface_pressure ptop: top",
    }
    data = era5_like(times=1).assign_coords(level=("level", [0.2, 0.5, 0.9], attributes))
    data["top"] = ((), 10.0, {"units": "hPa"})
    opened = open_source(written(data, tmp_path / "source.zarr"))
    np.testing.assert_allclose(opened["hybrid_a"], 1000.0 * (1 - np.array([0.2, 0.5, 0.9])))
    np.testing.assert_allclose(opened["hybrid_b"], [0.2, 0.5, 0.9])


def test_hybrid_levels_without_coefficients_are_refused(era5_like, tmp_path):
    attributes = {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "units": "1"}
    data = era5_like(times=1).assign_coords(level=("level", [1, 2, 3], attributes))
    with pytest.raises(InputError, match=r"hybrid levels without coefficients"):
        open_source(written(data, tmp_path / "source.zarr"))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "packing",
    [
        {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32768},
        {"dtype": "int32", "scale_factor": 0.01},
        {"dtype": "float64", "_FillValue": -999.0},
        {"dtype": ">f4", "_FillValue": np.nan},
        {"dtype": "float32", "fill_value": 7.0},
    ],
    ids=lambda packing: packing["dtype"] + ("-filled" if "fill_value" in packing else ""),
)
def test_values_are_decoded_as_xarray_does(era5_like, tmp_path, zarr_format, packing):
    data = era5_like(times=6)
    if packing["dtype"] != "int32":
        data["temperature"][2, 1, 3, 4] = np.nan
    if zarr_format == 2:
        packing = {key: value for key, value in packing.items() if key != "fill_value"}
    elif packing["dtype"] == ">f4":
        pytest.skip("zarr v3 has no byte order in types")
    path = written(data, tmp_path / "source.zarr", zarr_format, temperature={**packing, "chunks": (2, 3, 32, 32)})
    chunk = "4.0.0.0" if zarr_format == 2 else "c/2/0/0/0"
    next((tmp_path / "source.zarr" / "temperature").glob(chunk.replace("4.", "2."))).unlink()
    with xr.open_zarr(path, consolidated=False, chunks=None) as plain:
        expected = plain["temperature"].transpose(*PRESSURE).values.astype(np.float32)
    np.testing.assert_array_equal(open_source(path)["temperature"].values, expected)


def test_codecs_that_tensorstore_does_not_know_are_left_to_zarr(era5_like, tmp_path, monkeypatch):
    data = era5_like(times=2)
    path = written(data, tmp_path / "source.zarr")

    def refuse(*_):
        raise ValueError("INVALID_ARGUMENT: unknown codec")

    monkeypatch.setattr("pipeline.sources.files.open_array", refuse)
    np.testing.assert_array_equal(open_source(path)["temperature"], data["temperature"].transpose(*PRESSURE))


@pytest.mark.parametrize("turn", ["plain", "descending", "from -180"])
def test_lazy_fields_are_read_as_they_are_cut(era5_like, tmp_path, turn):
    data = era5_like(times=12)
    expected = data["temperature"].transpose(*PRESSURE)
    if turn == "descending":
        data = data.isel(latitude=slice(None, None, -1))
    elif turn == "from -180":
        data = data.assign_coords(longitude=(data.longitude + 180) % 360 - 180).sortby("longitude")
    path = written(data, tmp_path / "source.zarr", temperature={"chunks": (4, 3, 64, 32)})
    opened = open_source(path, blocks=False)["temperature"]
    assert not dask.is_dask_collection(opened.data if opened.chunks else None)
    for cut in (
        {"time": slice(1, 11, 3)},
        {"time": slice(10, 2, -4), "longitude": slice(40, 3, -5)},
        {"time": 3, "level": [2, 0], "longitude": [5, 1]},
        {"longitude": -1, "latitude": slice(30, 40)},
        {"time": [1, 2, 9]},
    ):
        np.testing.assert_array_equal(opened.isel(cut).values, expected.isel(cut).values, err_msg=str(cut))
    blocks = in_blocks(opened.isel(time=slice(4, 12)).to_dataset())["temperature"]
    np.testing.assert_array_equal(blocks, expected[4:])


def test_blocks_hold_whole_chunks_and_are_bounded(era5_like, tmp_path, monkeypatch):
    data = era5_like(times=24)
    path = written(data, tmp_path / "source.zarr", temperature={"chunks": (3, 1, 64, 32)})
    monkeypatch.setattr("pipeline.sources.opening._BLOCK_BYTES", 1.0)
    assert open_source(path, variables=["temperature"])["temperature"].chunksizes["time"][:2] == (3, 3)
    monkeypatch.setattr("pipeline.sources.opening._LARGEST_BLOCK_BYTES", 4.0 * 2 * 3 * 64 * 32)
    assert max(open_source(path, variables=["temperature"])["temperature"].chunksizes["time"]) == 2


def test_an_entry_of_another_axis_is_selected(era5_like, tmp_path):
    data = era5_like(times=2)
    data["temperature"] = xr.concat([data["temperature"], data["temperature"] + 1], "number").assign_coords(
        number=[3, 5]
    )
    path = written(data, tmp_path / "source.zarr")
    opened = open_source(path, select={"number": 5})
    np.testing.assert_array_equal(opened["temperature"], data["temperature"][1].transpose(*PRESSURE))
    with pytest.raises(InputError, match=r"source.select: number of .* has no 4; it has 3, 5"):
        open_source(path, select={"number": 4})
    with pytest.raises(InputError, match=r"source.select: member is not in"):
        open_source(path, select={"member": 0})


def test_grib_with_members(real_data):
    pytest.importorskip("cfgrib", reason="the extra grib is not installed")
    path = real_data / "era5-levels-members.grib"
    opened = open_source(path, select={"number": 3})
    assert opened["geopotential"].dims == PRESSURE
    assert opened["latitude"].values[0] == -90.0
    with xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}) as raw:
        expected = raw["t"].sel(number=3).transpose("time", "isobaricInhPa", "latitude", "longitude")[:, :, ::-1]
        np.testing.assert_array_equal(opened["temperature"], expected)
    assert "number" in open_source(path)["temperature"].dims


def grib(path, *messages: dict) -> str:
    """Write messages on a 7 x 12 grid at two times; each holds its number."""
    eccodes = pytest.importorskip("eccodes", reason="the extra grib is not installed")
    grid = {"gridType": "regular_ll", "Ni": 12, "Nj": 7}
    grid |= {f"{end}InDegrees": value for end, value in CORNERS.items()}
    with path.open("wb") as file:
        for i, message in enumerate(messages):
            for date in (20200101, 20200102):
                handle = eccodes.codes_grib_new_from_samples("GRIB2")
                for key, value in {**grid, "dataDate": date, "dataTime": 0, **message}.items():
                    if key != "pv":
                        eccodes.codes_set(handle, key, value)
                if "pv" in message:
                    eccodes.codes_set_array(handle, "pv", np.array(message["pv"]))
                eccodes.codes_set_values(handle, np.full(84, 250.0 + i))
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
    return str(path)


CORNERS = {
    "latitudeOfFirstGridPoint": 90,
    "latitudeOfLastGridPoint": -90,
    "jDirectionIncrement": 30,
    "longitudeOfFirstGridPoint": 0,
    "longitudeOfLastGridPoint": 330,
    "iDirectionIncrement": 30,
}
TEMPERATURE = {"discipline": 0, "parameterCategory": 0, "parameterNumber": 0}


def test_grib_carries_half_levels(tmp_path):
    half = [0.0, 2000.0, 4000.0, 0.0, 0.0, 0.1, 0.5, 1.0]
    model = {**TEMPERATURE, "typeOfFirstFixedSurface": 105, "PVPresent": 1}
    path = grib(tmp_path / "source.grib", *({**model, "level": level, "pv": half} for level in (1, 2, 3)))
    opened = open_source(path)
    assert opened["level"].values.tolist() == [1, 2, 3]
    np.testing.assert_allclose(opened["hybrid_a"], [1000.0, 3000.0, 2000.0])
    np.testing.assert_allclose(opened["hybrid_b"], [0.05, 0.3, 0.75])
    assert opened["temperature"].values[0, :, 3, 3].tolist() == [250.0, 251.0, 252.0]


def test_grib_may_hold_levels_and_the_surface(tmp_path):
    on_levels = [{**TEMPERATURE, "typeOfFirstFixedSurface": 100, "level": level} for level in (500, 850)]
    heights = [
        {**TEMPERATURE, "typeOfFirstFixedSurface": 103, "level": 2},
        {"discipline": 0, "parameterCategory": 2, "parameterNumber": 2, "typeOfFirstFixedSurface": 103, "level": 10},
    ]
    opened = open_source(grib(tmp_path / "source.grib", *on_levels, *heights))
    assert set(opened) == {"temperature", "2m_temperature", "10m_u_component_of_wind"}
    assert opened["temperature"].dims == PRESSURE
    assert sorted(opened["level"].values.tolist()) == [500, 850]
    assert opened["2m_temperature"].dims == ("time", "latitude", "longitude")
    assert (opened["2m_temperature"] == 252).all()
    assert opened.sizes["time"] == 2


def test_arrays_of_a_store_open_in_tensorstore(era5_like, tmp_path):
    for zarr_format in (2, 3):
        path = written(era5_like(times=1), tmp_path / f"{zarr_format}.zarr", zarr_format)
        assert tensorstore_arrays.open_array(path, "temperature").shape == (1, 3, 64, 32)
