"""The stage that makes its own source: a simulated atmosphere, or closed-form waves, in ERA5's schema."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from pipeline.artefacts import ATTRIBUTE, describe, publishing
from pipeline.config_data import WEATHERBENCH_LEVELS, SimulationConfig
from pipeline.jobs.progress import Progress, progress
from pipeline.runs import Run
from pipeline.stores.axes import AXES, AXES_OF_KIND, HORIZONTAL
from pipeline.stores.reading import consolidate
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.variables import VARIABLES
from transforms.waves import rossby_haurwitz

__all__ = ["STEP_HOURS", "run_stage", "simulate_store", "source_description"]

logger = logging.getLogger(__name__)

Kind = Literal["simulation", "waves"]

STEP_HOURS = 6
CHUNK_TIMES = 100

_PRESSURE = (
    "geopotential",
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "specific_humidity",
    "vertical_velocity",
)
_SURFACE = (
    "2m_temperature",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "mean_sea_level_pressure",
    "total_precipitation_6hr",
)
_STATIC = ("geopotential_at_surface", "land_sea_mask")

_SIMULATION_PACKAGES = ("jcm", "dinosaur", "jax_datetime")
_WAVES_SOURCE = "Simulated: travelling Rossby-Haurwitz waves in closed form (not observations, not a reanalysis)"


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Make the source of a run, ``source.zarr``."""
    kind = run.config.source.kind
    if kind == "store":
        raise InputError("source.kind: a run on a given store has no source to simulate; use simulation or waves.")
    settings = run.config.simulation
    simulate_store(Path(run.source_path), kind, settings, source_description(kind, settings, fingerprint, inputs))


def source_description(
    kind: Kind, settings: SimulationConfig, fingerprint: str = "", inputs: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the description of the store that `simulate_store` makes."""
    times = _times(settings)
    return describe(
        "source store",
        fingerprint,
        inputs,
        simulated=True,
        source_kind=kind,
        period=[str(np.datetime_as_string(times[i], "m")) for i in (0, -1)],
        step=f"{STEP_HOURS}h",
        grid=str(settings.grid.build()),
        levels=list(settings.levels),
    )


def simulate_store(target: str | Path, kind: Kind, settings: SimulationConfig, description: dict[str, Any]) -> None:
    """Make a source store: zarr v3, float32, ERA5's names, units and axes, 6-hourly from 00 UTC of `settings.start`.

    Args:
        target: store to publish.
        kind: ``simulation`` runs SPEEDY (see `pipeline.simulating.simulation`), ``waves`` evaluates `transforms.waves`.
        settings: period, grid, levels and seed; the same settings give the same data, bit for bit, on one machine.
        description: what the store says of itself; see `source_description`.

    Raises:
        InputError: the first time is not 00 UTC, a level is given twice or is not one of ERA5's, or the simulation is
            not installed.
    """
    _check(settings)
    if kind == "simulation":
        try:
            from pipeline.simulating.simulation import SOURCE, simulated_blocks
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in _SIMULATION_PACKAGES:
                raise
            raise InputError(
                "source.kind: a simulation needs the package jcm, which is not installed. Install it with "
                "`pip install 'spherecast[simulate]'`, or choose another source."
            ) from error

        source, blocks = SOURCE.format(truncation=settings.truncation), simulated_blocks
    else:
        source, blocks = _WAVES_SOURCE, _wave_blocks
    times, grid = _times(settings), settings.grid.build()
    days = settings.days + (settings.spinup_days if kind == "simulation" else 0)
    with publishing(target) as partial, progress("simulate", days) as bar:
        store = _create(partial, times, grid, settings.levels, {"source": source, ATTRIBUTE: description})
        for start, fields in blocks(settings, times, grid, bar):
            for name, values in fields.items():
                array: Any = store[name]
                if name in _STATIC:
                    array[...] = values
                else:
                    array[start : start + len(values)] = values
            bar.advance(len(fields["2m_temperature"]) * STEP_HOURS / 24)
        consolidate(partial)
    logger.info("%s: %d times, %s, %d levels. %s", target, times.size, grid, len(settings.levels), source)


def _check(settings: SimulationConfig) -> None:
    start = settings.start
    if start.tzinfo is not None or (start.hour, start.minute, start.second, start.microsecond) != (0, 0, 0, 0):
        raise InputError(f"simulation.start: expected 00 UTC of a day, such as 2001-01-01, got {start.isoformat()}.")
    levels = settings.levels
    unknown = [level for level in levels if level not in WEATHERBENCH_LEVELS]
    if not levels or unknown or len(set(levels)) != len(levels):
        raise InputError(
            f"simulation.levels: expected different levels out of {WEATHERBENCH_LEVELS} hPa, got {levels}."
        )


def _times(settings: SimulationConfig) -> np.ndarray:
    count = settings.days * 24 // STEP_HOURS
    return np.datetime64(settings.start, "ns") + np.arange(count) * np.timedelta64(STEP_HOURS, "h")


def _wave_blocks(
    settings: SimulationConfig, times: np.ndarray, grid: Grid, bar: Progress
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for start in range(0, times.size, CHUNK_TIMES):
        yield start, rossby_haurwitz(times[start : start + CHUNK_TIMES], grid, settings.levels, settings.seed)


def _create(path: Path, times: np.ndarray, grid: Grid, levels: list[int], attributes: dict[str, Any]) -> zarr.Group:
    """Create the store with its axes; the fields are NaN until they are written."""
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    hours = times.astype("datetime64[h]").astype(np.int64)
    axes: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "time": (hours, {"units": "hours since 1970-01-01", "calendar": "proleptic_gregorian", "long_name": "time"}),
        "level": (np.asarray(levels, np.int64), {"units": "hPa", "long_name": "pressure level", "positive": "down"}),
        "latitude": (grid.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": (grid.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    for name, (values, described) in axes.items():
        # A fill value outside the axis, since readers may take one inside it for a missing coordinate.
        fill = np.iinfo(np.int64).min if values.dtype == np.int64 else np.nan
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, dimension_names=[name], attributes=described, fill_value=fill
        )
        array[...] = values
    sizes = {name: len(values) for name, (values, _) in axes.items()}
    layouts = ((_PRESSURE, AXES), (_SURFACE, AXES_OF_KIND["surface"]), (_STATIC, HORIZONTAL))
    for names, dimensions in layouts:
        for name in names:
            group.create_array(
                name,
                shape=tuple(sizes[axis] for axis in dimensions),
                chunks=tuple(min(CHUNK_TIMES, sizes[axis]) if axis == "time" else sizes[axis] for axis in dimensions),
                dtype="float32",
                fill_value=np.nan,
                dimension_names=dimensions,
                attributes={"units": VARIABLES[name].units, "long_name": name.replace("_", " ")},
            )
    return group
