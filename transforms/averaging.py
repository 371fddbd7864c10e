"""The two averages of every score: over a region's area, and over forecasts.

Both are exact whatever parts a long evaluation is cut into: an average over forecasts is kept as a sum and a count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["RegionalMean", "RunningMean"]


class RegionalMean:
    """Weighted means over regions.

    Args:
        weights: weight of each point, shape (region, latitude, longitude), see `transforms.regions.region_weights`.
        skipna: leave missing points out of a mean; otherwise one missing point with weight makes the mean missing.
    """

    def __init__(self, weights: np.ndarray, *, skipna: bool = False) -> None:
        flat = weights.reshape(weights.shape[0], -1)
        self._weights = np.ascontiguousarray((flat / flat.sum(axis=1, keepdims=True)).T)
        self._skipna = skipna
        self.regions = weights.shape[0]

    def __call__(self, field: np.ndarray, *, skipna: bool | None = None) -> np.ndarray:
        """Return the means of `field` (..., latitude, longitude), float64, shape (region, ...).

        Args:
            skipna: the one of the constructor by default.
        """
        skipna = self._skipna if skipna is None else skipna
        flat = field.reshape(-1, self._weights.shape[0])
        with np.errstate(invalid="ignore"):
            means = (flat @ self._weights).T
        suspect = np.flatnonzero(~np.isfinite(means).all(axis=0))
        if suspect.size:
            # A missing value meets the zero weights of regions it is not in: average each region over its own points.
            means[:, suspect] = [self._mean_of_region(flat[suspect], column, skipna) for column in self._weights.T]
        return means.reshape(self.regions, *field.shape[:-2])

    def _mean_of_region(self, flat: np.ndarray, weights: np.ndarray, skipna: bool) -> np.ndarray:
        inside = weights > 0
        values, weights = flat[:, inside], weights[inside]
        if not skipna:
            return values @ weights
        missing = np.isnan(values)
        weight = (~missing) @ weights
        total = np.where(missing, 0.0, values) @ weights
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


@dataclass
class RunningMean:
    """An average over forecasts as a sum and a count, so that parts combine exactly.

    Attributes:
        total: sum of the values that entered, float64, of the shape of a value.
        count: how many entered, float64, of a shape that broadcasts with it.
    """

    total: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, included: np.ndarray, *, skipna: bool = False) -> RunningMean:
        """Return the average of one value.

        Args:
            values: shape (region, lead, ...).
            included: whether there was a truth to compare with, boolean, shape (lead,).
            skipna: leave missing values out; otherwise one makes the average missing.
        """
        counts = included.reshape(1, -1, *[1] * (values.ndim - 2))
        if skipna:
            counts = counts & ~np.isnan(values)
        return cls(np.where(counts, values, 0.0), counts.astype(np.float64))

    def add(self, other: RunningMean) -> None:
        """Take in the values of another average."""
        self.total = self.total + other.total
        self.count = self.count + other.count

    def result(self) -> np.ndarray:
        """Return the average, NaN where nothing entered."""
        count = np.broadcast_to(self.count, self.total.shape)
        return np.divide(self.total, count, out=np.full(self.total.shape, np.nan), where=count > 0)
