"""Which forecast goes on the maps, and its data in the units of a weather map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.reporting.fields import Field
from pipeline.stores.axes import HORIZONTAL, grid_of
from transforms.grids import Grid

__all__ = ["MapCase", "choose_case"]

_DAYS = (1, 3, 5, 7, 10)


@dataclass(frozen=True)
class MapCase:
    """The forecast that is drawn.

    Attributes:
        initial: its initial time.
        leads: lead times drawn, hours.
        grid: grid of forecast and truth.
        fields: fields drawn.
        forecast, truth: by field, shape (lead, component, latitude, longitude), units of the maps; two components
            for a wind vector, else one.
        member: that is drawn; None of a forecast without members.
    """

    initial: np.datetime64
    leads: list[float]
    grid: Grid
    fields: list[Field]
    forecast: dict[Field, np.ndarray]
    truth: dict[Field, np.ndarray]
    member: int | None = None


def choose_case(forecast: xr.Dataset, truth: xr.Dataset, fields: list[Field]) -> MapCase | None:
    """Choose the forecast to draw: the one nearest the middle of the period that has truth at most leads.

    No score is looked at. Of an ensemble its first member is drawn: a mean would be smoother than any weather.

    Args:
        forecast: dims (time, prediction_timedelta, [number], [level], latitude, longitude).
        truth: dims (time, [level], latitude, longitude) on the same grid.
        fields: candidates; the first three that both hold are drawn.

    Returns:
        None where no forecast has a valid time in the truth, or no field is in both.
    """
    member = int(forecast["number"].values[0]) if "number" in forecast.dims else None
    forecast = forecast if member is None else forecast.isel(number=0)
    drawn = [field for field in fields if _holds(forecast, field) and _holds(truth, field)][:3]
    hours = forecast["prediction_timedelta"].values / np.timedelta64(1, "h")
    positions = [i for i, lead in enumerate(hours) if lead / 24 in _DAYS][:5]
    positions = positions or [i for i, lead in enumerate(hours) if lead > 0][-3:]
    known = set(truth["time"].values.astype("datetime64[ns]").tolist())
    initials = forecast["time"].values.astype("datetime64[ns]")
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    valid = [
        [i for i in positions if int(initial + leads[i]) in known]
        for initial in initials.astype("int64").view("M8[ns]")
    ]
    if not drawn or not any(valid):
        return None
    middle = (len(initials) - 1) / 2
    best = min(range(len(initials)), key=lambda i: (-len(valid[i]), abs(i - middle)))
    chosen, initial = valid[best], initials[best]
    grid = grid_of(truth)
    one = forecast.isel(time=best, prediction_timedelta=chosen)
    other = truth.sel(time=initial + leads[chosen])
    return MapCase(
        initial,
        [float(hours[i]) for i in chosen],
        grid,
        drawn,
        {field: _values(one, field) for field in drawn},
        {field: _values(other, field) for field in drawn},
        member,
    )


def _holds(dataset: xr.Dataset, field: Field) -> bool:
    for name in field.store_variables:
        if name not in dataset:
            return False
        if field.level is not None and (
            "level" not in dataset[name].dims or field.level not in dataset["level"].values
        ):
            return False
    return True


def _values(dataset: xr.Dataset, field: Field) -> np.ndarray:
    factor, offset, _ = field.map_units
    arrays = []
    for name in field.store_variables:
        array = dataset[name] if field.level is None else dataset[name].sel(level=field.level)
        arrays.append(array.transpose(..., *HORIZONTAL).values.astype(np.float64) * factor + offset)
    return np.stack(arrays, axis=1)
