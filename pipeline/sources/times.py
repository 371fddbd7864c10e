"""The time axis of a source as dates."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from transforms.errors import InputError

__all__ = ["with_dates"]

_STANDARD_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


def with_dates(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Put valid times as datetime64 on the time axis, or as a scalar coordinate.

    Times beyond the attributes ``valid_time_start`` and ``valid_time_stop`` are left out.

    Raises:
        InputError: there is no time, or it cannot be decoded to the standard calendar.
    """
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
    dataset = dataset.assign_coords(time=xr.Variable(time.dims, time.values.astype("datetime64[ns]")))
    return _within_valid_times(dataset)


def _within_valid_times(dataset: xr.Dataset) -> xr.Dataset:
    """Leave out times beyond the attributes with which ARCO-ERA5 bounds its data; the last day counts whole."""
    bounds = [dataset.attrs.get(f"valid_time_{end}") for end in ("start", "stop")]
    if None in bounds or dataset["time"].dims != ("time",):
        return dataset
    try:
        start, stop = (np.datetime64(str(bound)) for bound in bounds)
    except ValueError:
        return dataset
    after = stop + np.timedelta64(1)
    inside = np.flatnonzero((dataset["time"].values >= start) & (dataset["time"].values < after))
    # An index of all times between, so that the selection stays a slice.
    return dataset.isel(time=slice(int(inside[0]), int(inside[-1]) + 1)) if inside.size else dataset
