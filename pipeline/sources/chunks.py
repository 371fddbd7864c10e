"""Chunks of a zarr store that were never written: they read as the fill value, which may be a plausible number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.presets import canonical_names, preset_named
from pipeline.sources.files import is_zarr, open_raw
from pipeline.sources.times import with_dates
from pipeline.stores.retrying import Retry

__all__ = ["AbsentChunks", "absent_chunk_times", "absent_chunks"]

_CHECKSUM_BYTES = 4
_AT_ONCE = 256
"""Shards whose indices are asked for together."""


@dataclass(frozen=True, eq=False)
class AbsentChunks:
    """What one variable lacks.

    Attributes:
        counts: chunks that were never written at each time that `open_source` gives, shape (time,); a shard that is not
            there counts the chunks it would hold.
        times: positions on the time axis, ascending, where reading does not tell: chunks or shards that are no files,
            and chunks within shards that read as a number.
    """

    counts: np.ndarray
    times: np.ndarray


def absent_chunk_times(path: str | Path, names: Iterable[str], **reading: Any) -> dict[str, np.ndarray]:
    """Return `AbsentChunks.times` of the variables that have any; see `absent_chunks`."""
    found = absent_chunks(path, names, **reading)
    return {name: absent.times for name, absent in found.items() if absent.times.size}


def absent_chunks(
    path: str | Path,
    names: Iterable[str],
    *,
    rename: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    retries: int = 4,
    **_: Any,
) -> dict[str, AbsentChunks]:
    """Find the chunks of a zarr store that were never written, those within shards by the shards' indices.

    Args:
        names: canonical names.
        rename, storage_options, preset, retries: as for `open_source`, whose other arguments do not matter here.

    Returns:
        What is absent by canonical name, of those variables among `names` that lack chunks. Stores that cannot be listed
        (http) and formats other than zarr yield nothing.
    """
    import fsspec
    import zarr

    path, names, retry, known_as = str(path), set(names), Retry(retries), preset_named(preset)
    if not is_zarr(path) or path.startswith(("http://", "https://")):
        return {}
    options = {**known_as.options_for(path), **(storage_options or {})}
    (raw,) = open_raw(path, options, retry)
    canonical = canonical_names(raw, rename or {}, known_as)
    group: Any = retry.call(lambda: zarr.open_group(path, mode="r", storage_options=options or None), path)
    filesystem, root = fsspec.core.url_to_fs(path, **options)
    absent = {}
    kept = _positions(raw, canonical, path)
    for raw_name, variable in raw.data_vars.items():
        axes = [canonical.get(str(axis), str(axis)) for axis in variable.dims]
        name = canonical.get(str(raw_name), str(raw_name))
        if name not in names or "time" not in axes:
            continue
        folder, axis = f"{root.rstrip('/')}/{raw_name}/", axes.index("time")
        stored = retry.call(partial(filesystem.find, folder), f"list of {folder}")
        files, inner = _of_array(
            group[raw_name], axis, {entry[len(folder) :]: entry for entry in stored}, filesystem, retry
        )
        files, inner = files[kept], inner[kept]
        if files.any() or inner.any():
            # Xarray fills with 0 and masks NaN unless told otherwise: reading tells where both are the same.
            fill, masked = _as_float(group[raw_name].fill_value), variable.encoding.get("_FillValue")
            told = np.isnan(fill) or (masked is not None and fill == _as_float(masked))
            absent[name] = AbsentChunks(files + inner, np.flatnonzero(files if told else files + inner))
    return absent


def _positions(raw: xr.Dataset, canonical: Mapping[str, str], path: str) -> np.ndarray:
    """Positions on the stored time axis of the times that `open_source` gives."""
    axis = next((old for old in raw.dims if canonical.get(str(old), old) == "time"), None)
    if axis is None:
        return np.arange(1)
    times = raw[[]].assign_coords(raw.coords).rename({old: new for old, new in canonical.items() if old in raw.coords})
    times = times.assign(position=("time", np.arange(raw.sizes[axis])))
    return with_dates(times, path)["position"].values


def _of_array(
    array: Any, axis: int, stored: dict[str, str], filesystem: Any, retry: Retry
) -> tuple[np.ndarray, np.ndarray]:
    span = array.shards or array.chunks
    counts = [math.ceil(size / step) for size, step in zip(array.shape, span, strict=True)]
    encode = array.metadata.encode_chunk_key
    length = array.shape[axis]
    files, inner = np.zeros(length, np.int64), np.zeros(length, np.int64)
    shards = []
    within = [outer // chunk for outer, chunk in zip(span, array.chunks, strict=True)]
    others = math.prod(within) // within[axis]
    for index in itertools.product(*map(range, counts)):
        key = encode(index).lstrip("/")
        start = index[axis] * span[axis]
        if key not in stored:
            files[start : start + span[axis]] += others
        elif array.shards:
            shards.append((stored[key], index))
    entries = math.prod(within)
    location = _index_location(array) if shards else None
    if location is None:
        return files, inner
    size = 16 * entries + _CHECKSUM_BYTES
    for part in range(0, len(shards), _AT_ONCE):
        some = shards[part : part + _AT_ONCE]
        paths = [path for path, _ in some]
        tails = retry.call(partial(_ends, filesystem, paths, size, location), paths[0])
        for tail, (_, index) in zip(tails, some, strict=True):
            # Pairs of (offset, length) in C order, all bits set where a chunk is absent.
            table = np.frombuffer(tail[: 16 * entries], dtype="<u8").reshape(*within, 2)
            lost = (table[..., 0] == np.iinfo(np.uint64).max) & (table[..., 1] == np.iinfo(np.uint64).max)
            # Beyond the array's end no chunk is due.
            for other, (step, chunk, whole) in enumerate(zip(span, array.chunks, array.shape, strict=True)):
                first = index[other] * step + chunk * np.arange(within[other])
                shape = [-1 if k == other else 1 for k in range(len(within))]
                lost = lost & (first < whole).reshape(shape)
            along = lost.sum(axis=tuple(k for k in range(lost.ndim) if k != axis))
            start = index[axis] * span[axis]
            counted = np.repeat(along, array.chunks[axis])
            inner[start : start + counted.size] += counted[: length - start]
    return files, inner


def _ends(filesystem: Any, paths: list[str], size: int, location: str) -> list[bytes]:
    if location == "start":
        return filesystem.cat_ranges(paths, [0] * len(paths), [size] * len(paths), on_error="raise")
    lengths = filesystem.sizes(paths)
    return filesystem.cat_ranges(paths, [length - size for length in lengths], lengths, on_error="raise")


def _index_location(array: Any) -> str | None:
    """``start`` or ``end``, or None where the index is not plain pairs of integers with a checksum."""
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

    sharding = [codec for codec in array.metadata.codecs if isinstance(codec, ShardingCodec)]
    if len(sharding) != 1 or len(array.metadata.codecs) != 1:
        return None
    kinds = [type(codec) for codec in sharding[0].index_codecs]
    if kinds != [BytesCodec, Crc32cCodec]:
        return None
    return str(getattr(sharding[0].index_location, "value", sharding[0].index_location))


def _as_float(fill: Any) -> float:
    try:
        return float(np.asarray(fill))
    except (TypeError, ValueError):
        return 0.0
