"""Zarr stores written object by object: what they are made of, how an object is encoded, and whether it is sound.

A store starts as a template, which is everything but the data that vary in time: metadata, coordinates, statics. Data
follow as whole objects (a shard of zarr v3, a chunk of zarr v2), encoded in memory and put in place at once, so that
any worker of any runner may write any of them, and an object that is there is a complete one. Every object carries
checksums: crc32c in shards, zstd's own elsewhere.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import dask.array
import numpy as np
import tensorstore
import xarray as xr
import zarr
import zarr.codecs
import zarr.storage

from pipeline.objects import Objects
from transforms.errors import InputError

__all__ = [
    "StoredArray",
    "arrays_of",
    "build_template",
    "is_document",
    "round_mantissa",
    "set_attributes",
    "shard_span",
    "verify_store",
]

_LARGEST_OBJECT = 128e6
"""Bytes of values in one object; a worker holds one for every variable and target it writes."""
_LARGEST_CHUNK_V2 = 4e6
"""Bytes of values in one object of a store without shards, where a reader has to decode the whole."""
_MANTISSA = 23
_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


@dataclass(frozen=True)
class StoredArray:
    """One array of a store: where its objects are and how they are encoded.

    Attributes:
        name: of the array.
        metadata: its document, ``zarr.json`` or ``.zarray``.
    """

    name: str
    metadata: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.metadata["shape"])

    @property
    def span(self) -> int:
        """Entries of the first axis in one object."""
        return self._object_shape[0]

    @property
    def value_bytes(self) -> int:
        """Bytes of the values of one object."""
        return math.prod(self._object_shape) * self._dtype.itemsize

    def all_keys(self) -> list[str]:
        """Return the keys of all objects of the array, relative to the store."""
        counts = [math.ceil(size / part) for size, part in zip(self.shape, self._object_shape, strict=True)]
        return [self._key(index) for index in itertools.product(*map(range, counts))]

    def key(self, number: int) -> str:
        """Return the key of an object of an array that is divided along its first axis alone."""
        return self._key((number, *[0] * (len(self.shape) - 1)))

    def encode(self, values: np.ndarray) -> bytes:
        """Encode the values of one object, shape (span or, at the end, less, ...)."""
        if self._format == 2:
            whole = values
            if values.shape != self._object_shape:
                whole = np.full(self._object_shape, self._fill, self._dtype)
                whole[tuple(map(slice, values.shape))] = values
            data = np.ascontiguousarray(whole, dtype=self._dtype)
            return bytes(data if self._compressor is None else self._compressor.encode(data))
        array = self._in_memory(values.shape, create=True)
        array.write(values).result()
        store: Any = array.kvstore
        return store[self._memory_key]

    def decode(self, data: bytes) -> np.ndarray:
        """Return the values of an encoded object, shape of a whole object.

        Raises:
            ValueError: it is damaged.
        """
        if self._format == 2:
            try:
                raw = data if self._compressor is None else self._compressor.decode(data)
                return np.frombuffer(raw, dtype=self._dtype).reshape(self._object_shape)
            except (RuntimeError, ValueError) as error:
                raise ValueError(str(error)) from error
        array = self._in_memory(self._object_shape, create=True)
        store: Any = array.kvstore
        store[self._memory_key] = data
        return array.read().result()

    def is_sound(self, data: bytes | None) -> bool:
        """Whether an object is there and agrees with its checksums."""
        if data is None:
            return False
        try:
            self.decode(data)
        except ValueError:
            return False
        return True

    @property
    def _format(self) -> int:
        return int(self.metadata["zarr_format"])

    @cached_property
    def _object_shape(self) -> tuple[int, ...]:
        if self._format == 2:
            return tuple(self.metadata["chunks"])
        return tuple(self.metadata["chunk_grid"]["configuration"]["chunk_shape"])

    @cached_property
    def _dtype(self) -> np.dtype:
        return np.dtype(self.metadata["dtype"] if self._format == 2 else self.metadata["data_type"])

    @cached_property
    def _fill(self) -> Any:
        fill = self.metadata["fill_value"]
        return 0 if fill is None else self._dtype.type(fill)

    @cached_property
    def _compressor(self) -> Any:
        import numcodecs

        configuration = self.metadata["compressor"]
        return None if configuration is None else numcodecs.get_codec(dict(configuration))

    @property
    def _memory_key(self) -> str:
        return self._chunk_key([0] * len(self.shape))

    def _key(self, index: tuple[int, ...]) -> str:
        return f"{self.name}/{self._chunk_key(index)}"

    def _chunk_key(self, index: tuple[int, ...] | list[int]) -> str:
        if self._format == 2:
            return self.metadata.get("dimension_separator", ".").join(map(str, index))
        encoding = self.metadata["chunk_key_encoding"]
        separator = encoding.get("configuration", {}).get("separator", "/")
        return separator.join(["c", *map(str, index)])

    def _in_memory(self, shape: tuple[int, ...], *, create: bool) -> tensorstore.TensorStore:
        return tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "memory"},
                "metadata": {**self.metadata, "shape": list(shape), "attributes": {}},
                # An object that is not there must mean a failure, also where all of it is missing values.
                "store_data_equal_to_fill_value": True,
            },
            create=create,
        ).result()


def shard_span(shard_times: int, time_bytes: int, zarr_format: int) -> int:
    """Return how many times one object of a variable holds.

    The largest divisor of `shard_times` that keeps objects small enough for any worker; it depends on nothing but the
    store, so that its bytes do not either.

    Args:
        shard_times: most times in an object.
        time_bytes: bytes of the variable's values at one time.
    """
    largest = (_LARGEST_OBJECT if zarr_format == 3 else _LARGEST_CHUNK_V2) / time_bytes
    return max(span for span in range(1, shard_times + 1) if shard_times % span == 0 and (span <= largest or span == 1))


def build_template(
    dataset: xr.Dataset, spans: Mapping[str, int | tuple[Sequence[int], Sequence[int]]], zarr_format: int = 3
) -> dict[str, bytes]:
    """Return all objects of a store but the data of the variables in `spans`.

    Args:
        dataset: the store; of variables in `spans` the shape and type count, not the values.
        spans: times in one object, by variable; in zarr v3 such a float variable has shards of one time in a chunk. Or,
            for float variables in zarr v3, the shapes of a chunk and of a shard over the first axes, whole in the others.

    Returns:
        Object by key, consolidated metadata included.
    """
    zstd3, zstd2 = zarr.codecs.ZstdCodec(level=1, checksum=True), _numcodecs_zstd()
    plain = {"compressors": (zstd3,)} if zarr_format == 3 else {"compressors": (zstd2,)}
    encoding: dict[str, dict[str, Any]] = {}
    variables = {}
    for name, variable in dataset.variables.items():
        chosen = encoding.setdefault(str(name), {"chunks": variable.shape, **plain})
        if np.issubdtype(variable.dtype, np.datetime64):
            chosen |= {"units": "seconds since 1970-01-01", "dtype": "int64"}
        if np.issubdtype(variable.dtype, np.timedelta64):
            chosen |= {"units": "hours", "dtype": "int64"}
        if variable.dtype == np.float32:
            chosen["_FillValue"] = np.float32(np.nan)
            if zarr_format == 3:
                chosen["fill_value"] = np.float32(np.nan)
        if name not in spans:
            continue
        variables[name] = (
            variable.dims,
            dask.array.zeros(variable.shape, dtype=variable.dtype, chunks=-1),
            variable.attrs,
        )
        span = spans[str(name)]
        chunk, shard = ((1,), (span,)) if isinstance(span, int) else span
        rest = variable.shape[len(shard) :]
        if zarr_format == 3 and variable.dtype == np.float32:
            # Where a shard is short in time it is written while a model computes: lz4 takes a quarter of zstd's time,
            # and a hundredth more room.
            cname: Literal["zstd", "lz4"] = "zstd" if len(shard) == 1 else "lz4"
            blosc = zarr.codecs.BloscCodec(cname=cname, clevel=1, shuffle="bitshuffle", typesize=4)
            inner = (blosc, zarr.codecs.Crc32cCodec())
            chosen |= {"chunks": (*chunk, *rest), "shards": (*shard, *rest), "compressors": inner}
            if len(shard) > 1:
                # Many objects, and a folder in a folder for each axis of each costs more than writing it.
                chosen["chunk_key_encoding"] = {"name": "default", "separator": "."}
        else:
            chosen["chunks"] = (*shard, *rest)
    store = zarr.storage.MemoryStore()
    with warnings.catch_warnings(), zarr.config.set({"array.write_empty_chunks": True}):
        # An extension of zarr v3 that the standard does not name yet; xarray reads it, and complains where it is absent.
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
        dataset.assign(variables).to_zarr(
            store, mode="w", compute=False, zarr_format=zarr_format, consolidated=False, encoding=encoding
        )
        zarr.consolidate_metadata(store, zarr_format=3 if zarr_format == 3 else 2)
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def arrays_of(documents: Mapping[str, bytes]) -> dict[str, StoredArray]:
    """Return the arrays that the metadata documents among `documents` describe, by name."""
    found = {}
    for key, data in documents.items():
        name, _, document = key.rpartition("/")
        if name and document in ("zarr.json", ".zarray"):
            metadata = json.loads(data)
            if metadata.get("node_type", "array") == "array":
                found[name] = StoredArray(name, metadata)
    return found


def is_document(key: str) -> bool:
    """Whether an object holds metadata."""
    return key.rpartition("/")[2] in _DOCUMENTS


def set_attributes(documents: Mapping[str, bytes], name: str, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the metadata documents that change when an array gets further attributes, consolidated ones included."""
    if f"{name}/zarr.json" in documents:
        array, root = (json.loads(documents[key]) for key in (f"{name}/zarr.json", "zarr.json"))
        array["attributes"].update(attributes)
        root["consolidated_metadata"]["metadata"][name]["attributes"].update(attributes)
        changed = {f"{name}/zarr.json": array, "zarr.json": root}
    else:
        array, root = (json.loads(documents[key]) for key in (f"{name}/.zattrs", ".zmetadata"))
        array.update(attributes)
        root["metadata"][f"{name}/.zattrs"].update(attributes)
        changed = {f"{name}/.zattrs": array, ".zmetadata": root}
    return {key: json.dumps(document, indent=2).encode() for key, document in changed.items()}


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 values to `bits` bits of mantissa, ties to even; infinities and NaN stay.

    The other bits become zero, which compresses well: at most half a unit of the last bit kept is lost.

    Raises:
        InputError: the number of bits is not between 1 and 23.
    """
    if not 1 <= bits <= _MANTISSA:
        raise InputError(f"keep_bits: {bits}; expected 1 to {_MANTISSA}, the bits of a float32's mantissa.")
    if bits == _MANTISSA:
        return values
    drop = _MANTISSA - bits
    pattern = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = np.uint32((1 << (drop - 1)) - 1)
    rounded = (pattern + (half + ((pattern >> np.uint32(drop)) & np.uint32(1)))) & ~np.uint32((1 << drop) - 1)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def verify_store(
    path: str | Path, *, storage_options: Mapping[str, Any] | None = None, memory_mb: int = 1024, threads: int = 8
) -> list[str]:
    """Decode every object of a store, several at once, and say what is damaged.

    Args:
        path: local path or fsspec address of a zarr store.
        memory_mb: bound of what is decoded at once.

    Returns:
        A line for each object that is missing or disagrees with its checksums: array, object, what is wrong.

    Raises:
        InputError: there is no zarr store.
    """
    objects = Objects(str(path), dict(storage_options or {}))
    documents = {key: objects.read(key) or b"" for key in _document_keys(objects)}
    if not documents:
        raise InputError(f"{path}: no zarr store is there. Give the path of one.")
    faults = []
    for key, data in list(documents.items()):
        try:
            json.loads(data)
        except ValueError as error:
            faults.append(f"{key}: the metadata document is damaged ({error})")
            del documents[key]
    checks, heaviest = [], 1
    for array in arrays_of(documents).values():
        try:
            heaviest = max(heaviest, array.value_bytes)
            checks += [(array, key) for key in array.all_keys()]
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            faults.append(f"{array.name}: its metadata document is damaged ({type(error).__name__}: {error})")
    threads = max(1, min(threads, int(memory_mb * 1e6 / (3 * heaviest))))
    with ThreadPoolExecutor(threads) as pool:
        faults += [fault for fault in pool.map(lambda check: _fault(objects, *check), checks) if fault]
    return faults


def _document_keys(objects: Objects) -> Iterator[str]:
    yield from sorted(key for key in objects.find() if is_document(key))


def _fault(objects: Objects, array: StoredArray, key: str) -> str | None:
    data = objects.read(key)
    if data is None:
        return f"{array.name}: {key} is missing"
    try:
        array.decode(data)
    except ValueError as error:
        return f"{array.name}: {key} is damaged ({str(error).splitlines()[0][:200]})"
    return None


def _numcodecs_zstd() -> Any:
    import numcodecs

    return numcodecs.Zstd(level=1, checksum=True)
