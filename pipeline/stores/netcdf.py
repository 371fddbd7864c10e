"""Finished zarr stores as one netCDF file, copied piece by piece."""

from __future__ import annotations

import json
import math
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, publishing
from pipeline.jobs.progress import progress
from pipeline.stores.reading import description_of, open_store

__all__ = ["write_netcdf"]

_PIECE_BYTES = 16e6
_UNITS = {"M": "seconds since 1970-01-01", "m": "hours"}


def write_netcdf(store: str | Path, target: str | Path) -> None:
    """Copy a forecast store into a netCDF-4 file, which appears at once, compressed, with the same axes and attributes.

    Memory is bounded: a piece is of one initial time.
    """
    dataset = open_store(store, "forecast")
    with publishing(target) as partial, netCDF4.Dataset(partial, "w") as file:
        file.setncatts({**{k: v for k, v in dataset.attrs.items() if k != ATTRIBUTE}, "Conventions": "CF-1.10"})
        file.setncattr(ATTRIBUTE, json.dumps(description_of(dataset)))
        for axis, size in dataset.sizes.items():
            file.createDimension(str(axis), size)
        for name, coordinate in dataset.coords.items():
            _write_coordinate(file, str(name), coordinate)
        with progress("netCDF", len(dataset.data_vars) * dataset.sizes["time"]) as bar:
            for name, variable in dataset.data_vars.items():
                _copy(file, str(name), variable, bar)


def _write_coordinate(file: netCDF4.Dataset, name: str, coordinate: xr.DataArray) -> None:
    values, attributes = coordinate.values, dict(coordinate.attrs)
    if values.dtype.kind in _UNITS:
        unit, origin = ("s", np.datetime64(0, "s")) if values.dtype.kind == "M" else ("h", np.timedelta64(0, "h"))
        attributes["units"] = _UNITS[values.dtype.kind]
        if values.dtype.kind == "M":
            attributes["calendar"] = "proleptic_gregorian"
        values = (values - origin) // np.timedelta64(1, unit)  # type: ignore[call-overload]  # a unit of NumPy's
    variable = file.createVariable(name, values.dtype.name, tuple(map(str, coordinate.dims)))
    variable.setncatts(attributes)
    variable[:] = values


def _copy(file: netCDF4.Dataset, name: str, variable: xr.DataArray, bar) -> None:
    field = variable.dtype.itemsize * math.prod(variable.shape[-2:])
    chunk = (*[1] * (variable.ndim - 2), *variable.shape[-2:])
    target = file.createVariable(
        name,
        variable.dtype.name,
        tuple(map(str, variable.dims)),
        zlib=True,
        complevel=1,
        shuffle=True,
        chunksizes=chunk,
        fill_value=np.nan,
    )
    target.setncatts(variable.attrs)
    lead = max(1, int(_PIECE_BYTES / (field * math.prod(variable.shape[2:-2]))))
    for time in range(variable.shape[0]):
        for first in range(0, variable.shape[1], lead):
            piece = (slice(time, time + 1), slice(first, first + lead))
            target[piece] = variable[piece].values
        bar.advance()
