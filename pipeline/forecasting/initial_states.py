"""The states that forecasts start from: which initial times a store allows, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import xarray as xr

from pipeline.stores.reading import on_levels
from pipeline.training.checkpoints import ForecasterSpec
from pipeline.training.layout import StateLayout
from transforms.errors import InputError
from transforms.selections import Selection
from transforms.timeaxis import as_datetime64, require_ascending, time_text

__all__ = ["InitialStates", "initial_histories"]

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
    """Return where the states at ``t, t - dt, ...`` of every initial time t lie, (initial time, input_steps).

    The states before an initial time that the network needs may lie before the period.

    Args:
        times: of the store, datetime64, ascending.
        valid: whether each holds complete data.
        initial_times: those to start from; of a selection's ranges those that are possible.

    Raises:
        InputError: there is no initial time, or one that was asked for is not possible.
    """
    require_ascending(times)
    back = np.arange(spec.model.input_steps) * spec.time_step_hours * _HOUR
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


class InitialStates:
    """Reads states of a store as (time, channel, latitude, longitude)."""

    def __init__(self, dataset: xr.Dataset, layout: StateLayout, path: str) -> None:
        """Choose the fields.

        Args:
            path: of the store, for messages.

        Raises:
            InputError: a variable or level of the layout is missing.
        """
        self._fields = []
        for name in layout.variables:
            if name not in dataset:
                raise InputError(f"{name}: missing; {path} has {', '.join(map(str, dataset.data_vars))}.")
            field = dataset[name]
            if "level" in field.dims:
                field = on_levels(field, layout.levels, f"{path}: {name}")
            self._fields.append(field)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the states at some positions, float32, in memory of their own."""
        distinct, index = np.unique(positions, return_inverse=True)
        runs = np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)
        columns = []
        for field in self._fields:
            values = np.concatenate([field.isel(time=slice(int(run[0]), int(run[-1]) + 1)).values for run in runs])
            columns.append(values.reshape(len(values), -1, *values.shape[-2:]))
        return np.concatenate(columns, axis=1)[index].astype(np.float32, copy=False)
