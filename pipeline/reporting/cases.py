"""Which forecasts go on the maps, and their data in the units of a weather map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.reporting.fields import Field
from pipeline.stores.axes import HORIZONTAL, grid_of
from transforms.grids import Grid
from transforms.regridding import Regridder

__all__ = ["MapCase", "choose_case", "drawing_grid", "field_values", "holds", "redrawn"]

_INITIALS = 3
_LEAST_LEADS = 8
_MOST_POINTS = 2_000_000
"""Values of forecast, and as many of the difference, that a page holds; a byte each before they are packed."""
_WIDEST = 256
_COARSE = (90, 180)


@dataclass(frozen=True)
class MapCase:
    """The forecasts that are drawn.

    Attributes:
        initials: their initial times, ascending, datetime64[ns].
        leads: lead times drawn, hours.
        grid: grid of `forecast` and `truth`; coarser than the stores' where that has more points than a picture.
        stored_grid: grid of the stores.
        fields: fields drawn.
        forecast, truth: by field, shape (initial, lead, component, latitude, longitude), float64, units of the maps;
            two components for a wind vector, else one. NaN where a valid time has no truth.
        errors: root mean square of forecast minus truth over the sphere, of the stores' own values, by field, shape
            (initial, lead).
        member: that is drawn; None of a forecast without members.
    """

    initials: np.ndarray
    leads: list[float]
    grid: Grid
    stored_grid: Grid
    fields: list[Field]
    forecast: dict[Field, np.ndarray]
    truth: dict[Field, np.ndarray]
    errors: dict[Field, np.ndarray]
    member: int | None = None

    @property
    def first_shown(self) -> tuple[int, int]:
        """Positions of the initial time and the lead that are drawn before anyone chooses."""
        return len(self.initials) // 2, len(self.leads) // 2

    def valid_time(self, initial: int, lead: int) -> np.datetime64:
        """Return the time that a map is valid at."""
        return self.initials[initial] + np.timedelta64(round(self.leads[lead] * 60), "m")


def choose_case(
    forecast: xr.Dataset, truth: xr.Dataset, headline: Sequence[Field], others: Sequence[Field] = ()
) -> MapCase | None:
    """Choose the forecasts to draw: three, evenly spread over those that have truth at most leads.

    No score is looked at. Of an ensemble its first member is drawn: a mean would be smoother than any weather. Leads are
    thinned evenly, then initial times, then fields, until the page can hold them.

    Args:
        forecast: dims (time, prediction_timedelta, [number], [level], latitude, longitude).
        truth: dims (time, [level], latitude, longitude) on the same grid.
        headline: fields to draw, the first in front.
        others: drawn too where there is room.

    Returns:
        None where no forecast has a valid time in the truth, or no field is in both.
    """
    member = int(forecast["number"].values[0]) if "number" in forecast.dims else None
    forecast = forecast if member is None else forecast.isel(number=0)
    drawn, more = (
        [field for field in fields if holds(forecast, field) and holds(truth, field)] for fields in (headline, others)
    )
    more = [field for field in more if not _in_a_vector(field, [*drawn, *more])]
    hours = forecast["prediction_timedelta"].values / np.timedelta64(1, "h")
    positions = np.flatnonzero(hours > 0)
    initials = forecast["time"].values.astype("datetime64[ns]")
    steps = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    valid = np.isin(initials[:, None] + steps[positions], truth["time"].values.astype("datetime64[ns]"))
    positions, valid = positions[valid.any(axis=0)], valid[:, valid.any(axis=0)]
    if not (drawn or more) or not valid.size:
        return None
    stored = grid_of(truth)
    grid = drawing_grid(stored)
    fields, kept, count = _fitting(drawn or more[:1], more if drawn else more[1:], positions, grid)
    chosen = _spread(valid[:, np.searchsorted(positions, kept)].sum(axis=1), count)
    parts = [
        _one_forecast(forecast.isel(time=i, prediction_timedelta=kept), truth, initials[i] + steps[kept], fields, grid)
        for i in chosen
    ]
    predicted, other, errors = (
        {field: np.stack([part[number][field] for part in parts]) for field in fields} for number in range(3)
    )
    leads = [float(hours[i]) for i in kept]
    return MapCase(initials[chosen], leads, grid, stored, fields, predicted, other, errors, member)


def drawing_grid(grid: Grid) -> Grid:
    """Return the grid that fields on `grid` are drawn on: the same, or where it has more than a picture, one of 2 degrees."""
    return grid if grid.shape[1] <= _WIDEST else Grid.equiangular(*_COARSE, poles=False)


def redrawn(values: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Return a field (..., component, latitude, longitude) as means over the cells of another grid, where it is another."""
    if target.matches(grid):
        return values
    regrid = Regridder(grid, target, threads=1)
    if values.shape[-3] == 2:
        return np.stack(regrid.wind(values[..., 0, :, :], values[..., 1, :, :]), axis=-3)
    return regrid(values)


def holds(dataset: xr.Dataset, field: Field) -> bool:
    """Say whether a store has the field's variables on its level."""
    for name in field.store_variables:
        if name not in dataset:
            return False
        if field.level is not None and (
            "level" not in dataset[name].dims or field.level not in dataset["level"].values
        ):
            return False
    return True


def field_values(dataset: xr.Dataset, field: Field) -> np.ndarray:
    """Return a field in the units of the maps, float64, axes (..., component, latitude, longitude)."""
    factor, offset, _ = field.map_units
    arrays = []
    for name in field.store_variables:
        array = dataset[name] if field.level is None else dataset[name].sel(level=field.level)
        arrays.append(array.transpose(..., *HORIZONTAL).values.astype(np.float64) * factor + offset)
    return np.stack(arrays, axis=-3)


def _in_a_vector(field: Field, fields: list[Field]) -> bool:
    """Say whether a field is a component of a wind that is among the fields as a vector."""
    return any(field.variable in (other.components or ()) and field.level == other.level for other in fields)


def _fitting(
    fields: list[Field], more: list[Field], positions: np.ndarray, grid: Grid
) -> tuple[list[Field], np.ndarray, int]:
    """Return the fields, the positions of leads and the number of initial times whose maps are few enough."""
    points = grid.shape[0] * grid.shape[1]

    def maps(chosen: list[Field]) -> int:
        return _MOST_POINTS // (points * sum(len(field.store_variables) for field in chosen))

    count = _INITIALS if maps(fields) >= _INITIALS * min(_LEAST_LEADS, len(positions)) else 1
    while len(fields) > 1 and maps(fields) < min(_LEAST_LEADS, len(positions)):
        fields = fields[:-1]
    stride = -(-len(positions) // max(1, maps(fields) // count))
    kept = positions[::-1][::stride][::-1]
    for field in more:
        if field not in fields and maps([*fields, field]) >= count * len(kept):
            fields = [*fields, field]
    return fields, kept, count


def _spread(valid: np.ndarray, count: int) -> np.ndarray:
    """Return positions of forecasts, evenly spread over those that have truth at most leads."""
    best = np.flatnonzero(valid == valid.max())
    count = min(count, len(best))
    return best[np.round((np.arange(count) + 0.5) / count * (len(best) - 1)).astype(int)]


def _one_forecast(
    forecast: xr.Dataset, truth: xr.Dataset, times: np.ndarray, fields: list[Field], grid: Grid
) -> tuple[dict[Field, np.ndarray], dict[Field, np.ndarray], dict[Field, np.ndarray]]:
    """Return forecast and truth, (lead, component, latitude, longitude), and errors, (lead), by field."""
    stored = grid_of(truth)
    known = np.isin(times, truth["time"].values.astype("datetime64[ns]"))
    there = truth.sel(time=times[known])
    weights = stored.latitude_weights()[:, None] * np.ones(stored.shape[1])
    predicted, others, errors = {}, {}, {}
    for field in fields:
        values = field_values(forecast, field)
        other = np.full_like(values, np.nan)
        other[known] = field_values(there, field)
        square = np.sum((values - other) ** 2, axis=1)
        missing = np.isnan(square)
        total = np.where(missing, 0.0, weights).sum(axis=(-2, -1))
        square = np.where(missing, 0.0, square * weights).sum(axis=(-2, -1))
        errors[field] = np.sqrt(np.divide(square, total, out=np.full_like(total, np.nan), where=total > 0))
        predicted[field], others[field] = redrawn(values, stored, grid), redrawn(other, stored, grid)
    return predicted, others, errors
