"""Area-weighted moments of fields and of their tendencies, exact in the order of combination.

Every field (one time, or one pair of times, at one level) yields a small record of its own: weight, mean, sum of
squared deviations, smallest and largest value. A record depends on its field alone, and records are summed without
rounding (Shewchuk 1997, "Adaptive precision floating-point arithmetic"; `math.fsum`), so the statistics of a period are
the same to the last bit however time is cut into blocks and in whatever order the blocks are done. Deviations are taken
from means (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance"), which is stable for fields such
as geopotential, whose mean is many times its spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["RECORD", "STATISTICS", "combine", "field_statistics", "moments", "pairs_of", "tendencies"]

STATISTICS = ("mean", "std", "tendency_mean", "tendency_std", "minimum", "maximum")

RECORD = ("weight", "mean", "deviation", "minimum", "maximum")
"""What the record of a field holds, in this order; ``deviation`` is the weighted sum of squared deviations."""

_POINTS = 2**17  # Worked on together, so that they stay in the cache.


def moments(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the records of fields; missing values (not finite) carry no weight.

    Args:
        values: shape (..., latitude, longitude).
        weights: weight of each row, shape (latitude,).

    Returns:
        float64, shape (..., record); a field without any value has weight 0.
    """
    weights = np.asarray(weights, dtype=np.float64)
    fields = values.reshape(-1, *values.shape[-2:])
    records = np.empty((len(fields), len(RECORD)))
    span = max(1, _POINTS // max(1, fields[0].size)) if len(fields) else 1
    for start in range(0, len(fields), span):
        # Rows must be contiguous: numpy then sums each alone, so that a field's record knows nothing of its company.
        block = np.array(fields[start : start + span], dtype=np.float64, order="C")
        records[start : start + span] = _records(block, weights)
    return records.reshape(*values.shape[:-2], len(RECORD))


def _records(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the records of fields, shape (field, record); overwrites them."""
    sums = block.sum(axis=-1)
    if np.isfinite(sums).all():
        low, high = block.min(axis=(1, 2)), block.max(axis=(1, 2))
        absent, counts = None, np.full(sums.shape, float(block.shape[-1]))
    else:
        absent = ~np.isfinite(block)
        low, high = np.where(absent, np.inf, block).min(axis=(1, 2)), np.where(absent, -np.inf, block).max(axis=(1, 2))
        block[absent] = 0.0
        sums, counts = block.sum(axis=-1), np.count_nonzero(~absent, axis=-1).astype(np.float64)
    weight = (counts * weights).sum(axis=-1)
    mean = (sums * weights).sum(axis=-1) / np.where(weight > 0, weight, 1.0)
    block -= mean[:, np.newaxis, np.newaxis]
    if absent is not None:
        block[absent] = 0.0
    np.square(block, out=block)
    deviation = (block.sum(axis=-1) * weights).sum(axis=-1)
    return np.stack([weight, mean, deviation, low, high], axis=-1)


def combine(records: np.ndarray) -> dict[str, np.ndarray]:
    """Return ``mean``, ``std`` (of the population), ``minimum`` and ``maximum`` over all fields of each level.

    Args:
        records: of `moments`, shape (time, level, record), times in any order.

    Returns:
        float64, shape (level,) each; NaN where no value was present.
    """
    levels = records.shape[1]
    result = {name: np.full(levels, np.nan) for name in ("mean", "std", "minimum", "maximum")}
    for level in range(levels):
        present = records[records[:, level, 0] > 0, level]
        if not len(present):
            continue
        weight, mean, deviation, low, high = present.T
        total = math.fsum(weight)
        centre = math.fsum(weight * mean) / total
        between = weight * np.square(mean - centre)
        result["mean"][level] = centre
        result["std"][level] = math.sqrt((math.fsum(deviation) + math.fsum(between)) / total)
        result["minimum"][level], result["maximum"][level] = low.min(), high.max()
    return result


def field_statistics(states: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return the statistics in the order of `STATISTICS`, shape (statistic, level); NaN for want of data.

    Args:
        states, changes: records of the fields and of their tendencies, shape (time, level, record).
    """
    state, change = combine(states), combine(changes)
    return np.stack([state["mean"], state["std"], change["mean"], change["std"], state["minimum"], state["maximum"]])


def pairs_of(times: np.ndarray, step: np.timedelta64) -> np.ndarray:
    """Return the position of the time exactly `step` after each, -1 where there is none, shape (time,).

    Args:
        times: datetime64, ascending, shape (time,).
    """
    position = np.searchsorted(times, times + step)
    found = position < len(times)
    found[found] = times[position[found]] == (times + step)[found]
    return np.where(found, position, -1)


def tendencies(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], partner: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (positions, changes to the partner) from blocks of fields in the order of time.

    Only fields whose partner has yet to come are kept.

    Args:
        blocks: (positions, fields of shape (time, ...)), positions ascending throughout.
        partner: position of each field's partner, later than its own, or -1.
    """
    waiting: dict[int, tuple[int, np.ndarray]] = {}
    for positions, fields in blocks:
        starts, changes = [], []
        for position, field in zip(positions.tolist(), fields, strict=True):
            if position in waiting:
                start, earlier = waiting.pop(position)
                starts.append(start)
                changes.append(field.astype(np.float64) - earlier)
            if partner[position] >= 0:
                waiting[int(partner[position])] = (position, field.copy())
        if starts:
            yield np.array(starts), np.stack(changes)
