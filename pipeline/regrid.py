"""Stage `regrid`: the source on the training grid, as a Beam job that reads, regrids and writes whole objects.

Every store is created first, complete but for its data. An element of the job owns some times of a variable, or of both
components of a wind, in all targets: it reads each block of them once, regrids it to every grid, and writes shards that
nobody else writes. So the job is a map alone, any Beam runner can spread it, and a job that was stopped goes on with the
shards that are missing or damaged. What an element learns besides, which times miss values and what rounding did, it
leaves in a note beside the data; the notes are gathered into the store at the end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import (
    describe,
    digest,
    publishing,
    read_description,
    require,
    source_fingerprint,
    unfinished,
)
from pipeline.jobs.beam_runner import require_runner, run_elements
from pipeline.jobs.threads import keep_freed_memory_low, thread_limit
from pipeline.objects import Objects, is_url
from pipeline.regridding.layout import Layout, rounding_attributes
from pipeline.regridding.methods import regridder
from pipeline.regridding.work import JOB, NOTES, Element, RegridElement, RegridJob, Target, forget
from pipeline.runs import Run
from pipeline.sources.derive import absent_times, stored_inputs
from pipeline.sources.opening import absent_chunk_times, open_source, origin_facts, reading_options
from pipeline.sources.prepare import prepare
from pipeline.stores.axes import AXES_OF_KIND, HORIZONTAL, grid_of
from pipeline.stores.writing import (
    is_document,
    set_attributes,
)
from pipeline.validate import field_faults
from pipeline.validating.record import KIND as RECORD_KIND
from pipeline.validating.record import read_record
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.timeaxis import even_times, require_ascending, time_text, within
from transforms.variables import VARIABLES, wind_pairs

__all__ = ["KIND", "regrid_store", "run_stage"]

KIND = "training store"

_BLOCK_BYTES = 12e6
"""Source data of one variable regridded at once; it stays in the last cache while it is."""
_BLOCKS_HELD = 5
"""Blocks in memory: one being regridded, one being read, and what decoding them takes besides."""
_OBJECTS_HELD = 3
"""Objects in memory for each written: one being filled, one being encoded, and its encoding."""
_AT_ONCE = 16
_SHOWN = 5
_SURFACE_AXES = (AXES_OF_KIND["surface"], HORIZONTAL)

_log = logging.getLogger(__name__)


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``training.zarr`` of the run from its validated source.

    Raises:
        InputError: the source was not validated, or has changed since.
    """
    require(run.validation_record, RECORD_KIND, "run `spherecast preprocess` first")
    record, config = read_record(run.validation_record), run.config
    regrid_store(
        run.source_path,
        run.training_store,
        config.data.grid.build(),
        method=config.data.method,
        variables=config.data.variables,
        statics=config.data.statics,
        levels=config.data.levels,
        vertical=config.data.vertical,
        period=config.data.period,
        step_hours=config.data.time_step_hours,
        **reading_options(config),
        skipna=config.source.allow_missing,
        shard_times=config.data.shard_times,
        zarr_format=config.data.zarr_format,
        keep_bits=config.data.keep_bits,
        beam_options=config.execution.beam,
        memory_mb=config.execution.memory_mb,
        expected_times=record.times["count"],
        fingerprint=fingerprint,
        inputs=inputs,
    )


def regrid_store(
    source: str | Path,
    target: str | Path,
    grid: Grid,
    *,
    also: Sequence[tuple[str | Path, Grid, str]] = (),
    method: str = "conservative",
    variables: Sequence[str] | None = None,
    statics: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    vertical: str = "select",
    period: tuple[datetime, datetime] | None = None,
    step_hours: int | None = None,
    rename: Mapping[str, str] | None = None,
    preset: str | None = None,
    units: Mapping[str, str] | None = None,
    select: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    retries: int = 4,
    skipna: bool = False,
    shard_times: int = 128,
    zarr_format: int = 3,
    keep_bits: Mapping[str, int] | None = None,
    beam_options: Sequence[str] = ("--runner=DirectRunner",),
    memory_mb: int = 1024,
    repair: bool = False,
    expected_times: int | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Regrid a source and publish it as one zarr store or several, reading it once.

    A store holds float32 variables (time, [level], latitude, longitude), in zarr v3 with one time in a chunk and up to
    `shard_times` in a shard, statics (latitude, longitude), and ``valid`` (time), False where any variable misses a
    value in the source. Pairs of wind components are regridded as vectors. Its bytes depend on neither the runner nor
    `memory_mb`. A job that was stopped goes on where it was, if nothing that decides the data has changed since.

    Args:
        source, rename, preset, units, select, storage_options, retries: see `pipeline.sources.opening.open_source`.
        target: store to publish: a local path, or an address that fsspec can write to.
        grid: grid to regrid to.
        also: further (target, grid, method).
        method: see `pipeline.regridding.methods.regridder`.
        variables: variables with a time axis, derived ones included; all that lie on the grid by default.
        statics: variables without one; all by default.
        levels: levels kept, hPa; all by default.
        vertical: see `pipeline.sources.pressure_levels.at_levels`.
        period: first and last time, both included; all by default.
        step_hours: step of the times kept; all times by default.
        target_options: passed to fsspec for targets that are addresses.
        skipna: take means over the values that are not missing, and mark the times in ``valid``; otherwise times with
            missing values are refused once all others are done.
        zarr_format: 3, or 2, which has no shards: chunks then hold up to 4 MB.
        keep_bits: bits of the mantissa to keep, by variable; the error it makes is an attribute of the variable.
        beam_options: options of Apache Beam. Workers in other processes or machines must see all paths.
        memory_mb: bound of the data that a process holds at once.
        repair: where a target is there already and was made of the same, rewrite only what is missing or damaged.
        expected_times: number of times that validation found.

    Raises:
        InputError: the source cannot be read or lacks what is asked for, a target cannot be written, or memory does
            not suffice.
    """
    require_runner(beam_options)
    keep_freed_memory_low()
    # Workers need not share the working directory.
    source = str(source) if is_url(source) else os.path.abspath(source)
    opening: dict[str, Any] = {
        "rename": dict(rename or {}),
        "storage_options": dict(storage_options or {}),
        "preset": preset,
        "units": dict(units or {}),
        "select": dict(select or {}),
        "retries": retries,
    }
    preparing: dict[str, Any] = {"variables": variables, "statics": statics, "levels": levels, "vertical": vertical}
    preparing["step_hours"] = step_hours
    raw = open_source(source, blocks=False, **opening)
    dataset = prepare(raw, **preparing)
    names, statics = _names(dataset, variables, statics, source)
    levels = _levels(dataset, names, levels)
    positions = _checked_times(dataset, names, statics, levels, period, step_hours, expected_times)
    # Derived fields need dask's blocks; plain ones are read faster without.
    plain = vertical == "select" and all(name in raw for name in names)
    opening["blocks"] = not plain
    shard_times = min(shard_times, positions.size)
    keep_bits = dict(keep_bits or {})
    times = dataset["time"].values[positions]
    facts = {
        "levels": levels,
        "variables": names,
        "statics": statics,
        "time_step_hours": step_hours,
        "period": [time_text(times[0]), time_text(times[-1])],
        **origin_facts(dataset, source),
    }
    decisive = [_identity(source, opening["storage_options"]), names, statics, preparing]
    decisive += [opening[key] for key in ("rename", "preset", "units", "select")]
    decisive += [times.astype(str).tolist(), shard_times, zarr_format, keep_bits]
    layout = Layout(names, statics, levels, times, shard_times, zarr_format, keep_bits)
    places: dict[str, Target] = {}
    for path, onto, way in [(target, grid, method), *also]:
        path = str(path) if is_url(path) else os.path.abspath(path)
        if path in places:
            raise InputError(f"{path}: named twice as a target. Give each grid a store of its own.")
        identity = digest([*decisive, onto.latitude.tolist(), onto.longitude.tolist(), way])
        description = describe(KIND, fingerprint, inputs, grid=str(onto), method=way, job=identity, **facts)
        mapping = regridder(grid_of(dataset), onto, way, threads=thread_limit())
        places[path] = layout.target(path, dataset, mapping, description, dict(target_options or {}))
    elements = _elements(raw, dataset, names, list(places.values()), positions, shard_times, memory_mb * 1e6)
    needed = stored_inputs(raw, names)
    absent = absent_chunk_times(source, needed, **{key: opening[key] for key in _READING})
    with contextlib.ExitStack() as stack:
        targets = tuple(_placed(place, stack, repair) for place in places.values())
        job = RegridJob(
            uuid.uuid4().hex,
            source,
            opening,
            preparing,
            targets,
            positions,
            absent_times(raw, names, absent),
            keep_bits,
            skipna,
            memory_mb * 1e6,
        )
        try:
            run_elements(JOB, elements, RegridElement(job), beam_options)
        finally:
            forget(job)
        for place in targets:
            _finish(place, names, times, keep_bits, skipna)
    _log.info("%s: %d times of %d variables", ", ".join(places), times.size, len(names))


def _checked_times(
    dataset: xr.Dataset,
    names: list[str],
    statics: list[str],
    levels: list[int],
    period: tuple[datetime, datetime] | None,
    step_hours: int | None,
    expected_times: int | None,
) -> np.ndarray:
    """Return the positions of the times to regrid, after the fields' schema and the number of times were checked."""
    # A store may hold what a run would refuse, such as one level of a variable without an axis for it.
    checked = [name for name in (*names, *statics) if name in VARIABLES and dataset[name].dims not in _SURFACE_AXES]
    faults = field_faults(dataset, checked, levels)
    if faults:
        raise InputError("\n".join(faults))
    positions = _positions(dataset["time"].values, period, step_hours)
    if expected_times is not None and positions.size != expected_times:
        raise InputError(
            f"time: the source now gives {positions.size} times, but {expected_times} were validated. It has changed; "
            "run the stage validate again (--from validate)."
        )
    return positions


_READING = ("rename", "storage_options", "preset", "retries")


def _identity(source: str, options: dict[str, Any]) -> Any:
    """What tells a source from others: what it says it was made from, or where it is and what its files are."""
    made_from = None if is_url(source) else (read_description(source) or {}).get("fingerprint")
    return made_from or [source, source_fingerprint(source, options)]


def _elements(
    raw: xr.Dataset,
    dataset: xr.Dataset,
    names: list[str],
    targets: list[Target],
    positions: np.ndarray,
    shard_times: int,
    memory: float,
) -> list[Element]:
    pairs = wind_pairs(names)
    groups = [*pairs, *[(name,) for name in names if not any(name in pair for pair in pairs)]]
    elements = []
    for group in groups:
        stored = [raw[name] for name in stored_inputs(raw, group) if "time" in raw[name].dims]
        fields = stored or [dataset[name] for name in group]
        per_time = sum(4 * field.size / field.sizes["time"] for field in fields)
        chunk = max(map(_chunk_times, fields))
        written = sum(target.arrays[name].value_bytes for target in targets for name in group)
        least = _OBJECTS_HELD * written + _BLOCKS_HELD * chunk * per_time
        if least > memory:
            raise InputError(
                f"memory_mb: {memory / 1e6:.0f} does not suffice for {', '.join(group)}, whose blocks of {chunk} time(s) "
                f"take {math.ceil(least / 1e6)} while they are regridded. Give more (execution.memory_mb)."
            )
        wanted = int(_BLOCK_BYTES * len(fields) / (chunk * per_time))
        affordable = int((memory - _OBJECTS_HELD * written) / (_BLOCKS_HELD * chunk * per_time))
        block = chunk * max(1, min(wanted, affordable))
        held = _OBJECTS_HELD * written + _BLOCKS_HELD * block * per_time
        elements += [
            Element(start, min(start + shard_times, positions.size), tuple(group), block, held)
            for start in range(0, positions.size, shard_times)
        ]
    return elements


def _chunk_times(variable: xr.DataArray) -> int:
    """Times in a stored chunk, as it is read."""
    if variable.chunks:
        return int(variable.data.chunksize[variable.dims.index("time")])
    chunks = variable.encoding.get("chunks")
    return int(chunks[variable.dims.index("time")]) if chunks and len(chunks) == variable.ndim else 1


def _placed(target: Target, stack: contextlib.ExitStack, repair: bool) -> Target:
    """Put the template in place, beside what an earlier attempt at the same left."""
    if repair and (read_description(target.path) or {}).get("job") == target.job:
        return _opened_for_repair(target)
    options = dict(target.objects.options)
    partial = stack.enter_context(publishing(target.path, keep_partial=True, storage_options=options))
    objects = Objects(str(partial), options)
    resumed = (unfinished(objects) or {}).get("job") == target.job
    if not resumed:
        objects.remove()
    objects.remove_leftovers()
    for key, data in target.template.items():
        if not resumed or objects.read(key) != data:
            objects.write(key, data)
    return replace(target, objects=objects, check=resumed)


def _opened_for_repair(target: Target) -> Target:
    objects = target.objects
    objects.remove_leftovers()
    for key, data in target.template.items():
        if is_document(key):
            try:
                json.loads(objects.read(key) or b"")
            except ValueError as error:
                raise InputError(f"{target.path}: {key} is damaged ({error}). Make the store again.") from error
        elif objects.read(key) != data:
            objects.write(key, data)
    valid = target.arrays["valid"]
    sound = all(valid.is_sound(objects.read(key)) for key in valid.all_keys())
    return replace(target, check=True, noted=not sound)


def _finish(target: Target, names: list[str], times: np.ndarray, keep_bits: Mapping[str, int], skipna: bool) -> None:
    """Gather the notes into the store.

    Raises:
        InputError: there are missing values, and they are not to be skipped.
    """
    objects = target.objects
    keys = objects.find()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = pool.map(objects.read, sorted(key for key in keys if key.startswith(f"{NOTES}/")))
        notes = [json.loads(note) for note in read if note]
    valid = np.ones(times.size, dtype=bool)
    faults = []
    for name in names:
        missing = [position for note in notes for position in note["missing"].get(name, ())]
        valid[missing] = False
        if missing:
            shown = ", ".join(map(time_text, times[sorted(missing)[:_SHOWN]])) + (
                " ..." if len(missing) > _SHOWN else ""
            )
            faults.append(
                f"{name}: missing values at {len(missing)} of {times.size} times: {shown}; expected none. Skip them and "
                "mark these times (source.allow_missing=true, --skipna), or repair the source."
            )
    if faults and not skipna:
        raise InputError("\n".join(faults))
    lost = [name for name in names if not keys.issuperset(target.arrays[name].all_keys())]
    if lost:
        raise RuntimeError(f"{target.path}: objects of {', '.join(lost)} were not written")
    if target.noted:
        array = target.arrays["valid"]
        for number, key in enumerate(array.all_keys()):
            objects.write(key, array.encode(valid[number * array.span : (number + 1) * array.span]))
        documents = dict(target.template)
        for name in [name for name in names if name in keep_bits]:
            errors = [error for note in notes for error in note["rounding"].get(name, ())]
            documents |= set_attributes(documents, name, rounding_attributes(keep_bits[name], errors))
        for key, data in documents.items():
            if data != target.template[key]:
                objects.write(key, data)
    objects.remove(NOTES)


def _names(
    dataset: xr.Dataset, variables: Sequence[str] | None, statics: Sequence[str] | None, source: str
) -> tuple[list[str], list[str]]:
    found = {name: variable.dims for name, variable in dataset.data_vars.items()}
    dynamic = [AXES_OF_KIND["pressure"], AXES_OF_KIND["surface"]]
    if variables is None:
        variables = sorted(str(name) for name, axes in found.items() if axes in dynamic)
    if statics is None:
        statics = sorted(str(name) for name, axes in found.items() if axes == HORIZONTAL)
    if not variables:
        raise InputError(
            f"{source}: no variable over time, latitude and longitude; it has {', '.join(map(str, found))}."
        )
    unknown = [name for name in (*variables, *statics) if name not in found]
    if unknown:
        raise InputError(f"{unknown[0]}: missing; {source} has {', '.join(map(str, found))}.")
    return list(variables), list(statics)


def _levels(dataset: xr.Dataset, names: list[str], levels: Sequence[int] | None) -> list[int]:
    if not any("level" in dataset[name].dims for name in names):
        return []
    return [int(level) for level in (dataset["level"].values if levels is None else levels)]


def _positions(times: np.ndarray, period: tuple[datetime, datetime] | None, step_hours: int | None) -> np.ndarray:
    if step_hours is not None:
        return even_times(times, step_hours, period).positions
    require_ascending(times)
    positions = np.arange(times.size) if period is None else np.flatnonzero(within(times, period))
    if positions.size == 0:
        raise InputError(f"period: no time within it; the source has {time_text(times[0])} to {time_text(times[-1])}.")
    return positions
