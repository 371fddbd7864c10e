"""Windows of consecutive states of a training store: which there are, and reading them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from datetime import datetime
from math import prod
from typing import Any

import numpy as np

from model.training import Batch
from pipeline.states.reading import StateReader

__all__ = ["DirectWindows", "WindowSource", "window_starts", "within"]

_GROUP_BYTES = 64_000_000
_ALIGNMENT = 64
_FORCING_TEMPORARIES = 8
"""Fields that computing the solar radiation of one time holds at once, at most."""


def window_starts(
    times: np.ndarray, valid: np.ndarray, length: int, step: np.timedelta64, period: tuple[datetime, datetime] | None
) -> np.ndarray:
    """Return the positions at which a window of consecutive valid times starts.

    Args:
        times: datetime64, ascending, shape (time,).
        valid: whether each time holds complete data, shape (time,).
        length: times in a window.
        step: what consecutive times differ by; a window never crosses a gap.
        period: first and last time a window may touch; None for no bound.

    Returns:
        Positions in `times`, ascending.
    """
    usable = valid & within(times, period)
    follows = np.concatenate([[False], np.diff(times) == step])
    continues = follows & np.concatenate([[False], usable[:-1]])
    position = np.arange(times.size)
    began = np.maximum.accumulate(np.where(usable & ~continues, position, 0))
    return np.flatnonzero(usable & (position - began + 1 >= length)) - (length - 1)


def within(times: np.ndarray, period: tuple[datetime, datetime] | None) -> np.ndarray:
    """Return whether times lie in a period, both ends included; without one all do."""
    if period is None:
        return np.ones(times.shape, bool)
    start, end = (np.datetime64(instant) for instant in period)
    return (times >= start) & (times <= end)


class WindowSource:
    """Windows of a store: a `Batch` without the batch axis for every start, or one of several."""

    def __init__(
        self,
        reader: StateReader,
        times: np.ndarray,
        starts: np.ndarray,
        *,
        input_steps: int,
        steps: int,
        forcing: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Describe the windows.

        Args:
            times: datetime64 of the store, shape (time,).
            starts: positions of first times; see `window_starts`.
            input_steps: states that the network is given.
            steps: model steps that follow.
            forcing: makes (step, forcing, latitude, longitude) from datetime64 times (step,).
        """
        self._reader, self._times, self._starts = reader, times, starts
        self._input_steps, self._steps, self._forcing = input_steps, steps, forcing

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Batch:
        return Batch(*(part[0] for part in self.read([index])))

    @functools.cached_property
    def shapes(self) -> Any:
        """Shapes of one window: (time, channel, latitude, longitude) and (step, forcing, latitude, longitude)."""
        forcings: Any = (self._steps, *self._forcing(self._times[:1]).shape[1:])
        states: Any = (self._input_steps + self._steps, *self._reader.state_shape)
        return Batch(states, forcings)

    def read(self, indices: Sequence[int] | np.ndarray, latitudes: slice = slice(None)) -> Batch:
        """Return the windows of `indices`, in their order, with the rows `latitudes` alone.

        They are read in groups, so that what is decoded at once is bounded; see `scratch_bytes`.
        """
        windows = self._positions(np.asarray(indices, int))
        rows = range(self.shapes.states[-2])[latitudes]
        latitudes = slice(rows.start, rows.stop)
        states, forcings = (_aligned((len(windows), *shape[:2], len(rows), shape[3])) for shape in self.shapes)
        size = self._group
        for begin in range(0, len(windows), size):
            group = windows[begin : begin + size]
            self._reader.read(group, latitudes, into=states[begin : begin + size])
            forcings[begin : begin + size] = self._forcings(self._times[group])[..., latitudes, :]
        return Batch(states, forcings)  # type: ignore[arg-type]  # on the host; the loader places them

    def _positions(self, indices: np.ndarray) -> np.ndarray:
        """Return where the states of some windows lie in the store, (window, time)."""
        return self._starts[indices][:, None] + np.arange(self._input_steps + self._steps)

    def _forcings(self, times: np.ndarray) -> np.ndarray:
        """Return (window, step, forcing, latitude, longitude) of windows of these times, (window, time)."""
        steps = times[:, self._input_steps - 1 : -1]
        fields = self._forcing(steps.ravel())
        return fields.reshape(*steps.shape, *fields.shape[1:])

    @property
    def _group(self) -> int:
        return max(1, _GROUP_BYTES // self._window_scratch)

    @property
    def _window_scratch(self) -> int:
        _, channels, nlat, nlon = self.shapes.states
        decoded = self._times_touched() * channels
        fields = self._steps * (self.shapes.forcings[1] + _FORCING_TEMPORARIES)
        return 4 * nlat * nlon * (decoded + fields)

    def _times_touched(self) -> int:
        """Return the most times that the chunks of a window hold."""
        return self._reader.times_touched(self._input_steps + self._steps)

    def scratch_bytes(self, windows: int) -> int:
        """Return a bound on the memory that `read` takes for so many windows beside its result and the cache.

        Chunks on their way, as large encoded as decoded at worst, and forcings with what computing them holds.
        """
        return min(windows, self._group) * self._window_scratch

    def with_cache(self, cache_bytes: int) -> WindowSource:
        """Return the same windows with a cache of decoded chunks of their own."""
        other = copy.copy(self)
        other._reader = self._reader.with_cache(cache_bytes)
        return other


class DirectWindows(WindowSource):
    """Windows of direct forecasts: the states that are given, and that at one of the lead times.

    Windows of an initial time lie together, by lead time.
    """

    def __init__(
        self,
        reader: StateReader,
        times: np.ndarray,
        given: np.ndarray,
        leads: Sequence[np.timedelta64],
        usable: np.ndarray,
        *,
        forcing: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:
        """Describe the windows.

        Args:
            times: datetime64 of the store, ascending, shape (time,).
            given: positions of the states that the network is given, (initial time, input step), ascending in time.
            leads: lead times.
            usable: whether a time may be a valid time, shape (time,).
            forcing: makes (window, forcing, latitude, longitude) from initial and valid times, (window,).
        """
        initial = times[given[:, -1]]
        valid = initial[:, None] + np.asarray(leads)
        found = np.minimum(np.searchsorted(times, valid), len(times) - 1)
        self._starts, self._lead = np.nonzero((times[found] == valid) & usable[found])
        self._given, self._target = given, found
        self._reader, self._times, self._direct = reader, times, forcing
        self._input_steps, self._steps = given.shape[1], 1

    def of_lead(self, lead: int) -> DirectWindows:
        """Return the windows of one lead time, by its number."""
        other = copy.copy(self)
        kept = self._lead == lead
        other._starts, other._lead = self._starts[kept], self._lead[kept]
        return other

    @functools.cached_property
    def shapes(self) -> Any:
        """As of any windows; one state follows those that are given."""
        forcing = self._direct(self._times[:1], self._times[:1])
        states: Any = (self._input_steps + 1, *self._reader.state_shape)
        forcings: Any = forcing.shape
        return Batch(states, forcings)

    def _positions(self, indices: np.ndarray) -> np.ndarray:
        start, lead = self._starts[indices], self._lead[indices]
        return np.concatenate([self._given[start], self._target[start, lead][:, None]], axis=1)

    def _times_touched(self) -> int:
        return self._reader.times_touched(self._input_steps) + self._reader.times_touched(1)

    def _forcings(self, times: np.ndarray) -> np.ndarray:
        return self._direct(times[:, -2], times[:, -1])[:, None]


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised float32 array that JAX hands to a program on CPUs without a copy."""
    size = prod(shape)
    raw = np.empty(size + _ALIGNMENT // 4, np.float32)
    first = -raw.ctypes.data % _ALIGNMENT // 4
    return raw[first : first + size].reshape(shape)
