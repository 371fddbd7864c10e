"""The Beam jobs of a climatology: what each element reads, sums up and writes.

Where the sums of a variable fit into memory one element reads it once, from beginning to end, and writes its result.
Where they do not, a first job sums the years of one range of hours and days an element, for which every stored time is
read once, and leaves the sums in an intermediate store cut into bands of rows; a second takes the window over all days
of one band. Quantiles need the samples themselves: the first job then only turns them from maps into series of bands.
Elements own whole shards, so nothing needs coordination, and a shard that is there is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import xarray as xr

from pipeline.jobs.beam_runner import beam, count_done
from pipeline.stores.reading import blocks, open_store, read_times
from transforms.climatology import DAYS, Calendar, CellSums, samples_of, windowed
from transforms.window_quantiles import dry_fraction, filled, window_quantiles, without_dry

__all__ = ["JOB", "SUMS", "Field", "FirstPass", "Job", "SecondPass", "array_path", "cell_bytes"]

JOB = "climatology"
SUMS = {"number": "uint16", "total": "float64", "square": "float64"}
ALL_SUMS = {"all_number": "uint32", "all_total": "float64"}

_BLOCK_BYTES = 32e6
"""Data read at once, at least one shard."""

_FEWEST = 32  # Points whose quantiles are taken together, whatever the memory; fewer would take much longer.


@dataclass(frozen=True)
class Field:
    """How a variable lies in its source and in the stores that are written.

    Attributes:
        space: levels (1 for a surface variable), rows and columns, rows being the outer of the two horizontal axes.
        turned: whether rows are longitudes.
        surface: whether the variable has no level axis.
        level_span, row_span: levels and rows in one shard of the result.
        in_memory: whether the sums, and whether the samples, of all days are held at once.
        day_span, hour_span: days and hours of an element of the first pass over sums.
        sample_days: days of an element of the first pass over samples.
        sums, quantiles, seeps: what is made of it.
    """

    space: tuple[int, int, int]
    turned: bool
    surface: bool
    level_span: int
    row_span: int
    in_memory: tuple[bool, bool]
    day_span: int
    hour_span: int
    sample_days: int
    sums: tuple[str, ...]
    quantiles: bool
    dry: float | None

    @property
    def points(self) -> int:
        """Number of levels times rows times columns."""
        return int(np.prod(self.space))

    def flattened(self, values: np.ndarray) -> np.ndarray:
        """Return fields as read, (time, [level], latitude, longitude), as (time, level * row * column)."""
        return np.ascontiguousarray(values.swapaxes(-1, -2) if self.turned else values).reshape(len(values), -1)

    def shards(self) -> Iterator[tuple[slice, slice]]:
        """Yield the levels and rows of each shard of the result."""
        for level in range(0, self.space[0], self.level_span):
            for row in range(0, self.space[1], self.row_span):
                yield slice(level, level + self.level_span), slice(row, min(row + self.row_span, self.space[1]))


@dataclass(frozen=True, eq=False)
class Job:
    """What every worker needs to know.

    Attributes:
        source, target, work: paths of the source, of the result being built and of the intermediate store.
        positions: of the times used, ascending, shape (time used,).
        calendar: of the times used.
    """

    source: str
    target: str
    work: str
    positions: np.ndarray
    calendar: Calendar
    method: str
    window: int
    quantiles: tuple[float, ...]
    memory_bytes: float
    fields: dict[str, Field]

    def origin(self, name: str) -> np.ndarray:
        """Return what is taken from the samples of a variable, shape (level, row, column)."""
        return np.load(self.origin_path(name), mmap_mode="r").reshape(self.fields[name].space)

    def origin_path(self, name: str) -> Path:
        """Return where it is kept."""
        return Path(self.work) / f"{name}-origin.npy"

    def year_span(self) -> tuple[int, int]:
        """Return the first year and the number of years."""
        return int(self.calendar.year.min()), int(np.ptp(self.calendar.year)) + 1


def cell_bytes(points: int, calendar: Calendar, method: str) -> int:
    """Return what the sums of one hour and day take."""
    return points * (40 if calendar.daily and method == "fast" else 24)


def array_path(store: str, name: str, index: Sequence[int]) -> Path:
    """Return the file of one shard."""
    return Path(store) / name / "c" / "/".join(map(str, index))


class Source:
    """The samples of one variable."""

    def __init__(self, job: Job, name: str, dataset: xr.Dataset | None = None) -> None:
        self._job, self._calendar, self._field = job, job.calendar, job.fields[name]
        self._variable = (dataset if dataset is not None else open_store(job.source, "source"))[name]

    def blocks(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (samples, their fields, the fields of all their times) in runs along the source's shards.

        Fields have shape (sample or time, level * row * column).
        """
        calendar, points = self._calendar, self._variable.size // self._variable.sizes["time"]
        if samples.size == 0:
            return
        first = self._job.positions[calendar.start[samples]]
        most = max(1, int(self._job.memory_bytes / 4 / (points * self._variable.dtype.itemsize)))
        for run in blocks(first, self._variable, min(_BLOCK_BYTES, self._job.memory_bytes / 8)):
            chosen = samples[np.searchsorted(first, run[0]) : np.searchsorted(first, run[-1]) + 1]
            for begin in range(0, chosen.size, most):
                part = chosen[begin : begin + most]
                lengths = calendar.count[part]
                inside = np.repeat(calendar.start[part], lengths) + np.concatenate([np.arange(n) for n in lengths])
                times = self._read(self._job.positions[inside])
                yield part, samples_of(times, lengths), times

    def sample(self, sample: int) -> np.ndarray:
        """Return one sample, shape (level * row * column,)."""
        return next(self.blocks(np.array([sample])))[1][0]

    def last_day(self, year: int, hour: int) -> np.ndarray:
        """Return the sample of day 365 of a year."""
        calendar = self._calendar
        at = (calendar.year == year) & (calendar.hour == hour) & (calendar.day == DAYS - 2)
        return self.sample(int(np.flatnonzero(at)[0]))

    def _read(self, positions: np.ndarray) -> np.ndarray:
        return self._field.flattened(read_times(self._variable, positions))


class _Stage(beam.DoFn):
    def __init__(self, job: Job) -> None:
        self.job = job

    def setup(self) -> None:
        self.dataset = open_store(self.job.source, "source")

    def process(self, element: tuple) -> None:
        kind, name, *rest = element
        getattr(self, f"_{kind}")(name, *rest)
        count_done(JOB)

    def _sums_of(self, name: str, hours: slice, days: slice) -> CellSums:
        job, source = self.job, Source(self.job, name, self.dataset)
        sums = CellSums(job.calendar, job.method, hours, days, job.origin(name).reshape(-1), source.last_day)
        for samples, fields, times in source.blocks(job.calendar.where(hours, days)):
            ends = np.cumsum(job.calendar.count[samples])
            for sample, values, end in zip(samples.tolist(), fields, ends.tolist(), strict=True):
                sums.add(sample, values, times[end - job.calendar.count[sample] : end])
        sums.finish()
        return sums

    def _write_windowed(self, name: str, hour: int, sums: tuple[Any, ...], levels: slice, rows: slice):
        """Write mean and spread of one hour from its sums, (day, 1 or point) each."""
        job = self.job
        origin = job.origin(name)[levels, rows].reshape(-1)
        everything = None if sums[3] is None else sums[3:5]
        number, total, square = sums[:3]
        results = windowed(job.method, job.window, job.calendar.axis[hour], number, total, square, origin, everything)
        for statistic, values in zip(("mean", "std"), results, strict=True):
            if statistic in job.fields[name].sums:
                self._write(name, "" if statistic == "mean" else "_std", hour, values, levels, rows)

    def _write(self, name: str, suffix: str, hour: int, values: np.ndarray, levels: slice, rows: slice) -> None:
        """Write the result of one hour, shape ([quantile], dayofyear, point)."""
        layout = self.job.fields[name]
        columns = layout.space[2]
        lead = values.shape[:-1]
        values = values.reshape(*lead, -1, rows.stop - rows.start, columns)
        where: list[int | slice] = [
            *[slice(None)] * len(lead),
            *([] if layout.surface else [levels]),
            rows,
            slice(None),
        ]
        if not self.job.calendar.daily:
            where.insert(0, hour)
        array = _open(self.job.target, name + suffix)
        array[tuple(where)].write(values[..., 0, :, :] if layout.surface else values).result()

    def _write_quantiles(self, name: str, hour: int, read: Callable[[slice], np.ndarray], levels: slice, rows: slice):
        """Write quantiles and thresholds of one hour and shard.

        Args:
            read: returns the samples (year, day, point) of a range of the shard's points.
        """
        job, layout = self.job, self.job.fields[name]
        axis = job.calendar.axis[hour]
        points = (levels.stop - levels.start) * (rows.stop - rows.start) * layout.space[2]
        years = job.calendar.years(hour) - job.year_span()[0]
        span = max(_FEWEST, int(job.memory_bytes / 4 / (years.size * DAYS * 24)))
        results: dict[str, np.ndarray] = {}

        def keep(suffix: str, columns: slice, values: np.ndarray) -> None:
            whole = results.setdefault(suffix, np.empty((*values.shape[:-1], points), np.float32))
            whole[..., columns] = values

        for start in range(0, points, span):
            columns = slice(start, min(start + span, points))
            samples = filled(read(columns)[years][:, : job.calendar.days], axis)
            if layout.quantiles:
                keep("_quantile", columns, window_quantiles(samples, job.quantiles, job.window))
            if layout.dry is not None:
                is_dry, wet = without_dry(samples, layout.dry)
                keep("_seeps_dry_fraction", columns, dry_fraction(is_dry, axis, job.window))
                keep("_seeps_threshold", columns, window_quantiles(wet, [2 / 3], job.window)[0])
        for suffix, values in results.items():
            self._write(name, suffix, hour, values, levels, rows)


class FirstPass(_Stage):
    """Read the source: ("whole_sums" | "whole_samples", name), ("sums", name, first hour, first day), ("samples",
    name, year, first day)."""

    def _whole_sums(self, name: str) -> None:
        job, layout = self.job, self.job.fields[name]
        sums = self._sums_of(name, slice(0, job.calendar.hours.size), slice(0, job.calendar.days))
        for hour in range(job.calendar.hours.size):
            for levels, rows in layout.shards():
                parts = []
                for part in (sums.number, sums.total, sums.square, sums.all_number, sums.all_total):
                    if part is not None and part.shape[-1] > 1:
                        part = part[hour].reshape(job.calendar.days, *layout.space)[:, levels, rows]
                        part = part.reshape(job.calendar.days, -1)
                    else:
                        part = None if part is None else part[hour]
                    parts.append(part)
                self._write_windowed(name, hour, tuple(parts), levels, rows)

    def _sums(self, name: str, first_hour: int, first_day: int) -> None:
        job, layout = self.job, self.job.fields[name]
        hours = slice(first_hour, min(first_hour + layout.hour_span, job.calendar.hours.size))
        days = slice(first_day, min(first_day + layout.day_span, job.calendar.days))
        sums = self._sums_of(name, hours, days)
        shape = (hours.stop - hours.start, days.stop - days.start, *layout.space)
        # The last one written says that all are there.
        for part in _parts(job):
            values = np.broadcast_to(getattr(sums, part), (*shape[:2], layout.points)).reshape(shape)
            array = _open(job.work, f"{name}/{part}")
            array[hours, days].write(values.astype(array.dtype.numpy_dtype, copy=False)).result()

    def _whole_samples(self, name: str) -> None:
        job, layout = self.job, self.job.fields[name]
        calendar, (first_year, years) = job.calendar, job.year_span()
        source = Source(job, name, self.dataset)
        series = np.full((calendar.hours.size, years, calendar.days, layout.points), np.nan, np.float32)
        for samples, fields, _ in source.blocks(np.arange(calendar.hour.size)):
            series[calendar.hour[samples], calendar.year[samples] - first_year, calendar.day[samples]] = fields
        for hour in range(calendar.hours.size):
            cube = series[hour].reshape(years, calendar.days, *layout.space)
            for levels, rows in layout.shards():
                part = cube[:, :, levels, rows].reshape(years, calendar.days, -1)
                self._write_quantiles(name, hour, partial(_columns, part), levels, rows)

    def _samples(self, name: str, year: int, first_day: int) -> None:
        job, layout = self.job, self.job.fields[name]
        calendar, days = job.calendar, slice(first_day, min(first_day + layout.sample_days, job.calendar.days))
        chosen = calendar.where(slice(0, calendar.hours.size), days)
        chosen = chosen[calendar.year[chosen] == year]
        series = np.full((calendar.hours.size, days.stop - days.start, *layout.space), np.nan, np.float32)
        for samples, fields, _ in Source(job, name, self.dataset).blocks(chosen):
            series[calendar.hour[samples], calendar.day[samples] - days.start] = fields.reshape(-1, *layout.space)
        _open(job.work, f"{name}/samples")[:, year - job.year_span()[0], days].write(series).result()


class SecondPass(_Stage):
    """Read the intermediate store: ("window" | "quantiles", name, hour, levels, rows)."""

    def _window(self, name: str, hour: int, levels: slice, rows: slice) -> None:
        job = self.job
        opened = {part: _open(job.work, f"{name}/{part}") for part in _parts(job)}
        read = {part: array[hour, :, levels, rows].read() for part, array in opened.items()}
        values = {part: future.result().reshape(job.calendar.days, -1).astype(float) for part, future in read.items()}
        self._write_windowed(name, hour, tuple(values.get(part) for part in (*SUMS, *ALL_SUMS)), levels, rows)

    def _quantiles(self, name: str, hour: int, levels: slice, rows: slice) -> None:
        job, columns = self.job, self.job.fields[name].space[2]
        array = _open(job.work, f"{name}/samples")
        height = rows.stop - rows.start

        def read(points: slice) -> np.ndarray:
            # Whole rows are read, of the levels that the points lie on.
            first, last = points.start // (height * columns), (points.stop - 1) // (height * columns)
            low, high = (0, height) if first < last else (
                points.start // columns % height, (points.stop - 1) // columns % height + 1,
            )  # fmt: skip
            level, row = (
                slice(levels.start + first, levels.start + last + 1),
                slice(rows.start + low, rows.start + high),
            )
            values = array[hour, :, :, level, row].read().result().reshape(*array.shape[1:3], -1)
            begin = points.start - first * height * columns - low * columns
            return values[:, :, begin : begin + points.stop - points.start]

        self._write_quantiles(name, hour, read, levels, rows)


def _columns(series: np.ndarray, columns: slice) -> np.ndarray:
    return series[:, :, columns]


def _parts(job: Job) -> tuple[str, ...]:
    """Return the names of the sums kept in the intermediate store."""
    return (*SUMS, *ALL_SUMS) if job.calendar.daily and job.method == "fast" else tuple(SUMS)


def _open(store: str, name: str) -> ts.TensorStore:
    return ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{store}/{name}"},
            # A shard that is not there must mean a failure, also where all of it is missing values.
            "store_data_equal_to_fill_value": True,
        }
    ).result()
