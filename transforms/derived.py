"""Variables computed from others: what each needs, and its formula.

Each is one function and one entry of the registry. Where a variable can be made of several things it has several
recipes, the preferred first. Functions take and give NumPy arrays; float32 is computed in float64 where it would lose
digits. How they meet data that are read in blocks is the matter of `pipeline.sources.derive`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from transforms.variables import thickness_levels

__all__ = [
    "DERIVED",
    "Accumulation",
    "Recipe",
    "WindDerivatives",
    "divergence",
    "levels_of",
    "maximum_over",
    "recipes",
    "relative_humidity",
    "relative_humidity_from_dewpoint",
    "saturation_vapour_pressure",
    "specific_humidity_from_dewpoint",
    "thickness",
    "total_over",
    "vorticity",
    "wind_speed",
]

GAS_CONSTANT_RATIO = 287.0597 / 461.5250
"""Of dry air to water vapour (IFS documentation CY41R2, part IV, chapter 12)."""

# Tetens' formula as in the IFS: Buck (1981) over water; the AERKi formula of Alduchov and Eskridge (1996) over ice.
_AT_TRIPLE_POINT = 611.21
_TRIPLE_POINT = 273.16
_WATER = (17.502, 32.19)
_ICE = (22.587, -0.7)
_ALL_ICE = 250.16


class WindDerivatives(Protocol):
    """Derivatives of tangent vectors on the sphere; u and v are (..., latitude, longitude) in m s-1, results in s-1."""

    def vorticity(self, u: np.ndarray, v: np.ndarray) -> np.ndarray: ...

    def divergence(self, u: np.ndarray, v: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Accumulation:
    """A sum or maximum over time.

    Attributes:
        hours: what one value of the input accumulates over, up to its time, or stands for.
        count: how many of them, `hours` apart, make up one value of the result.
    """

    hours: int
    count: int


@dataclass(frozen=True)
class Recipe:
    """One way to compute a variable.

    Attributes:
        inputs: variables it is made of.
        compute: function of arrays of the inputs, in this order, and then of what the next attributes name. All have
            the axes (level, latitude, longitude) or (latitude, longitude), with any in front.
        takes_pressure: the pressure of the levels comes last, Pa, (level, 1, 1).
        takes_derivatives: `WindDerivatives` on the grid come last; a field with missing values is wholly missing.
        levels: hPa, the levels that the inputs are given on, where the result has no level axis.
        accumulation: the sum or maximum over time, where there is one; then `compute` is `total_over` or `maximum_over`,
            and time is the first axis.
    """

    inputs: tuple[str, ...]
    compute: Callable[..., np.ndarray]
    takes_pressure: bool = False
    takes_derivatives: bool = False
    levels: tuple[int, ...] = ()
    accumulation: Accumulation | None = None


def recipes(name: str) -> tuple[Recipe, ...]:
    """Return the ways to compute a variable, the preferred first; none where it is not a derived one."""
    levels = thickness_levels(name)
    if levels is not None:
        return (Recipe(("geopotential",), thickness, levels=levels),)
    return _RECIPES.get(name, ())


def levels_of(name: str) -> tuple[int, ...]:
    """Return the pressure levels, hPa, that a derived variable without levels is made of; none for others."""
    return next((recipe.levels for recipe in recipes(name)), ())


def wind_speed(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the length of the wind vector, sqrt(u**2 + v**2), m s-1."""
    return np.sqrt(u * u + v * v)


def vorticity(u: np.ndarray, v: np.ndarray, derivatives: WindDerivatives) -> np.ndarray:
    """Return the relative vorticity k . curl (u, v) from u, v in m s-1, s-1; positive anticlockwise seen from above.

    By spherical harmonics: Temperton (1991), Mon. Wea. Rev. 119, as in the IFS, so metric terms and poles are exact.
    """
    return derivatives.vorticity(u, v)


def divergence(u: np.ndarray, v: np.ndarray, derivatives: WindDerivatives) -> np.ndarray:
    """Return the horizontal divergence of u, v in m s-1, s-1, by spherical harmonics; see `vorticity`."""
    return derivatives.divergence(u, v)


def saturation_vapour_pressure(temperature: np.ndarray, over: str = "mixed") -> np.ndarray:
    """Return the saturation vapour pressure, Pa, in float64.

    Tetens' formula e = 611.21 exp(a (T - 273.16) / (T - b)), IFS documentation CY41R2, part IV, equation 7.5. The mixed
    phase (ibid., chapter 12) is water above 273.16 K and ice below 250.16 K; between, the share of water is the square of
    (T - 250.16) / 23.

    Args:
        temperature: K.
        over: ``water``, ``ice`` or ``mixed``.
    """
    if over not in ("water", "ice", "mixed"):
        raise ValueError(f"over: got {over!r}, expected 'water', 'ice' or 'mixed'")
    temperature = np.asarray(temperature, dtype=np.float64)
    if over != "mixed":
        return _tetens(temperature, *(_WATER if over == "water" else _ICE))
    share = np.clip((temperature - _ALL_ICE) / (_TRIPLE_POINT - _ALL_ICE), 0.0, 1.0) ** 2
    ice = _tetens(temperature, *_ICE)
    return ice + share * (_tetens(temperature, *_WATER) - ice)


def relative_humidity(specific_humidity: np.ndarray, temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Return vapour pressure over saturation vapour pressure of the mixed phase, 1 at saturation.

    e = p q / (r + (1 - r) q) with r the ratio of gas constants, IFS documentation CY41R2, part IV, equation 7.4: the
    definition of ERA5's relative humidity, which is 100 times this. WeatherBench 2 derives its own over water only.

    Args:
        specific_humidity: kg kg-1.
        temperature: K.
        pressure: Pa.
    """
    humidity = np.asarray(specific_humidity, dtype=np.float64)
    vapour = pressure * humidity / (GAS_CONSTANT_RATIO + (1.0 - GAS_CONSTANT_RATIO) * humidity)
    return vapour / saturation_vapour_pressure(temperature)


def relative_humidity_from_dewpoint(temperature: np.ndarray, dewpoint: np.ndarray) -> np.ndarray:
    """Return e(dewpoint) / e(temperature) from temperatures in K, both over water, 1 at saturation.

    ERA5 data documentation, "Computation of near-surface humidity": its 2 m dewpoint is that over water.
    """
    return saturation_vapour_pressure(dewpoint, "water") / saturation_vapour_pressure(temperature, "water")


def specific_humidity_from_dewpoint(dewpoint: np.ndarray, surface_pressure: np.ndarray) -> np.ndarray:
    """Return r e / (p - (1 - r) e), kg kg-1, with e over water at the dewpoint and r the ratio of gas constants.

    IFS documentation CY41R2, part IV, equation 7.4, which ERA5's documentation gives for 2 m.

    Args:
        dewpoint: K.
        surface_pressure: Pa.
    """
    vapour = saturation_vapour_pressure(dewpoint, "water")
    return GAS_CONSTANT_RATIO * vapour / (surface_pressure - (1.0 - GAS_CONSTANT_RATIO) * vapour)


def thickness(geopotential: np.ndarray) -> np.ndarray:
    """Return how much geopotential, m2 s-2, lies between an upper level and a lower one, given in this order.

    Args:
        geopotential: (..., level, latitude, longitude), two levels.

    Returns:
        (..., latitude, longitude). By the hypsometric equation it is R ln(p_low / p_up) times the layer's mean virtual
        temperature (Wallace and Hobbs 2006, equation 3.24).
    """
    return geopotential[..., 0, :, :] - geopotential[..., 1, :, :]


def total_over(amount: np.ndarray, count: int, stride: int = 1) -> np.ndarray:
    """Return the sum of the last `count` amounts up to each time, every `stride`-th one; NaN before there are so many.

    ERA5's amounts are those of the hour that ends at their time, so a sum of 6 is what fell in the 6 hours up to that
    time: ``total_precipitation_6hr`` of WeatherBench 2.

    Args:
        amount: (time, ...).

    Returns:
        (time, ...) in float64, summed from the last amount to the first. Sums do not depend on what lies outside them.
    """
    amount = np.asarray(amount, dtype=np.float64)
    reach = (count - 1) * stride
    total = np.full_like(amount, np.nan)
    if amount.shape[0] > reach:
        total[reach:] = amount[reach:]
        for back in range(stride, reach + 1, stride):
            total[reach:] += amount[reach - back : amount.shape[0] - back]
    return total


def maximum_over(values: np.ndarray, count: int, stride: int = 1) -> np.ndarray:
    """Return the largest of the last `count` values up to each time, every `stride`-th one; NaN before there are so many.

    Args:
        values: (time, ...).

    Returns:
        (time, ...) in the dtype given; NaN where one of the values is.
    """
    values = np.asarray(values)
    reach = (count - 1) * stride
    largest = np.full_like(values, np.nan)
    if values.shape[0] > reach:
        largest[reach:] = values[reach:]
        for back in range(stride, reach + 1, stride):
            np.maximum(largest[reach:], values[reach - back : values.shape[0] - back], out=largest[reach:])
    return largest


def _tetens(temperature: np.ndarray, slope: float, pole: float) -> np.ndarray:
    return _AT_TRIPLE_POINT * np.exp(slope * (temperature - _TRIPLE_POINT) / (temperature - pole))


def _sums(hours: int) -> tuple[Recipe, ...]:
    """Precipitation of so many hours, from sums as long as there are."""
    parts = [(f"total_precipitation_{part}hr", part) for part in (12, 6) if part < hours and hours % part == 0]
    return tuple(
        Recipe((name,), total_over, accumulation=Accumulation(part, hours // part))
        for name, part in (("total_precipitation", 1), *parts)
    )


def _maxima(name: str, hours: int) -> tuple[Recipe, ...]:
    """The maximum of so many hours, from values at all the hours a source has: the first that its step divides."""
    parts = [part for part in range(1, hours) if hours % part == 0]
    return tuple(Recipe((name,), maximum_over, accumulation=Accumulation(part, hours // part)) for part in parts)


_WIND = ("u_component_of_wind", "v_component_of_wind")

_RECIPES: dict[str, tuple[Recipe, ...]] = {
    "wind_speed": (Recipe(_WIND, wind_speed),),
    "10m_wind_speed": (Recipe(tuple(f"10m_{name}" for name in _WIND), wind_speed),),
    "100m_wind_speed": (Recipe(tuple(f"100m_{name}" for name in _WIND), wind_speed),),
    "vorticity": (Recipe(_WIND, vorticity, takes_derivatives=True),),
    "divergence": (Recipe(_WIND, divergence, takes_derivatives=True),),
    "relative_humidity": (Recipe(("specific_humidity", "temperature"), relative_humidity, takes_pressure=True),),
    "2m_relative_humidity": (Recipe(("2m_temperature", "2m_dewpoint_temperature"), relative_humidity_from_dewpoint),),
    "2m_specific_humidity": (Recipe(("2m_dewpoint_temperature", "surface_pressure"), specific_humidity_from_dewpoint),),
    "total_precipitation_6hr": _sums(6),
    "total_precipitation_12hr": _sums(12),
    "total_precipitation_24hr": _sums(24),
    "maximum_2m_temperature_24hr": _maxima("2m_temperature", 24),
}

DERIVED = tuple(_RECIPES)
"""Names of derived variables, but for those that carry levels."""
