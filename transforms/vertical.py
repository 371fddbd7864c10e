"""From sigma levels to pressure levels, and to mean sea level.

Arrays may be NumPy's or those of any library that follows the array API standard (JAX inside `jit`); the result is of
the same kind. Shapes are (..., sigma, latitude, longitude), level 0 uppermost, surface fields (..., latitude,
longitude). Air is dry: give virtual temperature where moisture matters.

Inside the column everything is linear in ln(pressure) between levels and geopotential is the exact hydrostatic integral
of that temperature. From the lowest level to the ground, and below the ground, temperature follows the standard lapse
rate; above the uppermost level it is constant. Over warm high ground the lapse rate is lowered so that sea level stays
below 290.5 K, as at ECMWF (IFS documentation, part VI: FULL-POS, after Trenberth et al. 1993, NCAR/TN-396+STR).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from transforms.errors import InputError

__all__ = [
    "GAS_CONSTANT",
    "GRAVITY",
    "LAPSE_RATE",
    "interpolate",
    "mean_sea_level_pressure",
    "temperature_and_geopotential",
]

GAS_CONSTANT = 287.04
"""Of dry air, J kg-1 K-1."""
GRAVITY = 9.80665
"""m s-2."""
LAPSE_RATE = 0.0065
"""Standard, K m-1."""

_EXPONENT = GAS_CONSTANT * LAPSE_RATE / GRAVITY
_WARM, _COLD = 290.5, 255.0

Array = Any


def interpolate(field: Array, surface_pressure: Array, sigma: Sequence[float], levels: Sequence[float]) -> Array:
    """Return `field` on pressure levels, linear in ln(pressure), constant above the top and below the lowest level.

    Args:
        field: (..., sigma, latitude, longitude).
        surface_pressure: Pa, (..., latitude, longitude).
        sigma: pressure over surface pressure of the levels, increasing.
        levels: hPa.

    Returns:
        (..., level, latitude, longitude).
    """
    logarithm, xp = _columns(surface_pressure, sigma, levels)
    height = xp.log(_pascals(xp, levels, surface_pressure)) - xp.log(surface_pressure)[..., None, :, :]
    result = field[..., :1, :, :]
    for upper, fraction in _fractions(xp, height, logarithm):
        result = result + fraction * _difference(field, upper)
    return result


def temperature_and_geopotential(
    temperature: Array,
    surface_pressure: Array,
    surface_geopotential: Array,
    sigma: Sequence[float],
    levels: Sequence[float],
) -> tuple[Array, Array]:
    """Return temperature (K) and geopotential (m2 s-2) on pressure levels, in hydrostatic balance with each other.

    Args:
        temperature: K, (..., sigma, latitude, longitude).
        surface_pressure: Pa, (..., latitude, longitude).
        surface_geopotential: m2 s-2, (latitude, longitude) or with leading axes.
        sigma: pressure over surface pressure of the levels, increasing.
        levels: hPa.

    Returns:
        Two arrays, (..., level, latitude, longitude).
    """
    logarithm, xp = _columns(surface_pressure, sigma, levels)
    height = xp.log(_pascals(xp, levels, surface_pressure)) - xp.log(surface_pressure)[..., None, :, :]
    ground = surface_geopotential[..., None, :, :]
    ground_temperature = _ground_temperature(temperature, logarithm)

    result, integral = temperature[..., :1, :, :], xp.zeros_like(height)
    for upper, fraction in _fractions(xp, height, logarithm):
        change, depth = _difference(temperature, upper), logarithm[upper + 1] - logarithm[upper]
        result = result + fraction * change
        mean = temperature[..., upper : upper + 1, :, :] + 0.5 * change * fraction
        # What lies between the target and the lower end of this layer; nothing where the target is below it.
        below = temperature[..., upper : upper + 1, :, :] + 0.5 * change
        integral = integral + depth * (below - fraction * mean)
    above_top = xp.clip(logarithm[0] - height, 0.0, None) * temperature[..., :1, :, :]
    lowest = ground - GAS_CONSTANT * ground_temperature * _integral(_EXPONENT, logarithm[-1])
    geopotential = lowest + GAS_CONSTANT * (integral + above_top)

    exponent = xp.where(height > 0, _underground_exponent(xp, ground_temperature, ground), _EXPONENT)
    near = height > logarithm[-1]
    lapsed = ground_temperature * xp.exp(exponent * height)
    reached = ground - GAS_CONSTANT * ground_temperature * _integral(exponent, height)
    return xp.where(near, lapsed, result), xp.where(near, reached, geopotential)


def mean_sea_level_pressure(
    temperature: Array, surface_pressure: Array, surface_geopotential: Array, sigma: Sequence[float]
) -> Array:
    """Return the pressure (Pa) at mean sea level, (..., latitude, longitude).

    Args:
        temperature: K, (..., sigma, latitude, longitude); only the lowest level counts.
        surface_pressure: Pa, (..., latitude, longitude).
        surface_geopotential: m2 s-2, (latitude, longitude) or with leading axes.
        sigma: pressure over surface pressure of the levels, increasing.
    """
    logarithm, xp = _columns(surface_pressure, sigma, (1000.0,))
    surface = _ground_temperature(temperature, logarithm)[..., 0, :, :]
    exponent = _underground_exponent(xp, surface, surface_geopotential)
    warm = (surface > _WARM) & (surface_geopotential > 0)
    surface = xp.where(warm, 0.5 * (surface + _WARM), xp.where(surface < _COLD, 0.5 * (surface + _COLD), surface))
    ratio = surface_geopotential / (GAS_CONSTANT * surface)
    lapse = exponent * ratio
    small = xp.abs(lapse) < 1e-3
    factor = xp.where(small, 1.0 - 0.5 * lapse, xp.log1p(lapse) / xp.where(small, 1.0, lapse))
    return surface_pressure * xp.exp(ratio * factor)


def _columns(surface_pressure: Array, sigma: Sequence[float], levels: Sequence[float]) -> tuple[list[float], Any]:
    sigma = np.asarray(sigma, dtype=np.float64)
    if sigma.ndim != 1 or sigma.size < 2 or not (np.diff(sigma) > 0).all() or not 0 < sigma[0] <= sigma[-1] <= 1:
        raise InputError(f"sigma: expected at least two increasing values in (0, 1], got {sigma.tolist()}.")
    if not all(level > 0 for level in levels):
        raise InputError(f"levels: expected pressures in hPa, got {list(levels)}.")
    return [math.log(value) for value in sigma], surface_pressure.__array_namespace__()


def _pascals(xp: Any, levels: Sequence[float], like: Array) -> Array:
    return xp.asarray([100.0 * level for level in levels], dtype=like.dtype)[:, None, None]


def _fractions(xp: Any, height: Array, logarithm: list[float]) -> list[tuple[int, Array]]:
    """Return for each layer the index of its upper level and how far down it each target lies, within [0, 1].

    Adding up clipped fractions needs neither a search nor a gather, so it is fast on every device.
    """
    layers = range(len(logarithm) - 1)
    return [(k, xp.clip((height - logarithm[k]) / (logarithm[k + 1] - logarithm[k]), 0.0, 1.0)) for k in layers]


def _difference(field: Array, upper: int) -> Array:
    return field[..., upper + 1 : upper + 2, :, :] - field[..., upper : upper + 1, :, :]


def _ground_temperature(temperature: Array, logarithm: list[float]) -> Array:
    """Return the air temperature at the ground, (..., 1, latitude, longitude)."""
    return temperature[..., -1:, :, :] * math.exp(-_EXPONENT * logarithm[-1])


def _underground_exponent(xp: Any, surface: Array, geopotential: Array) -> Array:
    """Return R / g times the lapse rate below the ground, lowered so that sea level is not above 290.5 K."""
    warming = LAPSE_RATE / GRAVITY * geopotential
    allowed = xp.clip((_WARM - surface) / xp.clip(warming, 1e-3, None), 0.0, 1.0)
    return _EXPONENT * xp.where(warming > 1e-3, allowed, 1.0)


def _integral(exponent: Array | float, height: Array | float) -> Array | float:
    """Return (exp(exponent * height) - 1) / exponent, by its series since the exponent may vanish."""
    z = exponent * height
    return height * (1.0 + z / 2 * (1.0 + z / 3 * (1.0 + z / 4 * (1.0 + z / 5))))
