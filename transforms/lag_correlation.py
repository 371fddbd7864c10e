"""Correlation of a field with itself some time later, over area and time: how fast an anomaly fades."""

from __future__ import annotations

import numpy as np

__all__ = ["LagCorrelation"]


class LagCorrelation:
    """Sums up ``rho = <a(t) a(t + lag)> / sqrt(<a(t)**2> <a(t + lag)**2>)``, uncentred, averages weighted by area.

    Averages run over the same pairs of times, and over the points that are there at both. Pairs may come in any order
    and in any parts.
    """

    def __init__(self, lags: int, levels: int, weights: np.ndarray) -> None:
        """Begin.

        Args:
            lags, levels: their numbers.
            weights: by latitude, (latitude,).
        """
        self._root = np.sqrt(weights / weights.sum())[:, None]
        self._sums = np.zeros((3, lags, levels))
        self.pairs = np.zeros(lags, np.int64)

    def add(self, lags: slice, first: np.ndarray, second: np.ndarray, partner: np.ndarray) -> None:
        """Take in pairs of anomalies.

        Args:
            lags: which.
            first, second: anomalies, (time, level, latitude, longitude); NaN is missing.
            partner: index in `second` of the time a lag after each of `first`, negative where there is none,
                (time, lag).
        """
        row, lag = np.nonzero(partner >= 0)
        column = partner[row, lag]
        self.pairs[lags] += np.bincount(lag, minlength=partner.shape[1])
        for level in range(first.shape[1]):
            # One matrix product for all pairs of the two: most of its elements are pairs that count.
            for total, values in zip(
                self._sums[:, lags], self._products(first[:, level], second[:, level]), strict=True
            ):
                total[:, level] += np.bincount(lag, values[row, column], minlength=partner.shape[1])

    def result(self) -> np.ndarray:
        """Return rho, (lag, level); NaN without pairs, 0 where nothing varies."""
        cross, early, late = self._sums
        scale = np.sqrt(early * late)
        rho = np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0)
        rho[self.pairs == 0] = np.nan
        return rho

    def _products(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return sums over area of a b, a**2 and b**2 for each pair, (first, second)."""
        present = [~np.isnan(fields).reshape(len(fields), -1) for fields in (first, second)]
        a, b = (
            np.where(there, (fields.astype(np.float64) * self._root).reshape(len(fields), -1), 0.0)
            for fields, there in zip((first, second), present, strict=True)
        )
        if all(there.all() for there in present):
            shape = len(a), len(b)
            return (
                a @ b.T,
                np.broadcast_to((a * a).sum(axis=1)[:, None], shape),
                np.broadcast_to((b * b).sum(axis=1), shape),
            )
        there = [mask.astype(np.float64) for mask in present]
        return a @ b.T, (a * a) @ there[1].T, there[0] @ (b * b).T
