"""Area-weighted mean and spread of fields and of their tendencies, gathered in one pass over time.

The accumulators merge the moments of each block into those gathered so far (Chan, Golub & LeVeque 1983, "Algorithms
for computing the sample variance"), which is stable for fields such as geopotential, whose mean is many times its
spread, and does not depend on how time is cut into blocks beyond the last bits of float64.
"""

from __future__ import annotations

import numpy as np

from transforms.grids import Grid

__all__ = ["STATISTICS", "FieldStatistics", "Moments"]

STATISTICS = ("mean", "std", "tendency_mean", "tendency_std")


class Moments:
    """Weighted mean and standard deviation over time, latitude and longitude, for each level apart.

    Missing values (NaN) carry no weight.

    Args:
        weights: weight of each row, shape (latitude,).
    """

    def __init__(self, weights: np.ndarray) -> None:
        self._row_weights = np.asarray(weights, dtype=np.float64)
        self._weight: np.ndarray | float = 0.0
        self._mean: np.ndarray | float = 0.0
        self._deviation: np.ndarray | float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Take in a block of shape (time, level, latitude, longitude)."""
        block = np.asarray(values, dtype=np.float64)
        rows = self._row_weights
        present = np.isfinite(block)
        if present.all():
            weight = np.full(block.shape[1], block.shape[0] * block.shape[3] * rows.sum())
            mean = block.sum(axis=(0, 3)) @ rows / np.maximum(weight, 1e-300)
            deviation = np.square(block - mean[:, None, None]).sum(axis=(0, 3)) @ rows
        else:
            weight = present.sum(axis=(0, 3)) @ rows
            mean = np.where(present, block, 0.0).sum(axis=(0, 3)) @ rows / np.maximum(weight, 1e-300)
            centred = np.where(present, block - mean[:, None, None], 0.0)
            deviation = np.square(centred).sum(axis=(0, 3)) @ rows
        total = self._weight + weight
        share = weight / np.maximum(total, 1e-300)
        difference = mean - self._mean
        self._deviation = self._deviation + deviation + np.square(difference) * self._weight * share
        self._mean = self._mean + difference * share
        self._weight = total

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and (population) standard deviation, each of shape (level,), NaN where nothing was present."""
        weight = np.atleast_1d(np.asarray(self._weight, dtype=np.float64))
        present = weight > 0
        mean = np.where(present, self._mean, np.nan)
        variance = np.where(present, self._deviation, np.nan) / np.where(present, weight, 1.0)
        return mean, np.sqrt(variance)


class FieldStatistics:
    """Statistics of one variable and of its tendency x(t + step) - x(t), fed block by block in the order of time.

    Args:
        grid: its latitude weights weigh the rows.
        step: over which the tendency is taken; only times exactly this far apart make a pair.
    """

    def __init__(self, grid: Grid, step: np.timedelta64) -> None:
        weights = grid.latitude_weights()
        self._step = step
        self._state, self._tendency = Moments(weights), Moments(weights)
        self._pending_times: np.ndarray | None = None
        self._pending: np.ndarray | None = None
        self.samples = 0
        self.tendency_samples = 0

    def add(self, times: np.ndarray, values: np.ndarray) -> None:
        """Take in the next times.

        Args:
            times: datetime64, ascending and later than all times taken in before, shape (time,).
            values: shape (time, level, latitude, longitude).
        """
        if len(times) == 0:
            return
        self._state.add(values)
        self.samples += len(times)
        if self._pending is not None:
            times = np.concatenate([self._pending_times, times])
            values = np.concatenate([self._pending, values])
        position = np.searchsorted(times, times + self._step)
        found = position < len(times)
        found[found] = times[position[found]] == times[found] + self._step
        if found.any():
            later = values[position[found]].astype(np.float64)
            self._tendency.add(later - values[found])
            self.tendency_samples += int(found.sum())
        # Only times whose partner may still come are kept, so that memory does not grow.
        waiting = times + self._step > times[-1]
        self._pending_times, self._pending = times[waiting], np.array(values[waiting])

    def result(self) -> np.ndarray:
        """Return the statistics in the order of `STATISTICS`, shape (statistic, level); NaN for want of data."""
        mean, std = self._state.result()
        tendency_mean, tendency_std = self._tendency.result()
        missing = np.full_like(mean, np.nan)
        if self.tendency_samples == 0:
            tendency_mean = tendency_std = missing
        return np.stack([mean, std, tendency_mean, tendency_std])
