"""Fields as a reader meets them: names, units, and the units weather maps are drawn in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transforms.metrics import vector_name
from transforms.variables import VARIABLES, wind_pairs

__all__ = ["Field", "calendar_day", "clock", "duration", "instant", "pretty_units"]

_SHORT = {
    "geopotential": "Z",
    "temperature": "T",
    "u_component_of_wind": "U",
    "v_component_of_wind": "V",
    "wind_vector": "Wind ",
    "specific_humidity": "Q",
    "vertical_velocity": "W",
    "2m_temperature": "T2M",
    "10m_u_component_of_wind": "U10",
    "10m_v_component_of_wind": "V10",
    "10m_wind_vector": "Wind 10 m",
    "mean_sea_level_pressure": "MSLP",
    "surface_pressure": "SP",
    "total_precipitation_6hr": "TP6h",
    "total_precipitation": "TP",
    "sea_surface_temperature": "SST",
}
_LONG = {
    "u_component_of_wind": "eastward wind",
    "v_component_of_wind": "northward wind",
    "wind_vector": "wind vector",
    "2m_temperature": "2 m temperature",
    "10m_u_component_of_wind": "10 m eastward wind",
    "10m_v_component_of_wind": "10 m northward wind",
    "10m_wind_vector": "10 m wind vector",
    "total_precipitation_6hr": "6-hourly precipitation",
}
_WIND = {vector_name(pair[0]): pair for pair in wind_pairs(VARIABLES)}
# Units of maps, by the units of the store: (factor, offset, units).
_MAP_UNITS = {
    "K": (1.0, -273.15, "°C"),
    "Pa": (0.01, 0.0, "hPa"),
    "kg kg**-1": (1000.0, 0.0, "g kg⁻¹"),
    "m": (1000.0, 0.0, "mm"),
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_GEOPOTENTIAL_METRE = 9.80665


@dataclass(frozen=True)
class Field:
    """One two-dimensional field: a variable, or a wind vector, on one level or at the surface.

    Attributes:
        variable: name in the metrics, e.g. ``geopotential`` or ``wind_vector``.
        level: hPa, None at the surface.
    """

    variable: str
    level: int | None = None

    @property
    def identifier(self) -> str:
        """``variable@level`` or ``variable``, as in ``report.headline``."""
        return self.variable if self.level is None else f"{self.variable}@{self.level}"

    @property
    def short(self) -> str:
        """Name of a chart or table row, e.g. Z500."""
        name = _SHORT.get(self.variable, self.variable.replace("_", " "))
        return name if self.level is None else f"{name}{self.level}"

    @property
    def group(self) -> str:
        """Name of the variable in words."""
        return _LONG.get(self.variable, self.variable.replace("_", " "))

    @property
    def label(self) -> str:
        """Name in words, e.g. 500 hPa geopotential."""
        return self.group if self.level is None else f"{self.level} hPa {self.group}"

    @property
    def components(self) -> tuple[str, str] | None:
        """Variables of the eastward and northward components, of a wind vector."""
        return _WIND.get(self.variable)

    @property
    def store_variables(self) -> tuple[str, ...]:
        """Variables of a store that make the field."""
        return self.components or (self.variable,)

    @property
    def units(self) -> str:
        """Units of its scores, which are those of the store."""
        known = VARIABLES.get(self.store_variables[0])
        return pretty_units(known.units) if known else ""

    @property
    def map_units(self) -> tuple[float, float, str]:
        """(factor, offset, units) that turn values of the store into those of a weather map."""
        if self.variable == "geopotential":
            return 0.1 / _GEOPOTENTIAL_METRE, 0.0, "dam"
        known = VARIABLES.get(self.store_variables[0])
        return _MAP_UNITS.get(known.units, (1.0, 0.0, pretty_units(known.units))) if known else (1.0, 0.0, "")


def pretty_units(units: str) -> str:
    """Return ``m**2 s**-2`` as ``m² s⁻²``."""
    base, *powers = units.split("**")
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    for power in powers:
        digits = power.split(" ")[0]
        base += digits.translate(raised) + power[len(digits) :]
    return base


def duration(hours: float) -> str:
    """Return a lead time in words: 18 hours, 1 day, 4.25 days."""
    if hours < 24:
        return f"{hours:g} hour" + ("" if hours == 1 else "s")
    return f"{hours / 24:g} day" + ("" if hours == 24 else "s")


def calendar_day(time: np.datetime64) -> str:
    """Return a time as 3 Jan 2001."""
    year, month, day = str(time.astype("datetime64[D]")).split("-")
    return f"{int(day)} {_MONTHS[int(month) - 1]} {year}"


def instant(time: np.datetime64) -> str:
    """Return a time as 3 Jan 2001 12 UTC."""
    hours, minutes = str(time.astype("datetime64[m]"))[11:].split(":")
    return f"{calendar_day(time)} {hours if minutes == '00' else f'{hours}:{minutes}'} UTC"


def clock(time: str) -> str:
    """Return a UTC time of ISO 8601 as tables show it, a dash for an empty one."""
    return time.replace("T", " ").removesuffix("Z") or "–"
