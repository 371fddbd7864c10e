"""Climatology by hour and day of year, mean and standard deviation, with the two methods of WeatherBench 2.

A triangular window runs over the days of the year, which form a ring. ``explicit`` takes a weighted mean and standard
deviation over window and years together; ``fast`` first takes them over the years for each day and then smooths the two
with the window. Both gather, for each hour and day, the number, sum and sum of squares over the years in one pass over
time; the window is then a pair of running sums.

Two habits of WeatherBench 2 0.2.1 are kept, since published scores carry them: ``explicit`` fills a value that is
missing (NaN) at a stored time with that year's value of day 365 at the same hour, and so also day 366 of common years;
``fast`` divides the window's sum by the number of days that are present, not by their weights. Days without any stored
time are different: they are left out and the weights of the others renormalised, so that a store of a few weeks gets
a climatology of those weeks and NaN elsewhere.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["DAYS", "Climatology"]

DAYS = 366

_COLUMNS = 512  # Points worked on together, so that all their days stay in the cache.


class Climatology:
    """Gathers the climatology of one variable, block by block in the order of time.

    Args:
        times: all times that will be taken in, datetime64, shape (time,); they fix the hours, and whether the year has
            365 days (no leap day among them; day 366 then repeats day 365) or 366.
        method: ``explicit`` or ``fast``.
        window: width of the window in days, odd; its weights rise from 0 at the first day to the middle and fall to 0
            at the last.

    Attributes:
        hours: distinct hours of day, ascending, shape (hour,).
    """

    def __init__(self, times: np.ndarray, *, method: str = "explicit", window: int = 61) -> None:
        if method not in ("explicit", "fast"):
            raise ValueError(f"method: expected 'explicit' or 'fast', got {method!r}")
        index = pd.DatetimeIndex(times)
        self.hours = np.unique(index.hour.to_numpy()).astype(np.int64)
        self._method, self._half = method, window // 2
        self._days = DAYS if (index.day_of_year == DAYS).any() else DAYS - 1
        self._stored = np.zeros((self.hours.size, self._days, 1), dtype=bool)
        self._stored[np.searchsorted(self.hours, index.hour), index.day_of_year - 1] = True
        # Sums are of differences from one sample, so that squares of a large mean do not drown the spread.
        self._origin: np.ndarray | None = None
        self._count = np.zeros((self.hours.size, self._days, 1))
        self._year: int | None = None
        self._missing: list[tuple[int, int, np.ndarray]] = []
        self._last_days: dict[tuple[int, int], np.ndarray] = {}

    def add(self, times: np.ndarray, values: np.ndarray) -> None:
        """Take in the next times.

        Args:
            times: datetime64, ascending and later than all times taken in before, shape (time,).
            values: shape (time, level, latitude, longitude); NaN is missing.
        """
        if self._origin is None:
            self._shape = values.shape[1:]
            first = values[0].reshape(-1).astype(np.float64)
            self._origin = np.where(np.isfinite(first), first, 0.0)
            size = (self.hours.size, self._days, first.size)
            self._sum, self._square = np.zeros(size), np.zeros(size)
        index = pd.DatetimeIndex(times)
        hours, days = np.searchsorted(self.hours, index.hour), index.day_of_year.to_numpy() - 1
        for hour, day, year, field in zip(hours, days, index.year, values, strict=True):
            if year != self._year:
                self._close_year()
                self._year = year
            departure = field.reshape(-1) - self._origin
            self._enter(hour, day, departure)
            if self._method == "explicit" and day >= DAYS - 2:
                self._last_days[hour, day] = departure

    def _enter(self, hour: int, day: int, departure: np.ndarray) -> None:
        present = np.isfinite(departure)
        if present.all():
            self._count[hour, day] += 1.0
        else:
            if self._count.shape[-1] != departure.size:
                self._count = np.repeat(self._count, departure.size, axis=-1)
            self._count[hour, day] += present
            departure = np.where(present, departure, 0.0)
            if self._method == "explicit":
                self._missing.append((hour, day, ~present))
        self._sum[hour, day] += departure
        self._square[hour, day] += np.square(departure)

    def _close_year(self) -> None:
        """Fill what the year lacks from its day 365."""
        filling = {hour: departure for (hour, day), departure in self._last_days.items() if day == DAYS - 2}
        missing, self._missing = self._missing, []
        for hour, day, absent in missing:
            if hour in filling:
                fill = np.where(absent & np.isfinite(filling[hour]), filling[hour], 0.0)
                self._count[hour, day] += absent & np.isfinite(filling[hour])
                self._sum[hour, day] += fill
                self._square[hour, day] += np.square(fill)
        if self._days == DAYS:
            for hour, departure in filling.items():
                if (hour, DAYS - 1) not in self._last_days:
                    self._enter(hour, DAYS - 1, departure)
        self._missing, self._last_days = [], {}

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, float32, (hour, dayofyear = 366, level, latitude, longitude)."""
        self._close_year()
        points = self._origin.size
        results = [np.empty((self.hours.size, DAYS, points), np.float32) for _ in range(2)]
        compute = self._explicit if self._method == "explicit" else self._fast
        with np.errstate(invalid="ignore", divide="ignore"):
            for hour in range(self.hours.size):
                for start in range(0, points, _COLUMNS):
                    columns = slice(start, start + _COLUMNS)
                    for target, values in zip(results, compute(hour, columns), strict=True):
                        target[hour, : self._days, columns] = values
                        target[hour, self._days :, columns] = values[-1]
        mean, std = (values.reshape(self.hours.size, DAYS, *self._shape) for values in results)
        return mean, std

    def _sums(self, hour: int, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = self._count[hour] if self._count.shape[-1] == 1 else self._count[hour, :, columns]
        return count, self._sum[hour, :, columns], self._square[hour, :, columns]

    def _explicit(self, hour: int, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        count, total, square = map(self._triangle, self._sums(hour, columns))
        count = np.where(count > 0, count, np.nan)
        departure = total / count
        variance = square / count - np.square(departure)
        return departure + self._origin[columns], np.sqrt(np.maximum(variance, 0.0))

    def _fast(self, hour: int, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        count, total, square = self._sums(hour, columns)
        departure = total / count
        variance = square / count - np.square(departure)
        present = np.broadcast_to(count > 0, departure.shape)
        stored = self._stored[hour].astype(np.float64)
        share = self._triangle(stored) / self._window_sum(stored)
        number = share * self._window_sum((count > 0).astype(np.float64))
        number = np.where(number > 0, number, np.nan)
        fields = (departure + self._origin[columns], np.sqrt(np.maximum(variance, 0.0)))
        mean, std = (self._triangle(np.where(present, field, 0.0)) / number for field in fields)
        return mean, std

    def _triangle(self, fields: np.ndarray) -> np.ndarray:
        """Return the weighted sum over the window around each day, weights of mean 1, (dayofyear, point)."""
        half = self._half
        if half == 0:
            return fields
        # A triangle is a box run over a box: running sums cost the same for every width, and no thread of a BLAS.
        once = _moving_sum(fields, half, back=half - 1)
        return _moving_sum(once, half, back=0) * ((2 * half + 1) / half**2)

    def _window_sum(self, fields: np.ndarray) -> np.ndarray:
        return _moving_sum(fields, 2 * self._half + 1, back=self._half)


def _moving_sum(fields: np.ndarray, width: int, back: int) -> np.ndarray:
    """Return the sum over `width` days of the ring, from `back` days before each, (dayofyear, point)."""
    days = fields.shape[0]
    running = np.zeros((days + width, *fields.shape[1:]))
    np.cumsum(fields[np.arange(-back, days + width - 1 - back) % days], axis=0, out=running[1:])
    return running[width:] - running[:days]
