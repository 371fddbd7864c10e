"""Reading every value of a source once, as a Beam job: what is missing and how far values range, by variable and time.

Each element of the job is one variable over some times. It leaves its few numbers in a file of its own, so that nothing
has to meet in one place on any runner and memory does not grow with the length of the source.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import fsspec
import numpy as np
import xarray as xr

from pipeline.jobs.beam_runner import beam, count_done, run_elements
from pipeline.sources.opening import in_blocks, open_source, times_in_block
from pipeline.sources.prepare import prepare

__all__ = ["Summary", "scan_source"]

_JOB = "validate"
_ELEMENT_BYTES = 512e6
"""Source data of one element, where stored chunks are smaller; it is read block by block."""
_COPIES = 4
"""Times the size of a block that reading, decoding and reducing it take."""


@dataclass(frozen=True, eq=False)
class Summary:
    """What was found of one variable, by time, shape (time,).

    Attributes:
        missing: number of values that are missing.
        low, high: smallest and largest value, NaN where all are missing.
        size: values that one time has.
    """

    missing: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: int

    def range(self) -> tuple[float | None, float | None]:
        """Smallest and largest value of all times, None where all are missing."""
        if np.isnan(self.low).all():
            return None, None
        return float(np.nanmin(self.low)), float(np.nanmax(self.high))


@dataclass(frozen=True, eq=False)
class _Job:
    """What every worker needs to know."""

    source: str
    reading: dict[str, Any]
    preparing: dict[str, Any]
    derived: frozenset[str]
    first: int
    last: int
    positions: np.ndarray
    records: str
    memory_mb: int


def scan_source(
    path: str,
    source: xr.Dataset,
    positions: np.ndarray,
    names: Sequence[str],
    *,
    reading: Mapping[str, Any],
    preparing: Mapping[str, Any],
    derived: Sequence[str] = (),
    beam_options: Sequence[str] = ("--runner=DirectRunner",),
    memory_mb: int = 1024,
) -> dict[str, Summary]:
    """Read all values of some times.

    Args:
        path: of the source.
        source: as `open_source` gives it, its times and what is needed of its variables.
        positions: of the times that are read, ascending.
        names: variables that are read.
        reading, preparing: arguments of `open_source` and `prepare`.
        derived: those of `names` that the source lacks.
        beam_options: options of Apache Beam. Workers on other machines must see the source and ``--temp_location``.
        memory_mb: bound on the source data in flight in a worker.

    Returns:
        What was found by name; time is that of `positions`. It does not depend on the last two arguments.
    """
    block = times_in_block(source)
    bytes_per_time = max(4.0 * field.size / field.sizes["time"] for field in source.values() if "time" in field.dims)
    elements = [(name, start, stop) for name in names for start, stop in _spans(positions, block, bytes_per_time)]
    # Amounts of the day before go into sums over time.
    day = np.timedelta64(1, "D")
    times = source["time"].values
    first = int(np.searchsorted(times, times[positions[0]] - day))
    last = int(np.searchsorted(times, times[positions[-1]] + day, side="right"))
    path = path if "://" in path else os.path.abspath(path)
    with _records(beam_options) as records:
        job = _Job(path, dict(reading), dict(preparing), frozenset(derived), first, last, positions, records, memory_mb)
        run_elements(_JOB, elements, _ReadTimes(job), beam_options)
        return {name: _gathered(records, name, elements, positions) for name in names}


def _spans(positions: np.ndarray, block: int, bytes_per_time: float) -> Iterator[tuple[int, int]]:
    """Ranges within `positions` whose elements start where blocks of the source do."""
    length = block * max(1, int(_ELEMENT_BYTES / (block * bytes_per_time)))
    edges = [0, *(np.flatnonzero(np.diff(positions // length)) + 1), positions.size]
    return ((int(start), int(stop)) for start, stop in pairwise(edges))


class _ReadTimes(beam.DoFn):
    """Read one variable over a range of the positions and leave (missing, low, high) of each time in a file."""

    def __init__(self, job: _Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.source = open_source(self.job.source, blocks=False, **self.job.reading)
        self.whole: xr.Dataset | None = None

    def process(self, element: tuple[str, int, int]) -> Iterator[None]:
        job, (name, start, stop) = self.job, element
        field = self._field(name, job.positions[start:stop])
        block = 4.0 * max(field.chunksizes["time"]) * field.size / field.sizes["time"]
        workers = int(np.clip(job.memory_mb * 1e6 / (_COPIES * block), 1, os.cpu_count() or 1))
        rest = tuple(axis for axis in field.dims if axis != "time")
        blocks = field.transpose("time", *rest).chunk(dict.fromkeys(rest, -1)).data.to_delayed().ravel()
        parts = dask.compute(*map(dask.delayed(_extremes), blocks), scheduler="threads", num_workers=workers)
        buffer = io.BytesIO()
        np.savez(buffer, found=np.concatenate(parts, axis=1), size=field.size // field.sizes["time"])
        filesystem, folder = fsspec.core.url_to_fs(job.records)
        filesystem.pipe_file(f"{folder}/{name}-{start}.npz", buffer.getvalue())
        count_done(_JOB)
        yield None

    def _field(self, name: str, positions: np.ndarray) -> xr.DataArray:
        """The field at these times, in blocks."""
        if name in self.job.derived:
            # What is made of other times is made of the whole period, so that it does not depend on the element.
            if self.whole is None:
                part = self.source.isel(time=slice(self.job.first, self.job.last))
                self.whole = prepare(in_blocks(part), **self.job.preparing)
            return self.whole[name].isel(time=positions - self.job.first)
        step = positions[1] - positions[0] if positions.size > 1 else 1
        even = (np.diff(positions) == step).all()
        chosen = slice(int(positions[0]), int(positions[-1]) + 1, int(step)) if even else positions
        return prepare(in_blocks(self.source.isel(time=chosen)), **{**self.job.preparing, "variables": [name]})[name]


def _extremes(values: np.ndarray) -> np.ndarray:
    """Missing values, minimum and maximum of each time, float64, shape (3, time)."""
    flat = values.reshape(values.shape[0], -1)
    result = np.zeros((3, flat.shape[0]))
    # A minimum that meets NaN is NaN, so that complete times are read twice and not compared.
    result[1], result[2] = flat.min(axis=1), flat.max(axis=1)
    for i in np.flatnonzero(np.isnan(result[1])):
        present = flat[i][~np.isnan(flat[i])]
        result[0, i] = flat.shape[1] - present.size
        result[1:, i] = (present.min(), present.max()) if present.size else (np.nan, np.nan)
    return result


def _gathered(records: str, name: str, elements: Sequence[tuple[str, int, int]], positions: np.ndarray) -> Summary:
    filesystem, folder = fsspec.core.url_to_fs(records)
    parts = []
    for _, start, _ in (element for element in elements if element[0] == name):
        with np.load(io.BytesIO(filesystem.cat_file(f"{folder}/{name}-{start}.npz"))) as stored:
            parts.append(stored["found"])
            size = int(stored["size"])
    missing, low, high = np.concatenate(parts, axis=1)
    if missing.size != positions.size:
        raise RuntimeError(f"{name}: {missing.size} of {positions.size} times were read")
    return Summary(missing.astype(np.int64), low, high, size)


@contextmanager
def _records(beam_options: Sequence[str]) -> Iterator[str]:
    """A folder for the files of the elements, where all workers see it, removed afterwards."""
    shared = [option.split("=", 1)[1] for option in beam_options if option.startswith("--temp_location=")]
    if not shared or "://" not in shared[-1]:
        folder = tempfile.mkdtemp(prefix="spherecast-validate-", dir=shared[-1] if shared else None)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    folder = f"{shared[-1].rstrip('/')}/spherecast-validate-{uuid.uuid4().hex}"
    try:
        yield folder
    finally:
        filesystem, place = fsspec.core.url_to_fs(folder)
        if filesystem.exists(place):
            filesystem.rm(place, recursive=True)
