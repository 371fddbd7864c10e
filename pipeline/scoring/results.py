"""Scores as datasets and files in WeatherBench 2's result layout.

A variable of the result is a field, with the axes (metric, region, lead_time, [level]), float64; maps have latitude and
longitude instead of region, single forecasts ``init_time`` (by valid time, ``time``) before lead_time. Where a metric has
an axis of its own, ``quantile`` or ``bins``, all have it, as in WeatherBench 2, and the others repeat along it.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import xarray as xr

from pipeline.scoring.bands import COUNT, STATISTIC, banded_metrics
from pipeline.scoring.blocks import Portion, Scorer
from pipeline.scoring.tally import Tally
from pipeline.stores.axes import HORIZONTAL, in_order
from transforms.bootstrap import interval, skill_score
from transforms.forecast_statistics import has_vector, own_axis
from transforms.metrics import METRICS
from transforms.timeaxis import as_slice

__all__ = ["SAMPLES", "blocks_of", "result_of", "skill_name", "warn_of_missing_scores", "warn_of_missing_truth"]

logger = logging.getLogger(__name__)

SAMPLES = "valid_samples"
"""Variable of the number of forecasts with a truth, by lead time."""

_SKILL = {"squared_error": "mse", "crps": "crps"}
_OWN = ("quantile", "bins")
"""Axes that a metric may have of its own."""


def skill_name(statistic: str, baseline: str) -> str:
    """Return the name of the metric, e.g. ``mse_skill_score_vs_persistence``; it may be followed by ``_lower`` ..."""
    return f"{_SKILL[statistic]}_skill_score_vs_{baseline}"


def result_of(scorer: Scorer, system: str, tally: Tally, portion: Portion) -> xr.Dataset:
    """Return the scores of a system in a portion of the work.

    Returns:
        One variable for each field, and `SAMPLES`, the number of forecasts with a truth, (lead_time), or for single
        forecasts (init_time, lead_time).
    """
    parts = _Parts(scorer, tally, portion)
    found = {field: parts.scores(system, field) for field in scorer.stores.fields(portion.groups)}
    metrics = list(dict.fromkeys(name for scores in found.values() for name in scores))
    nothing = xr.DataArray(np.nan)
    variables: dict[str, Any] = {}
    for field, scores in found.items():
        if scores:
            alike = xr.broadcast(*(scores.get(name, nothing) for name in metrics))
            joined = xr.concat(alike, dim="metric")
            shared, own = (
                in_order(axis for axis in joined.dims if axis not in _OWN),
                [axis for axis in _OWN if axis in joined.dims],
            )
            variables[field] = joined.transpose(*shared, *own).variable
    variables[SAMPLES] = parts.samples(system)
    result = xr.Dataset(variables, {"metric": np.array(metrics, dtype=object)})
    result = result.assign_coords({axis: values for axis, values in parts.coordinates().items() if axis in result.dims})
    whole = (result.lead_time.values % np.timedelta64(1, "h") == np.timedelta64(0)).all()
    result.lead_time.encoding = {"units": "hours" if whole else "seconds", "dtype": "int64"}
    return result


def blocks_of(scorer: Scorer, system: str, tally: Tally, portion: Portion) -> xr.Dataset | None:
    """Return the sums of squared errors over blocks of initial times, None where the request asks for no bands.

    Returns:
        For each field its sums, and with `COUNT` after its name how many forecasts entered, (block, region, lead_time,
        [level]); ``included``, whether a forecast had a truth, (time, lead_time), int8.
    """
    if not scorer.request.bands:
        return None
    parts = _Parts(scorer, tally, portion)
    variables: dict[str, Any] = {}
    for (of, name, statistic), sums in tally.blocks_over_leads().items():
        if of == system and statistic == STATISTIC:
            dims = ("block", "region", "lead_time", "level")[: sums.total.ndim]
            count = np.broadcast_to(sums.count, sums.total.shape)
            variables |= {name: (dims, sums.total), f"{name}{COUNT}": (dims, count.astype(np.int32))}
    included = scorer.stores.samples.included_for(system)[:, as_slice(np.array(portion.leads))]
    variables["included"] = (("time", "lead_time"), included.astype(np.int8))
    coordinates = parts.coordinates() | {"time": scorer.stores.model.time.values}
    blocks = xr.Dataset(variables, attrs={"block_hours": scorer.request.bootstrap.block_hours})
    return blocks.assign_coords({axis: values for axis, values in coordinates.items() if axis in blocks.dims})


class _Parts:
    """Scores taken from a tally, as arrays with named axes."""

    def __init__(self, scorer: Scorer, tally: Tally, portion: Portion) -> None:
        self.request, self.stores = scorer.request, scorer.stores
        self._averages, self._pairs, self._blocks = (
            tally.over_leads(),
            tally.pairs_over_leads(),
            tally.blocks_over_leads(),
        )
        self._leads, self._times = as_slice(np.array(portion.leads)), as_slice(np.array(portion.times))
        self._numbers = portion.times
        self._time = "time" if self.request.by_valid else "init_time"

    def scores(self, system: str, field: str) -> dict[str, xr.DataArray]:
        """Return the scores of a field by metric, those it has."""
        found = {}
        for name in self.request.metrics:
            keys = [(system, field, statistic) for statistic in METRICS[name].statistics]
            if self.request.average == "temporal":
                each = [self._finished(name, keys, time) for time in self._numbers]
                have = [values for values in each if values is not None]
                if len(have) == len(each):
                    found[name] = self._named(np.stack(have, axis=1), own_axis(name))
            elif (values := self._finished(name, keys, -1)) is not None:
                found[name] = self._named(values, own_axis(name))
        for name in banded_metrics(self.request):
            found |= self._band(system, name, field) if name in found else {}
        for baseline in self.request.against:
            if baseline != system:
                found |= self._skill(system, baseline, field)
        return found

    def samples(self, system: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Return how many forecasts have a truth."""
        included = self.stores.samples.included_for(system)[:, self._leads]
        if self.request.average == "temporal":
            return (self._time, "lead_time"), included[self._times].astype(np.int64)
        return ("lead_time",), included.sum(axis=0).astype(np.int64)

    def coordinates(self) -> dict[str, np.ndarray]:
        """Return the values of every axis that a result may have."""
        model, request = self.stores.model, self.request
        return {
            "region": np.array(request.regions, dtype=object),
            self._time: model.time.values[self._times],
            "lead_time": model.prediction_timedelta.values[self._leads].astype("timedelta64[ns]"),
            **{axis: model[axis].values for axis in ("level", *HORIZONTAL) if axis in model.coords},
            "quantile": np.array(request.quantiles),
        }

    def _finished(self, name: str, keys: list[tuple[str, str, str]], time: int) -> np.ndarray | None:
        averages = [self._averages[*key, time] for key in keys if (*key, time) in self._averages]
        if len(averages) < len(keys):
            return None
        if METRICS[name].counts:
            return np.broadcast_to(averages[0].count, averages[0].total.shape).astype(np.float64)
        return METRICS[name].finish(*(average.result() for average in averages))

    def _band(self, system: str, name: str, field: str) -> dict[str, xr.DataArray]:
        """Return the ends of a score's interval by name."""
        sums = [self._blocks[system, field, statistic] for statistic in METRICS[name].statistics]
        options = self.request.bootstrap
        ends = interval(
            [each.total for each in sums],
            [each.count for each in sums],
            METRICS[name].finish,
            resamples=options.resamples,
            confidence=options.confidence,
            seed=options.seed,
        )
        return {f"{name}_{end}": self._named(values) for end, values in zip(("lower", "upper"), ends, strict=True)}

    def _skill(self, system: str, baseline: str, field: str) -> dict[str, xr.DataArray]:
        """Return the skill of a field against a baseline by name: of maps alone, else with its interval."""
        found = {}
        for statistic in _SKILL:
            name = skill_name(statistic, baseline)
            sums = self._pairs.get((system, baseline, field, statistic))
            if sums is not None:
                options = self.request.bootstrap
                skill = skill_score(sums, resamples=options.resamples, confidence=options.confidence, seed=options.seed)
                found[name] = self._named(skill.score)
                for end in ("lower", "upper", "significant"):
                    found[f"{name}_{end}"] = self._named(getattr(skill, end))
            elif self.request.average == "spatial" and (system, field, statistic, -1) in self._averages:
                own, other = (self._averages[each, field, statistic, -1].result() for each in (system, baseline))
                with np.errstate(invalid="ignore", divide="ignore"):
                    found[name] = self._named(1 - own / other)
        return found

    def _named(self, values: np.ndarray, own: str | None = None) -> xr.DataArray:
        """Name the axes of (region, [time], lead, [level], [own]) or (1, lead, [level], latitude, longitude, [own])."""
        before = ["region", *([self._time] if self.request.average == "temporal" else []), "lead_time"]
        after = [own] if own else []
        if self.request.average == "spatial":
            values, before, after = values[0], ["lead_time"], [*HORIZONTAL, *after]
        level = ["level"] * (values.ndim - len(before) - len(after))
        return xr.DataArray(values, dims=[*before, *level, *after])


def warn_of_missing_truth(system: str, included: np.ndarray) -> int:
    """Say how many forecasts have no truth; return their number."""
    missing = int((~included).sum())
    if missing:
        logger.warning(
            "%s: %d of %d forecasts have no truth at their valid time and are left out; %s counts the rest for each lead "
            "time.",
            system,
            missing,
            included.size,
            SAMPLES,
        )
    return missing


def warn_of_missing_scores(system: str, result: xr.Dataset) -> None:
    """Say which scores are NaN although there were forecasts with a truth."""
    counts = result[SAMPLES]
    scored = result.isel(lead_time=np.flatnonzero(counts.values)) if counts.ndim == 1 else result
    missing = [
        f"{metric} of {name}"
        for metric in result.metric.values.tolist()
        for name in result.data_vars
        if name != SAMPLES
        and metric in METRICS
        and (has_vector(metric) or not str(name).endswith("wind_vector"))
        and METRICS[metric].variable in (None, name)
        # A climatology has no anomaly, hence no correlation.
        and (system != "climatology" or not METRICS[metric].needs)
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
