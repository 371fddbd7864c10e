"""The variables Spherecast knows: names, units, plausible ranges, and which of them form a wind vector.

Names and units are those of ARCO-ERA5 and WeatherBench 2. A new variable is one line in the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transforms.errors import InputError

__all__ = ["ALIASES", "VARIABLES", "Variable", "channel_names", "known", "wind_pairs"]


@dataclass(frozen=True)
class Variable:
    """One physical field.

    Attributes:
        name: ARCO-ERA5 name, e.g. ``geopotential``.
        kind: ``pressure`` (has a level axis), ``surface`` (has time only) or ``static`` (no time axis).
        units: units the pipeline works in, in ERA5's spelling.
        minimum, maximum: bounds a global field must stay within; values beyond mean wrong units or broken data.
        partner: the other component, where the variable is one component of a tangent vector.
        aliases: other names the same field goes by in ECMWF, CF and GRIB files.
    """

    name: str
    kind: str
    units: str
    minimum: float
    maximum: float
    partner: str | None = None
    aliases: tuple[str, ...] = ()


# Ranges are generous physical bounds on a single value anywhere between the surface and 1 hPa.
_TABLE = (
    Variable("geopotential", "pressure", "m**2 s**-2", -12_000.0, 600_000.0, aliases=("z",)),
    Variable("temperature", "pressure", "K", 130.0, 350.0, aliases=("t",)),
    Variable("u_component_of_wind", "pressure", "m s**-1", -250.0, 250.0, "v_component_of_wind", ("u",)),
    Variable("v_component_of_wind", "pressure", "m s**-1", -250.0, 250.0, "u_component_of_wind", ("v",)),
    Variable("specific_humidity", "pressure", "kg kg**-1", -1e-3, 0.06, aliases=("q",)),
    Variable("vertical_velocity", "pressure", "Pa s**-1", -60.0, 60.0, aliases=("w",)),
    Variable("2m_temperature", "surface", "K", 150.0, 345.0, aliases=("t2m", "2t")),
    Variable("10m_u_component_of_wind", "surface", "m s**-1", -120.0, 120.0, "10m_v_component_of_wind", ("u10", "10u")),
    Variable("10m_v_component_of_wind", "surface", "m s**-1", -120.0, 120.0, "10m_u_component_of_wind", ("v10", "10v")),
    Variable("mean_sea_level_pressure", "surface", "Pa", 85_000.0, 112_000.0, aliases=("msl",)),
    Variable("surface_pressure", "surface", "Pa", 40_000.0, 112_000.0, aliases=("sp",)),
    Variable("total_precipitation_6hr", "surface", "m", -1e-4, 1.5),
    Variable("total_precipitation", "surface", "m", -1e-4, 1.5, aliases=("tp",)),
    Variable("sea_surface_temperature", "surface", "K", 265.0, 315.0, aliases=("sst",)),
    Variable("geopotential_at_surface", "static", "m**2 s**-2", -6_000.0, 90_000.0, aliases=("orography",)),
    Variable("land_sea_mask", "static", "1", -1e-3, 1.001, aliases=("lsm",)),
)

VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _TABLE}
ALIASES: dict[str, str] = {alias: variable.name for variable in _TABLE for alias in variable.aliases}


def known(name: str) -> Variable:
    """Return the entry of `name`.

    Raises:
        InputError: the name is not in the table.
    """
    if name not in VARIABLES:
        raise InputError(f"variable {name!r} is not known; known are {', '.join(VARIABLES)}.")
    return VARIABLES[name]


def wind_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the (eastward, northward) pairs among `names`, in the order of their eastward components.

    Raises:
        InputError: one component of a pair is named without the other, so the vector cannot be rotated or regridded.
    """
    names = list(names)
    pairs = []
    for name in names:
        partner = VARIABLES[name].partner if name in VARIABLES else None
        if partner is None:
            continue
        if partner not in names:
            raise InputError(
                f"{name}: its partner {partner} is missing; winds are one vector, so name both or neither."
            )
        if "u_component" in name:
            pairs.append((name, partner))
    return pairs


def channel_names(variables: Iterable[str], levels: Iterable[int]) -> list[tuple[str, int | None]]:
    """Return (variable, level) of every two-dimensional field, surface fields having level None."""
    levels = list(levels)
    return [(name, level) for name in variables for level in (levels if known(name).kind == "pressure" else [None])]
