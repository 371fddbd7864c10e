"""What the metrics say: the scorecard, the curves, and the result in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.reporting.fields import Field, duration
from pipeline.scoring.table import HEADLINE_FIELDS
from transforms.errors import InputError
from transforms.metrics import METRICS

__all__ = ["LINES", "Scores", "read_scores", "verdict"]

LINES = ("model", "persistence", "climatology")
"""Lines of every chart, by the name of their metrics file."""

USEFUL_ACC = 0.6
"""Anomaly correlation above which a forecast is called useful (Hollingsworth et al. 1980)."""

_SCORECARD_DAYS = (1, 3, 5, 7, 10, 14)


@dataclass(frozen=True)
class Scores:
    """Scores of the model and of the baselines, on the model's axes.

    Attributes:
        lines: names of the model and of the baselines that have metrics, the model first.
        metrics: names of the scores that are shown.
        regions: names of the model's regions.
        fields: every field that the model is scored in.
        headline: those shown first.
        leads: lead times in hours, ascending, shape (lead,).
        values: scores by line and field, float64, shape (metric, region, lead); NaN where there is none.
        valid_samples: forecasts with a score, shape (lead,), None where the metrics do not say.
    """

    lines: list[str]
    metrics: list[str]
    regions: list[str]
    fields: list[Field]
    headline: list[Field]
    leads: np.ndarray
    values: dict[tuple[str, Field], np.ndarray]
    valid_samples: np.ndarray | None

    @property
    def region(self) -> str:
        """The region of the scorecard and the sentence: global, where it is scored."""
        return "global" if "global" in self.regions else self.regions[0]

    def curve(self, line: str, metric: str, field: Field) -> np.ndarray:
        """Return a score in `region` by lead time, float64, shape (lead,); NaN where there is none."""
        if (line, field) not in self.values or metric not in self.metrics:
            return np.full(len(self.leads), np.nan)
        return self.values[line, field][self.metrics.index(metric), self.regions.index(self.region)]

    def ratio(self, field: Field, baseline: str) -> np.ndarray:
        """Return the model's RMSE as a fraction of a baseline's, shape (lead,); NaN where either has none or is 0."""
        model, other = self.curve("model", "rmse", field), self.curve(baseline, "rmse", field)
        return np.divide(model, other, out=np.full_like(model, np.nan), where=other > 0)

    def scorecard_leads(self) -> list[int]:
        """Return the indices of the leads of the scorecard: 1, 3, 5 ... days, or the last three of a short forecast."""
        chosen = [i for i, lead in enumerate(self.leads) if lead / 24 in _SCORECARD_DAYS]
        positive = [i for i, lead in enumerate(self.leads) if lead > 0]
        return chosen or positive[-3:]

    def payload(self) -> dict[str, Any]:
        """Return all curves for the page's script: five significant digits, None where there is no score.

        ``values[line][metric][region][field]`` is a list over leads, or None where a whole curve is missing.
        """
        values = {
            line: [
                [[self._rounded(line, field, m, r) for field in self.fields] for r in range(len(self.regions))]
                for m in range(len(self.metrics))
            ]
            for line in self.lines
        }
        return {
            "leads": [float(lead) for lead in self.leads],
            "regions": self.regions,
            "region": self.regions.index(self.region),
            "metrics": self.metrics,
            "titles": [METRICS[name].title for name in self.metrics],
            "dimensionless": [METRICS[name].dimensionless for name in self.metrics],
            "fields": [
                {"id": f.identifier, "short": f.short, "label": f.label, "group": f.group, "units": f.units}
                for f in self.fields
            ],
            "lines": self.lines,
            "values": values,
        }

    def _rounded(self, line: str, field: Field, metric: int, region: int) -> list[float | None] | None:
        values = self.values.get((line, field))
        if values is None or not np.isfinite(values[metric, region]).any():
            return None
        return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values[metric, region].tolist()]


def read_scores(paths: dict[str, Path], headline: Sequence[str] = ()) -> Scores:
    """Read metrics in the WeatherBench 2 result layout.

    Args:
        paths: metrics file by line; those of the model must exist, a baseline's may be missing.
        headline: fields to show first, as ``variable`` or ``variable@level``; chosen when empty.

    Raises:
        InputError: a headline field is not among the model's scores.
    """
    model = _open(paths["model"]).sortby("lead_time")
    present = {str(name) for name in model["metric"].values}
    axes: dict[str, Any] = {
        "metric": [name for name, metric in METRICS.items() if metric.title and name in present],
        "region": [str(name) for name in model["region"].values],
        "lead_time": model["lead_time"].values,
    }
    every = _fields(model)
    known = [field for field in every if _of_field(model, field).notnull().any()] or every
    first = _headline(every if headline else known, headline)
    # A level that a variable is not forecast on has no score; one that is asked for is shown to have none.
    fields = [field for field in every if field in known or field in first]
    lines, values = [], {}
    for line in LINES:
        if line not in paths or not paths[line].is_file():
            continue
        lines.append(line)
        dataset = _open(paths[line]).reindex(axes)
        found = set(_fields(dataset))
        for field in fields:
            if field in found:
                array = _of_field(dataset, field)
                # Along an axis that another metric has of its own, ranks or quantiles, the scores that are drawn repeat.
                array = array.isel({axis: 0 for axis in array.dims if axis not in axes})
                values[line, field] = array.transpose(*axes).values.astype(np.float64)
    counts = None
    if "valid_samples" in model:
        array = model["valid_samples"]
        counts = array.min([dim for dim in array.dims if dim != "lead_time"]).values
    return Scores(lines, axes["metric"], axes["region"], fields, first, axes["lead_time"], values, counts)


def verdict(scores: Scores) -> list[str]:
    """Return the result in a few sentences, for the headline fields and the first region.

    The first is about persistence, then climatology and anomaly correlation where they can be judged.
    """
    sentences = []
    for baseline in ("persistence", "climatology"):
        sentence = _against(scores, baseline)
        if sentence:
            sentences.append(sentence)
    for field in scores.headline:
        acc = scores.curve("model", "acc", field)
        if np.isfinite(acc).any():
            sentences.append(_useful(scores, field, acc))
            break
    return sentences or ["No score could be compared with a baseline."]


def _against(scores: Scores, baseline: str) -> str | None:
    reach = {}
    for field in scores.headline:
        other = scores.curve(baseline, "rmse", field)
        judged = (scores.leads > 0) & np.isfinite(other) & (other > 0)
        if judged.any():
            # A lead at which only the model has no score (a forecast that blew up) counts against it.
            reach[field] = _reach(scores.leads[judged], scores.ratio(field, baseline)[judged] < 1)
            last = scores.leads[judged][-1]
    if not reach:
        return None
    everywhere = [field for field, (_, complete) in reach.items() if complete]
    fields = f"in all {len(reach)} headline fields" if len(reach) > 1 else f"for the {next(iter(reach)).label}"
    if len(everywhere) == len(reach):
        return f"Beats {baseline} at every lead to {duration(last)} {fields}."
    first, *others = {hours for hours, _ in reach.values()}
    if first and not others:
        return f"Beats {baseline} to {duration(first)}, but not at every lead to {duration(last)}, {fields}."
    rest = [
        f"{field.short} {f'to {duration(hours)}' if hours else 'at no lead from the first on'}"
        for field, (hours, complete) in reach.items()
        if not complete
    ]
    if everywhere:
        return (
            f"Beats {baseline} at every lead to {duration(last)} in {len(everywhere)} of {len(reach)} headline fields; "
            f"in the others: {', '.join(rest)}."
        )
    if not any(hours for hours, _ in reach.values()):
        return f"Does not beat {baseline} at the first lead in any headline field."
    return f"Beats {baseline} for a while only: {', '.join(rest)}."


def _useful(scores: Scores, field: Field, acc: np.ndarray) -> str:
    judged = (scores.leads > 0) & np.isfinite(acc)
    hours, complete = _reach(scores.leads[judged], acc[judged] > USEFUL_ACC)
    if not hours:
        return f"{field.short} has no useful skill (ACC above {USEFUL_ACC:g}) at the first lead."
    end = ", the longest lead scored" if complete else ""
    return f"{field.short} is useful (ACC above {USEFUL_ACC:g}) to {duration(hours)}{end}."


def _reach(leads: np.ndarray, good: np.ndarray) -> tuple[float, bool]:
    """Return the last lead up to which all is good (0 for none), and whether that is the last lead."""
    count = len(good) if good.all() else int(np.argmin(good))
    return (float(leads[count - 1]) if count else 0.0), count == len(good)


def _fields(dataset: xr.Dataset) -> list[Field]:
    found = []
    for name, array in dataset.data_vars.items():
        if "metric" not in array.dims:
            continue
        if "level" in array.dims:
            found += [Field(str(name), int(level)) for level in array["level"].values]
        else:
            found.append(Field(str(name)))
    return found


def _of_field(dataset: xr.Dataset, field: Field) -> xr.DataArray:
    array = dataset[field.variable]
    return array if field.level is None else array.sel(level=field.level)


def _headline(fields: list[Field], wanted: Sequence[str]) -> list[Field]:
    by_name = {field.identifier: field for field in fields}
    for name in wanted:
        if name not in by_name:
            raise InputError(
                f"report.headline: {name!r} has no scores; there are {', '.join(by_name)}. Name one of them."
            )
    if wanted:
        return [by_name[name] for name in dict.fromkeys(wanted)]
    return [by_name[name] for name in HEADLINE_FIELDS if name in by_name] or fields[:6]


def _open(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as dataset:
        return dataset.assign_coords(lead_time=dataset["lead_time"].values / np.timedelta64(1, "h")).load()
