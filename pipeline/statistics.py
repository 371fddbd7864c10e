"""Stage `statistics`: mean and spread of states and tendencies over the training period."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, publishing, require
from pipeline.progress import progress
from pipeline.runs import Run
from pipeline.stores import blocks, description_of, fields_of, grid_of, open_store, period_of, read_times, select_period
from transforms.errors import InputError
from transforms.statistics import STATISTICS, FieldStatistics, Moments

__all__ = ["run_stage", "statistics_store"]

logger = logging.getLogger(__name__)


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``statistics.nc`` of the run."""
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    statistics_store(
        run.training_store,
        run.statistics,
        period=run.config.periods.train,
        step=np.timedelta64(run.config.data.time_step_hours, "h"),
        fingerprint=fingerprint,
        inputs=inputs,
    )


def statistics_store(
    source: str | Path,
    target: str | Path,
    *,
    period: tuple[datetime, datetime] | None = None,
    step: np.timedelta64 | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write the statistics of every variable of a store as netCDF.

    The file has one variable for each variable of the source, axes (statistic, [level]), float64: area-weighted
    ``mean``, ``std``, ``tendency_mean`` and ``tendency_std`` over the valid times of `period`. The tendency is
    x(t + step) - x(t), from pairs of valid times exactly one step apart; without any pair, and for variables that do
    not change in time, it is NaN. The scalar coordinates ``samples`` and ``tendency_samples`` count times and pairs.

    Args:
        source: store with axes time, latitude, longitude and perhaps level.
        target: netCDF file to publish.
        period: first and last time, both included; all times by default.
        step: model step; by default the most frequent interval of the store.

    Raises:
        InputError: the source has no valid time in the period, or no variable on a global grid.
    """
    dataset = open_store(source, "source")
    positions = select_period(dataset, period, str(source))
    grid = grid_of(dataset)
    names, statics = fields_of(dataset, "time"), fields_of(dataset)
    if not names:
        raise InputError(f"{source}: expected variables over time, latitude and longitude, got {list(dataset)}.")
    times = dataset.time.values
    if step is None:
        step = _usual_step(times)
    result: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    samples = pairs = 0
    with progress("statistics", len(names) * len(positions)) as bar:
        for name in names:
            variable = dataset[name]
            accumulator = FieldStatistics(grid, step)
            for block in blocks(positions, variable):
                accumulator.add(times[block], _with_levels(read_times(variable, block)))
                bar.advance(len(block), note=name)
            result[name] = _shaped(variable, accumulator.result())
            samples, pairs = accumulator.samples, accumulator.tendency_samples
    for name in statics:
        moments = Moments(grid.latitude_weights())
        moments.add(_with_levels(dataset[name].values[np.newaxis]))
        mean, std = moments.result()
        result[name] = _shaped(
            dataset[name], np.stack([mean, std, np.full_like(mean, np.nan), np.full_like(std, np.nan)])
        )
    empty = [name for name, (_, values) in result.items() if np.isnan(values[0]).any()]
    if empty:
        raise InputError(f"{source}: {', '.join(empty)}: only missing values at some level. Leave the variable out.")
    if pairs == 0:
        logger.warning("No two valid times are %s apart within the period: tendency statistics are NaN.", _hours(step))
    output = xr.Dataset(
        {name: (dims, values, dataset[name].attrs) for name, (dims, values) in result.items()},
        coords={"statistic": list(STATISTICS), "samples": samples, "tendency_samples": pairs},
    )
    if "level" in dataset.coords:
        output = output.assign_coords(level=dataset.level.values)
    output.attrs[ATTRIBUTE] = json.dumps(
        describe(
            "statistics",
            fingerprint,
            inputs,
            period=period_of(times[positions]),
            step=_hours(step),
            grid=str(grid),
            levels=[int(level) for level in dataset.level.values] if "level" in dataset.coords else [],
            simulated=bool(description_of(dataset).get("simulated", False)),
        )
    )
    with publishing(target) as partial:
        output.to_netcdf(partial, engine="netcdf4")
    logger.info("%s: %d variables, %d times, %d pairs", target, len(result), samples, pairs)


def _with_levels(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 4 else values[:, np.newaxis]


def _shaped(variable: xr.DataArray, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Drop the level axis of a surface variable."""
    return (("statistic", "level"), values) if "level" in variable.dims else (("statistic",), values[:, 0])


def _usual_step(times: np.ndarray) -> np.timedelta64:
    if times.size < 2:
        return np.timedelta64(6, "h")
    intervals, counts = np.unique(np.diff(times), return_counts=True)
    return intervals[np.argmax(counts)]


def _hours(step: np.timedelta64) -> str:
    return f"{step / np.timedelta64(1, 'h'):g} h"
