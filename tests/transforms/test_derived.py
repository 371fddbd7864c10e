"""Formulae of derived variables against closed forms and published values."""

from __future__ import annotations

import numpy as np
import pytest

from transforms import derived
from transforms.errors import InputError
from transforms.variables import VARIABLES, known, thickness_levels


def test_wind_speed():
    assert derived.wind_speed(np.float32([3, -5]), np.float32([4, 12])).tolist() == [5, 13]


@pytest.mark.parametrize(
    ("celsius", "over", "pascals"),
    [
        # Smithsonian Meteorological Tables, sixth edition, tables 94 and 96.
        (-20, "water", 125.40),
        (0, "water", 610.78),
        (20, "water", 2337.3),
        (40, "water", 7377.7),
        (-40, "ice", 12.83),
        (-20, "ice", 103.2),
        (0, "ice", 610.7),
    ],
)
def test_saturation_vapour_pressure_agrees_with_tables(celsius, over, pascals):
    assert derived.saturation_vapour_pressure(273.15 + celsius, over) == pytest.approx(pascals, rel=5e-3)


def test_phases_of_saturation_meet_where_they_should():
    temperature = np.array([200.0, 250.16, 261.66, 273.16, 300.0])
    water, ice, mixed = (derived.saturation_vapour_pressure(temperature, over) for over in ("water", "ice", "mixed"))
    assert mixed[3] == water[3] == ice[3] == 611.21
    np.testing.assert_array_equal(mixed[:2], ice[:2])
    np.testing.assert_allclose(mixed[3:], water[3:], rtol=1e-15)
    assert mixed[2] == pytest.approx(0.25 * water[2] + 0.75 * ice[2])


def test_relative_humidity_is_one_for_saturated_air():
    temperature, pressure = np.array([230.0, 265.0, 295.0]), 70_000.0
    vapour = derived.saturation_vapour_pressure(temperature)
    ratio = 0.621981
    humidity = ratio * vapour / (pressure - (1 - ratio) * vapour)
    np.testing.assert_allclose(derived.relative_humidity(humidity, temperature, pressure), 1.0, rtol=1e-5)
    assert derived.relative_humidity(np.array([0.0]), temperature[:1], pressure) == [0.0]


def test_humidity_at_two_metres():
    temperature, dewpoint = np.array([293.15, 293.15]), np.array([293.15, 283.15])
    np.testing.assert_allclose(derived.relative_humidity_from_dewpoint(temperature, dewpoint), [1.0, 0.525], rtol=2e-3)
    # 12.27 hPa of vapour at a dewpoint of 10 degrees Celsius.
    assert derived.specific_humidity_from_dewpoint(dewpoint[1:], 101_325.0) == pytest.approx(7.57e-3, rel=2e-3)


def test_both_humidities_at_two_metres_agree_above_freezing():
    temperature, dewpoint, pressure = np.array([290.0]), np.array([281.0]), 98_000.0
    humidity = derived.specific_humidity_from_dewpoint(dewpoint, pressure)
    expected = derived.relative_humidity_from_dewpoint(temperature, dewpoint)
    np.testing.assert_allclose(derived.relative_humidity(humidity, temperature, pressure), expected, rtol=1e-12)


def test_thickness_of_an_isothermal_atmosphere():
    pressure = np.array([500.0, 1000.0])
    geopotential = -287.06 * 260.0 * np.log(pressure / 1013.25)[:, None, None] * np.ones((1, 2, 3))
    np.testing.assert_allclose(derived.thickness(geopotential), 287.06 * 260.0 * np.log(2.0), rtol=1e-12)


def test_totals_are_of_the_last_amounts_and_of_no_others():
    amount = np.arange(1.0, 11.0)
    np.testing.assert_array_equal(derived.total_over(amount, 3), [np.nan, np.nan, 6, 9, 12, 15, 18, 21, 24, 27])
    np.testing.assert_array_equal(derived.total_over(amount, 2, 4), [np.nan] * 4 + [6, 8, 10, 12, 14, 16])
    np.testing.assert_array_equal(derived.total_over(amount[:2], 3), [np.nan, np.nan])
    amount[4] = np.nan
    assert np.flatnonzero(np.isnan(derived.total_over(amount, 3))).tolist() == [0, 1, 4, 5, 6]
    # A running sum would keep the rounding of what has left the window.
    assert derived.total_over(np.array([1e17, 1.0, 2.0, 3.0]), 2)[3] == 5.0


def test_maxima_are_of_the_last_values_and_of_no_others():
    values = np.array([3.0, 9.0, 1.0, 2.0, 8.0, 4.0, 5.0])
    np.testing.assert_array_equal(derived.maximum_over(values, 3), [np.nan, np.nan, 9, 9, 8, 8, 8])
    np.testing.assert_array_equal(derived.maximum_over(values, 2, 3), [np.nan] * 3 + [3, 9, 4, 5])
    np.testing.assert_array_equal(derived.maximum_over(values[:2], 3), [np.nan, np.nan])
    values[1] = np.nan
    assert np.flatnonzero(np.isnan(derived.maximum_over(values, 2))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", [*derived.DERIVED, "geopotential_thickness_500_1000"])
def test_recipes_use_known_variables(name):
    variable = known(name)
    assert derived.recipes(name)
    for recipe in derived.recipes(name):
        kinds = {known(part).kind for part in recipe.inputs}
        assert kinds == {"pressure"} if recipe.levels else kinds == {variable.kind}
        if recipe.accumulation is not None:
            assert recipe.compute in (derived.total_over, derived.maximum_over)


def test_names_of_thickness_carry_their_levels():
    assert thickness_levels("geopotential_thickness_500_1000") == (500, 1000)
    assert derived.levels_of("geopotential_thickness_500_1000") == (500, 1000)
    assert derived.levels_of("wind_speed") == ()
    variable = known("geopotential_thickness_500_1000")
    assert (variable.kind, variable.units) == ("surface", "m**2 s**-2")
    # 5100 to 5800 m are what maps show.
    assert variable.minimum < 9.80665 * 4700 < 9.80665 * 6000 < variable.maximum
    for wrong in ("geopotential_thickness_1000_500", "geopotential_thickness_500", "geopotential_thickness_0_500"):
        assert wrong not in VARIABLES
        with pytest.raises(InputError, match="geopotential_thickness_UPPER_LOWER"):
            known(wrong)


def test_the_table_of_variables_is_sound():
    aliases = [alias for variable in VARIABLES.values() for alias in variable.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(VARIABLES)
    for variable in VARIABLES.values():
        assert variable.minimum < variable.maximum
        assert variable.kind in ("pressure", "surface", "static")
        if variable.partner:
            assert known(variable.partner).partner == variable.name
