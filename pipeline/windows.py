"""Windows of consecutive states: which there are, and reading them from a training store for training and forecasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import grain
import numpy as np
import tensorstore as ts

from model.training import Batch
from pipeline.layout import StateLayout
from transforms.errors import InputError

__all__ = ["StateReader", "WindowSource", "batches", "fixed_batches", "window_starts"]


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


class StateReader:
    """Reads states of a training store as (time, channel, latitude, longitude)."""

    def __init__(self, store: Path, layout: StateLayout, memory_mb: int) -> None:
        """Open the store.

        Args:
            memory_mb: bound on the decoded chunks that are kept in memory.
        """
        context = ts.Context({"cache_pool": {"total_bytes_limit": memory_mb * 1_000_000}})
        opening = {
            name: ts.open(
                {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.resolve()}/{name}/"}},
                context=context,
                open=True,
                read=True,
            )
            for name in layout.variables
        }
        self._arrays = {name: future.result() for name, future in opening.items()}
        self._slices = layout.slices()
        self._channels = len(layout.fields)

    def read(self, start: int, count: int) -> np.ndarray:
        """Return `count` consecutive states from position `start`, float32."""
        reading = {name: array[start : start + count].read() for name, array in self._arrays.items()}
        shape = next(iter(self._arrays.values())).shape[-2:]
        states = np.empty((count, self._channels, *shape), np.float32)
        for name, future in reading.items():
            values = future.result()
            states[:, self._slices[name]] = values if values.ndim == 4 else values[:, None]
        return states


class WindowSource:
    """Windows as a grain source: a `Batch` without the batch axis for every start."""

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
        start = int(self._starts[index])
        first = start + self._input_steps - 1
        states = self._reader.read(start, self._input_steps + self._steps)
        return Batch(states, self._forcing(self._times[first : first + self._steps]))

    def __repr__(self) -> str:
        # Grain compares this on restore: an iterator must go on over the windows it was saved for.
        return f"WindowSource(windows={len(self)}, input_steps={self._input_steps}, steps={self._steps})"


def batches(source: WindowSource, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Return an endless iterator over shuffled batches, deterministic in `seed`; its state can be saved and set.

    Raises:
        InputError: there is no window at all.
    """
    if len(source) == 0:
        raise InputError(
            "periods.train: no window of consecutive valid times is long enough for the rollout. Extend the period, "
            "or use fewer training.stages steps."
        )
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().batch(batch_size, batch_fn=_stack)
    # Two threads keep ahead of the device; more would compete with it on a small machine.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def fixed_batches(source: WindowSource, batch_size: int, windows: int) -> Iterator[Batch]:
    """Yield at most `windows` windows, evenly spread over the source, the same ones every time."""
    count = min(windows, len(source))
    chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int)) if count else []
    for start in range(0, len(chosen), batch_size):
        group = chosen[start : start + batch_size]
        if len(group) == batch_size or start == 0:
            yield _stack([source[int(i)] for i in group])


def _stack(windows: list[Batch]) -> Batch:
    return Batch(*(np.stack(parts) for parts in zip(*windows, strict=True)))
