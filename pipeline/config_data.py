"""The sections of a configuration that say what the data are: source, training store, periods, climatology.

`pipeline.config` puts all sections together.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from pipeline.presets import PRESETS
from pipeline.redaction import expand
from transforms.latitudes import FAMILIES
from transforms.variables import VARIABLES, known, wind_pairs

if TYPE_CHECKING:
    from transforms.grids import Grid

    Family = str
    Preset = str
else:
    # What a table holds can be chosen; the type checker knows literals only where they are spelled out.
    Family, Preset = (Literal[tuple(table)] for table in (FAMILIES, PRESETS))

__all__ = [
    "WEATHERBENCH_LEVELS",
    "ClimatologyConfig",
    "DataConfig",
    "GridConfig",
    "Period",
    "PeriodsConfig",
    "Preset",
    "Section",
    "SimulationConfig",
    "SourceConfig",
]

WEATHERBENCH_LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]


class Section(BaseModel):
    """Base of every section: unknown keys are errors and values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _as_period(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


Instant = datetime
Period = Annotated[tuple[Instant, Instant], BeforeValidator(_as_period)]
"""First and last time, both included, UTC."""


class GridConfig(Section):
    """A grid of circles of latitude, longitudes from 0."""

    latitude: Annotated[int, Field(ge=4)] = Field(description="number of latitudes")
    longitude: Annotated[int, Field(ge=4)] = Field(description="number of longitudes")
    poles: bool = Field(False, description="rows at both poles; else half a step from them")
    family: Family = Field("equiangular", description="how latitudes are placed; docs/grids.md")

    @model_validator(mode="after")
    def _rows_where_the_family_has_them(self) -> GridConfig:
        if self.poles and not FAMILIES[self.family].poles:
            raise ValueError(f"poles: the family {self.family} has no rows there; set poles to false")
        return self

    def build(self) -> Grid:
        """Return the grid."""
        from transforms.grids import Grid  # Brings NumPy, which the command line starts without.

        return Grid.of(self.family, self.latitude, self.longitude, poles=self.poles)


class SourceConfig(Section):
    """Where the raw data comes from."""

    kind: Literal["store", "simulation", "waves"] = Field(
        "store", description="a store to read, a SPEEDY simulation, or closed-form Rossby-Haurwitz waves"
    )
    path: str | None = Field(
        None, description="local path or gs://, s3://, http(s):// address of a zarr, netCDF or GRIB"
    )
    preset: Preset | None = Field(
        None, description="names, units and access of a known kind of source; what is given besides goes before it"
    )
    rename: dict[str, str] = Field(default_factory=dict, description="name in the source: name in Spherecast")
    units: dict[str, str] = Field(
        default_factory=dict, description="variable: units its values are really in, e.g. {2m_temperature: degC}"
    )
    select: dict[str, Any] = Field(
        default_factory=dict, description="entry taken of an axis beside time, level and space, e.g. {number: 0}"
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="passed to fsspec, e.g. {token: anon}; ${NAME} stands for an environment variable",
    )
    allow_missing: bool = Field(
        False, description="record times with missing values and skip them, instead of refusing"
    )

    def access(self) -> tuple[str | None, dict[str, Any]]:
        """Return path and storage options with the environment variables that they name as ``${NAME}`` put in.

        Raises:
            InputError: one of these is not set.
        """
        return expand(self.path, "source.path"), expand(self.storage_options, "source.storage_options")

    @model_validator(mode="after")
    def _path_matches_kind(self) -> SourceConfig:
        if self.kind != "store" and self.path is not None:
            raise ValueError(f"path is set, but a source of kind {self.kind!r} makes its own data; remove source.path")
        return self


class SimulationConfig(Section):
    """The simulated atmosphere (source.kind simulation) or the closed-form waves (source.kind waves)."""

    truncation: Literal[21, 31, 42] = Field(21, description="spectral truncation of the simulation")
    start: Instant = Field(datetime(2001, 1, 1), description="first time written, 00 UTC")
    days: PositiveInt = Field(760, description="length written")
    spinup_days: Annotated[int, Field(ge=0)] = Field(60, description="days from rest that are thrown away")
    seed: int = Field(0, description="seed of the small perturbation the simulation starts from")
    grid: GridConfig = GridConfig(latitude=33, longitude=64, poles=True)
    levels: list[PositiveInt] = Field([250, 500, 850], description="pressure levels written, hPa")


class DataConfig(Section):
    """What the training store holds."""

    grid: GridConfig = GridConfig(latitude=32, longitude=64)
    method: Literal["conservative", "bilinear", "nearest", "spectral"] = Field(
        "conservative", description="of regridding; winds are regridded as vectors"
    )
    variables: Annotated[list[str], Field(min_length=1, description="prognostic variables, ARCO-ERA5 names")]
    statics: list[str] = Field(default_factory=list, description="time-independent inputs")
    levels: list[PositiveInt] = Field(default_factory=lambda: list(WEATHERBENCH_LEVELS), description="hPa")
    vertical: Literal["select", "interpolate"] = Field(
        "select", description="take levels of the source, or interpolate from its pressure, sigma or hybrid levels"
    )
    time_step_hours: PositiveInt = Field(6, description="step of the store and of the model")
    period: Period | None = Field(None, description="part of the source to prepare; all of it by default")
    shard_times: PositiveInt = Field(128, description="time steps in one shard (one file) of the training store")
    keep_bits: dict[str, Annotated[int, Field(ge=1, le=23)]] = Field(
        default_factory=dict, description="variable: bits of the mantissa to keep; all by default"
    )
    zarr_format: Literal[2, 3] = Field(3, description="of the training store; 2 has no shards")

    @model_validator(mode="after")
    def _known_variables(self) -> DataConfig:
        for name in self.variables:
            if known(name).kind == "static":
                raise ValueError(f"variables: {name} does not change in time; move it to data.statics")
        for name in self.statics:
            if known(name).kind != "static":
                raise ValueError(f"statics: {name} changes in time; move it to data.variables")
        for key in ("variables", "statics", "levels"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: {values} names something twice")
        for name in self.keep_bits:
            if name not in (*self.variables, *self.statics):
                raise ValueError(f"keep_bits: {name} is not among data.variables and data.statics")
        if any(VARIABLES[name].kind == "pressure" for name in self.variables) and not self.levels:
            raise ValueError("levels: empty, but some variables are on pressure levels")
        wind_pairs(self.variables)
        return self


class PeriodsConfig(Section):
    """Disjoint periods of the training store; both ends included."""

    train: Period | None = Field(None, description="training, statistics and climatology; all data by default")
    validation: Period | None = Field(None, description="validation losses and forecasts of training; none by default")
    test: Period | None = Field(None, description="initial times of forecasts")

    @model_validator(mode="after")
    def _disjoint(self) -> PeriodsConfig:
        periods = [(name, getattr(self, name)) for name in ("train", "validation", "test")]
        given = [(name, period) for name, period in periods if period is not None]
        for name, (start, end) in given:
            if start > end:
                raise ValueError(f"{name}: starts {start:%Y-%m-%d %H} UTC after it ends {end:%Y-%m-%d %H} UTC")
        if self.train is None and len(given) > 0:
            raise ValueError("train: missing; give it, since validation or test are given")
        for i, (name, (start, end)) in enumerate(given):
            for other, (other_start, other_end) in given[i + 1 :]:
                if start <= other_end and other_start <= end:
                    raise ValueError(
                        f"{other}: {other_start:%Y-%m-%d %H} to {other_end:%Y-%m-%d %H} UTC overlaps {name}, "
                        f"{start:%Y-%m-%d %H} to {end:%Y-%m-%d %H} UTC; scores would be flattered. Move one of them"
                    )
        return self


class ClimatologyConfig(Section):
    """WeatherBench 2's climatology by hour and day of year."""

    method: Literal["explicit", "fast"] = Field(
        "explicit", description="WeatherBench 2's two orders of averaging over window and years"
    )
    window_days: Annotated[int, Field(ge=1)] = Field(61, description="width of the triangular window, odd")
    statistics: Annotated[list[Literal["mean", "std", "quantile", "seeps"]], Field(min_length=1)] = Field(
        default_factory=lambda: ["mean", "std"],  # type: ignore[arg-type]  # a lambda's list has no literals
        description="seeps: thresholds of 24 h and 6 h precipitation",
    )
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, description="levels of the statistic quantile"
    )

    @model_validator(mode="after")
    def _odd(self) -> ClimatologyConfig:
        if self.window_days % 2 == 0:
            raise ValueError(f"window_days: expected an odd number, got {self.window_days}")
        if ("quantile" in self.statistics) != bool(self.quantiles):
            raise ValueError("quantiles: give levels together with the statistic quantile, or neither")
        return self
