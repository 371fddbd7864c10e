"""Which times of a series belong to an even step, where it has gaps, and how long its unbroken runs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from transforms.errors import InputError

__all__ = ["TimeSelection", "as_datetime64", "as_slice", "even_times", "require_ascending", "time_text", "within"]


@dataclass(frozen=True, eq=False)
class TimeSelection:
    """Times at an even step, gaps aside.

    Attributes:
        positions: where they are in the series, ascending, shape (time,).
        times: datetime64, ascending, shape (time,).
        step_hours: their step.
        source_step_hours: smallest step of the series, which divides `step_hours`; equal to it for a single time.
        gaps: (last time before, first time after) of every place where steps are left out.
    """

    positions: np.ndarray
    times: np.ndarray
    step_hours: int
    source_step_hours: float
    gaps: tuple[tuple[np.datetime64, np.datetime64], ...]


def even_times(
    times: np.ndarray, step_hours: int, period: Sequence[datetime] | None = None, *, key: str = "data.period"
) -> TimeSelection:
    """Select the times at `step_hours` from a series at that or a finer step.

    From a finer series the times at whole steps since midnight are taken, or those at whole steps since the first time
    where there are none.

    Args:
        times: datetime64, shape (time,).
        period: first and last time, both included; all by default.
        key: the configuration key of the period, for messages.

    Raises:
        InputError: times that are missing, do not ascend or occur twice (anywhere in the series); within the period: no
            time, uneven steps, steps below a second, or a step that does not divide `step_hours`.
    """
    require_ascending(times)
    inside = np.arange(times.size) if period is None else np.flatnonzero(within(times, period))
    if inside.size == 0:
        wanted = "any time" if period is None else " to ".join(time_text(as_datetime64(end)) for end in period)
        has = f"{time_text(times[0])} to {time_text(times[-1])}" if times.size else "no times"
        raise InputError(f"{key}: no time within {wanted}; the source has {has}. Change {key}.")
    if inside.size == 1:
        return TimeSelection(inside, times[inside], step_hours, float(step_hours), ())
    seconds = times[inside].astype("datetime64[s]").astype(np.int64)
    finest = _finest_step(times[inside], np.diff(seconds))
    step = step_hours * 3600
    if step % finest:
        relation = "coarser than" if finest > step else "not a divisor of"
        mend = f"data.time_step_hours={finest // 3600}" if finest % 3600 == 0 else "a step that is a multiple of it"
        raise InputError(
            f"time: the source has a step of {_hours(finest)} h, {relation} data.time_step_hours, {step_hours} h. "
            f"Use {mend}, or another source."
        )
    synoptic = np.flatnonzero(seconds % step == 0)
    origin = seconds[synoptic[0]] if synoptic.size else seconds[0]
    positions = inside[(seconds - origin) % step == 0]
    chosen = times[positions]
    broken = np.flatnonzero(np.diff(chosen.astype("datetime64[s]").astype(np.int64)) != step)
    gaps = tuple((chosen[i], chosen[i + 1]) for i in broken)
    return TimeSelection(positions, chosen, step_hours, finest / 3600, gaps)


def within(times: np.ndarray, period: Sequence[datetime]) -> np.ndarray:
    """Return which times lie in `period`, both ends included, boolean, shape (time,)."""
    start, end = (as_datetime64(instant) for instant in period)
    return (times >= start) & (times <= end)


def as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Return ascending positions as a slice where they are evenly spaced: stores are read by slices without copying."""
    if positions.size == 0:
        return positions
    step = int(positions[1] - positions[0]) if positions.size > 1 else 1
    if (np.diff(positions) == step).all():
        return slice(int(positions[0]), int(positions[-1]) + 1, step)
    return positions


def as_datetime64(instant: datetime) -> np.datetime64:
    """Return `instant` in UTC; one without a time zone is UTC already."""
    if instant.tzinfo is not None:
        instant = instant.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(instant, "s")


def time_text(time: np.datetime64) -> str:
    """Return a time to the minute, e.g. ``2001-01-31T06:00``."""
    return str(np.datetime_as_string(time, "m"))


def require_ascending(times: np.ndarray) -> None:
    """Raise InputError naming the first time that is missing (NaT), or the first pair of times that does not ascend."""
    missing = np.flatnonzero(np.isnat(times))
    if missing.size:
        raise InputError(
            f"time: {missing.size} of {times.size} values are no time (NaT), the first at position {missing[0]}; expected "
            "a date and an hour. A chunk of the coordinate may be missing or damaged: fetch or write it again."
        )
    backwards = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if backwards.size == 0:
        return
    i = int(backwards[0])
    pair = f"{time_text(times[i])} at position {i} is followed by {time_text(times[i + 1])}"
    if times[i] == times[i + 1]:
        raise InputError(f"time: expected each time once; {pair}. Remove the duplicates from the source.")
    raise InputError(f"time: expected ascending times; {pair}. Sort the source.")


def _finest_step(times: np.ndarray, steps: np.ndarray) -> int:
    """Smallest step in seconds, of which all others must be multiples."""
    finest = int(steps.min())
    if finest == 0:
        i = int(np.flatnonzero(steps == 0)[0])
        raise InputError(
            f"time: expected steps of whole seconds, got {times[i]} and {times[i + 1]}, within one second. "
            "Resample the source to an even step."
        )
    odd = np.flatnonzero(steps % finest != 0)
    if odd.size == 0:
        return finest
    values, counts = np.unique(steps, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:4]
    found = ", ".join(f"{_hours(values[k])} h ({counts[k]} times)" for k in sorted(most))
    # The first step that differs from the one before it shows the reader where to look.
    i = int(np.flatnonzero(np.diff(steps))[0])
    pair = " then ".join(
        f"{time_text(times[k])} to {time_text(times[k + 1])} ({_hours(steps[k])} h)" for k in (i, i + 1)
    )
    raise InputError(
        f"time: expected evenly spaced times, got steps of {found}; first uneven: {pair}. Resample the source to an even "
        "step, or select an even part with data.period."
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g}"
