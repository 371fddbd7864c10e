"""The states that forecasts start from: which initial times a store allows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from pipeline.training.checkpoints import ForecasterSpec
from transforms.errors import InputError
from transforms.selections import Selection
from transforms.timeaxis import as_datetime64, require_ascending, time_text

__all__ = ["initial_histories"]

_HOUR = np.timedelta64(1, "h")


def initial_histories(
    times: np.ndarray,
    valid: np.ndarray,
    spec: ForecasterSpec,
    *,
    initial_times: Sequence[datetime] | Selection | None = None,
    period: tuple[datetime, datetime] | None = None,
    every_hours: int | None = None,
    key: str = "period",
) -> np.ndarray:
    """Return where the states up to every initial time lie, ascending in time, (initial time, input_steps).

    The states before an initial time that the network needs may lie before the period.

    Args:
        times: of the store, datetime64, ascending.
        valid: whether each holds complete data.
        initial_times: those to start from; of a selection's ranges those that are possible.

    Raises:
        InputError: there is no initial time, or one that was asked for is not possible.
    """
    require_ascending(times)
    back = np.arange(spec.model.input_steps)[::-1] * spec.time_step_hours * _HOUR
    wanted = times[:, None] - back
    found = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    possible = ((times[found] == wanted) & valid[found]).all(axis=1)
    if isinstance(initial_times, Selection):
        startable = np.flatnonzero(possible)
        return found[startable[initial_times.positions(times[startable])]]
    has = f"the store has {np.datetime_as_string(times[0], 'h')} to {np.datetime_as_string(times[-1], 'h')}"
    if initial_times is not None:
        asked = np.unique(np.array([as_datetime64(instant) for instant in initial_times], dtype=times.dtype))
        lost = [time_text(time) for time in asked if not (possible & (times == time)).any()]
        if lost or not asked.size:
            raise InputError(
                f"initial_times: {', '.join(lost[:5]) or 'none'}{' ...' if len(lost) > 5 else ''} cannot be started "
                f"from, for want of valid states at it and the {len(back) - 1} steps before; {has}."
            )
        return found[np.isin(times, asked)]
    if period is not None:
        start, end = map(as_datetime64, period)
        possible &= (times >= start) & (times <= end)
    chosen = np.flatnonzero(possible)
    if chosen.size and every_hours is not None:
        # Counted from the first valid time, so that data which start between two intervals are used as well.
        chosen = chosen[(times[chosen] - times[chosen[0]]) % np.timedelta64(every_hours, "h") == np.timedelta64(0)]
    if chosen.size == 0:
        within = "all times" if period is None else f"{period[0]:%Y-%m-%d %H} to {period[1]:%Y-%m-%d %H} UTC"
        raise InputError(f"{key}: {within} holds no valid initial time; {has}.")
    return found[chosen]
