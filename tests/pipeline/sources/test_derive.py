"""Derived variables added to sources: exact winds, sums over gaps, refusals, and blocks that make no difference."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.sources.derive import EARTH_RADIUS, absent_times, stored_inputs, with_derived
from pipeline.sources.opening import open_source
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.variables import VARIABLES

AXES = ("time", "level", "latitude", "longitude")
GRIDS = {
    "no poles": Grid.equiangular(32, 64, poles=False),
    "poles": Grid.equiangular(33, 64, poles=True),
    "Gaussian": Grid.gaussian(24),
    # As many longitudes as latitudes, from half a step on, coordinates rounded to float32.
    "square": Grid(
        Grid.equiangular(32, 2, poles=True).latitude.astype(np.float32), (np.arange(32) + 0.5) * np.float32(11.25)
    ),
}


def times_of(count: int, step_hours: float = 1) -> np.ndarray:
    return np.datetime64("2001-01-01", "ns") + (np.arange(count) * step_hours * 3600e9).astype("timedelta64[ns]")


def winds(grid: Grid, u: np.ndarray, v: np.ndarray, times: int = 1) -> xr.Dataset:
    """The same wind at all times on two levels, twice as strong on the second."""
    fields = {
        name: (AXES, np.array([1.0, 2.0])[:, None, None] * np.broadcast_to(field, (times, 1, *grid.shape)))
        for name, field in (("u_component_of_wind", u), ("v_component_of_wind", v))
    }
    coordinates = {"time": times_of(times), "level": [500, 850]}
    coordinates |= {"latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset(fields, coordinates).astype(np.float32).chunk(time=1)


def angles(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    return np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None, :]


def assert_close(result: xr.DataArray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    values = result.transpose(*AXES).values
    assert values.dtype == np.float32
    for level, factor in enumerate((1.0, 2.0)):
        error = np.abs(values[:, level] - factor * expected).max()
        assert error <= tolerance * factor * max(np.abs(expected).max(), 1e-6), error


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_solid_body_rotation(grid):
    latitude, longitude = angles(grid)
    spin = 7.292e-5
    dataset = winds(grid, spin * EARTH_RADIUS * np.cos(latitude) + 0 * longitude, 0 * latitude * longitude)
    result = with_derived(dataset, ["vorticity", "divergence", "wind_speed"])
    assert_close(result.vorticity, 2 * spin * np.sin(latitude) + 0 * longitude)
    assert_close(result.divergence, np.zeros(grid.shape), 1e-4)
    assert_close(result.wind_speed, spin * EARTH_RADIUS * np.cos(latitude) + 0 * longitude)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_rossby_haurwitz_wave(grid):
    """The stream function of Williamson et al. (1992), J. Comput. Phys. 102, case 6."""
    latitude, longitude = angles(grid)
    cos, sin = np.cos(latitude), np.sin(latitude)
    rotation = wave = 7.848e-6
    number = 4
    u = EARTH_RADIUS * (
        rotation * cos + wave * cos ** (number - 1) * (number * sin**2 - cos**2) * np.cos(number * longitude)
    )
    v = -EARTH_RADIUS * wave * number * cos ** (number - 1) * sin * np.sin(number * longitude)
    vorticity = 2 * rotation * sin - wave * sin * cos**number * (number**2 + 3 * number + 2) * np.cos(
        number * longitude
    )
    result = with_derived(winds(grid, u, v), ["vorticity", "divergence"])
    assert_close(result.vorticity, vorticity)
    assert np.abs(result.divergence.values).max() < 1e-5 * np.abs(vorticity).max()
    # A quarter turn of every vector to the right makes the stream function a velocity potential.
    turned = with_derived(winds(grid, v, -u), ["vorticity", "divergence"])
    assert_close(turned.divergence, vorticity)
    assert np.abs(turned.vorticity.values).max() < 1e-5 * np.abs(vorticity).max()


def test_finite_differences_of_a_smooth_wind_agree():
    grid = Grid.equiangular(181, 360, poles=True)
    latitude, longitude = angles(grid)
    cos, sin = np.cos(latitude), np.sin(latitude)
    # Functions of the Cartesian coordinates are smooth at the poles as well.
    x, y, z = cos * np.cos(longitude), cos * np.sin(longitude), sin + 0 * longitude

    def gradient(along_x, along_y, along_z):
        east = along_y * np.cos(longitude) - along_x * np.sin(longitude)
        return east, cos * along_z - sin * (along_x * np.cos(longitude) + along_y * np.sin(longitude))

    stream, slope = 8.0 * np.exp(x - 0.5 * z), 5.0 * np.cos(2 * y + z)
    turning, parting = gradient(stream, 0, -0.5 * stream), gradient(0, 2 * slope, slope)
    u, v = parting[0] - turning[1], parting[1] + turning[0]

    def eastward(field):
        return (np.roll(field, -1, axis=1) - np.roll(field, 1, axis=1))[1:-1] / (2 * np.deg2rad(1.0))

    def northward(field):
        return (field[2:] - field[:-2]) / (2 * np.deg2rad(1.0))

    scale = EARTH_RADIUS * cos[1:-1]
    expected = {
        "vorticity": (eastward(v) - northward(u * cos)) / scale,
        "divergence": (eastward(u) + northward(v * cos)) / scale,
    }
    result = with_derived(winds(grid, u, v), list(expected)).isel(time=0, level=0, latitude=slice(1, -1))
    away_from_poles = slice(29, -29)
    for name, field in expected.items():
        error = (result[name].values - field)[away_from_poles]
        assert np.abs(error).max() < 1e-3 * np.abs(field).max(), name


def random_source(times: int = 7) -> xr.Dataset:
    rng = np.random.default_rng(3)
    grid = GRIDS["poles"]
    shape = (times, 3, *grid.shape)

    def field(mean: float, spread: float, axes: tuple[str, ...] = AXES):
        size = shape if axes == AXES else (times, *grid.shape)
        return axes, (mean + spread * rng.uniform(-1, 1, size)).astype(np.float32)

    surface = ("time", "latitude", "longitude")
    heights = (field(0, 100)[1] - np.log([0.5, 0.85, 1.0])[:, None, None] * 287 * 260).astype(np.float32)
    return xr.Dataset(
        {
            "u_component_of_wind": field(5, 20),
            "v_component_of_wind": field(0, 20),
            "temperature": field(285, 10),
            "specific_humidity": field(3e-3, 3e-3),
            "geopotential": (AXES, heights),
            "10m_u_component_of_wind": field(0, 9, surface),
            "10m_v_component_of_wind": field(0, 9, surface),
            "2m_temperature": field(285, 5, surface),
            "2m_dewpoint_temperature": field(275, 5, surface),
            "surface_pressure": field(98_000, 3_000, surface),
            "total_precipitation": field(1e-3, 1e-3, surface),
        },
        {
            "time": times_of(times),
            "level": ("level", [500, 850, 1000], {"units": "hPa"}),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )


EVERYTHING = [
    "wind_speed",
    "10m_wind_speed",
    "vorticity",
    "divergence",
    "relative_humidity",
    "2m_relative_humidity",
    "2m_specific_humidity",
    "geopotential_thickness_500_1000",
    "total_precipitation_6hr",
]


def test_blocks_make_no_difference():
    source = random_source()
    whole = with_derived(source.chunk(), EVERYTHING).compute()
    for name in EVERYTHING:
        variable = VARIABLES[name]
        assert whole[name].dims == (AXES if variable.kind == "pressure" else (AXES[0], *AXES[2:]))
        assert whole[name].dtype == np.float32
        assert whole[name].attrs["units"] == variable.units
        assert variable.minimum <= whole[name].min() <= whole[name].max() <= variable.maximum
    for chunks in ({"time": 1}, {"time": 3, "level": 1}, {"time": 4, "latitude": 5, "longitude": 7}):
        for step_hours in (None, 6):
            result = with_derived(source.chunk(chunks), EVERYTHING, step_hours)
            assert all(result[name].chunks is not None for name in EVERYTHING)
            xr.testing.assert_identical(result.compute(), whole)
    in_memory = with_derived(source, EVERYTHING).compute()
    xr.testing.assert_identical(in_memory, whole)
    at_six = with_derived(source.chunk(time=4), EVERYTHING, 6).isel(time=[0, 6]).compute()
    xr.testing.assert_identical(at_six, whole.isel(time=[0, 6]))


def test_what_is_there_or_not_derived_is_left_alone():
    source = random_source(2)
    source["wind_speed"] = source["temperature"]
    result = with_derived(source, ["wind_speed", "temperature", "no_such_variable"])
    xr.testing.assert_identical(result, source)


def test_missing_values_stay_within_their_field():
    source = random_source(2)
    source["u_component_of_wind"][0, 1, 5, 5] = np.nan
    result = with_derived(source.chunk(), ["vorticity", "wind_speed"]).compute()
    assert np.isnan(result.vorticity).sum() == np.isnan(result.vorticity[0, 1]).sum() == result.vorticity[0, 1].size
    assert np.isnan(result.wind_speed).sum() == 1


def precipitation(times: np.ndarray, name: str = "total_precipitation") -> xr.Dataset:
    amount = np.random.default_rng(5).gamma(0.3, 1e-3, (times.size, 2, 3)).astype(np.float32)
    return xr.Dataset({name: (("time", "latitude", "longitude"), amount)}, {"time": times}).chunk(time=5)


def test_precipitation_of_six_and_of_24_hours():
    hourly = precipitation(times_of(50))
    names = ["total_precipitation_6hr", "total_precipitation_24hr"]
    result = with_derived(hourly, names).compute()
    amount = hourly.total_precipitation.values.astype(np.float64)
    for name, hours in zip(names, (6, 24), strict=True):
        assert np.isnan(result[name][: hours - 1]).all()
        for last in (hours - 1, 30, 49):
            expected = amount[last - hours + 1 : last + 1].sum(axis=0)
            np.testing.assert_allclose(result[name][last], expected, rtol=1e-6)
    # The same from what fell in 6 hours, hourly or 6-hourly.
    six = result[["total_precipitation_6hr"]].isel(time=slice(5, None)).chunk(time=7)
    for source in (six, six.isel(time=slice(None, None, 6))):
        daily = with_derived(source, names)["total_precipitation_24hr"]
        expected = result["total_precipitation_24hr"].sel(time=daily.time)
        there = daily.notnull().all(("latitude", "longitude")).values
        assert there.sum() > 3
        np.testing.assert_allclose(daily[there], expected[there], rtol=1e-6)


def test_the_daily_maximum_is_that_of_the_day_up_to_each_time():
    times, name = times_of(60), "maximum_2m_temperature_24hr"
    values = np.random.default_rng(6).normal(288.0, 8.0, (times.size, 2, 3)).astype(np.float32)
    hourly = xr.Dataset({"2m_temperature": (("time", "latitude", "longitude"), values)}, {"time": times}).chunk(time=7)
    for step in (1, 4, 6):
        source = hourly.isel(time=slice(None, None, step))
        result = with_derived(source, [name])[name].compute()
        count = 24 // step
        assert np.isnan(result[: count - 1]).all()
        for last in range(count - 1, source.sizes["time"]):
            np.testing.assert_array_equal(result[last], values[::step][last - count + 1 : last + 1].max(axis=0))
    with pytest.raises(InputError, match="2m_temperature is taken every 1 h, but the source has a step of 5 h"):
        with_derived(hourly.isel(time=slice(None, None, 5)), [name])


def test_sums_do_not_cross_gaps_or_missing_values():
    hourly = precipitation(np.delete(times_of(30), 12))
    hourly = hourly.assign(total_precipitation=hourly.total_precipitation.where(hourly.time != times_of(30)[20]))
    result = with_derived(hourly, ["total_precipitation_6hr"])["total_precipitation_6hr"]
    missing = result.isnull().all(("latitude", "longitude")).values
    hours = (hourly.time.values[missing] - times_of(1)[0]) // np.timedelta64(1, "h")
    assert hours.tolist() == [0, 1, 2, 3, 4, *range(13, 18), *range(20, 26)]


@pytest.mark.parametrize(
    ("times", "name", "stored", "words"),
    [
        (times_of(9, 6), "total_precipitation_6hr", "total_precipitation", ("what fell in 1 h", "a step of 6 h")),
        (times_of(9, 4), "total_precipitation_24hr", "total_precipitation_6hr", ("what fell in 6 h", "a step of 4 h")),
        (times_of(5), "total_precipitation_6hr", "total_precipitation", ("needs 6 unbroken times", "5 times")),
        (times_of(1), "total_precipitation_6hr", "total_precipitation", ("needs 6 unbroken times", "1 times")),
        (times_of(9)[::-1], "total_precipitation_6hr", "total_precipitation", ("expected ascending times",)),
    ],
)
def test_series_that_cannot_be_summed_are_refused(times, name, stored, words):
    with pytest.raises(InputError) as caught:
        with_derived(precipitation(times, stored), [name])
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_missing_inputs_are_named_before_any_work():
    source = random_source(2).drop_vars(["v_component_of_wind", "specific_humidity"]).sel(level=[500, 850])
    with pytest.raises(InputError) as caught:
        with_derived(source, ["vorticity", "relative_humidity", "geopotential_thickness_500_1000", "10m_wind_speed"])
    first, second, third = str(caught.value).split("\n")
    assert first.startswith("vorticity: not in the source, and v_component_of_wind to derive it from is missing")
    assert "expected u_component_of_wind and v_component_of_wind" in first
    assert second.startswith("relative_humidity: ")
    assert third.startswith(
        "geopotential_thickness_500_1000: level 1000 hPa of geopotential is missing; the source has 500"
    )


def test_model_levels_and_strange_grids_are_refused():
    source = random_source(2)
    hybrid = source.assign_coords(hybrid_a=("level", [1.0, 2, 3]))
    with pytest.raises(
        InputError, match=r"relative_humidity: the source is on model levels.*data.vertical=interpolate"
    ):
        with_derived(hybrid, ["relative_humidity"])
    sines = np.rad2deg(np.arcsin(np.linspace(-1, 1, 33)))
    with pytest.raises(InputError, match="vorticity: latitude: got 33 rows"):
        with_derived(source.assign_coords(latitude=sines), ["vorticity"])


def test_inputs_and_absent_times_of_derived_variables():
    source = random_source(40).chunk()
    names = ["temperature", "relative_humidity", "total_precipitation_6hr", "no_such_variable"]
    assert stored_inputs(source, names) == ["temperature", "specific_humidity", "total_precipitation"]
    absent = {"total_precipitation": np.array([10, 38]), "temperature": np.array([3])}
    result = absent_times(source, names, absent)
    assert {name: positions.tolist() for name, positions in result.items()} == {
        "temperature": [3],
        "relative_humidity": [3],
        "total_precipitation_6hr": [*range(10, 16), 38, 39],
    }


def test_real_atmosphere(real_data):
    source = open_source(real_data / "era5_tl31_19590102T00.nc")
    names = ["vorticity", "divergence", "relative_humidity", "wind_speed", "geopotential_thickness_500_1000"]
    result = with_derived(source, names).compute()
    for name in names:
        variable = VARIABLES[name]
        values = result[name].values
        assert np.isfinite(values).all()
        assert variable.minimum <= values.min() <= values.max() <= variable.maximum, name
    weights = np.cos(np.deg2rad(result.latitude))
    mean = result[["vorticity", "divergence", "relative_humidity"]].weighted(weights).mean(("latitude", "longitude"))
    size = np.sqrt((result[["vorticity", "divergence"]] ** 2).weighted(weights).mean(("latitude", "longitude")))
    # Neither has a mean over the sphere, and the large scales turn more than they diverge.
    assert (np.abs(mean.vorticity) < 2e-3 * size.vorticity).all()
    assert (np.abs(mean.divergence) < 5e-3 * size.divergence).all()
    assert 1e-5 < size.vorticity.sel(level=300) < 5e-5
    assert size.divergence.sel(level=500) < 0.5 * size.vorticity.sel(level=500)
    assert 0.4 < mean.relative_humidity.sel(level=850) < 0.85
    # Hydrostatic: the layer's depth follows from its virtual temperature.
    layer = source.sel(level=slice(500, 1000)).compute().squeeze("time")
    virtual = layer.temperature * (1 + 0.608 * layer.specific_humidity)
    logarithm = np.log(layer.level.values)
    depth = 287.06 * np.trapezoid(virtual.transpose("latitude", "longitude", "level").values, logarithm)
    error = np.abs(result["geopotential_thickness_500_1000"].values[0] / depth - 1)
    # Below mountains the two are extrapolated in different ways.
    assert np.median(error) < 2e-4
