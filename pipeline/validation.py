"""Stage `validate`: is the source what the configuration takes it for, and what would be computed from it?

Everything is checked before anything is written. What can be known without the data (names, levels, units, grid, times,
periods) is checked first and all faults are listed together; then every value is read once for missing values and range.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, publishing
from pipeline.config import Config
from pipeline.progress import progress
from pipeline.runs import Run
from pipeline.sources import absent_chunk_times, open_source, origin_facts, source_grid
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.timeaxis import TimeSelection, as_datetime64, as_slice, even_times, time_text, within
from transforms.units import height_fault, units_fault
from transforms.variables import VARIABLES, known

__all__ = [
    "KIND",
    "ValidationRecord",
    "field_faults",
    "inspect_config",
    "read_record",
    "run_stage",
    "training_grid",
    "validate_source",
]

KIND = "validation record"

_AXES_OF_KIND = {
    "pressure": ("time", "level", "latitude", "longitude"),
    "surface": ("time", "latitude", "longitude"),
    "static": ("latitude", "longitude"),
}
_SHOWN = 5
_BLOCKS_AT_ONCE = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidationRecord:
    """What was found in a source that passed, and what would be made of it.

    Attributes:
        source: facts: grid, levels, `source` (its title or file name), whether it is `simulated`.
        times: first, last, count, step_hours of the times taken, and source_step_hours.
        gaps: [last time before, first time after] of every gap.
        missing: times with missing values by variable; the training store marks them as not valid.
        valid_times: count, first and last of the times with complete data.
        planned: the training store's shape and size; for each period the number of its times, of its valid times,
            and the lengths of its `runs`, unbroken series of valid times. A run of n times has n - k windows of k steps.
    """

    source: dict[str, Any]
    times: dict[str, Any]
    gaps: list[list[str]]
    missing: dict[str, list[str]]
    valid_times: dict[str, Any]
    planned: dict[str, Any]


def training_grid(config: Config) -> Grid:
    """Return the grid of the training store."""
    grid = config.data.grid
    return Grid.equiangular(grid.latitude, grid.longitude, poles=grid.poles)


def validate_source(
    dataset: xr.Dataset, config: Config, *, path: str = "", absent: Mapping[str, np.ndarray] | None = None
) -> ValidationRecord:
    """Check a canonical source against a configuration, reading every value once.

    Args:
        dataset: from `open_source`.
        path: where it was read, to name it.
        absent: positions in time of chunks that were never written, by variable; from `absent_chunk_times`.

    Raises:
        InputError: one line for every fault found.
    """
    data = config.data
    faults: list[str] = []
    grid = _collect(faults, source_grid, dataset)
    selection = _collect(faults, even_times, dataset["time"].values, data.time_step_hours, data.period)
    names = [*data.variables, *data.statics]
    faults += field_faults(dataset, names, data.levels)
    if selection is not None:
        faults += _gap_faults(selection, config)
        faults += _period_faults(selection, config)
        faults += _first_look(dataset, names, data.levels, int(selection.positions[0]))
    _raise(faults)
    missing = _scan(dataset, data.variables, data.levels, selection, faults)
    for name, positions in (absent or {}).items():
        if name in missing:
            missing[name] |= np.isin(selection.positions, positions)
    faults += _missing_faults(missing, selection.times, absent or {}, config)
    _raise(faults)
    return _record(dataset, path, grid, config, selection, missing)


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
        if axes != _AXES_OF_KIND[kind]:
            faults.append(
                f"{name}: has axes ({', '.join(map(str, axes))}), expected ({', '.join(_AXES_OF_KIND[kind])}). "
                "Select one entry of every other axis in the source, or map another variable under source.rename."
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
    record = _inspect(run.config, run.source_path)
    description = describe(KIND, fingerprint, inputs)
    with publishing(run.validation_record) as partial:
        partial.write_text(json.dumps({ATTRIBUTE: description, **asdict(record)}, indent=1) + "\n")
    _log.info("%s: %d times, %d valid", run.source_path, record.times["count"], record.valid_times["count"])


def read_record(path: str | Path) -> ValidationRecord:
    """Read a published ``validation.json``."""
    document = json.loads(Path(path).read_text())
    return ValidationRecord(**{key: value for key, value in document.items() if key != ATTRIBUTE})


def inspect_config(config: Config) -> tuple[ValidationRecord | None, list[tuple[str, str]]]:
    """Check a configuration and its source; say what would be computed.

    Returns:
        The record, None where the data are yet to be made (source.kind simulation or waves); and rows of (what,
        what about it) for a person.

    Raises:
        InputError: one line for every fault found.
    """
    if config.source.kind != "store":
        return None, _rows_of_plan(config)
    if config.source.path is None:
        raise InputError(
            "source.path: not set. Say where the raw data is, e.g. source.path=/data/era5.zarr on the command line."
        )
    record = _inspect(config, config.source.path)
    return record, _rows_of_record(record, config)


def _inspect(config: Config, path: str) -> ValidationRecord:
    source = config.source
    options = {"rename": source.rename, "storage_options": source.storage_options}
    dataset = open_source(path, **options)
    absent = absent_chunk_times(path, config.data.variables, **options)
    return validate_source(dataset, config, path=path, absent=absent)


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
    periods = {"data.period": config.data.period, **_periods(config)}
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


def _periods(config: Config) -> dict[str, Any]:
    return {f"periods.{name}": getattr(config.periods, name) for name in ("train", "validation", "test")}


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
        fault = units_fault(variable, field.attrs.get("units"), low, high)
        if fault is None and name == "geopotential" and "level" in field.dims and present.size and not missing:
            top = int(field["level"].values.argmin())
            fault = height_fault(name, float(value[top].mean()), int(field["level"].values[top]))
        if fault:
            faults.append(fault)
    return faults


def _field(dataset: xr.Dataset, name: str, levels: list[int]) -> xr.DataArray:
    field = dataset[name]
    return field.sel(level=levels) if "level" in field.dims else field


def _scan(
    dataset: xr.Dataset, names: list[str], levels: list[int], selection: TimeSelection, faults: list[str]
) -> dict[str, np.ndarray]:
    """Read all values once: which times miss some, by variable, shape (time,); values out of range become faults.

    A minimum that meets NaN is NaN, so the extremes of each time say both, and a block is freed once they are taken.
    """
    fields = {name: _field(dataset, name, levels) for name in names}
    lows = {name: np.empty(selection.positions.size) for name in names}
    highs = {name: np.empty(selection.positions.size) for name in names}
    block = _BLOCKS_AT_ONCE * dataset[names[0]].data.chunksize[0]
    cuts = np.flatnonzero(np.diff(selection.positions // block)) + 1
    with progress("validate", selection.positions.size) as bar:
        for part in np.split(np.arange(selection.positions.size), cuts):
            positions = selection.positions[part]
            extremes = {}
            for name, field in fields.items():
                values = field.isel(time=as_slice(positions)).data
                axes = tuple(range(1, values.ndim))
                extremes[name] = (values.min(axis=axes), values.max(axis=axes))
            (extremes,) = dask.compute(extremes, scheduler="threads")
            for name, (low, high) in extremes.items():
                lows[name][part], highs[name][part] = low, high
            bar.advance(part.size)
    missing = {name: np.isnan(lows[name]) for name in names}
    for name in names:
        if missing[name].all():
            continue
        low, high = float(np.nanmin(lows[name])), float(np.nanmax(highs[name]))
        fault = units_fault(VARIABLES[name], None, low, high)
        if fault:
            wrong = (lows[name] < VARIABLES[name].minimum) | (highs[name] > VARIABLES[name].maximum)
            faults.append(f"{fault} First at {time_text(selection.times[wrong][0])}.")
    return missing


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


def _record(
    dataset: xr.Dataset,
    path: str,
    grid: Grid,
    config: Config,
    selection: TimeSelection,
    missing: dict[str, np.ndarray],
) -> ValidationRecord:
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
                for key, period in _periods(config).items()
                if period is not None or key == "periods.train"
            },
        },
    )


def _planned_store(config: Config, count: int) -> dict[str, Any]:
    data = config.data
    fields = sum(len(data.levels) if known(name).kind == "pressure" else 1 for name in data.variables)
    cells = data.grid.latitude * data.grid.longitude
    return {
        "grid": str(training_grid(config)),
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


def _rows_of_plan(config: Config) -> list[tuple[str, str]]:
    simulation, step = config.simulation, config.data.time_step_hours
    store = _planned_store(config, simulation.days * 24 // step)
    made = f"T{simulation.truncation} simulation" if config.source.kind == "simulation" else "closed-form waves"
    return [
        ("source", f"{made}, {simulation.days} days from {simulation.start:%Y-%m-%d}, yet to be made"),
        ("training store", _store_text(store)),
        *_rows_of_work(config),
    ]


def _rows_of_record(record: ValidationRecord, config: Config) -> list[tuple[str, str]]:
    times = record.times
    rows = [
        ("source", f"{config.source.path}: {record.source['grid']}"),
        ("times", f"{times['count']} from {times['first']} to {times['last']}, every {times['step_hours']} h"),
    ]
    if times["source_step_hours"] != times["step_hours"]:
        rows.append(("subsampled", f"the source has a time every {times['source_step_hours']:g} h"))
    rows += [("gap", f"{before} to {after}") for before, after in record.gaps]
    rows += [("missing", f"{name}: {len(lost)} times, the first {lost[0]}") for name, lost in record.missing.items()]
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
