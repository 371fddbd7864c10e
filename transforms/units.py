"""Recognising wrong units: by what the source says, and by values that no atmosphere has."""

from __future__ import annotations

import math
import re

import numpy as np

from transforms.errors import InputError
from transforms.variables import Variable

__all__ = ["conversion", "height_fault", "same_units", "standard_height", "units_fault"]

GRAVITY = 9.80665
"""Standard gravity, m s**-2, by which ECMWF divides geopotential to get geopotential height."""

_SYNONYMS = {
    **dict.fromkeys(("meter", "metre", "meters", "metres"), "m"),
    **dict.fromkeys(("second", "seconds", "sec"), "s"),
    **dict.fromkeys(("kelvin", "degk", "deg_k", "degree_kelvin", "degrees_kelvin"), "K"),
    **dict.fromkeys(("pascal", "pascals"), "Pa"),
    **dict.fromkeys(("kilogram", "kilograms"), "kg"),
}
_NUMBER = frozenset(
    ("", "1", "0-1", "(0 - 1)", "(0-1)", "0 - 1", "fraction", "dimensionless", "proportion", "none", "~")
)

# House units: (other spellings, factor, offset); house value = factor * value + offset.
_CONVERSIONS: dict[str, list[tuple[tuple[str, ...], float, float]]] = {
    "K": [
        (("degc", "c", "celsius", "deg_c", "°c", "degree_celsius", "degrees_celsius", "degrees celsius"), 1.0, 273.15)
    ],
    "m**2 s**-2": [(("m", "gpm", "dynamic meter", "geopotential meter", "geopotential metre"), GRAVITY, 0.0)],
    "Pa": [(("hpa", "mb", "mbar", "millibar", "millibars"), 100.0, 0.0)],
    "kg kg**-1": [(("g/kg", "g kg**-1", "g kg-1"), 0.001, 0.0)],
    "m": [(("mm", "kg m**-2", "kg m-2", "kg/m2", "kg/m^2"), 0.001, 0.0), (("cm",), 0.01, 0.0)],
    "m s**-1": [(("knots", "knot", "kt", "kts"), 0.514444, 0.0), (("km/h", "km h-1", "km h**-1"), 1 / 3.6, 0.0)],
    "kg m**-2": [(("mm",), 1.0, 0.0), (("g/m2", "g m**-2", "g m-2"), 0.001, 0.0)],
    "Pa s**-1": [(("hpa/s", "hpa s-1", "hpa s**-1", "mb/s"), 100.0, 0.0)],
    "1": [(("%", "percent"), 0.01, 0.0)],
}
_NAMES = {273.15: "degrees Celsius", GRAVITY: "geopotential height in metres"}


def same_units(given: str, expected: str) -> bool:
    """Whether two spellings mean the same units, e.g. ``m2/s2`` and ``m**2 s**-2``."""
    return _parse(given) == _parse(expected)


def conversion(units: str, variable: Variable) -> tuple[float, float]:
    """Return (factor, offset) such that factor * value + offset is in the units of the variable.

    Args:
        units: what the values are in, e.g. ``degC`` for a temperature; (1, 0) where they are the variable's own.

    Raises:
        InputError: these units are none of the variable's.
    """
    found = _conversion(units, variable.units)
    if found is None:
        known = ", ".join(spellings[0] for spellings, _, _ in _CONVERSIONS.get(variable.units, ()))
        raise InputError(
            f"{variable.name}: cannot convert {units!r} to {variable.units!r}; "
            f"can convert {known or 'nothing else'}. Correct the units, or convert the source."
        )
    return found


def units_fault(variable: Variable, units: str | None, low: float, high: float) -> str | None:
    """Say what is wrong with the units or the values of a variable, or None.

    Args:
        units: its units attribute, or None where it has none; then only the values speak.
        low, high: smallest and largest value, NaN where unknown.
    """
    expected = variable.units
    seen = f"values from {low:.6g} to {high:.6g}"
    if units is not None and not same_units(units, expected):
        if (found := _conversion(units, expected)) is not None:
            return (
                f"{variable.name}: units are {units!r}{_called(*found)}, expected {expected!r} ({seen}). "
                f"Convert the source: {_recipe(*found)}."
            )
        return (
            f"{variable.name}: units are {units!r}, expected {expected!r} ({seen}). "
            "Convert the source, or correct its units attribute."
        )
    if not (low < variable.minimum or high > variable.maximum):
        return None
    bounds = f"{variable.minimum:g} to {variable.maximum:g} {expected}"
    for _, factor, offset in _CONVERSIONS.get(expected, ()):
        if variable.minimum <= factor * low + offset and factor * high + offset <= variable.maximum:
            return (
                f"{variable.name}: {seen} look like other units{_called(factor, offset)}; expected {bounds}. "
                f"Convert the source: {_recipe(factor, offset)}."
            )
    return f"{variable.name}: {seen}; expected {bounds}. The units are wrong or the data are broken; mend the source."


def height_fault(name: str, mean: float, level: int) -> str | None:
    """Say so when the mean of geopotential on a pressure level is a height in metres, or None."""
    height = standard_height(level)
    if height < 1000.0 or not 0.5 < mean / height < 2.0:
        return None
    return (
        f"{name}: mean of {mean:.6g} at {level} hPa looks like geopotential height in metres (standard atmosphere "
        f"{height:.0f} m); expected about {GRAVITY * height:.0f} m**2 s**-2. Convert the source: multiply by {GRAVITY}."
    )


def standard_height(level: float) -> float:
    """Height of a pressure level, hPa, in the International Standard Atmosphere, m (below 20 km; isothermal above)."""
    if level > 226.32:
        return 44330.8 * (1.0 - (level / 1013.25) ** 0.190263)
    return 11_000.0 + 6341.62 * float(np.log(226.32 / level))


def _conversion(units: str, expected: str) -> tuple[float, float] | None:
    """Return (factor, offset) from units to house units, or None where no conversion is known."""
    if same_units(units, expected):
        return 1.0, 0.0
    for spellings, factor, offset in _CONVERSIONS.get(expected, ()):
        if units.strip().lower() in spellings or any(same_units(units, spelling) for spelling in spellings):
            return factor, offset
    return None


def _parse(units: str) -> dict[str, int] | str:
    """Exponent by base unit; the text itself where it is not a product of powers."""
    text = re.sub(r"\s+of water( equivalent)?$", "", units.strip())
    if text.lower() in _NUMBER:
        return {}
    text = text.replace("**", "").replace("^", "").replace("²", "2").replace("⁻", "-").replace("¹", "1")
    text = re.sub(r"^1\s*/", "/", text)
    tokens = re.findall(r"/|[A-Za-z_°%]+(?:[+-]?\d+)?", text)
    if re.sub(r"[\s*.·]", "", text) != "".join(tokens):
        return text
    exponents: dict[str, int] = {}
    sign = 1
    for token in tokens:
        if token == "/":
            sign = -1
            continue
        base, power = re.fullmatch(r"([A-Za-z_°%]+)([+-]?\d+)?", token).groups()  # type: ignore[union-attr]  # a token is of this form
        base = _SYNONYMS.get(base.lower(), base)
        exponents[base] = exponents.get(base, 0) + sign * int(power or 1)
        sign = 1
    return {base: power for base, power in exponents.items() if power}


def _called(factor: float, offset: float) -> str:
    name = _NAMES.get(offset or factor)
    return f" ({name})" if name else ""


def _recipe(factor: float, offset: float) -> str:
    if offset:
        return f"add {offset:g}"
    return f"divide by {1 / factor:g}" if factor < 1 and math.isclose(1 / factor % 1, 0) else f"multiply by {factor:g}"
