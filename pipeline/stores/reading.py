"""Opening stores lazily in the orientation of the house, whatever order their axes have on disk.

Inside the house the axes are (..., level, latitude, longitude), latitudes ascend and longitudes run from 0 to 360.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
import zarr

from pipeline.artefacts import ATTRIBUTE
from pipeline.stores.axes import HORIZONTAL, in_order
from pipeline.stores.lazy_arrays import LazyArray, lazily_indexed, open_array
from transforms.errors import InputError

__all__ = [
    "blocks",
    "consolidate",
    "consolidated",
    "description_of",
    "fields_of",
    "fields_over_time",
    "on_levels",
    "open_store",
    "period_of",
    "read_times",
    "select_period",
    "valid_times",
]

_Leveled = TypeVar("_Leveled", xr.Dataset, xr.DataArray)
_HOLE = 16  # Positions it is cheaper to read and drop than to start another read for.
_ALIASES = {"lat": "latitude", "lon": "longitude", "isobaricInhPa": "level", "pressure_level": "level"}


def consolidated(path: str) -> bool | None:
    """Whether xarray is to read consolidated metadata of a zarr store; None lets it try, at an address.

    Left to itself xarray warns of every store without them, which a local one does not need.
    """
    return None if "://" in path else (Path(path) / ".zmetadata").is_file()


def open_store(path: str | Path, what: str) -> xr.Dataset:
    """Open a zarr or netCDF store without reading its data.

    Args:
        what: what the store is to the caller, for messages: ``truth``, ``forecast`` ...

    Returns:
        Its variables with axes in the order of the house; data are read when indexed.

    Raises:
        InputError: nothing is there, it cannot be read, or it has no latitude and longitude.
    """
    text = str(path)
    if "://" not in text and not Path(text).exists():
        raise InputError(f"{what}: nothing is at {text}. Give the path of a zarr store or netCDF file.")
    engine = "netcdf4" if text.endswith((".nc", ".nc4")) else "zarr"
    options: dict[str, Any] = {"consolidated": consolidated(text)} if engine == "zarr" else {}
    try:
        dataset = xr.open_dataset(text, engine=engine, chunks=None, decode_timedelta=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{what}: {text} cannot be read as a {engine} store ({error}).") from error
    dataset = dataset.rename({old: new for old, new in _ALIASES.items() if old in dataset.dims})
    for axis in HORIZONTAL:
        if axis not in dataset.dims or axis not in dataset.coords:
            raise InputError(
                f"{what}: {text} has no {axis} axis with coordinates; its axes are {', '.join(map(str, dataset.dims))}."
            )
    dataset = _lazily(dataset, text, engine)
    longitude = dataset.longitude.values.astype(np.float64) % 360.0
    order = np.argsort(longitude, kind="stable")
    if not np.array_equal(order, np.arange(order.size)) or (dataset.longitude.values < 0).any():
        dataset = dataset.assign_coords(longitude=longitude).isel(longitude=order)
    if dataset.latitude.values[0] > dataset.latitude.values[-1]:
        dataset = dataset.isel(latitude=slice(None, None, -1))
    return dataset


def consolidate(path: Path) -> None:
    """Gather the metadata of a finished zarr store in one document, so that readers open it with one request."""
    with warnings.catch_warnings():
        # An extension of zarr v3 that the standard does not name yet; xarray reads it, and complains where it is absent.
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
        zarr.consolidate_metadata(path)


def description_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Return what the store says of itself, empty where it was not made by this project."""
    value = dataset.attrs.get(ATTRIBUTE, {})
    return json.loads(value) if isinstance(value, str) else dict(value)


def fields_of(dataset: xr.Dataset, *axes: str) -> list[str]:
    """Return the names of the float variables over `axes`, latitude and longitude, with or without levels, sorted.

    A store lists its variables in no fixed order, and what is made from it must not depend on that.
    """
    wanted = {*axes, *HORIZONTAL}
    return sorted(
        str(name)
        for name, variable in dataset.data_vars.items()
        if set(variable.dims) - {"level"} == wanted and np.issubdtype(variable.dtype, np.floating)
    )


def valid_times(dataset: xr.Dataset) -> np.ndarray:
    """Return which times hold complete data, boolean, shape (time,); all do where the store does not say."""
    if "valid" in dataset:
        return dataset["valid"].values.astype(bool)
    return np.ones(dataset.sizes["time"], dtype=bool)


def select_period(dataset: xr.Dataset, period: tuple[datetime, datetime] | None, what: str) -> np.ndarray:
    """Return the positions of the valid times within `period` (both ends included; None for all), ascending.

    Where no time of the store is valid, a variable has no values over part of the sphere, as the sea's over land: all times
    count then, and missing values are left out point by point.

    Raises:
        InputError: the store has no ascending time axis, or no valid time within the period.
    """
    if "time" not in dataset.dims or "time" not in dataset.coords:
        raise InputError(f"{what}: has no time axis; its axes are {', '.join(map(str, dataset.dims))}.")
    times = dataset.time.values
    if times.size == 0 or not np.issubdtype(times.dtype, np.datetime64):
        raise InputError(f"{what}: time: expected dates, got {times.size} values of type {times.dtype}.")
    if not (np.diff(times) > np.timedelta64(0)).all():
        raise InputError(f"{what}: time: expected ascending times without duplicates. Sort the store first.")
    inside = valid_times(dataset)
    if not inside.any():
        inside = np.ones_like(inside)
    if period is not None:
        start, end = (np.datetime64(instant) for instant in period)
        inside = inside & (times >= start) & (times <= end)
    if not inside.any():
        wanted = "any time" if period is None else f"{period[0]:%Y-%m-%d %H} to {period[1]:%Y-%m-%d %H} UTC"
        raise InputError(
            f"{what}: no valid time within {wanted}; the store has {np.datetime_as_string(times[0], 'h')} to "
            f"{np.datetime_as_string(times[-1], 'h')}. Change the period, or prepare more data."
        )
    return np.flatnonzero(inside)


def fields_over_time(source: str | Path) -> tuple[str, xr.Dataset, list[str]]:
    """Open a store for a job whose workers need not share the working directory.

    Returns:
        Its absolute path or address, the store, and its variables over time, latitude and longitude.

    Raises:
        InputError: see `open_store`; or there is no such variable.
    """
    path = str(source) if "://" in str(source) else os.path.abspath(source)
    dataset = open_store(path, "source")
    names = fields_of(dataset, "time")
    if not names:
        raise InputError(f"{path}: expected variables over time, latitude and longitude, got {list(dataset)}.")
    return path, dataset, names


def on_levels(store: _Leveled, levels: Sequence[float], what: str) -> _Leveled:
    """Return a store, or a field with an axis level, on these levels, hPa, in this order. Lazy.

    Args:
        what: the store to the caller, for messages.

    Raises:
        InputError: a level is missing.
    """
    has = store.level.values.tolist() if "level" in store.coords else []
    lacking = [level for level in levels if level not in has]
    if lacking:
        raise InputError(
            f"{what}: level {lacking[0]:g} hPa is missing; it has {has}. Leave it out, or give another store."
        )
    return store if list(levels) == has else store.isel(level=[has.index(level) for level in levels])


def period_of(times: np.ndarray) -> list[str]:
    """Return first and last time as text, for descriptions."""
    return [str(np.datetime_as_string(times[i], "m")) for i in (0, -1)]


def blocks(positions: np.ndarray, variable: xr.DataArray, target_bytes: float = 8e6) -> Iterator[np.ndarray]:
    """Cut ascending time positions into runs that start and end where the variable's shards do.

    A shard is then decoded once. A block reads at least one shard, and about `target_bytes` where shards are smaller.
    """
    axis = variable.dims.index("time")
    preferred = variable.encoding.get("shards") or variable.encoding.get("chunks") or ()
    shard = preferred[axis] if len(preferred) == variable.ndim else 1
    per_time = variable.dtype.itemsize * variable.size / max(variable.sizes["time"], 1)
    span = shard * max(1, int(target_bytes / (per_time * shard)))
    for group in np.split(positions, np.flatnonzero(np.diff(positions // span)) + 1):
        if group.size:
            yield group


def read_times(variable: xr.DataArray, positions: np.ndarray, axis: str = "time") -> np.ndarray:
    """Read `variable` at ascending positions of an axis; runs with small holes are read whole, then cut."""
    pieces = []
    for run in np.split(positions, np.flatnonzero(np.diff(positions) > _HOLE) + 1):
        start, stop = int(run[0]), int(run[-1]) + 1
        values = variable.isel({axis: slice(start, stop)}).values
        along = variable.dims.index(axis)
        pieces.append(values if stop - start == run.size else values.take(run - start, axis=along))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=along)


def _lazily(dataset: xr.Dataset, path: str, engine: str) -> xr.Dataset:
    """Bring the axes of every variable into the order of the house, and let tensorstore read local zarr stores."""
    local = engine == "zarr" and "://" not in path
    variables = {}
    for name, variable in dataset.data_vars.items():
        dims = in_order(variable.dims)
        order = tuple(variable.dims.index(axis) for axis in dims)
        packed = "scale_factor" in variable.encoding or "add_offset" in variable.encoding
        fill = variable.encoding.get("_FillValue", np.nan)
        plain = variable.dtype.kind == "f" and variable.dtype == variable.encoding.get("dtype") and not packed
        if local and plain and np.isnan(fill):
            source: Any = open_array(path, str(name))
        elif order != tuple(range(variable.ndim)):
            source = variable.variable
        else:
            continue
        variables[name] = lazily_indexed(variable.variable, LazyArray(source, order), dims, order)
    return dataset.assign(variables)
