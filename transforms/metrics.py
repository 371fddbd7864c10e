"""Deterministic scores, number for number those of WeatherBench 2.

Three steps, kept apart so that parts of a long evaluation combine exactly:

- an integrand is a field at each point, e.g. the squared error; its regional mean is taken with area weights;
- a statistic is one value for each forecast, from the regional means of its integrands; statistics are averaged over
  initial times (`TimeMean`);
- a metric is a function of an averaged statistic: ``rmse`` is the root of the averaged ``squared_error``.

The anomaly correlation (ACC) is uncentred and taken for each forecast before averaging:
<f'o'> / sqrt(<f'^2> <o'^2>), with anomalies from the climatology at the valid time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "METRICS",
    "RegionalMean",
    "TimeMean",
    "field_statistics",
    "statistics_for",
    "vector_name",
    "vector_statistics",
]


@dataclass(frozen=True)
class Metric:
    """A score: `finish` of the average of `statistic` over initial times; `vector` says whether winds have it."""

    statistic: str
    finish: Callable[[np.ndarray], np.ndarray] = lambda average: average
    vector: bool = False


METRICS: dict[str, Metric] = {
    "rmse": Metric("squared_error", np.sqrt, vector=True),
    "mse": Metric("squared_error", vector=True),
    "mae": Metric("absolute_error"),
    "bias": Metric("error"),
    "acc": Metric("anomaly_correlation"),
    "rmse_sqrt_before_time_avg": Metric("root_mean_squared_error", vector=True),
}


def statistics_for(metrics: Sequence[str], *, vector: bool = False) -> list[str]:
    """Return the statistics that `metrics` are made from, each once; with `vector` those of wind vectors."""
    chosen = [METRICS[name] for name in metrics]
    return list(dict.fromkeys(metric.statistic for metric in chosen if metric.vector or not vector))


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

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Return the means of `field` (..., latitude, longitude), float64, shape (region, ...)."""
        flat = field.reshape(-1, self._weights.shape[0])
        means = (flat @ self._weights).T
        suspect = np.flatnonzero(~np.isfinite(means).all(axis=0))
        if suspect.size:
            # A missing value meets the zero weights of regions it is not in: average each region over its own points.
            means[:, suspect] = [self._mean_of_region(flat[suspect], column) for column in self._weights.T]
        return means.reshape(self.regions, *field.shape[:-2])

    def _mean_of_region(self, flat: np.ndarray, weights: np.ndarray) -> np.ndarray:
        inside = weights > 0
        values, weights = flat[:, inside], weights[inside]
        if not self._skipna:
            return values @ weights
        missing = np.isnan(values)
        weight = (~missing) @ weights
        total = np.where(missing, 0.0, values) @ weights
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def field_statistics(
    names: Sequence[str],
    forecast: np.ndarray,
    truth: np.ndarray,
    climatology: np.ndarray | None,
    mean: RegionalMean,
) -> dict[str, np.ndarray]:
    """Return the named statistics of a scalar field.

    Args:
        names: of `statistics_for`.
        forecast, truth, climatology: shape (..., latitude, longitude); truth and climatology are those of the valid
            times. The climatology is needed for ``anomaly_correlation`` only.
        mean: averages over the regions.

    Returns:
        For each name an array of shape (region, ...), float64.
    """
    error = np.subtract(forecast, truth, dtype=np.float64)
    result: dict[str, np.ndarray] = {}
    if "error" in names:
        result["error"] = mean(error)
    if "absolute_error" in names:
        result["absolute_error"] = mean(np.abs(error))
    result |= _squared(names, np.square(error, out=error), mean)
    if "anomaly_correlation" in names:
        departure = np.subtract(forecast, climatology, dtype=np.float64)
        observed = np.subtract(truth, climatology, dtype=np.float64)
        product = mean(departure * observed)
        squares = mean(np.square(departure, out=departure)) * mean(np.square(observed, out=observed))
        with np.errstate(invalid="ignore", divide="ignore"):
            result["anomaly_correlation"] = product / np.sqrt(squares)
    return result


def vector_statistics(
    names: Sequence[str],
    forecast: tuple[np.ndarray, np.ndarray],
    truth: tuple[np.ndarray, np.ndarray],
    mean: RegionalMean,
) -> dict[str, np.ndarray]:
    """Return the named statistics of a wind vector given by its components, as `field_statistics` does."""
    squared = sum(np.square(np.subtract(f, o, dtype=np.float64)) for f, o in zip(forecast, truth, strict=True))
    return _squared(names, squared, mean)


def _squared(names: Sequence[str], squared: np.ndarray, mean: RegionalMean) -> dict[str, np.ndarray]:
    wanted = {"squared_error", "root_mean_squared_error"} & set(names)
    if not wanted:
        return {}
    average = mean(squared)
    both = {"squared_error": average, "root_mean_squared_error": np.sqrt(average)}
    return {name: both[name] for name in both if name in wanted}


class TimeMean:
    """Average over forecasts, one initial time after another, so that batches do not change its value.

    Args:
        skipna: leave missing values out; otherwise one makes the average missing.
    """

    def __init__(self, *, skipna: bool = False) -> None:
        self._skipna = skipna
        self._total: np.ndarray | float = 0.0
        self._count: np.ndarray | float = 0.0

    def add(self, values: np.ndarray, included: np.ndarray) -> None:
        """Take in one initial time.

        Args:
            values: a statistic, shape (region, lead, ...).
            included: whether there was a truth to compare with, boolean, shape (lead,).
        """
        counts = np.broadcast_to(included.reshape(-1, *[1] * (values.ndim - 2)), values.shape)
        if self._skipna:
            counts = counts & ~np.isnan(values)
        self._total = self._total + np.where(counts, values, 0.0)
        self._count = self._count + counts

    def result(self) -> np.ndarray:
        """Return the average, NaN where nothing entered."""
        total, count = np.asarray(self._total), np.asarray(self._count)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def vector_name(eastward: str) -> str:
    """Return WeatherBench 2's name of the vector with this eastward component, e.g. ``10m_wind_vector``."""
    return eastward.replace("u_component_of_wind", "wind_vector")
