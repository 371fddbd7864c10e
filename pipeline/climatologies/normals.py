"""What the climatology says of given times: its fields at their hour and day of year."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.stores.axes import grid_of
from pipeline.stores.reading import fields_of, on_levels, open_store, read_times
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.timeaxis import time_text

__all__ = ["Normals", "climatology_at"]


class Normals:
    """Fields of a climatology store, (hour, dayofyear, [level], latitude, longitude), on a grid and levels."""

    def __init__(self, store: str | Path, names: Sequence[str], levels: Sequence[float], grid: Grid) -> None:
        """Open the store.

        Raises:
            InputError: it is on another grid, or lacks a variable, a level or days of the year.
        """
        dataset = open_store(store, "climatology")
        if not grid.matches(grid_of(dataset)):
            raise InputError(
                f"climatology: is on {grid_of(dataset)}, but the truth on {grid}. Make it from the same store."
            )
        has = fields_of(dataset, "hour", "dayofyear")
        absent = [name for name in names if name not in has]
        if absent:
            raise InputError(
                f"climatology: {absent[0]} over hour, dayofyear, latitude, longitude is missing; it has "
                f"{', '.join(has) or 'none'}."
            )
        if not np.array_equal(dataset.dayofyear.values, np.arange(1, 367)):
            raise InputError("climatology: dayofyear: expected 1 to 366.")
        self._fields = {
            name: on_levels(dataset[name], levels, f"climatology: {name}")
            if "level" in dataset[name].dims
            else dataset[name]
            for name in names
        }
        self._hours = dataset.hour.values.astype(int)

    def check(self, times: np.ndarray) -> None:
        """Raise InputError where the climatology lacks the hour of some times."""
        hours = times.astype("datetime64[h]")
        wrong = (hours != times) | ~np.isin(pd.DatetimeIndex(times).hour, self._hours)
        if wrong.any():
            raise InputError(
                f"climatology: has hours {self._hours.tolist()}, and not that of {time_text(times[np.argmax(wrong)])}. "
                "Make it from data at every hour of the initial and valid times."
            )

    def at(self, name: str, times: np.ndarray) -> np.ndarray:
        """Return the climatology at each time, (time, [level], latitude, longitude)."""
        return climatology_at(self._fields[name], times)


def climatology_at(field: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """Return the climatology at the hour and day of year of each time, (time, [level], latitude, longitude).

    One of days alone holds at every hour. NaN at hours that the climatology does not have.

    Args:
        field: axes ([hour], dayofyear, [level], latitude, longitude), dayofyear from 1.
    """
    index = pd.DatetimeIndex(times)
    if "hour" not in field.dims:
        days, inverse = np.unique(index.day_of_year - 1, return_inverse=True)
        return read_times(field, days, axis="dayofyear")[inverse]
    values = np.full((len(times), *field.shape[2:]), np.nan, field.dtype)
    for hour in np.intersect1d(index.hour, field.hour.values):
        own = np.flatnonzero(index.hour == hour)
        days, inverse = np.unique(index.day_of_year[own] - 1, return_inverse=True)
        of_hour = field.isel(hour=int(np.flatnonzero(field.hour.values == hour)[0]))
        values[own] = read_times(of_hour, days, axis="dayofyear")[inverse]
    return values
