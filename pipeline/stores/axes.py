"""The axes of the house, in their order: (..., time, [level], latitude, longitude), and with others for other stores."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import xarray as xr

from transforms.grids import Grid

__all__ = ["AXES", "AXES_OF_KIND", "HORIZONTAL", "forecast_axes", "grid_of", "in_order"]

HORIZONTAL = ("latitude", "longitude")
AXES = ("time", "level", *HORIZONTAL)
AXES_OF_KIND = {"pressure": AXES, "surface": ("time", *HORIZONTAL), "static": HORIZONTAL}
"""Axes of a field of training stores and sources, by the kind of its variable."""

_ORDER = (
    "metric",
    "region",
    "hour",
    "dayofyear",
    "init_time",
    "time",
    "prediction_timedelta",
    "lead_time",
    "number",
    "level",
    *HORIZONTAL,
)


def in_order(axes: Iterable[Hashable]) -> list[Hashable]:
    """Return axes in the order of the house, others first, as they are."""
    return sorted(axes, key=lambda axis: _ORDER.index(axis) if axis in _ORDER else -1)


def forecast_axes(kind: str, *, members: bool = False) -> tuple[str, ...]:
    """Return the axes of a forecast of a variable of this kind in the WeatherBench 2 layout."""
    time, *space = AXES_OF_KIND[kind]
    return (time, "prediction_timedelta", *(["number"] if members else []), *space)


def grid_of(dataset: xr.Dataset | xr.DataArray) -> Grid:
    """Return the grid that coordinates define.

    Raises:
        InputError: it is not a global iso-latitude grid.
    """
    return Grid(dataset["latitude"].values, dataset["longitude"].values)
