"""The variables Spherecast knows: names, units, plausible ranges, and which of them form a wind vector.

Names and units are those of ARCO-ERA5 and WeatherBench 2. A new variable is one line in the table; what can be computed
where a source lacks it has a recipe in `transforms.derived` as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from transforms.errors import InputError

__all__ = [
    "ALIASES",
    "VARIABLES",
    "Variable",
    "channel_names",
    "field_name",
    "fields_named",
    "known",
    "require_whole_winds",
    "thickness_levels",
    "wind_pairs",
]


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
        usual: whether it is taken from a source that has it where nobody says which variables to take.
    """

    name: str
    kind: str
    units: str
    minimum: float
    maximum: float
    partner: str | None = None
    aliases: tuple[str, ...] = ()
    usual: bool = True


def _more(
    name: str,
    kind: str,
    units: str,
    minimum: float,
    maximum: float,
    *aliases: str,
    partner: str | None = None,
) -> Variable:
    """A variable that is taken only when it is asked for."""
    return Variable(name, kind, units, minimum, maximum, partner, aliases, usual=False)


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
    Variable("geopotential_at_surface", "static", "m**2 s**-2", -6_000.0, 90_000.0, aliases=("orography",)),
    Variable("land_sea_mask", "static", "1", -1e-3, 1.001, aliases=("lsm",)),
    # Without values over land.
    _more("sea_surface_temperature", "surface", "K", 265.0, 315.0, "sst"),
    _more("sea_ice_cover", "surface", "1", -1e-3, 1.001, "ci", "siconc"),
    # On pressure levels. Humidity is relative to saturation, 1, not 100.
    _more("relative_humidity", "pressure", "1", -0.5, 10.0, "r"),
    _more("vorticity", "pressure", "s**-1", -0.02, 0.02, "vo"),
    _more("divergence", "pressure", "s**-1", -0.02, 0.02, "d"),
    _more("wind_speed", "pressure", "m s**-1", -1e-3, 350.0, "ws"),
    _more("potential_vorticity", "pressure", "K m**2 kg**-1 s**-1", -0.1, 0.1, "pv"),
    _more("ozone_mass_mixing_ratio", "pressure", "kg kg**-1", -1e-6, 5e-5, "o3"),
    _more("fraction_of_cloud_cover", "pressure", "1", -1e-2, 1.01, "cc"),
    _more("specific_cloud_liquid_water_content", "pressure", "kg kg**-1", -1e-4, 0.02, "clwc"),
    _more("specific_cloud_ice_water_content", "pressure", "kg kg**-1", -1e-4, 0.02, "ciwc"),
    _more("specific_rain_water_content", "pressure", "kg kg**-1", -1e-4, 0.02, "crwc"),
    _more("specific_snow_water_content", "pressure", "kg kg**-1", -1e-4, 0.02, "cswc"),
    # Near the ground.
    _more("2m_dewpoint_temperature", "surface", "K", 130.0, 320.0, "d2m", "2d"),
    _more("2m_relative_humidity", "surface", "1", -1e-2, 2.0, "2r", "r2"),
    _more("2m_specific_humidity", "surface", "kg kg**-1", -1e-3, 0.06, "2sh", "sh2"),
    _more("10m_wind_speed", "surface", "m s**-1", -1e-3, 170.0, "si10", "10si"),
    _more("10m_wind_gust_since_previous_post_processing", "surface", "m s**-1", -1e-3, 200.0, "fg10", "10fg"),
    _more(
        "100m_u_component_of_wind",
        "surface",
        "m s**-1",
        -150.0,
        150.0,
        "u100",
        "100u",
        partner="100m_v_component_of_wind",
    ),
    _more(
        "100m_v_component_of_wind",
        "surface",
        "m s**-1",
        -150.0,
        150.0,
        "v100",
        "100v",
        partner="100m_u_component_of_wind",
    ),
    _more("100m_wind_speed", "surface", "m s**-1", -1e-3, 210.0, "si100", "100si"),
    _more("skin_temperature", "surface", "K", 150.0, 370.0, "skt"),
    _more("boundary_layer_height", "surface", "m", -1.0, 15_000.0, "blh"),
    _more("convective_available_potential_energy", "surface", "J kg**-1", -1.0, 20_000.0, "cape"),
    # Of the whole column.
    _more("total_column_water_vapour", "surface", "kg m**-2", -0.5, 200.0, "tcwv"),
    _more("total_column_water", "surface", "kg m**-2", -0.5, 300.0, "tcw"),
    _more("total_cloud_cover", "surface", "1", -1e-2, 1.01, "tcc"),
    _more("low_cloud_cover", "surface", "1", -1e-2, 1.01, "lcc"),
    _more("medium_cloud_cover", "surface", "1", -1e-2, 1.01, "mcc"),
    _more("high_cloud_cover", "surface", "1", -1e-2, 1.01, "hcc"),
    # Sums up to the time: without a number in the name, of what the source's files sum over, in ERA5 one hour.
    _more("total_precipitation_12hr", "surface", "m", -1e-4, 2.0),
    _more("total_precipitation_24hr", "surface", "m", -1e-4, 3.0),
    _more("maximum_2m_temperature_24hr", "surface", "K", 150.0, 345.0),
    _more("convective_precipitation", "surface", "m", -1e-4, 1.5, "cp"),
    _more("large_scale_precipitation", "surface", "m", -1e-4, 1.5, "lsp"),
    _more("snowfall", "surface", "m", -1e-4, 1.5, "sf"),
    _more("toa_incident_solar_radiation", "surface", "J m**-2", -1e4, 5.2e6, "tisr"),
    _more("surface_solar_radiation_downwards", "surface", "J m**-2", -1e4, 5.2e6, "ssrd"),
    _more("surface_net_solar_radiation", "surface", "J m**-2", -1e4, 5.2e6, "ssr"),
    _more("surface_thermal_radiation_downwards", "surface", "J m**-2", -1e4, 2.5e6, "strd"),
    _more("surface_net_thermal_radiation", "surface", "J m**-2", -2.5e6, 1e6, "str"),
    _more("top_net_solar_radiation", "surface", "J m**-2", -1e4, 5.2e6, "tsr"),
    _more("top_net_thermal_radiation", "surface", "J m**-2", -2.5e6, 1e4, "ttr"),
    _more("surface_sensible_heat_flux", "surface", "J m**-2", -1e7, 5e6, "sshf"),
    _more("surface_latent_heat_flux", "surface", "J m**-2", -1e7, 5e6, "slhf"),
    # Of the ground; depths of snow are of its water. ERA5 changes leaf area through the year.
    _more("snow_depth", "surface", "m", -1e-3, 12.0, "sd"),
    *(_more(f"soil_temperature_level_{k}", "surface", "K", 150.0, 370.0, f"stl{k}") for k in range(1, 5)),
    *(_more(f"volumetric_soil_water_layer_{k}", "surface", "m**3 m**-3", -1e-2, 1.01, f"swvl{k}") for k in range(1, 5)),
    _more("leaf_area_index_high_vegetation", "surface", "m**2 m**-2", -1e-2, 12.0, "lai_hv"),
    _more("leaf_area_index_low_vegetation", "surface", "m**2 m**-2", -1e-2, 12.0, "lai_lv"),
    _more("standard_deviation_of_orography", "static", "m", -1.0, 3_000.0, "sdor"),
    _more("standard_deviation_of_filtered_subgrid_orography", "static", "m", -1.0, 3_000.0, "sdfor"),
    _more("slope_of_sub_gridscale_orography", "static", "1", -1e-3, 1.0, "slor"),
    _more("anisotropy_of_sub_gridscale_orography", "static", "1", -1e-3, 1.001, "isor"),
    _more("angle_of_sub_gridscale_orography", "static", "radians", -3.2, 3.2, "anor"),
    _more("lake_cover", "static", "1", -1e-3, 1.001, "cl"),
    _more("high_vegetation_cover", "static", "1", -1e-3, 1.001, "cvh"),
    _more("low_vegetation_cover", "static", "1", -1e-3, 1.001, "cvl"),
    # Numbers of classes, of which averages mean nothing: regrid them to the nearest point.
    _more("soil_type", "static", "1", 0.0, 8.0, "slt"),
    _more("type_of_high_vegetation", "static", "1", 0.0, 20.0, "tvh"),
    _more("type_of_low_vegetation", "static", "1", 0.0, 20.0, "tvl"),
)

_THICKNESS = re.compile(r"geopotential_thickness_([1-9]\d*)_([1-9]\d*)")
_DRY_AIR = 287.06
"""Gas constant, J kg-1 K-1."""


def thickness_levels(name: str) -> tuple[int, int] | None:
    """Return the upper and the lower level, hPa, of ``geopotential_thickness_UPPER_LOWER``; None for other names."""
    found = _THICKNESS.fullmatch(name)
    if found is None:
        return None
    upper, lower = map(int, found.groups())
    return (upper, lower) if upper < lower else None


class _Variables(Mapping[str, Variable]):
    """Variables by name: those of the table, by which one can loop, and those whose names carry levels."""

    def __init__(self, table: Iterable[Variable]) -> None:
        self._table = {variable.name: variable for variable in table}

    def __getitem__(self, name: str) -> Variable:
        if name in self._table or not isinstance(name, str) or (levels := thickness_levels(name)) is None:
            return self._table[name]
        # Hypsometric: a layer of 150 to 350 K throughout.
        scale = _DRY_AIR * math.log(levels[1] / levels[0])
        return _more(name, "surface", "m**2 s**-2", 150.0 * scale, 350.0 * scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


VARIABLES: Mapping[str, Variable] = _Variables(_TABLE)
ALIASES: dict[str, str] = {alias: variable.name for variable in _TABLE for alias in variable.aliases}


def known(name: str) -> Variable:
    """Return the entry of `name`.

    Raises:
        InputError: the name is not in the table.
    """
    if name not in VARIABLES:
        raise InputError(
            f"variable {name!r} is not known; known are {', '.join(VARIABLES)}, and geopotential_thickness_UPPER_LOWER "
            "(hPa, e.g. geopotential_thickness_500_1000)."
        )
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


def field_name(variable: str, level: int | None) -> str:
    """Return ``variable@level``, or ``variable`` of a field near the surface."""
    return variable if level is None else f"{variable}@{level}"


def fields_named(fields: Sequence[tuple[str, int | None]], names: Sequence[str], key: str) -> tuple[int, ...]:
    """Return which of some fields are named, ascending; all of them without any name.

    Args:
        fields: (variable, level), as `channel_names` gives them.
        names: each a variable, which stands for all its levels, or ``variable@level``.
        key: of the configuration, for messages.

    Raises:
        InputError: a name is of none of the fields.
    """
    chosen: set[int] = set()
    for name in names:
        found = [i for i, field in enumerate(fields) if name in (field[0], field_name(*field))]
        if not found:
            known = ", ".join(field_name(*field) for field in fields)
            raise InputError(f"{key}: {name} is no field of the state, which has {known}. Name some of these.")
        chosen.update(found)
    return tuple(sorted(chosen)) if names else tuple(range(len(fields)))


def require_whole_winds(fields: Iterable[tuple[str, int | None]], key: str) -> None:
    """Raise InputError where one component of a wind is among some fields and the other is not.

    Args:
        key: of the configuration, for messages.
    """
    fields = list(fields)
    for name, level in fields:
        partner = known(name).partner
        if partner is not None and (partner, level) not in fields:
            raise InputError(
                f"{key}: {field_name(name, level)} without {field_name(partner, level)}; winds are one vector, so name "
                "both or neither, or set model.winds=scalars."
            )
