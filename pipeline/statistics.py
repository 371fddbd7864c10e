"""Stage `statistics`: mean, spread and range of states and tendencies over the training period.

A Beam job without any meeting point: each element reads a run of whole shards of one variable, and the few times after
it that its tendencies need, and leaves the records of its fields next to the target. The caller sums the records up.
What is there already when a job starts again is kept.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, publishing, require
from pipeline.jobs.beam_runner import beam, count_done, run_elements
from pipeline.runs import Run
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import (
    blocks,
    description_of,
    fields_of,
    fields_over_time,
    open_store,
    period_of,
    read_times,
    select_period,
)
from transforms.errors import InputError
from transforms.statistics import RECORD, STATISTICS, field_statistics, moments, pairs_of, tendencies

__all__ = ["run_stage", "statistics_store"]

logger = logging.getLogger(__name__)

_JOB = "statistics"
_BLOCK_BYTES = 64e6
"""Data of an element, at least; more where a shard is larger."""

_COPIES = 12
"""Bytes held at once for each byte of float32 read: the field, its tendency in float64 and the partners in wait."""


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``statistics.nc`` of the run."""
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    statistics_store(
        run.training_store,
        run.statistics,
        period=run.config.periods.train,
        step=np.timedelta64(run.config.data.time_step_hours, "h"),
        beam_options=run.config.execution.beam,
        memory_mb=run.config.execution.memory_mb,
        fingerprint=fingerprint,
        inputs=inputs,
    )


def statistics_store(
    source: str | Path,
    target: str | Path,
    *,
    period: tuple[datetime, datetime] | None = None,
    step: np.timedelta64 | None = None,
    beam_options: Sequence[str] = ("--runner=DirectRunner",),
    memory_mb: float = 1024,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write the statistics of every variable of a store as netCDF.

    The file has one variable for each variable of the source, axes (statistic, [level]), float64: area-weighted
    ``mean``, ``std``, ``tendency_mean`` and ``tendency_std``, and ``minimum`` and ``maximum``, over the valid times of
    `period`. The tendency is x(t + step) - x(t), from pairs of valid times exactly one step apart; without any pair,
    and for variables that do not change in time, it is NaN. The scalar coordinates ``samples`` and
    ``tendency_samples`` count times and pairs.

    Args:
        source: store with axes time, latitude, longitude and perhaps level.
        target: netCDF file to publish.
        period: first and last time, both included; all times by default.
        step: model step; by default the most frequent interval of the store.
        beam_options: options of Apache Beam. Workers in other processes or machines must see both paths.
        memory_mb: about how much data a worker may hold at once; changes no result.
        fingerprint: of settings and inputs; records that a job of the same left behind are used again.

    Raises:
        InputError: the source has no valid time in the period, or no variable on a global grid.
    """
    source, dataset, names = fields_over_time(source)
    positions, times = select_period(dataset, period, source), dataset.time.values
    step = _usual_step(times) if step is None else step
    levels = {"level": dataset.level.values} if "level" in dataset.coords else {}
    about = {"period": period_of(times[positions]), "step": _hours(step), **_facts(dataset)}
    description = describe("statistics", fingerprint, inputs, **about)
    partner = _partners(times, positions, step)
    count = int((partner >= 0).sum())
    if count == 0:
        logger.warning("No two valid times are %s apart within the period: tendency statistics are NaN.", _hours(step))

    with publishing(target) as partial:
        parts = _parts_folder(Path(target), description)
        job = _Job(source, str(parts), positions, partner, grid_of(dataset).latitude_weights(), memory_mb * 1e6)
        elements = _recorded(job, dataset, names, beam_options)
        result = _combined(dataset, names, fields_of(dataset), parts, elements)
        empty = [name for name, (_, values) in result.items() if np.isnan(values[0]).any()]
        if empty:
            shutil.rmtree(parts)
            raise InputError(
                f"{source}: {', '.join(empty)}: only missing values at some level. Leave the variable out."
            )
        xr.Dataset(
            {name: (dims, values, dataset[name].attrs) for name, (dims, values) in result.items()},
            coords={"statistic": list(STATISTICS), "samples": positions.size, "tendency_samples": count, **levels},
            attrs={ATTRIBUTE: json.dumps(description)},
        ).to_netcdf(partial, engine="netcdf4")
    shutil.rmtree(parts)
    logger.info("%s: %d variables, %d times, %d pairs", target, len(result), positions.size, count)


def _facts(dataset: xr.Dataset) -> dict[str, Any]:
    """Return what the description says of the store that statistics are of."""
    return {
        "grid": str(grid_of(dataset)),
        "levels": [int(level) for level in dataset.level.values] if "level" in dataset.coords else [],
        "simulated": bool(description_of(dataset).get("simulated", False)),
    }


def _partners(times: np.ndarray, positions: np.ndarray, step: np.timedelta64) -> np.ndarray:
    """Return for every time the position of its partner a step later, or -1; shape (time,)."""
    # Partners are looked up among the positions used, so that no pair takes in a time outside the period.
    partner = np.full(times.size, -1)
    pairs = pairs_of(times[positions], step)
    partner[positions[pairs >= 0]] = positions[pairs[pairs >= 0]]
    return partner


def _recorded(
    job: _Job, dataset: xr.Dataset, names: list[str], beam_options: Sequence[str]
) -> list[tuple[str, int, int]]:
    """Run what is left of the job; return its elements, each a variable with its first position and that after the last."""
    elements = [
        (name, int(block[0]), int(block[-1]) + 1)
        for name in names
        for block in blocks(job.positions, dataset[name], _BLOCK_BYTES)
    ]
    left = [element for element in elements if not _part(Path(job.parts), element).exists()]
    if left:
        run_elements(_JOB, left, _Records(job), beam_options)
    return elements


def _combined(
    dataset: xr.Dataset, names: list[str], statics: list[str], parts: Path, elements: list[tuple[str, int, int]]
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return axes and statistics of every variable, from the records that the job left and from the statics themselves."""
    result = {}
    for name in names:
        found = [np.load(_part(parts, element)) for element in elements if element[0] == name]
        states, changes = (np.concatenate([part[key] for part in found]) for key in ("states", "changes"))
        result[name] = _shaped(dataset[name], field_statistics(states, changes))
    for name in statics:
        states = moments(_with_levels(dataset[name].values[np.newaxis]), grid_of(dataset).latitude_weights())
        result[name] = _shaped(dataset[name], field_statistics(states, states[:0]))
    return result


@dataclass(frozen=True, eq=False)
class _Job:
    """What every worker needs to know.

    Attributes:
        positions: of the times used, ascending, shape (time used,).
        partner: position of the time one step after each, -1 where there is none, shape (time,).
        weights: of the rows, shape (latitude,).
    """

    source: str
    parts: str
    positions: np.ndarray
    partner: np.ndarray
    weights: np.ndarray
    memory_bytes: float


class _Records(beam.DoFn):
    """Leave the records of the fields that start within one run of times, and of their tendencies."""

    def __init__(self, job: _Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.dataset = open_store(self.job.source, "source")

    def process(self, element: tuple[str, int, int]) -> None:
        job, (name, start, stop) = self.job, element
        variable = self.dataset[name]
        own = job.positions[np.searchsorted(job.positions, start) : np.searchsorted(job.positions, stop)]
        partners = job.partner[own]
        wanted = np.union1d(own, partners[partners >= 0])
        # Pairs that start after the run belong to the next element.
        partner = np.where(np.arange(job.partner.size) < stop, job.partner, -1)
        states: list[np.ndarray] = []

        def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            points = variable.size // variable.sizes["time"]
            span = max(1, int(job.memory_bytes / (4 * points * _COPIES)))
            for begin in range(0, wanted.size, span):
                block = wanted[begin : begin + span]
                fields = _with_levels(read_times(variable, block))
                mine = block < stop
                if mine.any():
                    states.append(moments(fields[mine] if not mine.all() else fields, job.weights))
                yield block, fields

        changes = [moments(change, job.weights) for _, change in tendencies(read(), partner)]
        shape = (0, *states[0].shape[1:-1], len(RECORD))
        path = _part(Path(job.parts), element)
        working = path.with_name(f".{path.name}")
        with working.open("wb") as file:
            np.savez(file, states=np.concatenate(states), changes=np.concatenate([np.empty(shape), *changes]))
        working.rename(path)
        count_done(_JOB)


def _parts_folder(target: Path, description: dict[str, Any]) -> Path:
    """Return the folder of records next to `target`, with what a job that was cut off left, if it was the same job."""
    parts = target.with_name(f".parts-{target.name}")
    note = parts / "description.json"
    same = bool(description["fingerprint"]) and note.is_file() and json.loads(note.read_text()) == description
    if not same:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        note.write_text(json.dumps(description))
    return parts


def _part(parts: Path, element: tuple[str, int, int]) -> Path:
    name, start, stop = element
    return parts / f"{name}-{start}-{stop}.npz"


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
