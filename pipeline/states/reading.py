"""Reading states from stores, for training and for forecasts: the one door from variables to channels."""

from __future__ import annotations

import copy

import numpy as np
import tensorstore as ts
import xarray as xr

from pipeline.jobs.threads import decoding_context
from pipeline.states.layout import StateLayout
from pipeline.stores.lazy_arrays import tensorstore_of
from pipeline.stores.reading import on_levels
from transforms.errors import InputError

__all__ = ["StateReader"]


class StateReader:
    """Reads states of a store as (..., channel, latitude, longitude), float32, in the store's units.

    Of zarr stores on this machine chunks are decoded straight into their place, those of all variables at once.
    """

    def __init__(self, dataset: xr.Dataset, layout: StateLayout, what: str, *, memory_mb: int = 0) -> None:
        """Choose the fields.

        Args:
            dataset: as `pipeline.stores.reading.open_store` returns it, with fields over time.
            what: the store to the caller, for messages.
            memory_mb: bound on the decoded chunks that are kept in memory.

        Raises:
            InputError: a variable or level of the layout is missing.
        """
        self._layout = layout
        self._fields: dict[str, xr.DataArray] = {}
        for name in layout.variables:
            if name not in dataset:
                raise InputError(f"{name}: missing; {what} has {', '.join(map(str, dataset.data_vars))}.")
            field = dataset[name]
            self._fields[name] = on_levels(field, layout.levels, f"{what}: {name}") if "level" in field.dims else field
        self._open(memory_mb * 1_000_000)

    def _open(self, cache_bytes: int) -> None:
        context = decoding_context(cache_bytes)
        found = {name: tensorstore_of(field.variable, context) for name, field in self._fields.items()}
        arrays = {name: array for name, array in found.items() if array is not None}
        self._arrays = {
            name: array if array.dtype == ts.float32 else ts.cast(array, ts.float32) for name, array in arrays.items()
        }
        spans = ((array.chunk_layout.read_chunk.shape or (1,))[0] or 1 for array in arrays.values())
        self._times_per_chunk = max(spans, default=1)

    def with_cache(self, cache_bytes: int) -> StateReader:
        """Return a reader of the same store that keeps decoded chunks of at most `cache_bytes`, its own."""
        other = copy.copy(self)
        other._open(cache_bytes)
        return other

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(channel, latitude, longitude)."""
        latitude, longitude = next(iter(self._fields.values())).shape[-2:]
        return len(self._layout.fields), latitude, longitude

    def times_touched(self, count: int) -> int:
        """Return the most times that the chunks of `count` consecutive states hold."""
        return ((count + self._times_per_chunk - 2) // self._times_per_chunk + 1) * self._times_per_chunk

    def read(self, positions: np.ndarray, latitudes: slice = slice(None), into: np.ndarray | None = None) -> np.ndarray:
        """Return the states at some times, (..., channel, latitude, longitude), float32, in memory of their own.

        Args:
            positions: of the times in the store, in any order and shape (...).
            latitudes: the rows that are returned, without a step.
            into: contiguous array that is filled and returned; a new one by default.
        """
        if into is None:
            channels, nlat, nlon = self.state_shape
            into = np.empty((*positions.shape, channels, len(range(nlat)[latitudes]), nlon), np.float32)
        states, times = into.reshape(-1, *into.shape[-3:]), positions.ravel()
        writing = []
        # One batch opens each file once, and reads neighbouring chunks together.
        with ts.Batch() as batch:
            for name, own in self._layout.slices().items():
                target = states[:, own] if "level" in self._fields[name].dims else states[:, own.start]
                if name in self._arrays:
                    chosen = self._arrays[name][times][..., latitudes, :]
                    writing.append(ts.array(target, copy=False).write(chosen, batch=batch))
                else:
                    target[...] = _read_times(self._fields[name], times)[..., latitudes, :]
        for future in writing:
            future.result()
        return into


def _read_times(field: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """Read runs of times, each once, whatever the order they are wanted in."""
    distinct, index = np.unique(times, return_inverse=True)
    runs = np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)
    return np.concatenate([field.isel(time=slice(int(run[0]), int(run[-1]) + 1)).values for run in runs])[index]
