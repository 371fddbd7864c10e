"""Quantiles and SEEPS thresholds by hour and day of year, over the samples of a triangular window and all years.

Weighted quantiles are of type 7 with Kish's effective sample size (Akinshin 2023, "Weighted quantile estimators"), as
xarray and hence WeatherBench 2 compute them. SEEPS (Rodwell et al. 2010, Q. J. R. Meteorol. Soc. 136, 1344-1363) needs
the part of dry samples and the threshold that two thirds of the others do not exceed; WeatherBench 2 weighs the samples
for the threshold and not for the part, in which missing ones count as not dry.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transforms.climatology import DAYS, triangle_weights

__all__ = ["SEEPS_DRY", "dry_fraction", "filled", "window_quantiles", "without_dry"]

SEEPS_DRY = {"total_precipitation_24hr": 0.25e-3, "total_precipitation_6hr": 0.1e-3}
"""Precipitation below which it counts as dry, m."""

_ELEMENTS = 2**18  # Samples sorted together, so that they stay in the cache.


def filled(samples: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return samples of one hour with what a year lacks taken from its day 365, as ``explicit`` does.

    Args:
        samples: NaN where missing, shape (year, day, point).
        axis: days that take part, shape (day,).
    """
    if samples.shape[1] < DAYS - 1:
        return samples
    last = samples[:, DAYS - 2 : DAYS - 1]
    return np.where(np.isnan(samples) & axis[:, np.newaxis], last, samples)


def window_quantiles(samples: np.ndarray, quantiles: Sequence[float], window: int) -> np.ndarray:
    """Return weighted quantiles over years and window, missing samples left out.

    Args:
        samples: NaN where missing, shape (year, day, point).
        quantiles: levels from 0 to 1.
        window: width in days, odd.

    Returns:
        float32, shape (quantile, dayofyear = 366, point); NaN without a sample.
    """
    years, days, points = samples.shape
    weights = triangle_weights(window)
    offsets = np.flatnonzero(weights)
    result = np.empty((len(quantiles), DAYS, points), np.float32)
    weight = np.tile(weights[offsets], years)
    # Each point's samples lie together, so that every sum is of one point and of all its samples, in one order.
    by_point = np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.float64)
    span = max(1, _ELEMENTS // weight.size)
    for start in range(0, points, span):
        columns = slice(start, start + span)
        for day in range(days):
            chosen = by_point[columns][:, :, (day + offsets - window // 2) % days]
            result[:, day, columns] = _weighted_quantiles(chosen.reshape(-1, weight.size), weight, quantiles)
    result[:, days:] = result[:, days - 1 : days]
    return result


def _weighted_quantiles(samples: np.ndarray, weight: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Return quantiles of rows, shape (quantile, point), from samples (point, sample) and weights (sample,)."""
    order = np.argsort(samples, axis=-1)
    ordered = np.take_along_axis(samples, order, axis=-1)
    weights = np.where(np.isnan(ordered), 0.0, weight[order])
    ordered = np.where(np.isnan(ordered), 0.0, ordered)
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.square(total) / np.square(weights).sum(axis=-1, keepdims=True)
        share = np.zeros((len(samples), weight.size + 1))
        np.cumsum(weights / total, axis=-1, out=share[:, 1:])
        result = []
        for level in quantiles:
            high = np.clip((size - 1.0) * level + 1.0, 1.0, size)
            inside = np.maximum((high - 1.0) / size, np.minimum(high / size, share))
            result.append((ordered * (np.diff(inside, axis=-1) * size)).sum(axis=-1))
    return np.where(total[:, 0] > 0, np.stack(result), np.nan)


def without_dry(samples: np.ndarray, dry: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples are dry, and the samples with NaN in their place.

    Args:
        dry: value below which a sample is dry, in the unit of the samples.
    """
    is_dry = samples < samples.dtype.type(dry)
    return is_dry, np.where(is_dry, samples.dtype.type(np.nan), samples)


def dry_fraction(is_dry: np.ndarray, axis: np.ndarray, window: int) -> np.ndarray:
    """Return the part of dry samples in the window, float32, shape (dayofyear = 366, point).

    Args:
        is_dry: shape (year, day, point).
        axis: days that take part, shape (day,).
        window: width in days, odd; all of its days count alike.
    """
    days = is_dry.shape[1]
    count = (is_dry & axis[:, np.newaxis]).sum(axis=0, dtype=np.int64)
    result = np.empty((DAYS, is_dry.shape[2]), np.float32)
    with np.errstate(invalid="ignore"):
        for day in range(days):
            inside = (day + np.arange(window) - window // 2) % days
            result[day] = count[inside].sum(axis=0) / np.float64(axis[inside].sum() * len(is_dry))
    result[days:] = result[days - 1]
    return result
