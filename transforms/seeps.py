"""SEEPS, the stable equitable error in probability space of precipitation, number for number that of WeatherBench 2.

Precipitation is dry, light or heavy; the limit between light and heavy is the climatology's, so that light is twice as
frequent as heavy. The error is that of these categories, made equitable by p1, the climatology's probability of dry
(Rodwell et al. 2010, Q. J. R. Meteorol. Soc. 136, 1344-1363, eq. 15).
"""

from __future__ import annotations

import numpy as np

__all__ = ["DRY_THRESHOLD", "dry_probability", "seeps"]

DRY_THRESHOLD = 0.25e-3
"""Metres of precipitation in 24 hours, below which it is dry."""

_LOWEST, _HIGHEST = 0.1, 0.85
"""Climates outside of these probabilities of dry are left out (Rodwell et al. 2010, section 4)."""


def dry_probability(dry_fraction: np.ndarray) -> np.ndarray:
    """Return p1, the mean of the climatology's dry fraction (..., latitude, longitude) over all times of the year."""
    flat = dry_fraction.reshape(-1, *dry_fraction.shape[-2:])
    present = ~np.isnan(flat)
    count = present.sum(axis=0)
    total = np.sum(flat, axis=0, dtype=np.float64, where=present)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def seeps(
    forecast: np.ndarray,
    truth: np.ndarray,
    heavy_threshold: np.ndarray,
    probability: np.ndarray,
    *,
    dry_threshold: float = DRY_THRESHOLD,
) -> np.ndarray:
    """Return SEEPS at each point; its regional means leave missing points out in any case.

    Precipitation of exactly the dry threshold belongs to no category, as does any wet value
    where the climatology has no limit, and costs nothing.

    Args:
        forecast, truth: precipitation over 24 hours in m, shape (..., latitude, longitude).
        heavy_threshold: from which on it is heavy, in m, the climatology's ``seeps_threshold`` at the valid times.
        probability: of dry, shape (latitude, longitude), see `dry_probability`.
        dry_threshold: in m, the one of the climatology.

    Returns:
        Array (..., latitude, longitude), 0 for the right category; NaN where a value is missing or the climate is too
        dry or too wet.
    """
    predicted, observed = (_categories(values, heavy_threshold, dry_threshold) for values in (forecast, truth))
    p1 = np.asarray(probability, dtype=np.float64)
    kept = (p1 > _LOWEST) & (p1 < _HIGHEST)
    p1 = np.where(kept, p1, 0.5)
    # costs[forecast][truth], each in the order dry, light, heavy.
    costs = (
        (None, 1 / (1 - p1), 4 / (1 - p1)),
        (1 / p1, None, 3 / (1 - p1)),
        (1 / p1 + 3 / (2 + p1), 3 / (2 + p1), None),
    )
    score = np.zeros(np.broadcast_shapes(forecast.shape, truth.shape))
    for category, row in zip(predicted, costs, strict=True):
        for other, cost in zip(observed, row, strict=True):
            if cost is not None:
                score += 0.5 * cost * (category & other)
    return np.where(np.isnan(forecast) | np.isnan(truth) | ~kept, np.nan, score)


def _categories(values: np.ndarray, heavy: np.ndarray, dry: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return values < dry, (values > dry) & (values < heavy), values >= heavy
