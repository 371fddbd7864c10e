"""What the metrics say: scores of all lines on the axes they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.reporting.fields import Field, duration
from pipeline.reporting.lines import Line, read_line
from pipeline.scoring.table import HEADLINE_FIELDS
from transforms.errors import InputError
from transforms.metrics import METRICS

__all__ = ["BASELINES", "LINES", "MODEL", "Scores", "compare", "read_scores"]

MODEL = "model"
"""Name of the forecast of a page on one run."""

BASELINES = ("persistence", "climatology")

LINES = (MODEL, *BASELINES)
"""Results of a run, by the name of their metrics file."""

_SCORECARD_DAYS = (0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14)


@dataclass(frozen=True)
class Scores:
    """Scores of forecasts and of what they are compared with, on the axes that the forecasts have in common.

    Attributes:
        lines: forecasts first, then baselines, then other results.
        metrics: names of the scores that are shown.
        regions: names of the regions.
        fields: every field that a forecast is scored in.
        headline: those shown first.
        leads: lead times in hours, ascending, shape (lead,).
        values: scores by line name and field, float64, shape (metric, region, lead); NaN where there is none.
        bands: ends of their intervals, float64, shape (2, metric, region, lead), of the fields that have any.
        valid_samples: forecasts of the first line with a score, shape (lead,), None where its file does not say.
        left_out: sentences on what lines do not share.
    """

    lines: list[Line]
    metrics: list[str]
    regions: list[str]
    fields: list[Field]
    headline: list[Field]
    leads: np.ndarray
    values: dict[tuple[str, Field], np.ndarray]
    bands: dict[tuple[str, Field], np.ndarray]
    valid_samples: np.ndarray | None
    left_out: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of all lines."""
        return [line.name for line in self.lines]

    @property
    def forecasts(self) -> list[str]:
        """Names of the runs' forecasts; the first is the page's own."""
        return [line.name for line in self.lines if line.kind == "forecast"]

    @property
    def region(self) -> str:
        """The region of the scorecard and the sentence: global, where it is scored."""
        return "global" if "global" in self.regions else self.regions[0]

    def curve(self, line: str, metric: str, field: Field) -> np.ndarray:
        """Return a score in `region` by lead time, float64, shape (lead,); NaN where there is none."""
        if (line, field) not in self.values or metric not in self.metrics:
            return np.full(len(self.leads), np.nan)
        return self.values[line, field][self.metrics.index(metric), self.regions.index(self.region)]

    def ratio(self, field: Field, baseline: str, forecast: str | None = None) -> np.ndarray:
        """Return a forecast's RMSE, the first's by default, over that of another line, shape (lead,).

        NaN where either has none or the other's is 0.
        """
        model, other = (self.curve(line, "rmse", field) for line in (forecast or self.forecasts[0], baseline))
        return np.divide(model, other, out=np.full_like(model, np.nan), where=other > 0)

    def scorecard_leads(self) -> list[int]:
        """Return the indices of the leads of the scorecard: half a day, 1, 2 ... days, or the last three of a short forecast."""
        chosen = [i for i, lead in enumerate(self.leads) if lead / 24 in _SCORECARD_DAYS]
        positive = [i for i, lead in enumerate(self.leads) if lead > 0]
        return chosen or positive[-3:]


def read_scores(paths: dict[str, Path], headline: Sequence[str] = ()) -> Scores:
    """Read the metrics of one run.

    Args:
        paths: metrics file by line; those of the model must exist, a baseline's may be missing.
        headline: fields to show first, as ``variable`` or ``variable@level``; chosen when empty.

    Raises:
        InputError: a headline field is not among the model's scores, or the model has no metrics.
    """
    lines = [read_line(MODEL, "forecast", paths[MODEL])]
    lines += [read_line(name, "baseline", paths[name]) for name in BASELINES if name in paths and paths[name].is_file()]
    return compare(lines, headline)


def compare(lines: Sequence[Line], headline: Sequence[str] = ()) -> Scores:
    """Put lines on the axes that the forecasts among them have in common; others lack what they do not have.

    Args:
        lines: forecasts first; at least one.
        headline: see `read_scores`.

    Raises:
        InputError: a headline field has no scores, or the forecasts have no field, region or lead time in common.
    """
    forecasts = [line for line in lines if line.kind == "forecast"]
    present = {name for line in forecasts for name in line.metrics}
    metrics = [name for name, metric in METRICS.items() if metric.title and name in present]
    regions = _common("region", [line.regions for line in forecasts])
    leads = np.array(_common("lead time", [list(line.leads) for line in forecasts]), dtype=np.float64)
    every = _common("field", [line.fields for line in forecasts])
    read = {(line.name, each): line.scores(each, metrics, regions, leads) for line in lines for each in every}
    known = [each for each in every if any(np.isfinite(read[line.name, each]).any() for line in forecasts)] or every
    first = _headline(every if headline else known, headline)
    # A level that a variable is not forecast on has no score; one that is asked for is shown to have none.
    fields = [each for each in every if each in known or each in first]
    values = {key: array for key, array in read.items() if key[1] in fields}
    return Scores(
        list(lines),
        metrics,
        regions,
        fields,
        first,
        leads,
        values,
        _bands(lines, fields, metrics, regions, leads),
        _valid_samples(forecasts[0], leads),
        _left_out(lines, fields, regions, leads),
    )


def _bands(
    lines: Sequence[Line], fields: list[Field], metrics: list[str], regions: list[str], leads: np.ndarray
) -> dict[tuple[str, Field], np.ndarray]:
    found = {}
    for line in lines:
        if not any(f"{name}_lower" in line.metrics for name in metrics):
            continue
        for each in fields:
            ends = [
                line.scores(each, [f"{name}_{end}" for name in metrics], regions, leads) for end in ("lower", "upper")
            ]
            if np.isfinite(ends[0]).any():
                found[line.name, each] = np.stack(ends)
    return found


def _valid_samples(line: Line, leads: np.ndarray) -> np.ndarray | None:
    if "valid_samples" not in line.data:
        return None
    array = line.data["valid_samples"]
    return array.min([dim for dim in array.dims if dim != "lead_time"]).sel(lead_time=leads).values


def _common(what: str, lists: list[list]) -> list:
    """Return what all lists hold, in the order of the first."""
    shared = [item for item in lists[0] if all(item in other for other in lists[1:])]
    if not shared:
        raise InputError(f"The runs have no {what} in common, so there is nothing to compare. Report them one by one.")
    return shared


def _left_out(lines: Sequence[Line], fields: list[Field], regions: list[str], leads: np.ndarray) -> list[str]:
    """Return a sentence for each thing that a forecast has beyond the others, or another line lacks."""
    sentences = []
    for line in lines:
        own = [each for each in line.fields if each not in fields] if len(lines) > 1 else []
        beyond = [lead for lead in line.leads if lead not in leads]
        if line.kind == "forecast":
            parts = []
            if beyond:
                parts.append(f"{len(beyond)} lead times to {duration(max(beyond))}")
            scored = [each.short for each in own if np.isfinite(line.scores(each, ["rmse"], regions, leads)).any()]
            if scored:
                parts.append(_some(scored))
            parts += [f"region {name}" for name in line.regions if name not in regions]
            if parts:
                sentences.append(f"{line.name} also has {', '.join(parts)}, which not every run has: not shown.")
        else:
            lacking = [each.short for each in fields if each not in line.fields]
            absent = [lead for lead in leads if lead not in line.leads]
            parts = [_some(lacking)] if lacking else []
            parts += [f"{len(absent)} of {len(leads)} lead times"] if absent else []
            parts += [f"region {name}" for name in regions if name not in line.regions]
            if parts:
                sentences.append(f"{line.name} has no scores of {', '.join(parts)}.")
    return sentences


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more fields" if len(names) > most else "")


def _headline(fields: list[Field], wanted: Sequence[str]) -> list[Field]:
    by_name = {each.identifier: each for each in fields}
    for name in wanted:
        if name not in by_name:
            raise InputError(
                f"report.headline: {name!r} has no scores; there are {', '.join(by_name)}. Name one of them."
            )
    if wanted:
        return [by_name[name] for name in dict.fromkeys(wanted)]
    return [by_name[name] for name in HEADLINE_FIELDS if name in by_name] or fields[:6]
