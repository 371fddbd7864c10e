"""Units told by their spelling and by their values."""

from __future__ import annotations

import pytest

from transforms.units import height_fault, same_units, standard_height, units_fault
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
