"""Stage `forecast`: integrate the trained forecaster from every initial time, in the WeatherBench 2 layout."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import dask.array
import jax
import numpy as np
import xarray as xr
from flax import nnx

from model.forecaster import Forecaster
from pipeline.artefacts import ATTRIBUTE, describe, publishing, require
from pipeline.checkpoints import ForecasterSpec, load_forecaster
from pipeline.config import ForecastConfig
from pipeline.progress import progress
from pipeline.runs import Run
from pipeline.stores import consolidate, description_of, grid_of, open_store, period_of, valid_times
from pipeline.windows import StateReader, window_starts
from transforms.errors import InputError
from transforms.forcings import forcing_fields
from transforms.variables import known

__all__ = ["initial_positions", "run_stage"]

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 16_000_000


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``forecast.zarr`` of the run.

    Raises:
        InputError: no test period, no valid initial time in it, or a training store on another grid than the
            checkpoint's.
    """
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    config = run.config
    forecaster, spec = load_forecaster(run.checkpoints)
    dataset = open_store(run.training_store, "training store")
    grid = grid_of(dataset)
    if not grid.matches(spec.grid):
        raise InputError(f"{run.training_store}: is on {grid}, but the checkpoint on {spec.grid}. Train again.")
    if config.periods.test is None:
        raise InputError("periods.test: not set; it holds the initial times. Give its first and last time.")
    times = dataset.time.values
    step = np.timedelta64(spec.time_step_hours, "h")
    positions = initial_positions(
        times, valid_times(dataset), config.periods.test, step, spec.model.input_steps, config.forecast.every_hours
    )
    leads = step * np.arange(1, config.forecast.lead_hours // spec.time_step_hours + 1)
    variables = config.forecast.variables or list(spec.layout.variables)
    reader = StateReader(run.training_store, spec.layout, config.execution.loader_memory_mb)
    source = description_of(dataset)
    description = describe(
        "forecast",
        fingerprint,
        inputs,
        simulated=bool(source.get("simulated", False)),
        grid=str(grid),
        levels=list(spec.layout.levels),
        time_step_hours=spec.time_step_hours,
        period=period_of(times[positions]),
    )
    with publishing(run.forecast) as partial:
        template = _template(dataset, times[positions], leads, variables)
        template.attrs[ATTRIBUTE] = description
        chunk = _chunks(template)
        encoding = {
            name: {"chunks": tuple(chunk.get(d, n) for d, n in var.sizes.items())} for name, var in template.items()
        }
        template.chunk(chunk).to_zarr(partial, compute=False, encoding=encoding, zarr_format=3, consolidated=False)
        _integrate(forecaster, spec, reader, times, positions, leads, variables, config.forecast, partial)
        consolidate(partial)
    logger.info("%s: %d initial times, %d leads of %s", run.forecast, len(positions), len(leads), ", ".join(variables))


def initial_positions(
    times: np.ndarray,
    valid: np.ndarray,
    period: tuple[datetime, datetime],
    step: np.timedelta64,
    input_steps: int,
    every_hours: int,
) -> np.ndarray:
    """Return the positions of initial times: within `period`, a multiple of `every_hours` after its start.

    The states before an initial time that the network needs may lie before the period.

    Raises:
        InputError: there is none.
    """
    start, end = (np.datetime64(instant) for instant in period)
    ends = window_starts(times, valid, input_steps, step, None) + input_steps - 1
    inside = ends[(times[ends] >= start) & (times[ends] <= end)]
    if inside.size:
        # Counted from the first valid time, so that data which start between two intervals are used as well.
        inside = inside[(times[inside] - times[inside[0]]) % np.timedelta64(every_hours, "h") == np.timedelta64(0)]
    if inside.size == 0:
        raise InputError(
            f"periods.test: {period[0]:%Y-%m-%d %H} to {period[1]:%Y-%m-%d %H} UTC holds no valid initial time; the "
            f"store has {np.datetime_as_string(times[0], 'h')} to {np.datetime_as_string(times[-1], 'h')}."
        )
    return inside


def _integrate(
    forecaster: Forecaster,
    spec: ForecasterSpec,
    reader: StateReader,
    times: np.ndarray,
    positions: np.ndarray,
    leads: np.ndarray,
    variables: list[str],
    settings: ForecastConfig,
    target: Path,
) -> None:
    graph, state = nnx.split(forecaster)
    rollout = jax.jit(lambda state, history, forcings: nnx.merge(graph, state).rollout(history, forcings))
    offsets = np.concatenate([[np.timedelta64(0, "h")], leads[:-1]])
    batch = min(settings.batch_size, len(positions))
    with progress("forecast", len(positions)) as bar:
        bar.update(0, "compiling")
        for first in range(0, len(positions), batch):
            group = positions[first : first + batch]
            # The last batch is filled up, so that one program serves all.
            filled = np.concatenate([group, np.repeat(group[-1:], batch - len(group))])
            back = spec.model.input_steps - 1
            history = np.stack([reader.read(i - back, back + 1)[::-1] for i in filled])
            forcings = forcing_fields(
                (times[filled][:, None] + offsets).ravel(), spec.grid, solar=spec.model.solar, clock=spec.model.clock
            )
            forcings = forcings.reshape(batch, len(offsets), *forcings.shape[1:])
            states = np.asarray(rollout(state, history, forcings))[: len(group)]
            _warn_of_non_finite(states, times[group], leads)
            fields = spec.layout.unpack(states)
            block = xr.Dataset({name: (_dims(name), fields[name]) for name in variables})
            block.to_zarr(target, region={"time": slice(first, first + len(group))}, consolidated=False)
            bar.advance(len(group), f"{np.datetime_as_string(times[group[-1]], 'h')} UTC")


def _template(dataset: xr.Dataset, initial: np.ndarray, leads: np.ndarray, variables: list[str]) -> xr.Dataset:
    """Return a dataset of the right shape that holds no data."""
    sizes = {"time": len(initial), "prediction_timedelta": len(leads), **dataset.sizes}
    sizes["time"] = len(initial)
    arrays = {}
    for name in variables:
        dims = _dims(name)
        shape = tuple(sizes[dim] for dim in dims)
        attributes = {key: value for key, value in dataset[name].attrs.items() if key != ATTRIBUTE}
        arrays[name] = (dims, dask.array.zeros(shape, dtype=np.float32), attributes)
    coords: dict[str, Any] = {
        "time": (
            "time",
            initial.astype("datetime64[ns]"),
            {"long_name": "initial time", "standard_name": "forecast_reference_time"},
        ),
        "prediction_timedelta": (
            "prediction_timedelta",
            leads.astype("timedelta64[ns]"),
            {"long_name": "lead time", "standard_name": "forecast_period"},
        ),
    }
    if any("level" in dims for dims, _, _ in arrays.values()):
        coords["level"] = dataset.level
    coords |= {name: dataset[name] for name in ("latitude", "longitude")}
    template = xr.Dataset(arrays, coords)
    template.time.encoding = {"units": "hours since 1970-01-01", "dtype": "int64"}
    template.prediction_timedelta.encoding = {"units": "hours", "dtype": "int64"}
    return template


def _chunks(template: xr.Dataset) -> dict[str, int]:
    """One initial time a chunk, with as many leads as a chunk of moderate size takes."""
    largest = max(variable.nbytes for variable in template.values()) / template.sizes["time"]
    leads = template.sizes["prediction_timedelta"]
    per_chunk = max(1, min(leads, int(_CHUNK_BYTES / (largest / leads))))
    return {"time": 1, "prediction_timedelta": per_chunk}


def _dims(name: str) -> tuple[str, ...]:
    level = ("level",) if known(name).kind == "pressure" else ()
    return ("time", "prediction_timedelta", *level, "latitude", "longitude")


def _warn_of_non_finite(states: np.ndarray, initial: np.ndarray, leads: np.ndarray) -> None:
    bad = ~np.isfinite(states).all(axis=(2, 3, 4))
    for member in np.flatnonzero(bad.any(axis=1)):
        lead = leads[np.argmax(bad[member])] / np.timedelta64(1, "h")
        logger.warning(
            "forecast of %s UTC: values are not finite from lead %g h on; its scores will be missing. Train longer, or "
            "with longer rollouts.",
            np.datetime_as_string(initial[member], "h"),
            lead,
        )
