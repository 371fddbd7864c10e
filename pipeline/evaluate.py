"""Stage `evaluate`: score forecasts and the two baselines against the truth, in the WeatherBench 2 result layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, publishing, require
from pipeline.progress import progress
from pipeline.runs import Run
from pipeline.stores import description_of, fields_of, grid_of, open_store, period_of, read_times, valid_times
from transforms.errors import InputError
from transforms.metrics import (
    METRICS,
    RegionalMean,
    TimeMean,
    field_statistics,
    statistics_for,
    vector_name,
    vector_statistics,
)
from transforms.regions import region_weights
from transforms.variables import VARIABLES, wind_pairs

__all__ = ["SYSTEMS", "evaluate_stores", "run_stage", "score_store"]

logger = logging.getLogger(__name__)

SYSTEMS = ("model", "persistence", "climatology")
"""What is scored: the forecast, the state at the initial time, and the climatology at the valid time."""

_BATCH_BYTES = 64e6
_DEFAULT_METRICS = ("rmse", "mse", "mae", "bias", "acc")
_DEFAULT_REGIONS = ("global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere")


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``metrics/model.nc``, ``metrics/persistence.nc`` and ``metrics/climatology.nc`` of the run."""
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    require(run.climatology, "climatology", "run `spherecast preprocess` first")
    require(run.forecast, "forecast", "run `spherecast forecast` first")
    settings = run.config.evaluation
    results = evaluate_stores(
        run.forecast,
        run.training_store,
        run.climatology,
        systems=SYSTEMS,
        regions=settings.regions,
        metrics=settings.metrics,
        skipna=settings.skipna,
        fingerprint=fingerprint,
        inputs=inputs,
    )
    with publishing(run.metrics) as partial:
        partial.mkdir()
        for system, result in results.items():
            result.to_netcdf(partial / f"{system}.nc", engine="netcdf4")


def score_store(
    forecast: str | Path,
    truth: str | Path,
    target: str | Path,
    *,
    climatology: str | Path | None = None,
    regions: Sequence[str] = _DEFAULT_REGIONS,
    metrics: Sequence[str] | None = None,
    skipna: bool = False,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Score a forecast store and write the result as netCDF; see `evaluate_stores`."""
    results = evaluate_stores(
        forecast,
        truth,
        climatology,
        regions=regions,
        metrics=metrics,
        skipna=skipna,
        fingerprint=fingerprint,
        inputs=inputs,
    )
    with publishing(target) as partial:
        results["model"].to_netcdf(partial, engine="netcdf4")


def evaluate_stores(
    forecast: str | Path,
    truth: str | Path,
    climatology: str | Path | None = None,
    *,
    systems: Sequence[str] = ("model",),
    regions: Sequence[str] = _DEFAULT_REGIONS,
    metrics: Sequence[str] | None = None,
    skipna: bool = False,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> dict[str, xr.Dataset]:
    """Score forecasts against the truth at their valid times.

    All systems are scored for the same initial times and lead times. A forecast whose truth is missing (no such time in
    the store, or not a valid one) does not enter the average of its lead; the log and the attributes say how many.

    Args:
        forecast: store in the WeatherBench 2 layout, (time, prediction_timedelta, [level], latitude, longitude).
        truth: store of the same variables on the same grid, (time, [level], latitude, longitude).
        climatology: store of the same variables on the same grid, (hour, dayofyear, [level], latitude, longitude);
            needed for ``acc`` and for the system climatology.
        systems: of `SYSTEMS`.
        regions: names of `transforms.regions`.
        metrics: names of `transforms.metrics.METRICS`; by default the usual ones that the climatology allows.
        skipna: leave missing points out of averages; otherwise one makes its average missing.

    Returns:
        For each system a dataset with one variable per field, and one per wind vector, axes (metric, region, lead_time,
        [level]), float64, and ``valid_samples`` (lead_time), the number of initial times that entered.

    Raises:
        InputError: the stores do not fit together (variables, levels, grid, hours), no truth at any valid time, or a
            metric that needs a climatology without one.
    """
    if metrics is None:
        metrics = [name for name in _DEFAULT_METRICS if climatology is not None or name != "acc"]
    for name in metrics:
        if name not in METRICS:
            raise InputError(f"metric {name!r}: not known; known are {', '.join(METRICS)}.")
    if climatology is None and ("acc" in metrics or "climatology" in systems):
        raise InputError("acc: needs a climatology. Give one, or leave acc out of the metrics.")
    stores = _open(forecast, truth, climatology)
    mask = stores.truth["land_sea_mask"].values if "land_sea_mask" in stores.truth else None
    mean = RegionalMean(region_weights(regions, grid_of(stores.forecast), mask), skipna=skipna)
    samples = _samples(stores)
    tallies = {system: _Tally(metrics, skipna) for system in systems}
    _gather(stores, samples, tallies, metrics, mean)
    simulated = any(description_of(store).get("simulated", False) for store in (stores.forecast, stores.truth))
    results = {}
    for system, tally in tallies.items():
        included = samples.included_for(system)
        result = tally.result(stores.forecast, regions, included)
        missing = int((~included).sum())
        if missing:
            logger.warning(
                "%s: %d of %d forecasts have no truth at their valid time and are left out; valid_samples counts the "
                "rest for each lead time.",
                system,
                missing,
                included.size,
            )
        _warn_of_missing_scores(system, result)
        result.attrs[ATTRIBUTE] = json.dumps(
            describe(
                "metrics",
                fingerprint,
                inputs,
                system=system,
                simulated=simulated,
                period=period_of(stores.forecast.time.values),
                initial_times=int(stores.forecast.sizes["time"]),
                forecasts_without_truth=missing,
                skipna=skipna,
                grid=str(grid_of(stores.forecast)),
            )
        )
        results[system] = result
    return results


def _warn_of_missing_scores(system: str, result: xr.Dataset) -> None:
    """Say which scores are NaN although there were forecasts with a truth."""
    scored = result.isel(lead_time=np.flatnonzero(result.valid_samples.values))
    missing = [
        f"{metric} of {name}"
        for metric in result.metric.values.tolist()
        for name in result.data_vars
        if name != "valid_samples"
        and (METRICS[metric].vector or not name.endswith("wind_vector"))
        # A climatology has no anomaly, hence no correlation.
        and (system, metric) != ("climatology", "acc")
        and bool(scored[name].sel(metric=metric).isnull().any())
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        logger.warning(
            "%s: %s%s cannot be given at some leads, levels or regions: the forecast, truth or climatology has missing "
            "values there.",
            system,
            ", ".join(missing[:3]),
            more,
        )


@dataclass(frozen=True)
class _Stores:
    """Stores on one grid and on the forecast's levels, and the fields they share, wind pairs together."""

    forecast: xr.Dataset
    truth: xr.Dataset
    climatology: xr.Dataset | None
    groups: list[tuple[str, ...]]


@dataclass(frozen=True)
class _Samples:
    """Where the truth of each forecast lies.

    Attributes:
        position: of the valid time in the truth store, or of any time where not included, shape (initial time, lead).
        included: whether the truth is there, shape (initial time, lead).
        start: position of the initial time, or of any time where not started, shape (initial time,).
        started: whether the truth at the initial time is there, shape (initial time,).
    """

    position: np.ndarray
    included: np.ndarray
    start: np.ndarray
    started: np.ndarray

    def included_for(self, system: str) -> np.ndarray:
        """Return which forecasts of a system can be scored; persistence also needs the state at the initial time."""
        return self.included & self.started[:, np.newaxis] if system == "persistence" else self.included


class _Tally:
    """The averages of one system."""

    def __init__(self, metrics: Sequence[str], skipna: bool) -> None:
        self._metrics, self._skipna = list(metrics), skipna
        self._averages: dict[tuple[str, str], TimeMean] = {}

    def add(self, field: str, statistic: str, values: np.ndarray, included: np.ndarray) -> None:
        """Take in a statistic of one initial time, shape (region, lead, [level])."""
        average = self._averages.setdefault((field, statistic), TimeMean(skipna=self._skipna))
        average.add(values, included)

    def result(self, forecast: xr.Dataset, regions: Sequence[str], included: np.ndarray) -> xr.Dataset:
        """Return the metrics in the result layout."""
        averages = {key: average.result() for key, average in self._averages.items()}
        fields = dict.fromkeys(field for field, _ in averages)
        variables = {}
        for field in fields:
            shape = next(values.shape for (name, _), values in averages.items() if name == field)
            scores = np.full((len(self._metrics), *shape), np.nan)
            for i, name in enumerate(self._metrics):
                if (field, METRICS[name].statistic) in averages:
                    scores[i] = METRICS[name].finish(averages[field, METRICS[name].statistic])
            dims = ("metric", "region", "lead_time", "level")[: scores.ndim]
            variables[field] = (dims, scores)
        variables["valid_samples"] = ("lead_time", included.sum(axis=0).astype(np.int64))
        leads = forecast.prediction_timedelta.values
        coordinates = {"metric": self._metrics, "region": list(regions), "lead_time": leads.astype("timedelta64[ns]")}
        if "level" in forecast.coords:
            coordinates["level"] = forecast.level.values
        result = xr.Dataset(variables, coordinates)
        whole = (leads % np.timedelta64(1, "h") == np.timedelta64(0)).all()
        result.lead_time.encoding = {"units": "hours" if whole else "seconds", "dtype": "int64"}
        return result


def _gather(
    stores: _Stores, samples: _Samples, tallies: dict[str, _Tally], metrics: Sequence[str], mean: RegionalMean
) -> None:
    """Read everything once, in batches of initial times, and fill the tallies."""
    scalar, vector = statistics_for(metrics), statistics_for(metrics, vector=True)
    count, leads = samples.position.shape
    largest = max(stores.forecast[name].nbytes for group in stores.groups for name in group) / (count * leads)
    affordable = max(1, int(_BATCH_BYTES / largest))
    batch, span = max(1, min(count, affordable // leads)), min(leads, affordable)
    with progress("evaluate", count) as bar:
        for first in range(0, count, batch):
            members = range(first, min(first + batch, count))
            pieces: dict[tuple[str, int, str, str], list[np.ndarray]] = {}
            for lead in range(0, leads, span):
                part = slice(lead, min(lead + span, leads))
                for system, member, field, statistics in _score_part(
                    stores, samples, members, part, list(tallies), (scalar, vector), mean
                ):
                    for name, values in statistics.items():
                        pieces.setdefault((system, member, field, name), []).append(values)
            for (system, member, field, name), parts in pieces.items():
                tallies[system].add(field, name, np.concatenate(parts, axis=1), samples.included_for(system)[member])
            bar.advance(len(members))


def _score_part(
    stores: _Stores,
    samples: _Samples,
    members: range,
    leads: slice,
    systems: Sequence[str],
    names: tuple[list[str], list[str]],
    mean: RegionalMean,
) -> Iterator[tuple[str, int, str, dict[str, np.ndarray]]]:
    """Yield (system, initial time, field, statistics) for some initial times and some of their leads."""
    rows = slice(members.start, members.stop)
    position = samples.position[:, leads]
    needed = np.unique(np.concatenate([position[rows].ravel(), samples.start[rows]]))
    times = stores.truth.time.values[needed]
    at, starting = np.searchsorted(needed, position[rows]), np.searchsorted(needed, samples.start[rows])
    for group in stores.groups:
        states = {name: read_times(stores.truth[name], needed) for name in group}
        normals: dict[str, np.ndarray | None] = dict.fromkeys(group)
        if stores.climatology is not None:
            normals = {name: _climatology_at(stores.climatology[name], times) for name in group}
        if "climatology" in systems:
            # A climatology depends on the valid time alone, so it is scored once for each.
            scored = _score_group(group, normals, states, normals, names, mean)
            for k, member in enumerate(members):
                for field, statistics in scored.items():
                    yield "climatology", member, field, {key: values[:, at[k]] for key, values in statistics.items()}
        predicted = {}
        if "model" in systems:
            predicted = {
                name: stores.forecast[name].isel(time=rows, prediction_timedelta=leads).values for name in group
            }
        for k, member in enumerate(members):
            truth = {name: states[name][at[k]] for name in group}
            normal = {name: None if normals[name] is None else normals[name][at[k]] for name in group}
            guesses = {"model": {name: values[k] for name, values in predicted.items()}}
            guesses["persistence"] = {name: states[name][starting[k]][np.newaxis] for name in group}
            for system in systems:
                if system in guesses:
                    scored = _score_group(group, guesses[system], truth, normal, names, mean)
                    for field, statistics in scored.items():
                        yield system, member, field, statistics


def _score_group(
    group: tuple[str, ...],
    forecast: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    climatology: dict[str, np.ndarray | None],
    names: tuple[list[str], list[str]],
    mean: RegionalMean,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the statistics of each field of a group, and of the vector that a pair makes; `names` are of the two."""
    scalar, vector = names
    scored = {name: field_statistics(scalar, forecast[name], truth[name], climatology[name], mean) for name in group}
    if len(group) == 2 and vector:
        u, v = group
        scored[vector_name(u)] = vector_statistics(vector, (forecast[u], forecast[v]), (truth[u], truth[v]), mean)
    return scored


def _climatology_at(variable: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """Return the climatology at the hour and day of year of each time, (time, [level], latitude, longitude).

    NaN at hours it does not have, which only an initial time can be at.
    """
    index = pd.DatetimeIndex(times)
    values = np.full((len(times), *variable.shape[2:]), np.nan, variable.dtype)
    for hour in np.intersect1d(index.hour, variable.hour.values):
        position = int(np.flatnonzero(variable.hour.values == hour)[0])
        members = np.flatnonzero(index.hour == hour)
        days, inverse = np.unique(index.day_of_year[members] - 1, return_inverse=True)
        values[members] = read_times(variable.isel(hour=position), days, axis="dayofyear")[inverse]
    return values


def _samples(stores: _Stores) -> _Samples:
    """Find the truth of every forecast.

    Raises:
        InputError: there is none at all, or the climatology lacks an hour.
    """
    times = stores.truth.time.values
    initial, leads = stores.forecast.time.values, stores.forecast.prediction_timedelta.values
    valid = initial[:, np.newaxis] + leads
    present = valid_times(stores.truth)

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
    position = np.where(included, position, position[included][0])
    start = np.where(started, start, position[included][0])
    if stores.climatology is not None:
        hours = np.unique(pd.DatetimeIndex(valid[included]).hour)
        absent = sorted(set(hours.tolist()) - set(stores.climatology.hour.values.tolist()))
        if absent:
            raise InputError(
                f"climatology: hour {absent[0]} UTC is missing; it has {stores.climatology.hour.values.tolist()}. Make "
                "it from data at every hour of the valid times."
            )
    return _Samples(position, included, start, started)


def _open(forecast: str | Path, truth: str | Path, climatology: str | Path | None) -> _Stores:
    """Open the stores and see that they fit together."""
    predicted = open_store(forecast, "forecast")
    for axis, kind in (("time", "M"), ("prediction_timedelta", "m")):
        if axis not in predicted.coords or predicted[axis].dtype.kind != kind:
            raise InputError(
                f"forecast: {forecast} has no axis {axis} of {'dates' if kind == 'M' else 'lead times'}; expected the "
                "WeatherBench 2 layout, time x prediction_timedelta x [level] x latitude x longitude."
            )
    if "number" in predicted.dims:
        raise InputError("forecast: has ensemble members (number). Score one member, or their mean.")
    names = fields_of(predicted, "time", "prediction_timedelta")
    if not names or predicted.sizes["time"] == 0:
        raise InputError(f"forecast: {forecast} holds no forecast fields; its variables are {list(predicted)}.")
    observed = _fitting(open_store(truth, "truth"), predicted, names, ("time",), "truth")
    if "time" not in observed.coords or not (np.diff(observed.time.values) > np.timedelta64(0)).all():
        raise InputError("truth: time: expected ascending times without duplicates. Sort the store first.")
    normal = None
    if climatology is not None:
        normal = _fitting(
            open_store(climatology, "climatology"), predicted, names, ("hour", "dayofyear"), "climatology"
        )
        if not np.array_equal(normal.dayofyear.values, np.arange(1, 367)):
            raise InputError("climatology: dayofyear: expected 1 to 366.")
    paired = {name for name in names if name in VARIABLES and VARIABLES[name].partner in names}
    groups = wind_pairs(name for name in names if name in paired)
    groups += [(name,) for name in names if name not in paired]
    return _Stores(predicted, observed, normal, groups)


def _fitting(store: xr.Dataset, forecast: xr.Dataset, names: list[str], axes: tuple[str, ...], what: str) -> xr.Dataset:
    """Return `store` on the forecast's levels.

    Raises:
        InputError: it lacks a variable or level of the forecast, or lies on another grid.
    """
    grid, other = grid_of(forecast), grid_of(store)
    if not grid.matches(other):
        raise InputError(f"{what}: is on {other}, but the forecast on {grid}. Regrid one of them: `spherecast regrid`.")
    known = fields_of(store, *axes)
    absent = [name for name in names if name not in known]
    if absent:
        raise InputError(
            f"{what}: {', '.join(absent)} over {', '.join(axes)}, latitude, longitude is missing; it has "
            f"{', '.join(known) or 'none'}."
        )
    if "level" not in forecast.dims:
        return store
    wanted, levels = forecast.level.values.tolist(), store.level.values.tolist() if "level" in store.coords else []
    lacking = [level for level in wanted if level not in levels]
    if lacking:
        raise InputError(f"{what}: level {lacking[0]} hPa is missing; it has {levels}.")
    return store if wanted == levels else store.isel(level=[levels.index(level) for level in wanted])
