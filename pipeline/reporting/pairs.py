"""Whether one line is better than another, or the difference may be chance: intervals of skill, line against line.

A run's own file says how its forecast does against its baselines. Between other results the sums of squared errors over
blocks of initial times are resampled in pairs (`transforms.bootstrap`), which needs the same forecasts in both.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.reporting.fields import Field
from pipeline.reporting.lines import Line
from pipeline.reporting.scores import Scores
from pipeline.scoring.bands import COUNT
from transforms.bootstrap import FEWEST_BLOCKS, skill_score

__all__ = ["FEW_BLOCKS", "Pair", "pairs"]

_MOST_CELLS = 300_000
"""Cells of all pairs together, above which only headline fields in the scorecard's region are judged."""

FEW_BLOCKS = f"fewer than {FEWEST_BLOCKS} blocks of forecasts are scored in both"
"""Why a cell has no interval where its pair has some."""

_Sums = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Skill 1 - MSE / MSE of the other, at the leads of the scorecard.

    Attributes:
        forecast, other: names of the lines.
        lower, upper: ends of its 95 % interval, float64, shape (region, field, lead), NaN where there is none.
        without: why there is none, empty where there is.
        limited: why only a part of the scorecard is judged, empty where all of it is.
    """

    forecast: str
    other: str
    lower: np.ndarray
    upper: np.ndarray
    without: str = ""
    limited: str = ""


def pairs(scores: Scores) -> list[Pair]:
    """Return the intervals of every forecast against every other line."""
    leads = scores.leads[scores.scorecard_leads()]
    others = len(scores.lines) - 1
    cells = len(scores.forecasts) * others * len(scores.regions) * len(scores.fields) * len(leads)
    narrow = cells > _MOST_CELLS
    limited = f"of so many results only the headline fields in region {scores.region} are judged" if narrow else ""
    fields = scores.headline if narrow else scores.fields
    regions = [scores.region] if narrow else scores.regions
    shape = (len(scores.regions), len(scores.fields), len(leads))
    found = []
    # Each line is in many pairs: its sums are cut out of its file once.
    sums = functools.cache(lambda number, field: _sums(scores.lines[number].blocks, field, regions, leads))
    number = {line.name: i for i, line in enumerate(scores.lines)}
    for line in (line for line in scores.lines if line.kind == "forecast"):
        for other in (other for other in scores.lines if other is not line):
            ends = np.full((2, *shape), np.nan)
            why = _without(line, other)
            for field in fields if not why else ():
                at = scores.fields.index(field)
                rows = [scores.regions.index(name) for name in regions]
                if _own(line, other):
                    names = [f"mse_skill_score_vs_{other.name}_{end}" for end in ("lower", "upper")]
                    ends[:, rows, at] = line.scores(field, names, regions, leads)
                else:
                    ends[:, rows, at] = _interval(*(sums(number[each.name], field) for each in (line, other)))
            if not why and np.isnan(ends).all():
                why = FEW_BLOCKS
            found.append(Pair(line.name, other.name, ends[0], ends[1], why, limited))
    return found


def _own(line: Line, other: Line) -> bool:
    """Whether the file of a forecast has the skill against this baseline."""
    same = line.path.parent == other.path.parent and other.kind == "baseline"
    return same and f"mse_skill_score_vs_{other.name}_lower" in line.metrics


def _without(line: Line, other: Line) -> str:
    """Return why a pair has no interval, an empty text where it has."""
    if _own(line, other):
        return ""
    for each in (line, other):
        if each.blocks is None:
            return f"{each.name} was scored without sums of blocks (`spherecast score --bands`)"
    one, two = line.blocks, other.blocks
    assert one is not None
    assert two is not None
    if not one["time"].equals(two["time"]) or one.attrs["block_hours"] != two.attrs["block_hours"]:
        return f"{line.name} and {other.name} are scored on different forecasts' times"
    if one.sizes["block"] < FEWEST_BLOCKS:
        return f"there are only {one.sizes['block']} blocks of forecasts, and {FEWEST_BLOCKS} are needed"
    return ""


def _interval(one: _Sums | None, two: _Sums | None) -> np.ndarray | float:
    """Return lower and upper end of the skill of one against the other, shape (2, region, lead); NaN without sums."""
    if one is None or two is None:
        return np.nan
    skill = skill_score(np.stack([one[0], two[0]], axis=1))
    # Averages over different forecasts do not make a pair.
    alike = (one[1] == two[1]).all(axis=0)
    return np.where(alike, np.stack([skill.lower, skill.upper]), np.nan)


def _sums(blocks: xr.Dataset | None, field: Field, regions: list[str], leads: np.ndarray) -> _Sums | None:
    """Return sums and counts of a field, shape (block, region, lead)."""
    if blocks is None or field.variable not in blocks:
        return None
    hours = np.round(leads * 3600).astype("timedelta64[s]").astype("timedelta64[ns]")
    found = []
    for name in (field.variable, f"{field.variable}{COUNT}"):
        array = blocks[name]
        if field.level is not None:
            if "level" not in array.dims or field.level not in array["level"].values:
                return None
            array = array.sel(level=field.level)
        array = array.astype(np.float64).reindex(region=regions, lead_time=hours)
        found.append(array.transpose("block", "region", "lead_time").values)
    return found[0], found[1]
