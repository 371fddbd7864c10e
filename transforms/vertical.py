"""Between vertical coordinates: model levels (sigma, hybrid) to pressure levels and mean sea level, pressure to pressure.

Arrays may be NumPy's or those of any library that follows the array API standard (JAX inside `jit`); the result is of
the same kind. Shapes are (..., level, latitude, longitude), model level 0 uppermost, surface fields (..., latitude,
longitude). Air is dry: give virtual temperature where moisture matters.

Inside the column everything is linear in ln(pressure) between levels and geopotential is the exact hydrostatic integral
of that temperature. From the lowest level to the ground, and below the ground, temperature follows the standard lapse
rate; above the uppermost level it is constant. Over warm high ground the lapse rate is lowered so that sea level stays
below 290.5 K, as at ECMWF (IFS documentation, part VI: FULL-POS, after Trenberth et al. 1993, NCAR/TN-396+STR).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.errors import InputError

__all__ = [
    "GAS_CONSTANT",
    "GRAVITY",
    "LAPSE_RATE",
    "HybridLevels",
    "between_pressure_levels",
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

_SURFACE_PRESSURES = (45_000.0, 112_000.0)
"""Pa; hybrid levels must be in order over all ground and weather between these."""

Array = Any


@dataclass(frozen=True, eq=False)
class HybridLevels:
    """Model levels whose pressure is a + b * surface pressure, from the top downwards.

    Attributes:
        a: Pa, shape (level,); 0 for sigma levels.
        b: shape (level,).

    Raises:
        InputError: fewer than two levels, or pressures that are not positive and increasing.
    """

    a: np.ndarray
    b: np.ndarray

    def __post_init__(self) -> None:
        a, b = np.asarray(self.a, dtype=np.float64), np.asarray(self.b, dtype=np.float64)
        object.__setattr__(self, "a", a)
        object.__setattr__(self, "b", b)
        if a.ndim != 1 or a.size < 2 or a.shape != b.shape:
            raise InputError(
                f"hybrid levels: expected a and b of at least two levels, got shapes {a.shape}, {b.shape}."
            )
        for surface in _SURFACE_PRESSURES:
            pressure = a + b * surface
            if not (np.diff(pressure) > 0).all() or pressure[0] <= 0 or pressure[-1] > surface * (1 + 1e-6):
                raise InputError(
                    f"hybrid levels: over a surface pressure of {surface:g} Pa, expected increasing pressures above 0 and "
                    f"not below the ground, got {pressure[0]:g} ... {pressure[-1]:g} Pa. Order levels from the top, "
                    "with a in Pa."
                )


def between_pressure_levels(field: Array, source: Sequence[float], levels: Sequence[float]) -> Array:
    """Return `field` on other pressure levels, linear in ln(pressure); a level that the source has is copied.

    Args:
        field: (..., source level, latitude, longitude).
        source: hPa, in any order.
        levels: hPa, within the range of `source`.

    Returns:
        (..., level, latitude, longitude), of the field's type.

    Raises:
        InputError: a level lies outside the source's range, or the source has fewer than two levels.
    """
    pressure = np.asarray(source, dtype=np.float64)
    order = np.argsort(pressure)
    pressure = pressure[order]
    if pressure.size == 0 or pressure[0] <= 0 or (np.diff(pressure) <= 0).any():
        raise InputError(f"level: expected different pressures in hPa, got {list(source)}.")
    beyond = [level for level in levels if not pressure[0] <= level <= pressure[-1]]
    if beyond:
        raise InputError(
            f"level {beyond[0]:g} hPa is outside the source's range, {pressure[0]:g} to {pressure[-1]:g} hPa. Values are "
            "not extrapolated: remove it from the levels, or choose another source."
        )
    rows = []
    for level in levels:
        below = int(np.searchsorted(pressure, level))
        result = field[..., int(order[below]), :, :]
        if pressure[below] != level:
            share = math.log(pressure[below] / level) / math.log(pressure[below] / pressure[below - 1])
            result = result + share * (field[..., int(order[below - 1]), :, :] - result)
        rows.append(result)
    return field.__array_namespace__().stack(rows, axis=-3)


def interpolate(
    field: Array, surface_pressure: Array, column: Sequence[float] | Array | HybridLevels, levels: Sequence[float]
) -> Array:
    """Return `field` on pressure levels, linear in ln(pressure), constant above the top and below the lowest level.

    Args:
        field: (..., model level, latitude, longitude).
        surface_pressure: Pa, (..., latitude, longitude).
        column: the model levels; of sigma levels pressure over surface pressure, increasing, is enough.
        levels: hPa.

    Returns:
        (..., level, latitude, longitude).
    """
    logarithm, xp = _columns(surface_pressure, column, levels)
    height = xp.log(_pascals(xp, levels, surface_pressure)) - xp.log(surface_pressure)[..., None, :, :]
    result = field[..., :1, :, :]
    for upper, fraction in _fractions(xp, height, logarithm):
        result = result + fraction * _difference(field, upper)
    return result


def temperature_and_geopotential(
    temperature: Array,
    surface_pressure: Array,
    surface_geopotential: Array,
    column: Sequence[float] | Array | HybridLevels,
    levels: Sequence[float],
) -> tuple[Array, Array]:
    """Return temperature (K) and geopotential (m2 s-2) on pressure levels, in hydrostatic balance with each other.

    Args:
        temperature: K, (..., model level, latitude, longitude).
        surface_pressure: Pa, (..., latitude, longitude).
        surface_geopotential: m2 s-2, (latitude, longitude) or with leading axes.
        column: the model levels; of sigma levels pressure over surface pressure, increasing, is enough.
        levels: hPa.

    Returns:
        Two arrays, (..., level, latitude, longitude).
    """
    logarithm, xp = _columns(surface_pressure, column, levels)
    height = xp.log(_pascals(xp, levels, surface_pressure)) - xp.log(surface_pressure)[..., None, :, :]
    ground = surface_geopotential[..., None, :, :]
    ground_temperature = _ground_temperature(xp, temperature, logarithm[-1])

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
    temperature: Array,
    surface_pressure: Array,
    surface_geopotential: Array,
    column: Sequence[float] | Array | HybridLevels,
) -> Array:
    """Return the pressure (Pa) at mean sea level, (..., latitude, longitude).

    Args:
        temperature: K, (..., model level, latitude, longitude); only the lowest level counts.
        surface_pressure: Pa, (..., latitude, longitude).
        surface_geopotential: m2 s-2, (latitude, longitude) or with leading axes.
        column: the model levels; of sigma levels pressure over surface pressure, increasing, is enough.
    """
    logarithm, xp = _columns(surface_pressure, column, (1000.0,))
    surface = _ground_temperature(xp, temperature, logarithm[-1])[..., 0, :, :]
    exponent = _underground_exponent(xp, surface, surface_geopotential)
    warm = (surface > _WARM) & (surface_geopotential > 0)
    surface = xp.where(warm, 0.5 * (surface + _WARM), xp.where(surface < _COLD, 0.5 * (surface + _COLD), surface))
    ratio = surface_geopotential / (GAS_CONSTANT * surface)
    lapse = exponent * ratio
    small = xp.abs(lapse) < 1e-3
    factor = xp.where(small, 1.0 - 0.5 * lapse, xp.log1p(lapse) / xp.where(small, 1.0, lapse))
    return surface_pressure * xp.exp(ratio * factor)


def _columns(
    surface_pressure: Array, column: Sequence[float] | Array | HybridLevels, levels: Sequence[float]
) -> tuple[list[float | Array], Any]:
    """Return ln(pressure / surface pressure) of each model level, a number or (..., 1, latitude, longitude)."""
    if not all(level > 0 for level in levels):
        raise InputError(f"levels: expected pressures in hPa, got {list(levels)}.")
    xp = surface_pressure.__array_namespace__()
    if isinstance(column, HybridLevels):
        inverse = 1.0 / surface_pressure[..., None, :, :]
        pairs = zip(column.a.tolist(), column.b.tolist(), strict=True)
        return [xp.log(a * inverse + b) if a else math.log(b) for a, b in pairs], xp
    sigma = np.asarray(column, dtype=np.float64)
    if sigma.ndim != 1 or sigma.size < 2 or not (np.diff(sigma) > 0).all() or not 0 < sigma[0] <= sigma[-1] <= 1:
        raise InputError(f"sigma: expected at least two increasing values in (0, 1], got {sigma.tolist()}.")
    return [math.log(value) for value in sigma], xp


def _pascals(xp: Any, levels: Sequence[float], like: Array) -> Array:
    return xp.asarray([100.0 * level for level in levels], dtype=like.dtype)[:, None, None]


def _fractions(xp: Any, height: Array, logarithm: list[float | Array]) -> list[tuple[int, Array]]:
    """Return for each layer the index of its upper level and how far down it each target lies, within [0, 1].

    Adding up clipped fractions needs neither a search nor a gather, so it is fast on every device.
    """
    layers = range(len(logarithm) - 1)
    return [(k, xp.clip((height - logarithm[k]) / (logarithm[k + 1] - logarithm[k]), 0.0, 1.0)) for k in layers]


def _difference(field: Array, upper: int) -> Array:
    return field[..., upper + 1 : upper + 2, :, :] - field[..., upper : upper + 1, :, :]


def _ground_temperature(xp: Any, temperature: Array, lowest: float | Array) -> Array:
    """Return the air temperature at the ground, (..., 1, latitude, longitude)."""
    exponent = -_EXPONENT * lowest
    return temperature[..., -1:, :, :] * (math.exp(exponent) if isinstance(exponent, float) else xp.exp(exponent))


def _underground_exponent(xp: Any, surface: Array, geopotential: Array) -> Array:
    """Return R / g times the lapse rate below the ground, lowered so that sea level is not above 290.5 K."""
    warming = LAPSE_RATE / GRAVITY * geopotential
    allowed = xp.clip((_WARM - surface) / xp.clip(warming, 1e-3, None), 0.0, 1.0)
    return _EXPONENT * xp.where(warming > 1e-3, allowed, 1.0)


def _integral(exponent: Array | float, height: Array | float) -> Array | float:
    """Return (exp(exponent * height) - 1) / exponent, by its series since the exponent may vanish."""
    z = exponent * height
    return height * (1.0 + z / 2 * (1.0 + z / 3 * (1.0 + z / 4 * (1.0 + z / 5))))
