"""The record of a source that was validated: what was found, and what would be made of it, for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE
from pipeline.config import Config
from pipeline.redaction import redact
from pipeline.sources.opening import origin_facts
from transforms.grids import Grid
from transforms.timeaxis import TimeSelection, time_text, within
from transforms.variables import known

if TYPE_CHECKING:  # Scanning takes Beam, which those who read a record, such as the report, need not wait for.
    from pipeline.validating.scan import Summary

__all__ = [
    "KIND",
    "ValidationRecord",
    "make_record",
    "periods_of",
    "read_record",
    "rows_of_plan",
    "rows_of_record",
]

KIND = "validation record"


@dataclass(frozen=True)
class ValidationRecord:
    """What was found in a source that passed, and what would be made of it.

    Attributes:
        source: facts: grid, levels, `source` (its title or file name), whether it is `simulated`.
        times: first, last, count, step_hours of the times taken, and source_step_hours.
        gaps: [last time before, first time after] of every gap.
        missing: times with missing values by variable; the training store marks them as not valid.
        valid_times: count, first and last of the times with complete data.
        missing_values: by variable with missing values, ``of``, the values that a time has, and ``runs``, lists of first
            time, number of times from there on, and how many values are missing at each of them.
        missing_chunks: by variable with chunks that were never written, runs as above, counting chunks; [] of stores that
            cannot be listed.
        ranges: smallest and largest value by variable, null where all are missing.
        planned: the training store's shape and size; for each period the number of its times, of its valid times,
            and the lengths of its `runs`, unbroken series of valid times. A run of n times has n - k windows of k steps.
    """

    source: dict[str, Any]
    times: dict[str, Any]
    gaps: list[list[str]]
    missing: dict[str, list[str]]
    valid_times: dict[str, Any]
    planned: dict[str, Any]
    missing_values: dict[str, Any] = field(default_factory=dict)
    missing_chunks: dict[str, list[list[Any]]] = field(default_factory=dict)
    ranges: dict[str, list[float | None]] = field(default_factory=dict)


def read_record(path: str | Path) -> ValidationRecord:
    """Read a published ``validation.json``."""
    document = json.loads(Path(path).read_text())
    return ValidationRecord(**{key: value for key, value in document.items() if key != ATTRIBUTE})


def periods_of(config: Config) -> dict[str, Any]:
    """Return the periods of training, validation and test by key of the configuration."""
    return {f"periods.{name}": getattr(config.periods, name) for name in ("train", "validation", "test")}


def make_record(
    dataset: xr.Dataset,
    path: str,
    grid: Grid,
    config: Config,
    selection: TimeSelection,
    found: Mapping[str, Summary],
    absent: Mapping[str, np.ndarray],
    missing: Mapping[str, np.ndarray],
) -> ValidationRecord:
    """Return the record of a source that passed.

    Args:
        dataset: as it was opened, before its levels were chosen.
        found: what the scan found at each time of the selection, by variable.
        absent: chunks that were never written at each time of the selection, by variable that lacks any.
        missing: whether a variable is incomplete at each time of the selection, boolean.
    """
    times = selection.times
    valid = ~np.any(list(missing.values()), axis=0)
    kept = times[valid]
    return ValidationRecord(
        source={
            "grid": str(grid),
            "levels": [int(level) for level in dataset["level"].values] if "level" in dataset.coords else [],
            **origin_facts(dataset, path),
        },
        times={
            "first": time_text(times[0]),
            "last": time_text(times[-1]),
            "count": int(times.size),
            "step_hours": selection.step_hours,
            "source_step_hours": selection.source_step_hours,
        },
        gaps=[[time_text(end) for end in gap] for gap in selection.gaps],
        missing={name: [time_text(time) for time in times[mask]] for name, mask in missing.items() if mask.any()},
        valid_times={"count": int(kept.size), "first": time_text(kept[0]), "last": time_text(kept[-1])},
        planned={
            "training_store": _planned_store(config, times.size),
            "periods": {
                key.removeprefix("periods."): _planned_period(times, valid, selection.step_hours, period)
                for key, period in periods_of(config).items()
                if period is not None or key == "periods.train"
            },
        },
        missing_values={
            name: {"of": summary.size, "runs": _runs(times, summary.missing)}
            for name, summary in found.items()
            if summary.missing.any()
        },
        missing_chunks={name: _runs(times, counts) for name, counts in absent.items() if counts.any()},
        ranges={name: list(summary.range()) for name, summary in found.items()},
    )


def _runs(times: np.ndarray, counts: np.ndarray) -> list[list[Any]]:
    """First time, number of times and count of every run of equal counts other than 0."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(counts)) + 1])
    lengths = np.diff([*starts, counts.size])
    return [
        [time_text(times[start]), int(length), int(counts[start])]
        for start, length in zip(starts, lengths, strict=True)
        if counts[start]
    ]


def _planned_store(config: Config, count: int) -> dict[str, Any]:
    data = config.data
    fields = sum(len(data.levels) if known(name).kind == "pressure" else 1 for name in data.variables)
    cells = data.grid.latitude * data.grid.longitude
    return {
        "grid": str(config.data.grid.build()),
        "fields": fields,
        "times": int(count),
        "bytes": int(4 * cells * (fields * count + len(data.statics))),
    }


def _planned_period(times: np.ndarray, valid: np.ndarray, step_hours: int, period) -> dict[str, Any]:
    inside = np.ones(times.size, dtype=bool) if period is None else within(times, period)
    usable = np.flatnonzero(inside & valid)
    breaks = np.flatnonzero(np.diff(times[usable]) != np.timedelta64(step_hours, "h")) + 1
    runs = [part.size for part in np.split(usable, breaks) if part.size]
    return {"times": int(inside.sum()), "valid": int(usable.size), "runs": runs}


def rows_of_plan(config: Config) -> list[tuple[str, str]]:
    """Say what would be made of data that are yet to be made."""
    simulation, step = config.simulation, config.data.time_step_hours
    store = _planned_store(config, simulation.days * 24 // step)
    made = f"T{simulation.truncation} simulation" if config.source.kind == "simulation" else "closed-form waves"
    return [
        ("source", f"{made}, {simulation.days} days from {simulation.start:%Y-%m-%d}, yet to be made"),
        ("training store", _store_text(store)),
        *_rows_of_work(config),
    ]


def rows_of_record(record: ValidationRecord, config: Config) -> list[tuple[str, str]]:
    """Say what was found in a source and what would be made of it."""
    times = record.times
    rows = [
        ("source", f"{redact(str(config.source.path))}: {record.source['grid']}"),
        ("times", f"{times['count']} from {times['first']} to {times['last']}, every {times['step_hours']} h"),
    ]
    if times["source_step_hours"] != times["step_hours"]:
        rows.append(("subsampled", f"the source has a time every {times['source_step_hours']:g} h"))
    rows += [("gap", f"{before} to {after}") for before, after in record.gaps]
    for name, lost in record.missing.items():
        values = record.missing_values.get(name, {"of": 1, "runs": []})
        share = sum(length * count for _, length, count in values["runs"]) / (values["of"] * times["count"])
        chunks = sum(length * count for _, length, count in record.missing_chunks.get(name, []))
        text = f"{name}: {len(lost)} times, the first {lost[0]}; {share:.2%} of its values"
        rows.append(("missing", text + (f", {chunks} chunks were never written" if chunks else "")))
    rows.append(("training store", _store_text(record.planned["training_store"])))
    longest = max(stage.steps for stage in config.training.stages)
    given = config.model.input_steps - 1
    for name, period in record.planned["periods"].items():
        text = f"{period['valid']} valid of {period['times']} times"
        if name != "test":
            windows = {k: sum(max(0, run - given - k) for run in period["runs"]) for k in sorted({1, longest})}
            text += "".join(f", {count} windows of {k} step{'s' * (k > 1)}" for k, count in windows.items())
        rows.append((name, text))
    return rows + _rows_of_work(config)


def _store_text(store: dict[str, Any]) -> str:
    size = store["bytes"]
    text = f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.1f} MB"
    return f"{store['times']} times x {store['fields']} fields on {store['grid']}; {text} before compression"


def _rows_of_work(config: Config) -> list[tuple[str, str]]:
    stages = ", ".join(f"{stage.updates} updates of {stage.steps} steps" for stage in config.training.stages)
    forecast = config.forecast
    return [
        ("training", f"{stages}; batches of {config.training.batch_size}"),
        ("forecasts", f"every {forecast.every_hours} h of the test period, to {forecast.lead_hours} h"),
    ]
