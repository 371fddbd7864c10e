"""The work of the regridding job: what an element is, and what a worker does with it.

An element owns some times of a variable, or of both components of a wind, in all targets: a worker reads each block of
them once, regrids it to every grid, and writes objects that nobody else writes. What it learns besides, which times miss
values and what rounding did, it leaves in a note beside the data.
"""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pipeline.jobs.beam_runner import beam, count_done, in_flight
from pipeline.jobs.threads import background, keep_freed_memory_low
from pipeline.objects import Objects
from pipeline.regridding.methods import FieldRegridder
from pipeline.sources.opening import open_source
from pipeline.sources.prepare import prepare
from pipeline.stores.writing import StoredArray, round_mantissa
from transforms.timeaxis import as_slice, time_text

__all__ = ["JOB", "NOTES", "Element", "RegridElement", "RegridJob", "Target", "forget", "rounding_errors"]

JOB = "regrid"
NOTES = ".notes"


@dataclass(frozen=True)
class Element:
    """Some times of one variable or wind, and what a worker holds while it regrids them."""

    start: int
    stop: int
    names: tuple[str, ...]
    block: int
    memory: float

    @property
    def note(self) -> str:
        return f"{NOTES}/{self.start:09d}-{self.names[0]}.json"


@dataclass(frozen=True, eq=False)
class Target:
    """One store being written.

    Attributes:
        path: where it is published.
        regridder: from the source's grid to its own.
        arrays: those that vary in time, and ``valid``.
        template: all its objects but data that vary in time.
        job: digest of all that decides the bytes of its data.
        objects: where it is being written.
        check: whether it may hold objects already, which are then kept where they are sound.
        noted: whether every element has to leave a note.
    """

    path: str
    regridder: FieldRegridder
    arrays: dict[str, StoredArray]
    template: dict[str, bytes]
    job: str
    objects: Objects
    check: bool = False
    noted: bool = True


@dataclass(frozen=True, eq=False)
class RegridJob:
    """What every worker needs to know."""

    identity: str
    source: str
    opening: dict[str, Any]
    preparing: dict[str, Any]
    targets: tuple[Target, ...]
    positions: np.ndarray
    absent: dict[str, np.ndarray]
    keep_bits: dict[str, int]
    skipna: bool
    memory: float


_OPENED: dict[str, xr.Dataset] = {}
"""Sources by job: opening one costs several requests, and a runner may make many copies of a function."""


class RegridElement(beam.DoFn):
    """Read, regrid and write one element; write only what is missing or damaged where something is there already."""

    def __init__(self, job: RegridJob) -> None:
        self.job = job

    def setup(self) -> None:
        keep_freed_memory_low()

    def process(self, element: Element) -> None:
        with in_flight(element.memory, self.job.memory):
            missing = [self._missing(target, element) for target in self.job.targets]
            if any(missing):
                self._write(element, missing)
        count_done(JOB)

    def _missing(self, target: Target, element: Element) -> dict[str, list[int]]:
        """Numbers of the objects to be written, by variable."""
        every = {name: _numbers(target.arrays[name], element) for name in element.names}
        if not target.check or (target.noted and target.objects.read(element.note) is None):
            return every
        found = {}
        for name, numbers in every.items():
            array = target.arrays[name]
            lost = [number for number in numbers if not array.is_sound(target.objects.read(array.key(number)))]
            if lost:
                found[name] = lost
        return found

    def _write(self, element: Element, missing: list[dict[str, list[int]]]) -> None:
        job = self.job
        writings = [
            [_Writing(target, name, element, lost.get(name, []), job) for name in element.names]
            for target, lost in zip(job.targets, missing, strict=True)
        ]
        wanted = np.zeros(element.stop - element.start, dtype=bool)
        for writing in [writing for several in writings for writing in several]:
            wanted |= writing.wanted
        rows = element.start + np.flatnonzero(wanted)
        blocks = np.split(rows, np.flatnonzero(np.diff(job.positions[rows] // element.block)) + 1)
        incomplete: dict[str, list[int]] = {name: [] for name in element.names}
        with background() as reader, background() as writer:
            ahead = reader.submit(self._read, element.names, blocks[0])
            for number, block in enumerate(blocks):
                values = ahead.result()
                if number + 1 < len(blocks):
                    ahead = reader.submit(self._read, element.names, blocks[number + 1])
                lacking = {
                    name: self._lacking(name, part, block) for name, part in zip(element.names, values, strict=True)
                }
                for name, mask in lacking.items():
                    incomplete[name] += block[mask].tolist()
                spoilt = np.any(list(lacking.values()), axis=0)
                for target, several in zip(job.targets, writings, strict=True):
                    done = target.regridder.wind(*values) if len(values) == 2 else (target.regridder(values[0]),)
                    for writing, regridded in zip(several, done, strict=True):
                        writing.add(block, np.asarray(regridded, dtype=np.float32), spoilt, writer)
            # The note goes before the last objects: one that is all there is never done again for want of its note.
            for target, lost, several in zip(job.targets, missing, writings, strict=True):
                self._leave_note(target, element, lost, incomplete, several)
            every = [writing for several in writings for writing in several]
            for writing in every:
                writing.finish(writer)
            for writing in every:
                writing.wait()

    def _leave_note(
        self,
        target: Target,
        element: Element,
        lost: dict[str, list[int]],
        incomplete: dict[str, list[int]],
        writings: list[_Writing],
    ) -> None:
        # A part of the element written again adds nothing to the note that the whole of it left.
        whole = all(len(lost.get(name, ())) == len(_numbers(target.arrays[name], element)) for name in element.names)
        if whole if target.noted else lost and any(incomplete.values()):
            rounding = {writing.name: writing.rounding for writing in writings if writing.rounding}
            target.objects.write(element.note, json.dumps({"missing": incomplete, "rounding": rounding}).encode())

    def _read(self, names: tuple[str, ...], rows: np.ndarray) -> list[np.ndarray]:
        job = self.job
        if job.identity not in _OPENED:
            while len(_OPENED) > 3:
                _OPENED.pop(next(iter(_OPENED)), None)
            _OPENED[job.identity] = prepare(open_source(job.source, **job.opening), **job.preparing)
        dataset = _OPENED[job.identity]
        chosen = as_slice(job.positions[rows])
        fields = [dataset[name].isel(time=chosen) for name in names]
        try:
            if not job.opening["blocks"]:
                return [field.values for field in fields]
            import dask

            return list(dask.compute(*[field.data for field in fields], scheduler="threads"))
        except Exception as error:
            # Every reader and file system has errors of its own, none of which says which times it was about.
            ends = " to ".join(time_text(field) for field in fields[0]["time"].values[[0, -1]])
            raise RuntimeError(f"{', '.join(names)}: {ends} cannot be read ({error})") from error

    def _lacking(self, name: str, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which times miss values, shape (time,)."""
        lacking = np.isnan(values.min(axis=tuple(range(1, values.ndim))))
        absent = self.job.absent.get(name)
        return lacking if absent is None else lacking | np.isin(self.job.positions[rows], absent)


class _Writing:
    """Fills the objects of one variable in one target, time after time, and writes each as soon as it is full."""

    def __init__(self, target: Target, name: str, element: Element, numbers: list[int], job: RegridJob) -> None:
        self.name = name
        self.rounding: list[list[float]] = []
        self._objects, self._array = target.objects, target.arrays[name]
        self._element, self._skipna, self._bits = element, job.skipna, job.keep_bits.get(name)
        self._numbers = set(numbers)
        self._pending: Future[None] | None = None
        self._values: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self.wanted = np.zeros(element.stop - element.start, dtype=bool)
        for number in numbers:
            first, last = self._ends(number)
            self.wanted[first - element.start : last - element.start] = True

    def add(self, rows: np.ndarray, values: np.ndarray, spoilt: np.ndarray, writer: Executor) -> None:
        """Take the values of ascending times; `spoilt` marks those with missing values in the source."""
        if self._bits is not None:
            exact, values = values, round_mantissa(values, self._bits)
            self.rounding += rounding_errors(exact, values)
        numbers = rows // self._array.span
        for number in np.unique(numbers):
            if int(number) in self._numbers:
                chosen = numbers == number
                self._fill(int(number), rows[chosen], values[chosen], bool(spoilt[chosen].any()), writer)

    def finish(self, writer: Executor) -> None:
        """Have the last object written, which was held back."""
        if self._last is not None:
            self.wait()
            self._pending = writer.submit(self._put, max(self._numbers), self._last)

    def wait(self) -> None:
        """Wait until all is written."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _fill(self, number: int, rows: np.ndarray, values: np.ndarray, spoilt: bool, writer: Executor) -> None:
        first, last = self._ends(number)
        if self._values is None:
            self._values, self._spoilt = np.empty((last - first, *values.shape[1:]), dtype=np.float32), False
        self._values[rows - first] = values
        self._spoilt |= spoilt
        if rows[-1] == last - 1:
            full, self._values = self._values, None
            if self._spoilt and not self._skipna:
                return
            if number == max(self._numbers):
                self._last = full
                return
            self.wait()
            self._pending = writer.submit(self._put, number, full)

    def _put(self, number: int, values: np.ndarray) -> None:
        self._objects.write(self._array.key(number), self._array.encode(values))

    def _ends(self, number: int) -> tuple[int, int]:
        return number * self._array.span, min((number + 1) * self._array.span, self._element.stop)


def _numbers(array: StoredArray, element: Element) -> list[int]:
    """Numbers of the objects that hold an element's times."""
    return list(range(element.start // array.span, -(-element.stop // array.span)))


def rounding_errors(exact: np.ndarray, rounded: np.ndarray) -> list[list[float]]:
    """Largest absolute error, sum of squared errors and number of values, for each time."""
    errors = []
    for before, after in zip(exact, rounded, strict=True):
        finite = np.isfinite(before)
        error = after[finite].astype(np.float64) - before[finite]
        errors.append([float(np.abs(error).max(initial=0.0)), float(np.square(error).sum()), int(error.size)])
    return errors


def forget(job: RegridJob) -> None:
    """Let go of the job's source, where this process has opened it."""
    _OPENED.pop(job.identity, None)
