"""Climatology by hour and day of year, mean and standard deviation, with the two methods of WeatherBench 2.

A triangular window runs over the days of the year, which form a ring. ``explicit`` takes a weighted mean and standard
deviation over window and years together; ``fast`` first takes them over the years for each day and then smooths the two
with the window. Both need, for each hour and day, the number, sum and sum of squares over the years, in which every
stored time counts once; the window is then a pair of running sums.

Habits of WeatherBench 2 0.2.1 are kept, since published scores carry them. ``explicit`` fills what a year lacks, be it
a value (NaN) or a day that other years have, with that year's value of day 365 at the same hour; so also day 366 of
common years. ``fast`` divides the window's sum by the number of days that are present, not by their weights. Daily
climatologies are of daily means; only the mean of ``fast`` averages all times of a day of year at once. Days that no
year has are different: they are left out and the weights of the others renormalised, so that a store of a few weeks
gets a climatology of those weeks and NaN elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["DAYS", "METHODS", "Calendar", "CellSums", "origin_of", "samples_of", "triangle_weights", "windowed"]

DAYS = 366
METHODS = ("explicit", "fast")

_COLUMNS = 512  # Points worked on together, so that all their days stay in the cache.
_SHARP = 1e-5
"""Variance, as a part of the largest mean square, below which running sums are too blunt."""


@dataclass(frozen=True, eq=False)
class Calendar:
    """Where the times of a series fall in the year.

    A sample is what one year has for one hour and day: the mean of the times there, mostly one; daily, the mean of the
    day. Samples are in the order of time.

    Attributes:
        hours: ascending, shape (hour,); 0 alone where daily.
        daily: whether days are not divided into hours.
        days: 366, or 365 without a leap day; day 366 then repeats day 365.
        hour, day, year: index into hours, day of year from 0, and year of each sample, shape (sample,).
        start: first of its times, counted among all times, shape (sample,).
        count: number of its times, which follow each other, shape (sample,).
        axis: days that take part at each hour, whether all years have them or not, shape (hour, day).
    """

    hours: np.ndarray
    daily: bool
    days: int
    hour: np.ndarray
    day: np.ndarray
    year: np.ndarray
    start: np.ndarray
    count: np.ndarray
    axis: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray, *, hours: np.ndarray | None = None, daily: bool = False) -> Calendar:
        """Return the calendar of ascending times.

        Args:
            times: datetime64, shape (time,).
            hours: hours of day taken in, ascending; all that occur by default.
        """
        index = pd.DatetimeIndex(times)
        hour = np.zeros(len(index), np.int64) if daily else index.hour.to_numpy().astype(np.int64)
        hours = np.unique(hour) if hours is None or daily else np.asarray(hours, np.int64)
        used = np.flatnonzero(np.isin(hour, hours))
        index, hour = index[used], hour[used]
        year, day = index.year.to_numpy().astype(np.int64), index.day_of_year.to_numpy().astype(np.int64) - 1
        slot = (year * DAYS + day) * 24 + hour
        first = np.flatnonzero(np.diff(slot, prepend=-1))
        days = DAYS if (day == DAYS - 1).any() else DAYS - 1
        axis = np.zeros((hours.size, days), dtype=bool)
        axis[np.searchsorted(hours, hour[first]), day[first]] = True
        if daily:
            # Daily means exist, be they missing values, for every day from the first to the last.
            axis[0, pd.date_range(index[0].normalize(), index[-1], freq="D").day_of_year.unique() - 1] = True
        return cls(
            hours,
            daily,
            days,
            np.searchsorted(hours, hour[first]),
            day[first],
            year[first],
            used[first],
            np.diff(np.append(first, hour.size)),
            axis,
        )

    def years(self, hour: int) -> np.ndarray:
        """Return the years that have any sample at an hour, ascending."""
        return np.unique(self.year[self.hour == hour])

    def where(self, hours: slice, days: slice) -> np.ndarray:
        """Return the samples of a range of hours and days, in the order of time."""
        inside = (self.hour >= hours.start) & (self.hour < hours.stop)
        return np.flatnonzero(inside & (self.day >= days.start) & (self.day < days.stop))


def samples_of(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the mean of each run of times, without missing values, shape (sample, ...).

    Means are summed and rounded in the precision of the values, time by time, as WeatherBench 2 does: the spread of
    daily means shows the rounding in its sixth digit.

    Args:
        values: shape (time, ...).
        count: length of each run, shape (sample,); they add up to the times.
    """
    if (count == 1).all():
        return values
    starts = np.cumsum(count) - count
    result = np.empty((count.size, *values.shape[1:]), dtype=values.dtype)
    for i, (start, length) in enumerate(zip(starts.tolist(), count.tolist(), strict=True)):
        total, number = _total(values[start : start + length])
        with np.errstate(invalid="ignore"):
            result[i] = total / number
    return result


def _total(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sum and number over the first axis of what is not missing, added in order."""
    total, number = (np.zeros(values.shape[1:], values.dtype) for _ in range(2))
    for field in values:
        present = ~np.isnan(field)
        total += np.where(present, field, values.dtype.type(0))
        number += present
    return total, number


def origin_of(sample: np.ndarray) -> np.ndarray:
    """Return what to take from all samples, so that squares of a large mean do not drown the spread.

    A level of one sign whose values are alike is taken as it is, and with its mean where it is missing; a level that
    comes near 0, such as precipitation, is measured from 0, so that what is exactly 0 stays so.

    Args:
        sample: first sample, shape (level, point).
    """
    origin = np.zeros(sample.shape)
    for level, values in enumerate(sample.astype(np.float64)):
        present = values[~np.isnan(values)]
        if present.size and present.min() * present.max() > 0 and 10 * np.abs(present).min() > np.abs(present).max():
            origin[level] = np.where(np.isnan(values), present.mean(), values)
    return origin


class CellSums:
    """Number, sum and sum of squares over the years, for a range of hours and days.

    What a cell holds depends on its own samples alone, and they are added in the order of time, so that the ranges
    worked on together change no bit.

    Args:
        calendar: of all samples.
        method: ``explicit`` or ``fast``.
        hours, days: range of hours (by index) and of days (from 0).
        origin: see `origin_of`, shape (point,).
        last_day: called with (year, hour) for the sample of day 365 that year, shape (point,), where it does not lie
            in the range.

    Attributes:
        number: 1 or point wide, shape (hour, day, 1 or point).
        total, square: of departures from the origin, shape (hour, day, point).
        all_number, all_total: of all times of the day, where they differ from those of the daily means and matter.
    """

    def __init__(
        self,
        calendar: Calendar,
        method: str,
        hours: slice,
        days: slice,
        origin: np.ndarray,
        last_day: Callable[[int, int], np.ndarray],
    ) -> None:
        self._calendar, self._explicit, self._hours, self._days = calendar, method == "explicit", hours, days
        self._origin, self._last_day = origin, last_day
        shape = (hours.stop - hours.start, days.stop - days.start)
        self.number = np.zeros((*shape, 1))
        self.total, self.square = (np.zeros((*shape, origin.size)) for _ in range(2))
        both = calendar.daily and not self._explicit
        self.all_number, self.all_total = (np.zeros((*shape, origin.size)) if both else None for _ in range(2))
        self._buffer = np.empty(origin.size)
        self._years, self._closed = np.unique(calendar.year), 0
        self._missing: list[tuple[int, int, np.ndarray]] = []
        self._lasts: dict[int, np.ndarray] = {}

    def add(self, sample: int, field: np.ndarray, times: np.ndarray | None = None) -> None:
        """Take in the next sample of the range.

        Args:
            field: shape (point,); NaN is missing.
            times: what it is the mean of, shape (time, point).
        """
        calendar = self._calendar
        hour, day, year = calendar.hour[sample], calendar.day[sample], calendar.year[sample]
        self._close_before(year)
        np.copyto(self._buffer, field)
        self._buffer -= self._origin
        if self._explicit and day == DAYS - 2:
            self._lasts[hour] = self._buffer.copy()
        self._enter(hour - self._hours.start, day - self._days.start, self._buffer)
        if self.all_total is not None:
            assert self.all_number is not None
            assert times is not None
            total, number = _total(times - self._origin)
            self.all_total[hour - self._hours.start, day - self._days.start] += total
            self.all_number[hour - self._hours.start, day - self._days.start] += number

    def finish(self) -> None:
        """Say that there are no more samples."""
        self._close_before(np.inf)

    def _enter(self, hour: int, day: int, departure: np.ndarray) -> None:
        """Add a departure to its cell; overwrites it."""
        if np.isnan(departure.min()):
            absent = np.isnan(departure)
            if self.number.shape[-1] != departure.size:
                self.number = np.repeat(self.number, departure.size, axis=-1)
            self.number[hour, day] += ~absent
            departure[absent] = 0.0
            if self._explicit:
                self._missing.append((hour, day, absent))
        else:
            self.number[hour, day] += 1.0
        self.total[hour, day] += departure
        np.square(departure, out=departure)
        self.square[hour, day] += departure

    def _close_before(self, year: float) -> None:
        while self._closed < self._years.size and self._years[self._closed] < year:
            if self._explicit:
                self._fill(int(self._years[self._closed]))
            self._missing, self._lasts = [], {}
            self._closed += 1

    def _fill(self, year: int) -> None:
        """Fill what the year lacks from its day 365."""
        calendar, first = self._calendar, self._days.start
        this = calendar.year == year
        missing, self._missing = self._missing, []
        for hour in range(self._hours.start, self._hours.stop):
            has = np.zeros(calendar.days, dtype=bool)
            has[calendar.day[this & (calendar.hour == hour)]] = True
            row = hour - self._hours.start
            lacking = np.flatnonzero((calendar.axis[hour] & ~has)[first : self._days.stop])
            holes = [(day, absent) for at, day, absent in missing if at == row]
            if not has[DAYS - 2] or not (lacking.size or holes):
                continue
            if hour not in self._lasts:
                self._lasts[hour] = self._last_day(year, hour) - self._origin
            fill = self._lasts[hour]
            for day in lacking.tolist():
                self._enter(row, day, fill.copy())
            for day, absent in holes:
                usable = absent & ~np.isnan(fill)
                value = np.where(usable, fill, 0.0)
                self.number[row, day] += usable
                self.total[row, day] += value
                self.square[row, day] += np.square(value)


def triangle_weights(window: int) -> np.ndarray:
    """Return the window's weights, which rise from 0 to the middle and fall to 0, of mean 1, shape (window,)."""
    half = window // 2
    weights = 1.0 - np.abs(np.arange(-half, half + 1)) / max(half, 1)
    return weights / weights.mean()


def windowed(
    method: str,
    window: int,
    axis: np.ndarray,
    number: np.ndarray,
    total: np.ndarray,
    square: np.ndarray,
    origin: np.ndarray,
    everything: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of one hour from its sums, float32, (dayofyear = 366, point).

    Args:
        method: ``explicit`` or ``fast``.
        window: width in days, odd.
        axis: days that take part, shape (day,).
        number, total, square, origin: as in `CellSums`, (day, 1 or point), (day, point) twice and (point,).
        everything: number and total of all times, from which ``fast`` takes the mean of days.
    """
    days, points = total.shape
    mean, std = (np.empty((DAYS, points), np.float32) for _ in range(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, points, _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            sums = (number if number.shape[-1] == 1 else number[:, columns], total[:, columns], square[:, columns])
            if method == "explicit":
                results = _explicit(window, *sums, origin[columns])
            else:
                every = None if everything is None else (everything[0][:, columns], everything[1][:, columns])
                results = _fast(window, axis, *sums, origin[columns], every)
            for target, values in zip((mean, std), results, strict=True):
                target[:days, columns] = values
    for target in (mean, std):
        target[days:] = target[days - 1]
    return mean, std


def _explicit(
    window: int, number: np.ndarray, total: np.ndarray, square: np.ndarray, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    count = _triangle(number, window)
    count[count <= 0] = np.nan
    departure = _triangle(total, window)
    departure /= count
    variance = _triangle(square, window)
    variance /= count
    largest = np.fmax.reduce(variance, axis=0)
    variance -= np.square(departure)
    # Where the spread is small beside departures, running sums and squares leave little of it.
    dull = variance < _SHARP * largest
    if dull.any():
        rows, columns = (np.flatnonzero(dull.any(axis=axis)) for axis in (1, 0))
        narrow = number if number.shape[-1] == 1 else number[:, columns]
        exact = _directly(window, rows, narrow, total[:, columns], square[:, columns])
        block = np.ix_(rows, columns)
        for target, values in zip((departure, variance), exact, strict=True):
            # Point by point, so that what a point gets does not depend on those that are worked on with it.
            target[block] = np.where(dull[block], values, target[block])
    return departure + origin, np.sqrt(np.maximum(variance, 0.0))


def _directly(
    window: int, days: np.ndarray, number: np.ndarray, total: np.ndarray, square: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance over the windows around these days from deviations, in place of running sums."""
    within = np.where(number > 0, square - np.square(total) / number, 0.0)
    centre = np.where(number > 0, total / number, 0.0)
    # The window's outermost days carry no weight, and its width may exceed the year.
    offsets = [
        ((days + k - window // 2) % len(total), weight)
        for k, weight in enumerate(triangle_weights(window))
        if weight > 0
    ]
    count = sum(weight * number[there] for there, weight in offsets)
    count = np.where(count > 0, count, np.nan)
    mean = sum(weight * total[there] for there, weight in offsets) / count
    variance = np.zeros(mean.shape)
    for there, weight in offsets:
        variance += weight * (within[there] + number[there] * np.square(centre[there] - mean))
    return mean, variance / count


def _fast(
    window: int,
    axis: np.ndarray,
    number: np.ndarray,
    total: np.ndarray,
    square: np.ndarray,
    origin: np.ndarray,
    everything: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    departure = total / number
    std = np.sqrt(np.maximum(square / number - np.square(departure), 0.0))
    mean = departure if everything is None else everything[1] / everything[0]
    stored = axis[:, np.newaxis].astype(np.float64)
    share = _triangle(stored, window) / _box(stored, window, window // 2)
    present = np.broadcast_to(number > 0, total.shape)
    if number.shape[-1] == 1:
        days = share * _box((number > 0).astype(np.float64), window, window // 2)
    else:
        days = share * _box(present.astype(np.float64), window, window // 2)
    days = np.where(days > 0, days, np.nan)
    fields = (np.where(present, mean, 0.0), np.where(present, std, 0.0))
    smooth_mean, smooth_std = (_triangle(field, window) / days for field in fields)
    # The origin is smoothed like any field, by the weights of the days present.
    return smooth_mean + origin * (_triangle(present.astype(np.float64), window) / days), smooth_std


def _triangle(fields: np.ndarray, window: int) -> np.ndarray:
    """Return the weighted sum over the window around each day, weights of mean 1, shape (day, point)."""
    half = window // 2
    if half == 0:
        return fields.copy()
    # A triangle is a box run over a box: running sums cost the same for every width, and no thread of a BLAS.
    result = _box(_box(fields, half, half - 1), half, 0)
    result *= window / half**2
    return result


def _box(fields: np.ndarray, width: int, back: int) -> np.ndarray:
    """Return the sum over `width` days of the ring, from `back` days before each, shape (day, point)."""
    days = len(fields)
    result = np.empty_like(fields)
    result[0] = 0.0
    for offset in range(-back, width - back):
        result[0] += fields[offset % days]
    for day in range(1, days):
        np.add(result[day - 1], fields[(day - 1 - back + width) % days], out=result[day])
        result[day] -= fields[(day - 1 - back) % days]
    return result
