"""The stores of a scoring, opened, cut to what is asked, and found to fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.scoring.request import Request
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import fields_of, on_levels, open_store, valid_times
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.metrics import METRICS, vector_name
from transforms.selections import Selection
from transforms.timeaxis import as_slice, require_ascending, time_text
from transforms.units import same_units
from transforms.variables import VARIABLES, wind_pairs
from transforms.window_quantiles import SEEPS_DRY

__all__ = ["Samples", "Stores", "open_stores"]

_FORECAST_AXES = ("time", "prediction_timedelta")
_MAKE = "Make it with `spherecast climatology --statistics {}`."


@dataclass(frozen=True)
class Samples:
    """Where the truth of each forecast lies.

    Attributes:
        position: of the valid time in the truth store, or of any time where not included, shape (time, lead).
        included: whether the truth is there, shape (time, lead).
        start: position of the initial time, or of any time where not started, shape (time, lead), or (time, 1) where
            the forecasts' axis time holds initial times.
        started: whether the truth at the initial time is there, of the shape of `start`.
    """

    position: np.ndarray
    included: np.ndarray
    start: np.ndarray
    started: np.ndarray

    def included_for(self, system: str) -> np.ndarray:
        """Return which forecasts of a system can be scored; persistence also needs the state at the initial time."""
        return self.included & self.started if system == "persistence" else self.included


@dataclass(frozen=True)
class Stores:
    """Stores on one grid, cut to the levels, times and leads that are scored.

    Attributes:
        forecasts: by system, axes (time, prediction_timedelta, [number], [level], latitude, longitude); ``model`` gives
            the times and leads of all.
        truth: axes (time, [level], latitude, longitude).
        climatology: axes ([hour], dayofyear, [level], latitude, longitude).
        groups: names of the variables, wind pairs together.
        samples: where the truth is.
        members: whether the model is an ensemble.
    """

    forecasts: dict[str, xr.Dataset]
    truth: xr.Dataset
    climatology: xr.Dataset | None
    groups: list[tuple[str, ...]]
    samples: Samples
    members: bool

    @property
    def model(self) -> xr.Dataset:
        """The forecast store."""
        return self.forecasts["model"]

    @property
    def normals(self) -> xr.Dataset:
        """The climatology, of a request that needs one."""
        assert self.climatology is not None
        return self.climatology

    @property
    def grid(self) -> Grid:
        return grid_of(self.model)

    @property
    def land_sea_mask(self) -> np.ndarray | None:
        """Fraction of land, (latitude, longitude), where the truth has it."""
        if "land_sea_mask" not in self.truth:
            return None
        return self.truth["land_sea_mask"].transpose("latitude", "longitude").values

    def fields(self, groups: Iterable[int] | None = None) -> list[str]:
        """Return what is scored of all groups, or of some: the variables, and the vector that each pair makes."""
        chosen = self.groups if groups is None else [self.groups[group] for group in groups]
        return [name for group in chosen for name in (*group, *([vector_name(group[0])] if group[1:] else []))]


def open_stores(request: Request) -> Stores:
    """Open the stores and see that they fit together.

    Raises:
        InputError: a store is missing or of another layout; variables, levels, grid, units, hours, times or leads do
            not fit; or there is no truth at any valid time.
    """
    model = _cut(_open_forecast(request.forecast, "forecast"), request, "forecast")
    names = _chosen(model, request)
    if request.levels is not None:
        model = on_levels(model, request.levels, "forecast")
    forecasts = {"model": model}
    for name, path in request.others.items():
        other = _cut(_open_forecast(path, name), request, name)
        forecasts[name] = _fitting(_alike(other, model, name), model, names, _FORECAST_AXES, name)
    truth = _fitting(open_store(request.truth, "truth"), model, names, ("time",), "truth")
    if "time" not in truth.coords:
        raise InputError("truth: has no axis time. Give a store of states over time.")
    require_ascending(truth.time.values)
    climatology = _climatology(request, model, names) if request.climatology is not None else None
    samples = _samples(model, truth, by_valid=request.by_valid)
    if climatology is not None:
        _require_hours(climatology, truth.time.values[samples.position[samples.included]])
    paired = {name for name in names if name in VARIABLES and VARIABLES[name].partner in names}
    groups: list[tuple[str, ...]] = list(wind_pairs(name for name in names if name in paired))
    groups += [(name,) for name in names if name not in paired]
    return Stores(forecasts, truth, climatology, groups, samples, "number" in model.dims)


def _open_forecast(path: str, what: str) -> xr.Dataset:
    store = open_store(path, what)
    store = store.rename({axis: "number" for axis in ("realization", "member", "sample") if axis in store.dims})
    for axis, kind in (("time", "M"), ("prediction_timedelta", "m")):
        if axis not in store.coords or store[axis].dtype.kind != kind:
            raise InputError(
                f"{what}: {path} has no axis {axis} of {'dates' if kind == 'M' else 'lead times'}; expected the "
                "WeatherBench 2 layout, time x prediction_timedelta x [number] x [level] x latitude x longitude."
            )
    if not _fields(store) or 0 in store.sizes.values():
        raise InputError(f"{what}: {path} holds no forecast fields; its variables are {list(store)}.")
    for axis in _FORECAST_AXES:
        if np.unique(store[axis].values).size != store.sizes[axis]:
            raise InputError(f"{what}: {axis}: {path} holds some of them twice. Remove the duplicates.")
    return store


def _fields(store: xr.Dataset) -> list[str]:
    """Names of the forecast variables, ensembles or not."""
    members = ("number",) if "number" in store.dims else ()
    return sorted({*fields_of(store, *_FORECAST_AXES), *fields_of(store, *_FORECAST_AXES, *members)})


def _cut(store: xr.Dataset, request: Request, what: str) -> xr.Dataset:
    """Return the times and leads that are asked for."""
    selections: dict[str, Selection | None] = dict(
        zip(_FORECAST_AXES, (request.initial_times, request.leads), strict=True)
    )
    for axis, selection in selections.items():
        if selection is not None:
            store = store.isel({axis: as_slice(selection.positions(store[axis].values))})
    return store


def _chosen(model: xr.Dataset, request: Request) -> list[str]:
    known = _fields(model)
    absent = [name for name in request.variables or () if name not in known]
    if absent:
        raise InputError(f"forecast: {', '.join(absent)} is missing; it has {', '.join(known)}.")
    return [name for name in known if request.variables is None or name in request.variables]


def _alike(other: xr.Dataset, model: xr.Dataset, what: str) -> xr.Dataset:
    """Return the times and leads of `model` from another forecast store."""
    for axis in _FORECAST_AXES:
        has, wanted = other[axis].values, model[axis].values
        order = np.argsort(has)
        found = order[np.minimum(np.searchsorted(has, wanted, sorter=order), has.size - 1)]
        lacking = wanted[has[found] != wanted]
        if lacking.size:
            first = time_text(lacking[0]) if axis == "time" else f"{lacking[0] / np.timedelta64(1, 'h'):g} h"
            raise InputError(
                f"{what}: {axis} {first} and {lacking.size - 1} more are missing. Skill is taken of the same forecasts: "
                "choose initial times and leads that both have."
            )
        other = other.isel({axis: as_slice(found) if (np.diff(found) > 0).all() else found})
    return other


def _fitting(
    store: xr.Dataset, forecast: xr.Dataset, names: Sequence[str], axes: tuple[str, ...], what: str
) -> xr.Dataset:
    """Return `store` on the forecast's levels.

    Raises:
        InputError: it lacks a variable or level of the forecast, has it in other units, or lies on another grid.
    """
    grid, other = grid_of(forecast), grid_of(store)
    if not grid.matches(other):
        raise InputError(f"{what}: is on {other}, but the forecast on {grid}. Regrid one of them: `spherecast regrid`.")
    known = _fields(store) if axes == _FORECAST_AXES else fields_of(store, *axes)
    absent = [name for name in names if name not in known]
    if absent:
        raise InputError(
            f"{what}: {', '.join(absent)} over {', '.join(axes)}, latitude, longitude is missing; it has "
            f"{', '.join(known) or 'none'}."
        )
    for name in names:
        theirs, ours = store[name].attrs.get("units"), forecast[name].attrs.get("units")
        if theirs and ours and not same_units(str(theirs), str(ours)):
            raise InputError(
                f"{name}: is in {theirs} in the {what}, but in {ours} in the forecast. Convert one of them: "
                f"`spherecast regrid --units {name}=UNITS` says what a source is in."
            )
    return _on_levels_of(forecast, store, names, what)


def _on_levels_of(forecast: xr.Dataset, store: xr.Dataset, names: Sequence[str], what: str) -> xr.Dataset:
    if not any("level" in forecast[name].dims for name in names):
        return store
    return on_levels(store, forecast.level.values.tolist(), what)


def _climatology(request: Request, model: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Open the climatology, and see that it holds what the metrics need of it."""
    store = open_store(str(request.climatology), "climatology")
    if "dayofyear" not in store.dims:
        raise InputError(f"climatology: {request.climatology} has no axis dayofyear. {_MAKE.format('mean')}")
    if not np.array_equal(store.dayofyear.values, np.arange(1, 367)):
        raise InputError("climatology: dayofyear: expected 1 to 366.")
    # WeatherBench 2 takes either name.
    means = {f"{name}_mean": name for name in names if name not in store and f"{name}_mean" in store}
    store = store.rename(means)
    needs = {need for name in request.metrics for need in METRICS[name].needs}
    if "climatology" in (*needs, *request.computed):
        hours = ("hour",) if "hour" in store.dims else ()  # One a day holds at every hour.
        store = _fitting(store, model, names, (*hours, "dayofyear"), "climatology")
    else:
        store = _on_levels_of(model, store, names, "climatology")
        if not grid_of(model).matches(grid_of(store)):
            raise InputError(f"climatology: is on {grid_of(store)}, but the forecast on {grid_of(model)}. Regrid it.")
    if "quantiles" in needs:
        _require_thresholds(store, request, names)
    if "seeps" in needs:
        _require_seeps(store, request, names)
    return store


def _require_thresholds(store: xr.Dataset, request: Request, names: Sequence[str]) -> None:
    suffixes = ("_quantile",) if request.threshold_method == "quantile" else ("", "_std")
    absent = [f"{name}{suffix}" for name in names for suffix in suffixes if f"{name}{suffix}" not in store]
    if absent:
        statistics = "quantile" if request.threshold_method == "quantile" else "mean,std"
        raise InputError(
            f"climatology: {absent[0]} is missing, which {request.threshold_method} thresholds need. "
            f"{_MAKE.format(statistics)}"
        )
    if request.threshold_method == "quantile":
        has = store["quantile"].values
        for level in request.quantiles:
            if np.abs(has - level).min() > 0.01:
                raise InputError(f"quantiles: {level:g} is not in the climatology, which has {has.tolist()}.")


def _require_seeps(store: xr.Dataset, request: Request, names: Sequence[str]) -> None:
    for metric in request.metrics:
        variable = METRICS[metric].variable
        if variable is None:
            continue
        if variable not in names:
            raise InputError(f"{metric}: is a score of {variable}, which the forecast lacks. Leave it out.")
        for suffix in ("_seeps_threshold", "_seeps_dry_fraction"):
            if f"{variable}{suffix}" not in store:
                raise InputError(f"climatology: {variable}{suffix} is missing. {_MAKE.format('seeps')}")
        if variable not in SEEPS_DRY:
            raise InputError(f"{metric}: the dry threshold of {variable} is not known.")


def _require_hours(climatology: xr.Dataset, valid: np.ndarray) -> None:
    if "hour" not in climatology.dims:
        return
    has = climatology.hour.values.tolist()
    absent = sorted(set(pd.DatetimeIndex(np.unique(valid)).hour) - set(has))
    if absent:
        raise InputError(
            f"climatology: hour {absent[0]} UTC is missing; it has {has}. Make it from data at every hour of the valid "
            "times."
        )


def _samples(model: xr.Dataset, truth: xr.Dataset, *, by_valid: bool) -> Samples:
    """Find the truth of every forecast.

    Raises:
        InputError: there is none at all.
    """
    times, present = truth.time.values, valid_times(truth)
    axis, leads = model.time.values[:, np.newaxis], model.prediction_timedelta.values
    valid, initial = (axis + 0 * leads, axis - leads) if by_valid else (axis + leads, axis)

    def find(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position = np.minimum(np.searchsorted(times, wanted), times.size - 1)
        return position, (times[position] == wanted) & present[position]

    position, included = find(valid)
    start, started = find(initial)
    if not included.any():
        raise InputError(
            f"truth: none at any valid time; the forecasts are valid from {np.datetime_as_string(valid.min(), 'h')} to "
            f"{np.datetime_as_string(valid.max(), 'h')}, the truth has {np.datetime_as_string(times[0], 'h')} to "
            f"{np.datetime_as_string(times[-1], 'h')}. Give the truth of that period."
        )
    # Where the truth is missing another state stands in, since the result does not enter.
    stand_in = position[included][0]
    return Samples(np.where(included, position, stand_in), included, np.where(started, start, stand_in), started)
