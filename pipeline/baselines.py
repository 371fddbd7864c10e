"""Forecasts that a model has to beat, written as forecast stores: persistence, climatology and damped anomaly.

Persistence is the state at the initial time. Climatology is the climatology at the valid time. The damped anomaly is the
climatology at the valid time and, on top, the anomaly of the initial state from the climatology at its own time, times its
lag correlation rho, which is estimated for every variable, level and lead from the anomalies of a training period
(`transforms.lag_correlation`) and kept within 0 and 1. Of all factors that are the same everywhere it has the least
square error, where the variance of anomalies is steady.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, digest, publishing, read_description, store_identity
from pipeline.climatologies.normals import Normals
from pipeline.forecasting.writing import ForecastStore, GroupWriting, forecast_content, lay_out
from pipeline.jobs.progress import progress
from pipeline.objects import Objects
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import description_of, fields_of, open_store, period_of, read_times, valid_times
from transforms.errors import InputError
from transforms.lag_correlation import LagCorrelation
from transforms.selections import Selection
from transforms.timeaxis import require_ascending
from transforms.variables import known

__all__ = ["BASELINES", "baseline_store"]

logger = logging.getLogger(__name__)

BASELINES = ("persistence", "climatology", "damped-anomaly")
_WRITERS = 4
_COPIES = 4
"""States held at once for each one that is counted: as read, its climatology, their difference, in double precision."""


def baseline_store(
    kind: str,
    truth: str | Path,
    target: str | Path,
    *,
    initial_times: Selection,
    leads: Selection,
    climatology: str | Path | None = None,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    train_period: Selection | None = None,
    memory_mb: int = 1024,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write a baseline in the layout of forecasts; what an earlier call left unfinished is gone on with.

    Valid times may lie beyond the end of the truth, of which initial states and perhaps the training period are read.

    Args:
        kind: of `BASELINES`.
        truth: store of fields over time; its valid times are those that can be started from.
        target: path or fsspec address; what is there is replaced at the end.
        leads: a range without a step has that of the truth.
        climatology: store of the same fields by hour and day of year; persistence needs none.
        variables, levels: those that are written; all by default.
        train_period: times from which rho is estimated; by default the climatology's, where it names them, or all.
        memory_mb: bound on the fields in memory, about.

    Raises:
        InputError: unknown names, no such initial time, stores that do not fit together, a lead without training pairs.
    """
    _check(kind, climatology)
    dataset = open_store(truth, "truth")
    require_ascending(dataset.time.values)
    fields = {name: _on_levels(dataset[name], levels) for name in _names(dataset, variables)}
    names, chosen = list(fields), _levels_of(fields)
    times, grid = dataset.time.values, grid_of(dataset)
    usable, spans = np.flatnonzero(valid_times(dataset)), _spans(leads, times)
    starts = usable[initial_times.positions(times[usable])]
    job_of = [kind, store_identity(truth), times[starts].tolist(), spans.tolist(), names, chosen]
    normals, rho = None, None
    if climatology is not None and kind != "persistence":
        normals = Normals(climatology, names, chosen, grid)
        normals.check((times[starts][:, None] + spans).ravel())
        job_of.append(store_identity(climatology))
    if climatology is not None and normals is not None and kind == "damped-anomaly":
        trained = _training_positions(times, usable, climatology, train_period)
        normals.check(times[np.concatenate([starts, trained])])
        job_of.append(times[trained].tolist())
        rho = _lag_correlations(fields, trained, normals, spans, grid.latitude_weights(), memory_mb * 1e6)
    job = digest(job_of)
    description = describe(
        "forecast", fingerprint, inputs, job=job, **_facts(kind, dataset, times[starts], chosen, rho)
    )
    content = _content(dataset, names, times[starts], spans, chosen, description)
    with publishing(target, keep_partial=True) as partial:
        store = lay_out(content, job, Objects(str(partial)))
        _Baseline(kind, fields, normals, rho, times, starts, spans, store).run(memory_mb * 1e6, resumed=store.start())
    logger.info("%s: %d initial times, %d leads of %s", target, len(starts), len(spans), ", ".join(names))


def _check(kind: str, climatology: str | Path | None) -> None:
    if kind not in BASELINES:
        raise InputError(f"baseline {kind!r}: expected one of {', '.join(BASELINES)}.")
    if kind != "persistence" and climatology is None:
        raise InputError(f"{kind}: needs a climatology. Make one with `spherecast climatology`, and give its path.")


def _facts(
    kind: str, dataset: xr.Dataset, initial: np.ndarray, levels: list[int], rho: dict[str, np.ndarray] | None
) -> dict[str, Any]:
    """Return what the description says of a baseline."""
    facts: dict[str, Any] = {
        "baseline": kind,
        "simulated": bool(description_of(dataset).get("simulated", False)),
        "grid": str(grid_of(dataset)),
        "levels": levels,
        "period": period_of(initial),
    }
    if rho is not None:
        facts["lag_correlation"] = {name: np.round(values, 4).tolist() for name, values in rho.items()}
    return facts


def _content(
    dataset: xr.Dataset,
    names: list[str],
    initial: np.ndarray,
    spans: np.ndarray,
    levels: list[int],
    description: dict[str, Any],
) -> xr.Dataset:
    """Return the store's axes and attributes, its forecasts without values."""
    grid = grid_of(dataset)
    axes = {"level": np.array(levels), "latitude": grid.latitude, "longitude": grid.longitude}
    attributes = {name: {k: v for k, v in dataset[name].attrs.items() if k != ATTRIBUTE} for name in names}
    return forecast_content(initial, spans, names, axes, attributes, {ATTRIBUTE: description})


def _levels_of(fields: dict[str, xr.DataArray]) -> list[int]:
    """Return the levels that fields share; none where all are surface fields."""
    found = [field.level.values for field in fields.values() if "level" in field.dims]
    return [int(level) for level in found[0]] if found else []


@dataclass(frozen=True, eq=False)
class _Baseline:
    """One baseline from all initial times, in batches."""

    kind: str
    fields: dict[str, xr.DataArray]
    normals: Normals | None
    rho: dict[str, np.ndarray] | None
    times: np.ndarray
    starts: np.ndarray
    spans: np.ndarray
    store: ForecastStore

    def run(self, memory: float, *, resumed: bool) -> None:
        """Write what is not finished."""
        state = sum(field.dtype.itemsize * field[0].size for field in self.fields.values())
        written = sum(array.value_bytes for array in self.store.arrays.values())
        batch = max(1, min(len(self.starts), int(memory / 2 / (written + 2 * state))))
        block = max(1, int(memory / 2 / state) - batch)
        rows = {row: row for row in range(len(self.spans))}
        with progress(self.kind, len(self.starts)) as bar, ThreadPoolExecutor(_WRITERS) as pool:
            for first in range(0, len(self.starts), batch):
                numbers = range(first, min(first + batch, len(self.starts)))
                places = [None if resumed and self.store.finished((n, 0)) else (n, 0) for n in numbers]
                if any(place is not None for place in places):
                    positions = self.starts[first : numbers.stop]
                    labels = [str(time) for time in self.times[positions]]
                    writing = GroupWriting(self.store, places, labels, rows, pool)
                    for row, values in self._forecasts(positions, block):
                        writing.add(row, values)
                bar.advance(len(numbers))

    def _forecasts(self, positions: np.ndarray, block: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield each lead and its fields, (initial time, [level], latitude, longitude).

        Args:
            block: leads for which the climatology is read together.
        """
        initial = self.times[positions]
        states = {}
        if self.kind != "climatology":
            states = {name: read_times(field, positions) for name, field in self.fields.items()}
        if self.kind == "persistence":
            for row in range(len(self.spans)):
                yield row, states
            return
        assert self.normals is not None
        if self.kind == "damped-anomaly":
            states = {name: values - self.normals.at(name, initial) for name, values in states.items()}
        for first in range(0, len(self.spans), block):
            valid = initial[:, None] + self.spans[first : first + block]
            distinct, index = np.unique(valid, return_inverse=True)
            usual = {name: self.normals.at(name, distinct) for name in self.fields}
            for offset, at in enumerate(index.reshape(valid.shape).T):
                values = {name: fields[at] for name, fields in usual.items()}
                if self.rho is not None:
                    for name, anomaly in states.items():
                        damping = self.rho[name][first + offset].astype(np.float32)
                        values[name] += damping.reshape(-1, 1, 1) * anomaly
                yield first + offset, values


def _lag_correlations(
    fields: dict[str, xr.DataArray],
    trained: np.ndarray,
    normals: Normals,
    spans: np.ndarray,
    weights: np.ndarray,
    memory: float,
) -> dict[str, np.ndarray]:
    """Return rho of every variable, as `_lag_correlation` does of one."""
    return {name: _lag_correlation(field, trained, normals, spans, weights, memory) for name, field in fields.items()}


def _lag_correlation(
    field: xr.DataArray, trained: np.ndarray, normals: Normals, spans: np.ndarray, weights: np.ndarray, memory: float
) -> np.ndarray:
    """Return rho of a variable within 0 and 1, (lead, level), from the times at some positions of its store."""
    name, times = str(field.name), field.time.values[trained]

    def anomalies(index: np.ndarray) -> np.ndarray:
        values = read_times(field, trained[index]) - normals.at(name, times[index])
        return values.reshape(len(index), -1, *values.shape[-2:])

    state = 8.0 * field[0].size * _COPIES
    together = max(1, int(memory / state) // 3)
    step = np.diff(times).min() if len(times) > 1 else np.timedelta64(1, "h")
    levels = field[0].size // (field.shape[-2] * field.shape[-1])
    sums = LagCorrelation(len(spans), levels, weights)
    groups = _groups(spans, together * step)
    with progress(f"lag correlation of {name}", len(groups) * len(times)) as bar:
        for lags in groups:
            for begin in range(0, len(times), together):
                first = np.arange(begin, min(begin + together, len(times)))
                wanted = times[first][:, None] + spans[lags]
                found = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
                there = times[found] == wanted
                if there.any():
                    needed = np.unique(found[there])
                    partner = np.where(there, np.searchsorted(needed, found), -1)
                    rows = np.flatnonzero(there.any(axis=1))
                    sums.add(lags, anomalies(first[rows]), anomalies(needed), partner[rows])
                bar.advance(len(first))
    if not sums.pairs.all():
        lead = spans[np.argmin(sums.pairs)] / np.timedelta64(1, "h")
        raise InputError(
            f"--train-period: holds no two times {lead:g} h apart, from which to estimate the damping at that lead. Give "
            "a longer one, or leave the lead out."
        )
    return np.clip(sums.result(), 0.0, 1.0)


def _groups(spans: np.ndarray, width: np.timedelta64) -> list[slice]:
    """Cut ascending leads into parts of at most that width."""
    groups, first = [], 0
    for last in range(1, len(spans) + 1):
        if last == len(spans) or spans[last] - spans[first] > width:
            groups.append(slice(first, last))
            first = last
    return groups


def _training_positions(
    times: np.ndarray, usable: np.ndarray, climatology: str | Path, train_period: Selection | None
) -> np.ndarray:
    if train_period is not None:
        return usable[train_period.positions(times[usable])]
    period = (read_description(climatology) or {}).get("period")
    if period is None:
        return usable
    start, end = (np.datetime64(instant) for instant in period)
    inside = usable[(times[usable] >= start) & (times[usable] <= end)]
    if not inside.size:
        raise InputError(
            f"--train-period: the truth has no time between {period[0]} and {period[1]}, which the climatology was made "
            "from. Give a period that it has."
        )
    return inside


def _names(dataset: xr.Dataset, variables: Sequence[str] | None) -> list[str]:
    has = fields_of(dataset, "time")
    unknown = [name for name in variables or () if name not in has]
    if unknown or not has:
        raise InputError(f"variable: {unknown[0] if unknown else 'none'}; the truth has {', '.join(has) or 'none'}.")
    names = list(dict.fromkeys(variables)) if variables else has
    for name in names:
        levels = "level" in dataset[name].dims
        if levels != (known(name).kind == "pressure"):
            raise InputError(
                f"{name}: has {'' if levels else 'no '}levels in the truth; expected "
                f"{'none' if levels else 'an axis level'}. Leave it out with --variable."
            )
    return names


def _on_levels(field: xr.DataArray, levels: Sequence[int] | None) -> xr.DataArray:
    if levels is None or "level" not in field.dims:
        return field
    has = field.level.values.tolist()
    lacking = [level for level in levels if level not in has]
    if lacking:
        raise InputError(f"level: {field.name} is not at {lacking[0]} hPa; the truth has {has}.")
    return field.isel(level=[i for i, level in enumerate(has) if level in levels])


def _spans(leads: Selection, times: np.ndarray) -> np.ndarray:
    step = np.diff(times).min() if len(times) > 1 else np.timedelta64(6, "h")
    return leads.values(step).astype("timedelta64[ns]")
