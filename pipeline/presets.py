"""What sources call things, and what is known of common kinds of them: names, units, access and time step, as data.

The configuration offers the names in `PRESETS`, so every command reads this table: it does without xarray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transforms.errors import InputError
from transforms.variables import ALIASES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PRESETS", "Preset", "axis_named", "canonical_names", "preset_named"]

_AXIS_ALIASES = {
    "latitude": ("lat", "latitudes", "y_lat"),
    "longitude": ("lon", "longitudes", "x_lon"),
    "level": (
        *("isobaricInhPa", "isobaricInPa", "pressure_level", "plev", "lev", "pressure", "isobaric"),
        *("hybrid", "model_level", "sigma"),
    ),
    "time": ("valid_time", "time_index", "datetime", "date"),
}
_ANONYMOUS = {"gs": {"token": "anon"}, "gcs": {"token": "anon"}}


@dataclass(frozen=True)
class Preset:
    """One kind of source.

    Attributes:
        rename: names in the source: names in Spherecast. Names that a source lacks are passed over.
        units: units of the values by Spherecast's name, where attributes do not tell.
        storage_options: passed to fsspec, by the protocol of the address.
        step_hours: time step of the source, None where it varies.
        standard_names: whether CF standard names give the variables theirs.
        convert: whether units attributes are followed where they are not the house's.
        example: an address of this kind.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    step_hours: int | None = None
    standard_names: bool = False
    convert: bool = False
    example: str = ""

    def options_for(self, path: str) -> dict[str, Any]:
        """Return the storage options for an address."""
        return dict(self.storage_options.get(path.partition("://")[0], {})) if "://" in path else {}

    def names_in(self, raw: xr.Dataset) -> dict[str, str]:
        """Return new names by the names in the source that the preset knows of."""
        names = {old: new for old, new in self.rename.items() if old in raw.variables or old in raw.dims}
        if self.standard_names:
            for name, variable in raw.data_vars.items():
                new = _by_standard_name(str(name), variable)
                if new and new not in names.values():
                    names.setdefault(str(name), new)
        return names


PRESETS: dict[str, Preset] = {
    # gs://weatherbench2/datasets/era5/: ERA5 names, levels in hPa, 6-hourly.
    "weatherbench2": Preset(
        storage_options=_ANONYMOUS,
        step_hours=6,
        example="gs://weatherbench2/datasets/era5/1959-2022-6h-64x32_equiangular_conservative.zarr",
    ),
    # Hourly, one time a chunk, its time axis longer than the data (see the attributes valid_time_start and _stop).
    "arco-era5": Preset(
        storage_options=_ANONYMOUS,
        step_hours=1,
        example="gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
    ),
    "cf": Preset(standard_names=True, convert=True),
}


def axis_named(name: str) -> str | None:
    """Return the axis of a field that goes by a name, as ``latitude`` by ``lat``; None for others."""
    if name in _AXIS_ALIASES:
        return name
    return next((axis for axis, aliases in _AXIS_ALIASES.items() if name in aliases), None)


def preset_named(name: str | None) -> Preset:
    """Return a preset; one that knows nothing for None.

    Raises:
        InputError: the name is not known.
    """
    if name is None:
        return Preset()
    if name not in PRESETS:
        raise InputError(f"source.preset: {name!r} is not known; known are {', '.join(PRESETS)}. Choose one or none.")
    return PRESETS[name]


def canonical_names(raw: xr.Dataset, rename: Mapping[str, str], preset: Preset) -> dict[str, str]:
    """Return new names by name in the source, of variables and axes: those given, the preset's, then known aliases."""
    names = {old: new for old, new in rename.items() if old in raw.variables or old in raw.dims}
    taken = {str(name) for name in (*raw.variables, *raw.dims)} | set(names.values())
    for old, new in preset.names_in(raw).items():
        if old not in names and new not in taken:
            names[old] = new
            taken.add(new)
    for name in map(str, raw.data_vars):
        alias = ALIASES.get(name)
        if alias and name not in names and alias not in taken:
            names[name] = alias
            taken.add(alias)
    for axis, aliases in _AXIS_ALIASES.items():
        present = [alias for alias in aliases if (alias in raw.dims or alias in raw.coords) and alias not in names]
        # An axis with entries goes before a scalar that says the same.
        present.sort(key=lambda alias: alias not in raw.dims)
        if axis not in taken and present:
            names[present[0]] = axis
    return names


_ON_LEVELS = {
    "air_temperature": "temperature",
    "eastward_wind": "u_component_of_wind",
    "northward_wind": "v_component_of_wind",
    "geopotential": "geopotential",
    "geopotential_height": "geopotential",
    "specific_humidity": "specific_humidity",
    "lagrangian_tendency_of_air_pressure": "vertical_velocity",
}
_AT_HEIGHT = {  # standard name: (height in m, name)
    "air_temperature": (2.0, "2m_temperature"),
    "eastward_wind": (10.0, "10m_u_component_of_wind"),
    "northward_wind": (10.0, "10m_v_component_of_wind"),
}
_ELSEWHERE = {
    "air_pressure_at_mean_sea_level": "mean_sea_level_pressure",
    "air_pressure_at_sea_level": "mean_sea_level_pressure",
    "surface_air_pressure": "surface_pressure",
    "sea_surface_temperature": "sea_surface_temperature",
    "precipitation_amount": "total_precipitation",
    "lwe_thickness_of_precipitation_amount": "total_precipitation",
    "surface_geopotential": "geopotential_at_surface",
    "surface_altitude": "geopotential_at_surface",
    "land_binary_mask": "land_sea_mask",
    "land_area_fraction": "land_sea_mask",
}
_HEIGHTS = ("height", "heightAboveGround", "height_above_ground")


def _by_standard_name(name: str, variable: xr.DataArray) -> str | None:
    standard = str(variable.attrs.get("standard_name", ""))
    if standard in _ELSEWHERE:
        return _ELSEWHERE[standard]
    # A scalar height is a coordinate of all variables of its file, of those on levels as well.
    on_levels = any(axis in variable.dims for axis in ("level", *_AXIS_ALIASES["level"]))
    height, at_height = _AT_HEIGHT.get(standard, (0.0, None))
    given = [float(variable[axis]) for axis in _HEIGHTS if axis in variable.coords and variable[axis].size == 1]
    if on_levels or at_height is None:
        return _ON_LEVELS.get(standard)
    if name in ("tas", "uas", "vas") or any(abs(value - height) < 0.5 for value in given):
        return at_height
    return None if given else _ON_LEVELS.get(standard)
