"""Units told by their spelling and by their values."""

from __future__ import annotations

import pytest

from transforms.errors import InputError
from transforms.units import conversion, height_fault, same_units, standard_height, units_fault
from transforms.variables import VARIABLES


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("m2 s-2", "m**2 s**-2"),
        ("m^2/s^2", "m**2 s**-2"),
        ("m s-1", "m s**-1"),
        ("m/s", "m s**-1"),
        ("metres/second", "m s**-1"),
        ("kg/kg", "kg kg**-1"),
        ("1", "kg kg**-1"),
        ("kelvin", "K"),
        ("(0 - 1)", "1"),
        ("Pa/s", "Pa s**-1"),
    ],
)
def test_spellings_of_the_same_units(given, expected):
    assert same_units(given, expected)


@pytest.mark.parametrize(
    ("given", "expected"), [("m", "m**2 s**-2"), ("s/m", "m s**-1"), ("g/kg", "kg kg**-1"), ("hPa", "Pa"), ("mK", "K")]
)
def test_other_units_are_other(given, expected):
    assert not same_units(given, expected)


@pytest.mark.parametrize(
    ("name", "units", "low", "high", "words"),
    [
        ("temperature", "degC", -60, 35, ("degrees Celsius", "add 273.15")),
        ("temperature", None, -60, 35, ("degrees Celsius", "add 273.15")),
        ("2m_temperature", None, -40, 45, ("degrees Celsius", "add 273.15")),
        ("geopotential", "m", 0, 6000, ("geopotential height", "multiply by 9.80665")),
        ("geopotential", "gpm", 0, 6000, ("geopotential height", "multiply by 9.80665")),
        ("mean_sea_level_pressure", None, 950, 1040, ("multiply by 100",)),
        ("specific_humidity", None, 0, 18, ("divide by 1000",)),
        ("total_precipitation", "mm", 0, 20, ("divide by 1000",)),
        ("u_component_of_wind", "furlong", -50, 50, ("'furlong'", "'m s**-1'")),
        ("temperature", "K", 0, 1e20, ("broken",)),
        ("land_sea_mask", "%", 0, 100, ("divide by 100",)),
    ],
)
def test_faults_name_what_was_got_and_the_mend(name, units, low, high, words):
    message = units_fault(VARIABLES[name], units, low, high)
    assert message.startswith(f"{name}: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("name", "units"), [("temperature", "K"), ("temperature", None)])
def test_good_values_have_no_fault(name, units):
    assert units_fault(VARIABLES[name], units, 180.0, 320.0) is None


def test_standard_atmosphere():
    assert standard_height(500) == pytest.approx(5574, abs=3)
    assert standard_height(100) == pytest.approx(16180, abs=30)


def test_geopotential_given_as_height_is_recognised_by_its_mean():
    assert "multiply by 9.80665" in height_fault("geopotential", 5600.0, 500)
    assert height_fault("geopotential", 5600.0 * 9.8, 500) is None
    assert height_fault("geopotential", 110.0, 1000) is None


@pytest.mark.parametrize(
    ("name", "units", "expected"),
    [
        ("temperature", "K", (1.0, 0.0)),
        ("2m_dewpoint_temperature", "degC", (1.0, 273.15)),
        ("geopotential", "m", (9.80665, 0.0)),
        ("mean_sea_level_pressure", "hPa", (100.0, 0.0)),
        ("total_precipitation", "mm", (0.001, 0.0)),
        ("total_precipitation", "kg/m**2", (0.001, 0.0)),
        ("relative_humidity", "%", (0.01, 0.0)),
        ("snow_depth", "m of water equivalent", (1.0, 0.0)),
        ("total_column_water_vapour", "mm", (1.0, 0.0)),
        ("total_column_water_vapour", "kg m-2", (1.0, 0.0)),
        ("soil_type", "~", (1.0, 0.0)),
        ("vorticity", "1/s", (1.0, 0.0)),
    ],
)
def test_conversions(name, units, expected):
    assert conversion(units, VARIABLES[name]) == expected


@pytest.mark.parametrize(("name", "units"), [("temperature", "furlong"), ("vorticity", "m s-1")])
def test_units_that_cannot_be_converted_are_refused(name, units):
    with pytest.raises(InputError, match=f"^{name}: cannot convert '{units}' to "):
        conversion(units, VARIABLES[name])


def test_units_without_conversions_are_judged_by_their_range():
    assert "expected 's**-1'" in units_fault(VARIABLES["vorticity"], "m s-1", -1e-4, 1e-4)
    assert "expected -0.02 to 0.02" in units_fault(VARIABLES["vorticity"], None, -10.0, 10.0)
