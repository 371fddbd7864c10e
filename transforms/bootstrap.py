"""Intervals of scores and of skill against a baseline, from a block bootstrap.

Errors of forecasts that start close together are alike, so that resampling them one by one would make intervals too
narrow. Whole blocks of initial times are drawn with replacement instead (Kuensch 1989, Ann. Stat. 17, 1217-1241; for
paired forecasts Hamill 1999, Weather Forecast. 14, 155-167), the same ones for forecast and baseline.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.errors import InputError

__all__ = ["FEWEST_BLOCKS", "Skill", "block_numbers", "interval", "paired", "skill_score"]

FEWEST_BLOCKS = 8
"""Of fewer blocks no interval is given: resampling them says little."""


@dataclass(frozen=True)
class Skill:
    """Skill 1 - forecast / baseline, each float64, shape (...).

    Attributes:
        score: of all initial times.
        lower, upper: ends of the interval; NaN of fewer than `FEWEST_BLOCKS` blocks.
        significant: 1 where the interval does not hold zero, 0 where it does, NaN where there is none.
    """

    score: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    significant: np.ndarray


def block_numbers(times: np.ndarray, length: np.timedelta64, most: int) -> np.ndarray:
    """Return the number of the block that each time belongs to, from 0, shape (time,).

    Args:
        times: datetime64.
        length: of a block; longer where there would be more than `most` blocks.

    Raises:
        InputError: the length is not positive.
    """
    if length <= np.timedelta64(0):
        raise InputError(f"block_hours: got {length}; expected a positive length.")
    since = (times - times.min()).astype("timedelta64[ns]")
    length = max(length.astype("timedelta64[ns]"), (since.max() // most + np.timedelta64(1, "ns")))
    return (since // length).astype(int)


def paired(forecast: np.ndarray, baseline: np.ndarray, included: np.ndarray, *, skipna: bool) -> np.ndarray:
    """Return the scores of a forecast and of its baseline, zero in both where either is left out.

    Args:
        forecast, baseline: of one initial time, shape (region, lead, ...).
        included: whether there was a truth for both, boolean, shape (lead,).
        skipna: leave missing values out; otherwise one makes the skill missing.

    Returns:
        Array (2, region, lead, ...), to be summed over the initial times of a block.
    """
    kept = np.broadcast_to(included.reshape(-1, *[1] * (forecast.ndim - 2)), forecast.shape)
    if skipna:
        kept = kept & ~np.isnan(forecast) & ~np.isnan(baseline)
    return np.stack([np.where(kept, values, 0.0) for values in np.broadcast_arrays(forecast, baseline)])


def skill_score(sums: np.ndarray, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Skill:
    """Return the skill of a forecast against a baseline, with its bootstrap interval by percentiles.

    Args:
        sums: of `paired` over the initial times of each block, shape (block, 2, ...).
        resamples: draws of as many blocks as there are.
    """
    forecast, baseline = sums[:, 0], sums[:, 1]
    score = _skill(forecast.sum(axis=0), baseline.sum(axis=0))
    blocks = len(sums)
    if blocks < FEWEST_BLOCKS:
        missing = np.full_like(score, np.nan)
        return Skill(score, missing, missing, missing)
    drawn = _draws(blocks, resamples, seed)
    scores = _skill(*(drawn @ part.reshape(blocks, -1) for part in (forecast, baseline)))
    tail = (1 - confidence) / 2
    lower, upper = (ends.reshape(score.shape) for ends in np.quantile(scores, [tail, 1 - tail], axis=0))
    significant = np.where((lower > 0) | (upper < 0), 1.0, 0.0)
    return Skill(score, lower, upper, np.where(np.isnan(lower), np.nan, significant))


def interval(
    totals: Sequence[np.ndarray],
    counts: Sequence[np.ndarray],
    finish: Callable[..., np.ndarray],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bootstrap interval of a score by percentiles, NaN of fewer than `FEWEST_BLOCKS` blocks.

    Args:
        totals: for each statistic of the score its sums over the initial times of each block, shape (block, ...).
        counts: how many initial times entered each sum, of shapes that broadcast with it.
        finish: makes the score from averaged statistics.
        resamples: draws of as many blocks as there are.

    Returns:
        Its lower and its upper end, shape (...).
    """
    blocks, shape = len(totals[0]), totals[0].shape[1:]
    if blocks < FEWEST_BLOCKS:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    drawn = _draws(blocks, resamples, seed)
    averages = []
    for total, count in zip(totals, counts, strict=True):
        sums, entered = (
            (drawn @ part.reshape(blocks, -1)).reshape(resamples, *part.shape[1:]) for part in (total, count)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            averages.append(sums / entered)
    scores = finish(*averages)
    # A draw may hold no forecast of a lead that few blocks have.
    missing = np.isnan(finish(*(_mean(total, count) for total, count in zip(totals, counts, strict=True))))
    tail = (1 - confidence) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        lower, upper = (
            np.nanquantile(scores, [tail, 1 - tail], axis=0)
            if np.isnan(scores).any()
            else np.quantile(scores, [tail, 1 - tail], axis=0)
        )
    return np.where(missing, np.nan, lower), np.where(missing, np.nan, upper)


def _draws(blocks: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each block is drawn, float64, shape (resample, block)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples).astype(np.float64)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return total.sum(axis=0) / count.sum(axis=0)


def _skill(forecast: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - forecast / baseline
