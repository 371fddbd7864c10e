"""Opening zarr, netCDF and GRIB as they are: names, axes and orientation of the source, values decoded, nothing read.

Reads that fail for a reason that passes are tried again, those of data as well as those of metadata.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from pipeline.presets import axis_named
from pipeline.stores.lazy_arrays import LazyArray, lazily_indexed, open_array
from pipeline.stores.retrying import Retry, UnreachableError, is_transient
from transforms.errors import InputError

__all__ = ["is_zarr", "netcdf_files", "open_raw"]

_GRIB = (".grib", ".grib2", ".grb", ".grb2")
_NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")


def netcdf_files(path: str) -> list[str] | None:
    """Return the netCDF files that `path` stands for, or None where it stands for something else.

    Raises:
        InputError: nothing is there, or files are asked for that only this machine can hold.
    """
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


def is_zarr(path: str) -> bool:
    """Whether `path` is neither netCDF nor GRIB."""
    return not path.lower().endswith(_GRIB) and netcdf_files(path) is None


def open_raw(path: str, storage_options: Mapping[str, Any], retry: Retry) -> list[xr.Dataset]:
    """Open one store or file as it is, its variables decoded as xarray does, to be read when indexed.

    Returns:
        One dataset; of a GRIB file whose messages do not lie on one set of axes, one for each.

    Raises:
        InputError: it cannot be read, or a package to read it is not installed.
    """
    if path.lower().endswith(_NETCDF):
        return [_reading(_open(path, retry, engine="netcdf4"), path, retry)]
    if path.lower().endswith(_GRIB):
        return [_reading(part, path, retry) for part in _open_grib(path, retry)]
    return [_reading(_open_zarr(path, dict(storage_options), retry), path, retry, zarr=True)]


def _open_zarr(path: str, options: dict[str, Any], retry: Retry) -> xr.Dataset:
    keywords: dict[str, Any] = {"engine": "zarr", **({"storage_options": options} if options else {})}
    with warnings.catch_warnings():
        # A stray file beside the arrays, or a codec of an older zarr, is nothing the user of a foreign store can mend.
        warnings.simplefilter("ignore")
        try:
            return _open(path, retry, consolidated=True, **keywords)
        except UnreachableError:
            raise
        except InputError:
            return _open(path, retry, consolidated=False, **keywords)


def _open_grib(path: str, retry: Retry) -> list[xr.Dataset]:
    try:
        from cfgrib import DatasetBuildError, open_datasets
    except ImportError as error:
        raise InputError(
            f"source.path: {path} is GRIB, and the package cfgrib is not installed. "
            "Run `pip install 'spherecast[grib]'`, or `pip install cfgrib`."
        ) from error
    # No index beside the data, whose folder may not be writable; `pv` are the coefficients of hybrid levels.
    options = {"indexpath": "", "read_keys": ["pv"]}
    try:
        # Unless told to raise, cfgrib leaves out variables that do not share the axes of the first.
        return [_open(path, retry, engine="cfgrib", backend_kwargs={**options, "errors": "raise"})]
    except InputError as error:
        if not isinstance(error.__cause__, DatasetBuildError):
            raise
    return retry.call(lambda: open_datasets(path, backend_kwargs=options, cache=False), path)


def _open(path: str, retry: Retry, **keywords: Any) -> xr.Dataset:
    # GRIB is decoded by its reader. Others stay encoded until their arrays have been put behind `LazyArray`.
    decode: dict[str, Any] = {} if keywords["engine"] == "cfgrib" else {"decode_cf": False}

    def read() -> xr.Dataset:
        return xr.open_dataset(path, chunks=None, cache=False, decode_timedelta=False, **decode, **keywords)

    try:
        return retry.call(read, path)
    except UnreachableError:
        raise
    except ImportError as error:
        raise InputError(
            f"source.path: reading {path} needs a package that is not installed: {error}. "
            "For gs:// run `pip install 'spherecast[gcs]'`, for s3:// 'spherecast[s3]', for http:// `pip install aiohttp`."
        ) from error
    except (OSError, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise InputError(f"source.path: {path} cannot be read ({type(error).__name__}: {error}).") from error
    except Exception as error:
        # Remote file systems raise classes of their own (aiohttp, botocore, gcsfs), which need not be installed.
        if "://" not in path:
            raise
        raise InputError(f"source.path: {path} cannot be reached ({type(error).__name__}: {error}).") from error


def _reading(dataset: xr.Dataset, path: str, retry: Retry, zarr: bool = False) -> xr.Dataset:
    """Read variables with retries, those of local zarr stores through tensorstore, and decode them."""
    local = zarr and "://" not in path
    variables = {}
    for name, variable in dataset.variables.items():
        if name in dataset.xindexes:
            continue
        source = variable
        # Tensorstore pays for fields; it knows neither dates nor texts.
        if local and variable.dtype.kind in "fiu" and variable.ndim >= 2:
            source = _by_tensorstore(path, str(name), variable)
        layout = None if source is variable else _layout(variable.dims)
        array = LazyArray(source, what=f"{name} of {path}", retry=retry, layout=layout)
        variables[name] = lazily_indexed(variable, array, variable.dims)
    dataset = dataset.assign(
        {name: variable for name, variable in variables.items() if name in dataset.data_vars}
    ).assign_coords({name: variable for name, variable in variables.items() if name in dataset.coords})
    try:
        return xr.decode_cf(dataset, decode_timedelta=False)
    except (ValueError, OverflowError) as error:
        raise InputError(f"source.path: {path} cannot be read ({type(error).__name__}: {error}).") from error


def _layout(dims: Sequence[Hashable]) -> list[int]:
    """Axes in the order in which values are used: longitude innermost, latitude next to it."""
    last = [i for name in ("latitude", "longitude") for i, axis in enumerate(dims) if axis_named(str(axis)) == name]
    return [i for i in range(len(dims)) if i not in last] + last


def _by_tensorstore(path: str, name: str, variable: xr.Variable) -> Any:
    try:
        source = open_array(path, name)
    except (ValueError, NotImplementedError) as error:
        if is_transient(error):
            raise
        # A codec, filter or type that it does not know is left to zarr-python.
        return variable
    return source if tuple(source.shape) == variable.shape else variable
