"""Stage `validate`: is the source what the configuration takes it for, and what would be computed from it?

Everything is checked before anything is written. What can be known without the data (names, levels, units, grid, times,
periods) is checked first and all faults are listed together; then every value is read once for missing values and range.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dask
import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, publishing
from pipeline.config import Config
from pipeline.runs import Run
from pipeline.sources.chunks import absent_chunks
from pipeline.sources.derive import absent_times, stored_inputs
from pipeline.sources.opening import in_blocks, open_source, reading_options
from pipeline.sources.prepare import prepare
from pipeline.stores.axes import AXES_OF_KIND, grid_of
from pipeline.validating.record import (
    KIND,
    ValidationRecord,
    make_record,
    periods_of,
    read_record,
    rows_of_plan,
    rows_of_record,
)
from pipeline.validating.scan import Summary, scan_source
from transforms.derived import recipes
from transforms.errors import InputError
from transforms.timeaxis import TimeSelection, as_datetime64, even_times, time_text, within
from transforms.units import height_fault, units_fault
from transforms.variables import VARIABLES, known

__all__ = [
    "KIND",
    "ValidationRecord",
    "field_faults",
    "inspect_config",
    "read_record",
    "run_stage",
    "validate_source",
]

_SHOWN = 5
_COLUMN = ("surface_pressure", "logarithm_of_surface_pressure", "log_surface_pressure")
"""What the pressure of model levels is computed from."""

_REACH_DAYS = 30

_log = logging.getLogger(__name__)


def validate_source(path: str, config: Config, **reading: Any) -> ValidationRecord:
    """Check a source against a configuration, reading every value once.

    Args:
        reading: arguments of `open_source` besides those the configuration holds.

    Raises:
        InputError: one line for every fault found.
    """
    data = config.data
    reading = {**reading_options(config), **reading}
    source = open_source(path, blocks=False, **reading)
    faults: list[str] = []
    grid = _collect(faults, grid_of, source)
    selection = _collect(faults, even_times, source["time"].values, data.time_step_hours, data.period)
    names = [*data.variables, *data.statics]
    inputs = stored_inputs(source, names)
    # A store has variables by the hundred; blocks are made of what may be needed.
    needed = [*names, *_COLUMN, *(part for name in names for recipe in recipes(name) for part in recipe.inputs)]
    reading["variables"] = [name for name in dict.fromkeys(needed) if name in source]
    preparing = {
        "variables": data.variables,
        "statics": data.statics,
        "levels": data.levels,
        "vertical": data.vertical,
        "step_hours": data.time_step_hours,
    }
    needed = source[reading["variables"]]
    first = 0 if selection is None else int(selection.positions[0])
    window = _around(source["time"].values, first)
    prepared = _prepared(source, needed.isel(time=window), names, preparing, faults)
    if selection is not None:
        faults += _gap_faults(selection, config)
        faults += _period_faults(selection, config)
        faults += _first_look(prepared, names, data.levels, first - window.start)
    _raise(faults)
    derived = [name for name in data.variables if name not in source]
    found = scan_source(
        path,
        needed,
        selection.positions,
        data.variables,
        reading=reading,
        preparing=preparing,
        derived=derived,
        beam_options=config.execution.beam,
        memory_mb=config.execution.memory_mb,
    )
    faults += _range_faults(found, selection)
    absent = absent_chunks(path, inputs, **reading)
    unwritten = absent_times(source, data.variables, {name: lost.times for name, lost in absent.items()})
    missing = {name: summary.missing > 0 for name, summary in found.items()}
    for name, positions in unwritten.items():
        missing[name] |= np.isin(selection.positions, positions)
    faults += _missing_faults(missing, selection.times, unwritten, config)
    _raise(faults)
    counts = {name: lost.counts[selection.positions] for name, lost in absent.items()}
    return make_record(source, path, grid, config, selection, found, counts, missing)


def _around(times: np.ndarray, position: int) -> slice:
    """The times with which that at a position can be looked at, those that sums over time reach included."""
    reach = np.timedelta64(_REACH_DAYS, "D")
    first, last = np.searchsorted(times, [times[position] - reach, times[position] + reach])
    # Times out of order are a fault that is found elsewhere.
    return slice(int(min(first, position)), int(max(last, position + 1)))


def _prepared(
    source: xr.Dataset, part: xr.Dataset, names: Sequence[str], preparing: Mapping[str, Any], faults: list[str]
) -> xr.Dataset:
    """Some times of the source with levels chosen and variables derived; as they are where that becomes faults."""
    chosen = in_blocks(part)
    present = [name for name in names if name in source or not recipes(name)]
    found = field_faults(source, present, preparing["levels"] if preparing["vertical"] == "select" else ())
    faults += found
    if any(" level " in fault for fault in found):
        return chosen
    try:
        prepared = prepare(chosen, **preparing)
    except InputError as error:
        faults += str(error).splitlines()
        return chosen
    faults += field_faults(prepared, [name for name in names if name not in present], preparing["levels"])
    return prepared


def field_faults(dataset: xr.Dataset, names: Sequence[str], levels: Sequence[int]) -> list[str]:
    """Return a fault for each variable, axis or level that is not there as needed."""
    faults = []
    for name in names:
        if name not in dataset:
            has = ", ".join(map(str, dataset.data_vars)) or "none that are known"
            faults.append(
                f"{name}: missing; the source has {has}. Map its name under source.rename, remove it from data, or "
                "choose another source."
            )
            continue
        kind, axes = known(name).kind, dataset[name].dims
        if axes != AXES_OF_KIND[kind]:
            faults.append(
                f"{name}: has axes ({', '.join(map(str, axes))}), expected ({', '.join(AXES_OF_KIND[kind])}). "
                f"{_other_axes(dataset, axes)}or map another variable under source.rename."
            )
        elif kind == "pressure":
            have = [int(level) for level in dataset["level"].values]
            lost = [level for level in levels if level not in have]
            if lost:
                faults.append(
                    f"{name}: level {', '.join(map(str, lost))} hPa is missing; the source has "
                    f"{', '.join(map(str, have))}. Remove it from data.levels or choose another source."
                )
            elif len(set(have)) != len(have):
                faults.append(f"{name}: a level occurs twice in the source ({', '.join(map(str, have))}). Remove one.")
    return faults


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Validate the run's source and publish ``validation.json``.

    Raises:
        InputError: one line for every fault found.
    """
    record = validate_source(run.source_path, run.config)
    description = describe(KIND, fingerprint, inputs)
    with publishing(run.validation_record) as partial:
        partial.write_text(json.dumps({ATTRIBUTE: description, **asdict(record)}, indent=1) + "\n")
    _log.info("%s: %d times, %d valid", run.source_path, record.times["count"], record.valid_times["count"])


def inspect_config(config: Config) -> tuple[ValidationRecord | None, list[tuple[str, str]]]:
    """Check a configuration and its source; say what would be computed.

    Returns:
        The record, None where the data are yet to be made (source.kind simulation or waves); and rows of (what,
        what about it) for a person.

    Raises:
        InputError: one line for every fault found.
    """
    if config.source.kind != "store":
        return None, rows_of_plan(config)
    if config.source.path is None:
        raise InputError(
            "source.path: not set. Say where the raw data is, e.g. source.path=/data/era5.zarr on the command line."
        )
    record = validate_source(str(config.source.access()[0]), config)
    return record, rows_of_record(record, config)


def _collect(faults: list[str], check, *arguments):
    try:
        return check(*arguments)
    except InputError as error:
        faults.append(str(error))
        return None


def _raise(faults: list[str]) -> None:
    if faults:
        heading = "the source cannot be used:\n" if len(faults) == 1 else f"the source has {len(faults)} faults:\n"
        raise InputError(heading + "\n".join(f"  {fault}" for fault in faults))


def _gap_faults(selection: TimeSelection, config: Config) -> list[str]:
    if config.source.allow_missing or not selection.gaps:
        return []
    first = " to ".join(map(time_text, selection.gaps[0]))
    return [
        f"time: {len(selection.gaps)} gap(s) in the {selection.step_hours}-hourly times, the first from {first}; expected "
        "none. Set source.allow_missing=true to record and skip them, or choose data.period without one."
    ]


def _period_faults(selection: TimeSelection, config: Config) -> list[str]:
    step = np.timedelta64(selection.step_hours, "h")
    first, last = selection.times[0], selection.times[-1]
    has = f"{time_text(first)} to {time_text(last)}"
    periods = {"data.period": config.data.period, **periods_of(config)}
    faults = []
    for key, period in periods.items():
        if period is None:
            continue
        start, end = map(as_datetime64, period)
        wanted = f"{time_text(start)} to {time_text(end)}"
        if start <= first - step or end >= last + step:
            faults.append(f"{key}: {wanted} reaches outside the source, which has {has}. Change {key}.")
        elif not within(selection.times, period).any():
            faults.append(f"{key}: no time within {wanted}; the source has {has}. Change {key}.")
    return faults


def _first_look(dataset: xr.Dataset, names: list[str], levels: list[int], position: int) -> list[str]:
    """Units and plausible values, judged by attributes and by the first time; statics must be complete as well."""
    faults = []
    first = {}
    for name in names:
        if name not in dataset:
            continue
        field = dataset[name]
        if "time" in field.dims:
            field = field.isel(time=position)
        if "level" in field.dims:
            field = field.isel(level=np.flatnonzero(np.isin(field["level"].values, levels)))
        first[name] = field
    (values,) = dask.compute({name: field.data for name, field in first.items()})
    for name, field in first.items():
        variable, value = VARIABLES[name], values[name]
        present = value[~np.isnan(value)]
        missing = value.size - present.size
        if variable.kind == "static" and missing:
            faults.append(
                f"{name}: {missing} of {value.size} values are missing; expected none. Fill them in the source."
            )
        low, high = (float(present.min()), float(present.max())) if present.size else (np.nan, np.nan)
        units = field.attrs.get("units")
        fault = units_fault(variable, None if units is None else str(units), low, high)
        if fault is None and name == "geopotential" and "level" in field.dims and present.size and not missing:
            top = int(field["level"].values.argmin())
            fault = height_fault(name, float(value[top].mean()), int(field["level"].values[top]))
        if fault:
            faults.append(fault)
    return faults


def _range_faults(found: Mapping[str, Summary], selection: TimeSelection) -> list[str]:
    faults = []
    for name, summary in found.items():
        low, high = summary.range()
        fault = None if low is None or high is None else units_fault(VARIABLES[name], None, low, high)
        if fault:
            wrong = (summary.low < VARIABLES[name].minimum) | (summary.high > VARIABLES[name].maximum)
            faults.append(f"{fault} First at {time_text(selection.times[wrong][0])}.")
    return faults


def _other_axes(dataset: xr.Dataset, axes: Sequence[Hashable]) -> str:
    """How to get rid of axes that no field has."""
    other = next((str(axis) for axis in axes if axis not in AXES_OF_KIND["pressure"]), None)
    if other is None:
        return "Choose another source, "
    label = dataset[other].values[0] if other in dataset.coords else 0
    return f"Select one entry of every other axis, e.g. source.select={{{other}: {label}}}, "


def _missing_faults(
    missing: dict[str, np.ndarray], times: np.ndarray, absent: Mapping[str, np.ndarray], config: Config
) -> list[str]:
    some = {name: times[mask] for name, mask in missing.items() if mask.any()}
    if config.source.allow_missing:
        complete = ~np.any(list(missing.values()), axis=0)
        if complete.any():
            return []
        return [
            f"time: no time has complete data ({', '.join(some)}: missing values everywhere). Choose another source."
        ]
    faults = []
    for name, lost in some.items():
        shown = ", ".join(map(time_text, lost[:_SHOWN])) + (" ..." if lost.size > _SHOWN else "")
        cause = "chunks that were never written" if name in absent else "missing values"
        faults.append(
            f"{name}: {cause} at {lost.size} of {times.size} times: {shown}; expected none. "
            "Set source.allow_missing=true to record and skip them, or repair the source."
        )
    return faults
