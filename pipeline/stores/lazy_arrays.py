"""Arrays on disk behind xarray's lazy indexing, zarr ones read through tensorstore.

Tensorstore decodes the many small chunks of a store in threads, several times faster than zarr-python, and reads parts
of shards.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pipeline.jobs.threads import decoding_context
from pipeline.stores.retrying import Retry
from transforms.errors import InputError

__all__ = ["LazyArray", "lazily_indexed", "open_array", "tensorstore_of"]


def open_array(store: str | Path, name: str) -> ts.TensorStore:
    """Open the array `name` of a zarr store on this machine for reading.

    Raises:
        ValueError, NotImplementedError: tensorstore does not know its codecs, filters or type.
    """
    folder = (Path(store) / name).resolve()
    # By its version of zarr.
    driver = "zarr3" if (folder / "zarr.json").is_file() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}}
    return ts.open(spec, open=True, read=True, context=decoding_context()).result()


def tensorstore_of(variable: xr.Variable, context: ts.Context) -> ts.TensorStore | None:
    """Return the array behind a lazy variable, its axes and their values in the variable's order.

    Args:
        context: resources of its own; what is in its cache is not compared with the disk again.

    Returns:
        None where something other than tensorstore reads the variable.
    """
    lazy = variable._data
    if not isinstance(lazy, indexing.LazilyIndexedArray) or not isinstance(lazy.array, LazyArray):
        return None
    array = lazy.array.reopened(context)
    if array is None:
        return None
    # From the last axis to the first, so that an axis that goes does not move those that are still to be cut.
    for axis, (part, size) in reversed(list(enumerate(zip(lazy.key.tuple, lazy.array.shape, strict=True)))):
        positions = np.arange(size)[part]
        if positions.shape != (size,) or (np.diff(positions) < 0).any():
            array = array[(slice(None),) * axis + (positions,)]
    return array


class LazyArray(BackendArray):
    """An array that is read when it is indexed, its axes reordered.

    Axes are reordered here because xarray would read a lazily transposed array point by point.
    """

    def __init__(
        self,
        source: ts.TensorStore | xr.Variable,
        order: Sequence[int] | None = None,
        *,
        what: str = "",
        retry: Retry | None = None,
        layout: Sequence[int] | None = None,
    ) -> None:
        """Describe the array.

        Args:
            order: axes of the source in the order they get here; as they are by default.
            what: address and name, for messages.
            retry: how reads that fail are tried again; not at all by default. What fails for good is the fault of the
                source, and refused as an `InputError`.
            layout: axes of a tensorstore from the outermost to the innermost in memory; as they are by default.
        """
        self._source, self._order = source, tuple(range(len(source.shape)) if order is None else order)
        self._what, self._retry, self._layout = what, retry, layout
        self._token = uuid.uuid4().hex
        self.shape = tuple(source.shape[axis] for axis in self._order)
        self.dtype = np.dtype(source.dtype.numpy_dtype if isinstance(source, ts.TensorStore) else source.dtype)

    def reopened(self, context: ts.Context) -> ts.TensorStore | None:
        """Return the array opened with other resources, its axes in their order here; None where it is no tensorstore."""
        if not isinstance(self._source, ts.TensorStore):
            return None
        # Published stores never change: what is in a cache need not be compared with the disk.
        spec = {**self._source.spec().to_json(), "recheck_cached_data": "open"}
        return ts.open(spec, open=True, read=True, context=context).result().transpose(self._order)

    def __dask_tokenize__(self) -> str:
        return self._token

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        # Not every source takes negative steps, integers or ends beyond the array: read the range, then cut and turn it.
        forward, rest = [slice(0, 0)] * len(key), []
        for part, size, axis in zip(key, self.shape, self._order, strict=True):
            wanted = range(size)[part] if isinstance(part, slice) else range(part, part + 1)
            low, high = (min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1) if wanted else (0, 0)
            forward[axis] = slice(low, high, abs(wanted.step))
            rest.append(slice(None, None, np.sign(wanted.step)) if isinstance(part, slice) else 0)
        chosen = tuple(forward)
        values = self._values(chosen) if self._retry is None else self._source_values(chosen, self._retry)
        return values.transpose(self._order)[tuple(rest)]

    def _source_values(self, key: tuple[slice, ...], retry: Retry) -> np.ndarray:
        try:
            return retry.call(lambda: self._values(key), self._what)
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # Of tensorstore, of codecs and of netCDF-C.
            raise InputError(
                f"source.path: {self._what} could not be read ({type(error).__name__}: {error}). The data are damaged "
                "or may not be read; fetch or make them again."
            ) from error

    def _values(self, key: tuple[slice, ...]) -> np.ndarray:
        if not isinstance(self._source, ts.TensorStore):
            return self._source[key].values
        chosen = self._source[key]
        if self._layout is None:
            return chosen.read().result()
        # Axes are turned while values are copied out of a chunk, which costs less than another pass over them.
        buffer = np.empty([chosen.shape[axis] for axis in self._layout], self.dtype)
        values = buffer.transpose(np.argsort(self._layout))
        ts.array(values, copy=False).write(chosen).result()
        return values


def lazily_indexed(
    variable: xr.Variable, array: BackendArray, dims: Sequence[Hashable], order: Sequence[int] | None = None
) -> xr.Variable:
    """Return a variable of `array`'s values with the attributes and, in the order of its axes, chunks of `variable`."""
    encoding = dict(variable.encoding)
    for key in ("chunks", "shards", "preferred_chunks", "chunksizes"):
        if order is not None and isinstance(encoding.get(key), tuple):
            encoding[key] = tuple(encoding[key][axis] for axis in order)
    return xr.Variable(dims, indexing.LazilyIndexedArray(array), variable.attrs, encoding)
