"""Reading raw data: zarr, netCDF or GRIB, made canonical at the door.

Whatever the source looks like, what leaves here has ARCO-ERA5 names, axes (time, level, latitude, longitude), latitudes
that ascend, longitudes from 0 to 360, levels in hPa and times as dates, and nothing has been read yet but coordinates.
"""

from __future__ import annotations

import glob
import itertools
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE
from transforms.errors import InputError
from transforms.grids import COORDINATE_TOLERANCE, Grid
from transforms.variables import ALIASES, VARIABLES

__all__ = ["AXES", "absent_chunk_times", "open_source", "origin_facts", "source_grid"]

AXES = ("time", "level", "latitude", "longitude")

_AXIS_ALIASES = {
    "latitude": ("lat", "latitudes", "y_lat"),
    "longitude": ("lon", "longitudes", "x_lon"),
    "level": ("isobaricInhPa", "pressure_level", "plev", "lev", "pressure", "isobaric"),
    "time": ("valid_time", "time_index", "datetime", "date"),
}
_TO_HECTOPASCAL = {
    **dict.fromkeys(("hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"), 1.0),
    **dict.fromkeys(("pa", "pascal", "pascals"), 0.01),
}
_STANDARD_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_GRIB = (".grib", ".grib2", ".grb", ".grb2")
_NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")

_BLOCK_BYTES = 8e6
"""Size aimed at for the blocks of one variable that are read together, where stored chunks are smaller."""
_LARGEST_BLOCK_BYTES = 512e6


def open_source(
    path: str | Path,
    *,
    rename: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a source lazily and make it canonical. Values are not changed, winds included.

    Args:
        path: zarr store (local or an fsspec address), netCDF file, directory or glob of netCDF files, GRIB file.
        rename: names in the source: names in Spherecast; applied before the known aliases.
        storage_options: passed to fsspec for addresses.

    Returns:
        Variables as dask arrays of float32: (time, level, latitude, longitude) on pressure levels, (time, latitude,
        longitude) at the surface, (latitude, longitude) for statics, whose first time is taken where they have
        several. ``level`` is in hPa, integer; ``time`` is datetime64. Global attributes are kept.

    Raises:
        InputError: nothing is there, it cannot be read, an axis is missing, times cannot be decoded or are of a
            calendar other than the standard one, or a name to be renamed does not exist.
    """
    path, options = str(path), dict(storage_options or {})
    files = _netcdf_files(path)
    if files is None:
        return _canonical(_open_one(path, options), rename or {}, path)
    parts = [_canonical(_open_one(file, {}), rename or {}, file, whole=len(files) == 1) for file in files]
    if len(parts) == 1:
        return parts[0]
    try:
        merged = xr.combine_by_coords(
            parts, data_vars="minimal", coords="minimal", compat="override", join="exact", combine_attrs="override"
        )
    except (ValueError, xr.MergeError) as error:
        raise InputError(
            f"source.path: the {len(files)} files of {path} do not fit together ({error}). Give files of one grid whose "
            "times do not overlap."
        ) from error
    _require_names(rename or {}, merged, path)
    return merged


def source_grid(dataset: xr.Dataset) -> Grid:
    """Return the grid of a canonical dataset.

    Raises:
        InputError: it is not a global iso-latitude grid.
    """
    return Grid(dataset["latitude"].values, dataset["longitude"].values)


def origin_facts(dataset: xr.Dataset, path: str) -> dict[str, Any]:
    """Return what a description says of where data come from: ``source``, a name for a person, and ``simulated``."""
    made_by = dataset.attrs.get(ATTRIBUTE, {})
    made_by = json.loads(made_by) if isinstance(made_by, str) else made_by
    title = dataset.attrs.get("title") or dataset.attrs.get("source") or Path(path).name
    return {"source": str(title), "simulated": bool(made_by.get("simulated", False))}


def absent_chunk_times(
    path: str | Path,
    names: Iterable[str],
    *,
    rename: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Find the times whose chunks were never written to a zarr store.

    Such a chunk reads as the fill value, which may be a plausible number. Chunks inside a shard are not looked into;
    stores that cannot be listed (http) and other formats yield nothing.

    Returns:
        Canonical name of each variable among `names` that lacks chunks: positions on its time axis, ascending.
    """
    import fsspec
    import zarr

    path, options, names = str(path), dict(storage_options or {}), set(names)
    if _netcdf_files(path) is not None or path.lower().endswith(_GRIB) or path.startswith(("http://", "https://")):
        return {}
    raw = _open_zarr(path, options)
    canonical = _canonical_names(raw, rename or {}, path)
    group = zarr.open_group(path, mode="r", storage_options=options or None)
    filesystem, root = fsspec.core.url_to_fs(path, **options)
    absent = {}
    for raw_name, variable in raw.data_vars.items():
        name = canonical.get(raw_name, raw_name)
        axes = [canonical.get(axis, axis) for axis in variable.dims]
        if name not in names or "time" not in axes:
            continue
        array = group[raw_name]
        span = array.shards or array.chunks
        counts = [math.ceil(size / step) for size, step in zip(array.shape, span, strict=True)]
        folder = f"{root.rstrip('/')}/{raw_name}/"
        stored = {entry[len(folder) :] for entry in filesystem.find(folder)}
        encode = array.metadata.encode_chunk_key
        axis = axes.index("time")
        lost = {
            index[axis] for index in itertools.product(*map(range, counts)) if encode(index).lstrip("/") not in stored
        }
        if lost:
            length = variable.sizes[variable.dims[axis]]
            positions = [np.arange(i * span[axis], min((i + 1) * span[axis], length)) for i in sorted(lost)]
            absent[name] = np.concatenate(positions)
    return absent


def _netcdf_files(path: str) -> list[str] | None:
    """The netCDF files that `path` stands for, or None where it stands for something else."""
    if "://" in path:
        if path.lower().endswith(_NETCDF + _GRIB):
            raise InputError(f"source.path: {path} must be on this machine; only zarr is read remotely. Copy it here.")
        return None
    if any(sign in path for sign in "*?[") and not Path(path).exists():
        files = sorted(glob.glob(path, recursive=True))
        if not files:
            raise InputError(f"source.path: no file matches {path}.")
        return files
    if not Path(path).exists():
        raise InputError(f"source.path: nothing is at {path}. Give the path of a zarr, netCDF or GRIB source.")
    if Path(path).is_file():
        return [path] if path.lower().endswith(_NETCDF) else None
    files = sorted(str(entry) for entry in Path(path).iterdir() if entry.suffix.lower() in _NETCDF)
    marks = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
    return files if files and not any((Path(path) / mark).exists() for mark in marks) else None


def _open_one(path: str, options: dict[str, Any]) -> xr.Dataset:
    if path.lower().endswith(_NETCDF):
        return _open(path, engine="netcdf4")
    if path.lower().endswith(_GRIB):
        return _open_grib(path)
    return _open_zarr(path, options)


def _open_zarr(path: str, options: dict[str, Any]) -> xr.Dataset:
    keywords = {"engine": "zarr", "storage_options": options or None}
    with warnings.catch_warnings():
        # A stray file beside the arrays, or a codec of an older zarr, is nothing the user of a foreign store can mend.
        warnings.simplefilter("ignore")
        try:
            return _open(path, consolidated=True, **keywords)
        except InputError:
            return _open(path, consolidated=False, **keywords)


def _open_grib(path: str) -> xr.Dataset:
    try:
        import cfgrib  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"source.path: {path} is GRIB, and the package cfgrib is not installed. Run `pip install cfgrib`."
        ) from error
    return _open(path, engine="cfgrib", backend_kwargs={"indexpath": ""})


def _open(path: str, **keywords: Any) -> xr.Dataset:
    if keywords.get("storage_options", "absent") is None:
        del keywords["storage_options"]
    try:
        return xr.open_dataset(path, chunks=None, decode_timedelta=False, **keywords)
    except ImportError as error:
        raise InputError(
            f"source.path: reading {path} needs a package that is not installed: {error}. "
            "For gs:// run `pip install 'spherecast[gcs]'`."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"source.path: {path} cannot be read ({type(error).__name__}: {error}).") from error
    except Exception as error:
        # Remote file systems raise classes of their own (aiohttp, botocore, gcsfs), which need not be installed.
        if "://" not in path:
            raise
        raise InputError(f"source.path: {path} cannot be reached ({type(error).__name__}: {error}).") from error


def _canonical_names(raw: xr.Dataset, rename: Mapping[str, str], path: str, whole: bool = True) -> dict[str, str]:
    """New names by raw name; raises InputError for a name to be renamed that is not there."""
    if whole:
        _require_names({old: old for old in rename}, raw, path)
    names = {old: new for old, new in rename.items() if old in raw.variables or old in raw.dims}
    taken = {str(name) for name in (*raw.variables, *raw.dims)} | set(names.values())
    for name in map(str, raw.data_vars):
        new = ALIASES.get(name)
        if new and name not in names and new not in taken:
            names[name] = new
            taken.add(new)
    for axis, aliases in _AXIS_ALIASES.items():
        present = [alias for alias in aliases if (alias in raw.dims or alias in raw.coords) and alias not in names]
        if axis not in taken and present:
            names[present[0]] = axis
    return names


def _require_names(rename: Mapping[str, str], dataset: xr.Dataset, path: str) -> None:
    for name in rename.values():
        if name not in dataset.variables and name not in dataset.dims:
            raise InputError(
                f"source.rename: {name} is not in {path}, which has {', '.join(map(str, dataset.variables))}."
            )


def _canonical(raw: xr.Dataset, rename: Mapping[str, str], path: str, whole: bool = True) -> xr.Dataset:
    names = _canonical_names(raw, rename, path, whole)
    dataset = raw.rename({old: new for old, new in names.items() if old in raw.variables or old in raw.dims})
    for axis in AXES:
        if axis in dataset.dims and axis not in dataset.coords and axis in dataset.data_vars:
            dataset = dataset.set_coords(axis)
    for axis in ("latitude", "longitude"):
        if dataset.get(axis, xr.DataArray(0)).dims != (axis,):
            raise InputError(
                f"{axis}: {path} has no axis of that name with coordinates; its axes are "
                f"{', '.join(map(str, dataset.dims))}. Name it under source.rename, or choose a latitude-longitude grid."
            )
    dataset = _with_dates(dataset, path)
    dataset = _with_hectopascals(dataset, path)
    dataset = _chunked(dataset)
    dataset = _with_all_axes(dataset)
    dataset = _oriented(dataset)
    kept = {name for name in AXES if name in dataset.dims}
    return dataset.drop_vars([name for name in dataset.coords if name not in kept])


def _with_dates(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Put valid times as datetime64 on the time axis, or as a scalar coordinate."""
    if "valid_time" in dataset.coords and dataset["valid_time"].dims == dataset.get("time", xr.DataArray()).dims:
        # A forecast file: its fields hold at the valid time, whatever its time axis counts.
        dataset = dataset.assign_coords(time=(dataset["time"].dims, dataset["valid_time"].values))
    if "time" not in dataset.variables:
        raise InputError(f"time: {path} has no time coordinate. Name it under source.rename.")
    time = dataset["time"].variable
    if not np.issubdtype(time.dtype, np.datetime64) and time.dtype != object:
        units = str(time.attrs.get("units") or dataset.attrs.get("time_units") or "")
        # "hours since 1940-01-01 00:00 (proleptic_gregorian)" carries its calendar in brackets.
        bracket = re.search(r"\((\w+)\)\s*$", units)
        calendar = time.attrs.get("calendar") or (bracket.group(1) if bracket else "standard")
        units = re.sub(r"\s*\(\w+\)\s*$", "", units)
        if " since " not in units:
            raise InputError(
                f"time: {path} counts time without saying since when (units {units!r}); expected dates, or numbers with "
                "CF units such as 'hours since 1900-01-01'. Set the units attribute of its time coordinate."
            )
        coded = xr.Variable(time.dims, time.values, {"units": units, "calendar": calendar})
        time = xr.decode_cf(xr.Dataset(coords={"time": coded}), decode_timedelta=False)["time"].variable
    if time.dtype == object:
        calendar = getattr(np.atleast_1d(time.values)[0], "calendar", "unknown")
        raise InputError(
            f"time: {path} has dates of the calendar {calendar!r}; expected one of {', '.join(_STANDARD_CALENDARS)}. "
            "Convert the source to the standard calendar."
        )
    return dataset.assign_coords(time=xr.Variable(time.dims, time.values.astype("datetime64[ns]")))


def _with_hectopascals(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Give levels in hPa as integers; levels between two of them, such as 0.5 hPa, cannot be named and are left out."""
    if "level" not in dataset.coords:
        return dataset
    level = dataset["level"]
    units = str(level.attrs.get("units", "hPa")).strip().lower()
    if units not in _TO_HECTOPASCAL:
        raise InputError(
            f"level: {path} has levels in {level.attrs['units']!r}; expected pressure in hPa or Pa. "
            "Choose a source on pressure levels."
        )
    pressure = np.asarray(level.values, dtype=np.float64) * _TO_HECTOPASCAL[units]
    whole = np.abs(pressure - np.round(pressure)) < 1e-3
    values = np.round(pressure).astype(np.int32)
    dataset = dataset.assign_coords(level=xr.Variable(level.dims, values, {"units": "hPa"}))
    if level.dims == ("level",) and not whole.all():
        dataset = dataset.isel(level=np.flatnonzero(whole))
    return dataset


def _chunked(dataset: xr.Dataset) -> xr.Dataset:
    """Turn variables into dask arrays in blocks along time that hold whole stored chunks."""
    stored, largest = 1, 1.0
    for variable in dataset.data_vars.values():
        if "time" not in variable.dims:
            continue
        axis = variable.dims.index("time")
        shape = (
            variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
        )
        stored = max(stored, shape[axis] if shape else 1)
        largest = max(largest, variable.dtype.itemsize * variable.size / max(variable.sizes["time"], 1))
    block = stored * max(1, int(_BLOCK_BYTES / (stored * largest)))
    block = min(block, max(1, int(_LARGEST_BLOCK_BYTES / largest)))
    return dataset.chunk({axis: block if axis == "time" else -1 for axis in dataset.dims})


def _with_all_axes(dataset: xr.Dataset) -> xr.Dataset:
    """Give every variable the axes of its kind, drop other axes of length 1, and hold values in float32."""
    scalar = {axis: dataset[axis] for axis in ("time", "level") if axis in dataset.coords and not dataset[axis].dims}
    dataset = dataset.drop_vars(scalar)
    variables = {}
    for name, variable in dataset.data_vars.items():
        if not np.issubdtype(variable.dtype, np.number) or not {"latitude", "longitude"} <= set(variable.dims):
            continue
        variable = variable.squeeze([axis for axis in variable.dims if axis not in AXES and variable.sizes[axis] == 1])
        kind = VARIABLES[name].kind if name in VARIABLES else "surface"
        if kind == "static":
            if "time" in variable.dims:
                variable = variable.isel(time=0)
        elif "time" in scalar:
            variable = variable.expand_dims(time=np.atleast_1d(scalar["time"].values))
        if kind == "pressure" and "level" in scalar:
            variable = variable.expand_dims(level=np.atleast_1d(scalar["level"].values))
        variables[name] = variable.astype(np.float32).drop_vars(
            [coordinate for coordinate in variable.coords if coordinate not in variable.dims]
        )
    coordinates = {axis: np.atleast_1d(dataset_axis.values) for axis, dataset_axis in scalar.items() if axis == "time"}
    coordinates |= {axis: dataset[axis] for axis in AXES if axis in dataset.coords}
    return xr.Dataset(variables, coords=coordinates, attrs=dataset.attrs)


def _oriented(dataset: xr.Dataset) -> xr.Dataset:
    """Axes in order, latitudes ascending, longitudes from 0 to 360."""
    latitude = dataset["latitude"].values.astype(np.float64)
    if latitude[0] > latitude[-1]:
        dataset, latitude = dataset.isel(latitude=slice(None, None, -1)), latitude[::-1]
    longitude = dataset["longitude"].values.astype(np.float64) % 360.0
    longitude = np.where(longitude > 360.0 - COORDINATE_TOLERANCE, longitude - 360.0, longitude)
    order = np.argsort(longitude, kind="stable")
    if not np.array_equal(order, np.arange(order.size)):
        start = int(order[0])
        rolled = np.array_equal(order, np.roll(np.arange(order.size), -start))
        dataset = dataset.roll(longitude=-start, roll_coords=False) if rolled else dataset.isel(longitude=order)
    dataset = dataset.assign_coords(
        latitude=("latitude", latitude, {"units": "degrees_north"}),
        longitude=("longitude", longitude[order], {"units": "degrees_east"}),
    )
    return dataset.transpose(*AXES, ..., missing_dims="ignore")
