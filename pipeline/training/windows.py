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

__all__ = ["WindowSource", "window_starts"]

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
    usable = valid.copy()
    if period is not None:
        start, end = (np.datetime64(instant) for instant in period)
        usable &= (times >= start) & (times <= end)
    follows = np.concatenate([[False], np.diff(times) == step])
    continues = follows & np.concatenate([[False], usable[:-1]])
    position = np.arange(times.size)
    began = np.maximum.accumulate(np.where(usable & ~continues, position, 0))
    return np.flatnonzero(usable & (position - began + 1 >= length)) - (length - 1)


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
        starts = self._starts[np.asarray(indices, int)]
        rows = range(self.shapes.states[-2])[latitudes]
        latitudes = slice(rows.start, rows.stop)
        states, forcings = (_aligned((len(starts), *shape[:2], len(rows), shape[3])) for shape in self.shapes)
        size, first = self._group, self._input_steps - 1
        for begin in range(0, len(starts), size):
            group = starts[begin : begin + size]
            positions = group[:, None] + np.arange(states.shape[1])
            self._reader.read(positions, latitudes, into=states[begin : begin + size])
            times = self._times[group[:, None] + np.arange(first, first + self._steps)]
            fields = self._forcing(times.ravel())[:, :, latitudes]
            forcings[begin : begin + size] = fields.reshape(len(group), self._steps, *fields.shape[1:])
        return Batch(states, forcings)  # type: ignore[arg-type]  # on the host; the loader places them

    @property
    def _group(self) -> int:
        return max(1, _GROUP_BYTES // self._window_scratch)

    @property
    def _window_scratch(self) -> int:
        count, channels, nlat, nlon = self.shapes.states
        decoded = self._reader.times_touched(count) * channels
        fields = self._steps * (self.shapes.forcings[1] + _FORCING_TEMPORARIES)
        return 4 * nlat * nlon * (decoded + fields)

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


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised float32 array that JAX hands to a program on CPUs without a copy."""
    size = prod(shape)
    raw = np.empty(size + _ALIGNMENT // 4, np.float32)
    first = -raw.ctypes.data % _ALIGNMENT // 4
    return raw[first : first + size].reshape(shape)
