"""Stage `regrid`: the source on the training grid, as a Beam job that reads, regrids and writes whole shards.

The store is created first, complete but for its data. Each element of the job owns one shard of a variable, or of both
components of a wind, so that writes need no coordination and any Beam runner can spread them. Only the flags that say
which times are complete meet across variables, a few bytes per shard.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dask
import numpy as np
import tensorstore
import xarray as xr
import zarr

from pipeline.artefacts import ATTRIBUTE, describe, publishing, require
from pipeline.beam_runner import beam, count_done, run_job, xbeam
from pipeline.runs import Run
from pipeline.sources import absent_chunk_times, open_source, origin_facts, source_grid
from pipeline.stores import consolidate
from pipeline.validation import KIND as RECORD_KIND
from pipeline.validation import field_faults, read_record, training_grid
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regridding import Regridder
from transforms.timeaxis import as_slice, even_times, require_ascending, time_text, within
from transforms.variables import VARIABLES, wind_pairs

__all__ = ["KIND", "regrid_store", "run_stage"]

KIND = "training store"

_JOB = "regrid"
_BLOCK_BYTES = 32e6
"""Source data of one variable held at once by a worker."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    """What every worker needs to know."""

    source: str
    source_options: dict[str, Any]
    target: str
    regridder: Regridder
    positions: np.ndarray
    levels: list[int]
    shard_times: int
    absent: dict[str, np.ndarray]


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
        training_grid(config),
        method=config.data.method,
        variables=config.data.variables,
        statics=config.data.statics,
        levels=config.data.levels,
        period=config.data.period,
        step_hours=config.data.time_step_hours,
        rename=config.source.rename,
        storage_options=config.source.storage_options,
        shard_times=config.data.shard_times,
        beam_options=config.execution.beam,
        expected_times=record.times["count"],
        fingerprint=fingerprint,
        inputs=inputs,
    )


def regrid_store(
    source: str | Path,
    target: str | Path,
    grid: Grid,
    *,
    method: str = "conservative",
    variables: Sequence[str] | None = None,
    statics: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    period: tuple[datetime, datetime] | None = None,
    step_hours: int | None = None,
    rename: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    shard_times: int = 128,
    beam_options: Sequence[str] = ("--runner=DirectRunner",),
    expected_times: int | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Regrid a source and publish it as a zarr v3 store.

    The store holds float32 variables (time, [level], latitude, longitude) with one time in a chunk and `shard_times`
    in a shard, statics (latitude, longitude), and ``valid`` (time), False where any variable misses a value in the
    source. Pairs of wind components are regridded as vectors.

    Args:
        source, rename, storage_options: see `pipeline.sources.open_source`.
        target: store to publish.
        grid: grid to regrid to.
        method: ``conservative``, ``bilinear`` or ``nearest``; see `transforms.regridding.Regridder`.
        variables: variables with a time axis; all that lie on the grid by default.
        statics: variables without one; all by default.
        levels: levels kept, hPa; all by default.
        period: first and last time, both included; all by default.
        step_hours: step of the times kept; all times by default.
        beam_options: options of Apache Beam. Workers in other processes or machines must see both paths.
        expected_times: number of times that validation found.

    Raises:
        InputError: the source cannot be read or lacks what is asked for, or the target cannot be written.
    """
    # Workers need not share the working directory.
    source, target = str(source), Path(target)
    source = source if "://" in source else os.path.abspath(source)
    options = {"rename": dict(rename or {}), "storage_options": dict(storage_options or {})}
    dataset = open_source(source, **options)
    names, statics = _names(dataset, variables, statics, source)
    levels = _levels(dataset, names, levels)
    faults = field_faults(dataset, [name for name in (*names, *statics) if name in VARIABLES], levels)
    if faults:
        raise InputError("\n".join(faults))
    positions = _positions(dataset["time"].values, period, step_hours)
    if expected_times is not None and positions.size != expected_times:
        raise InputError(
            f"time: the source now gives {positions.size} times, but {expected_times} were validated. It has changed; "
            "run the stage validate again (--from validate)."
        )
    shard_times = min(shard_times, positions.size)
    regridder = Regridder(source_grid(dataset), grid, method)
    pairs = wind_pairs(names)
    groups = [*pairs, *[(name,) for name in names if not any(name in pair for pair in pairs)]]
    keys = [
        xbeam.Key({"time": start}, vars=frozenset(group))
        for start in range(0, positions.size, shard_times)
        for group in groups
    ]
    times = dataset["time"].values[positions]
    description = describe(
        KIND,
        fingerprint,
        inputs,
        grid=str(grid),
        levels=levels,
        variables=names,
        statics=statics,
        time_step_hours=step_hours,
        period=[time_text(times[0]), time_text(times[-1])],
        method=method,
        **origin_facts(dataset, source),
    )
    with publishing(target) as partial:
        template = _template(dataset, regridder, names, statics, levels, times, description)
        _create(template, partial, shard_times)
        absent = absent_chunk_times(source, names, **options)
        job = _Job(source, options, str(partial.resolve()), regridder, positions, levels, shard_times, absent)

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | beam.Create(keys)
                | beam.Reshuffle()
                | beam.ParDo(_RegridShard(job))
                | beam.CombinePerKey(_all_complete)
                | beam.MapTuple(_WriteValid(job.target))
            )

        run_job(_JOB, len(keys), build, beam_options)
        lost = absent_chunk_times(partial, [*names, "valid"])
        if lost:
            raise RuntimeError(f"{target}: shards of {', '.join(lost)} were not written")
    _log.info("%s: %d times of %d variables on %s", target, times.size, len(names), grid)


class _RegridShard(beam.DoFn):
    """Read, regrid and write one shard of one variable or wind; yield (first time, which times are complete)."""

    def __init__(self, job: _Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.dataset = open_source(self.job.source, **self.job.source_options)
        self.arrays: dict[str, tensorstore.TensorStore] = {}

    def process(self, key: xbeam.Key) -> Iterator[tuple[int, np.ndarray]]:
        job, start = self.job, key.offsets["time"]
        names = wind_pairs(key.vars)[0] if len(key.vars) == 2 else tuple(key.vars)
        fields = [_at_levels(self.dataset[name], job.levels) for name in names]
        positions = job.positions[start : start + job.shard_times]
        complete = ~np.any([np.isin(positions, job.absent.get(name, ())) for name in names], axis=0)
        shape = (positions.size, *fields[0].shape[1:-2], *job.regridder.target.shape)
        results = [np.empty(shape, dtype=np.float32) for _ in names]
        span = max(1, int(_BLOCK_BYTES / (4 * fields[0].size / fields[0].sizes["time"])))
        for begin in range(0, positions.size, span):
            block = slice(begin, begin + span)
            chosen = as_slice(positions[block])
            values = dask.compute(*[field.isel(time=chosen).data for field in fields], scheduler="threads")
            for value in values:
                complete[block] &= ~np.isnan(value.min(axis=tuple(range(1, value.ndim))))
            done = job.regridder.wind(*values) if len(values) == 2 else (job.regridder(values[0]),)
            for result, regridded in zip(results, done, strict=True):
                result[block] = regridded
        writes = [
            self._array(name)[start : start + positions.size].write(result)
            for name, result in zip(names, results, strict=True)
        ]
        for write in writes:
            write.result()
        count_done(_JOB)
        yield start, complete

    def _array(self, name: str) -> tensorstore.TensorStore:
        if name not in self.arrays:
            self.arrays[name] = _open_array(self.job.target, name)
        return self.arrays[name]


class _WriteValid:
    """Write the flags of one shard's times."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __call__(self, start: int, complete: np.ndarray) -> None:
        _open_array(self.target, "valid")[start : start + complete.size].write(complete).result()


def _all_complete(flags: Iterator[np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce(list(flags))


def _open_array(store: str, name: str) -> tensorstore.TensorStore:
    """Open an array for writing; tensorstore encodes a shard in a third of the time zarr-python takes."""
    return tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{store}/{name}"},
            # A shard that is not there must mean a failure, also where all of it is missing values.
            "store_data_equal_to_fill_value": True,
        }
    ).result()


def _at_levels(field: xr.DataArray, levels: list[int]) -> xr.DataArray:
    return field.sel(level=levels) if "level" in field.dims else field


def _names(
    dataset: xr.Dataset, variables: Sequence[str] | None, statics: Sequence[str] | None, source: str
) -> tuple[list[str], list[str]]:
    found = {name: variable.dims for name, variable in dataset.data_vars.items()}
    surface = ("latitude", "longitude")
    dynamic = [("time", "level", *surface), ("time", *surface)]
    if variables is None:
        variables = sorted(str(name) for name, axes in found.items() if axes in dynamic)
    if statics is None:
        statics = sorted(str(name) for name, axes in found.items() if axes == surface)
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


def _template(
    dataset: xr.Dataset,
    regridder: Regridder,
    names: list[str],
    statics: list[str],
    levels: list[int],
    times: np.ndarray,
    description: dict[str, Any],
) -> xr.Dataset:
    """The store without the data that vary in time."""
    grid = regridder.target
    coordinates: dict[str, Any] = {
        "time": ("time", times, {"long_name": "valid time, UTC"}),
        "latitude": ("latitude", grid.latitude, {"units": "degrees_north", "long_name": "latitude"}),
        "longitude": ("longitude", grid.longitude, {"units": "degrees_east", "long_name": "longitude"}),
    }
    if levels:
        coordinates["level"] = ("level", np.array(levels, np.int32), {"units": "hPa", "long_name": "pressure"})
    sizes = {axis: len(values[1]) for axis, values in coordinates.items()}
    variables: dict[str, Any] = {"valid": (("time",), np.zeros(times.size, bool), _VALID)}
    for name in names:
        axes = dataset[name].dims
        empty = np.broadcast_to(np.float32(0), tuple(sizes[axis] for axis in axes))
        variables[name] = (axes, empty, _attributes(dataset[name]))
    result = xbeam.make_template(xr.Dataset(variables, coordinates, {ATTRIBUTE: description}))
    for name in statics:
        values = regridder(dataset[name].values).astype(np.float32)
        result[name] = (("latitude", "longitude"), values, _attributes(dataset[name]))
    return result


_VALID = {"long_name": "whether every variable is complete in the source"}


def _attributes(variable: xr.DataArray) -> dict[str, str]:
    name = str(variable.name)
    entry = VARIABLES.get(name)
    return {
        "units": entry.units if entry else str(variable.attrs.get("units", "")),
        "long_name": str(variable.attrs.get("long_name", name.replace("_", " "))),
    }


def _create(template: xr.Dataset, store: Path, shard_times: int) -> None:
    """Write metadata, coordinates and statics."""
    fast = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    encoding: dict[str, Any] = {"time": {"units": "seconds since 1970-01-01", "dtype": "int64"}}
    for name, variable in template.data_vars.items():
        if name == "valid":
            encoding[name] = {"chunks": (shard_times,)}
        elif "time" in variable.dims:
            rest = variable.shape[1:]
            encoding[name] = {"chunks": (1, *rest), "shards": (shard_times, *rest), "compressors": (fast,)}
        if variable.dtype == np.float32:
            encoding.setdefault(name, {}).update({"_FillValue": np.float32(np.nan), "fill_value": np.float32(np.nan)})
    template.to_zarr(store, mode="w", compute=False, zarr_format=3, consolidated=False, encoding=encoding)
    consolidate(store)
