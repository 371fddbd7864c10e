"""The scorecard: fields by lead times, coloured by the error beside that of a baseline of the reader's choice.

The first choice is written here, so that it can be read without scripts; others are filled in by ``scorecard.js``.
"""

from __future__ import annotations

import numpy as np

from pipeline.reporting.elements import Section, empty, scroll, select, short_duration
from pipeline.reporting.fields import Field, duration
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.pairs import FEW_BLOCKS, Pair, pairs
from pipeline.reporting.payload import scores_payload
from pipeline.reporting.scores import BASELINES, Scores

__all__ = ["scorecard_section"]

# Upper bounds of the difference in per cent and what the colour says; the last is open. Between a forecast and another
# forecast differences are small; beside a baseline they are large.
_COARSE = (-60, -40, -20, 0, 20, 40, 60)
_FINE = (-10, -5, -2, 0, 2, 5, 10)
_COLOURS = ("g4", "g3", "g2", "g1", "b1", "b2", "b3", "b4")


def scorecard_section(scores: Scores | None) -> Section:
    """Return the scorecard, and all scores as data of the page."""
    if scores is None:
        return Section("scorecard", "Scorecard", "Scorecard", empty("There are no scores."))
    judged = pairs(scores)
    data = {"scores": scores_payload(scores, judged)}
    return Section("scorecard", "Scorecard", "Scorecard", _content(scores, judged), data)


def _content(scores: Scores, judged: list[Pair]) -> Html:
    leads = scores.scorecard_leads()
    others = [name for name in BASELINES if name in scores.names]
    others += [name for name in scores.names if name not in others and name != scores.forecasts[0]]
    if not leads or not others or "rmse" not in scores.metrics:
        missing = "no lead time" if not leads else "nothing" if others else "neither persistence nor climatology"
        return empty(f"The metrics hold {missing} to compare with.")
    forecast, other = scores.forecasts[0], others[0]
    pair = next(pair for pair in judged if (pair.forecast, pair.other) == (forecast, other))
    edges = _COARSE if other in BASELINES else _FINE
    head = [tag("th", "Field", scope="col", class_="field")]
    head += [tag("th", short_duration(scores.leads[i]), scope="col") for i in leads]
    rows = [
        tag(
            "tr",
            tag("th", tag("b", field.short), tag("span", field.label), scope="row"),
            *(_cell(scores, field, pair, i, k, edges) for k, i in enumerate(leads)),
        )
        for field in scores.headline
    ]
    caption = f"RMSE of {forecast}, difference from {other} in per cent, region {scores.region}"
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        tag("tbody", *rows),
        class_="scorecard",
        id="scorecard-table",
    )
    about = (
        "Blue and below zero is better, orange is worse. ▲ marks a gain and ▼ a loss whose 95 % interval, from a paired "
        "block bootstrap over initial times, does not hold zero. Point at a cell, or go through the cells with the arrow "
        "keys, for the scores themselves."
    )
    choices = [
        select("Forecast", "card-forecast", scores.forecasts) if len(scores.forecasts) > 1 else None,
        select("Compared with", "card-other", others),
        select("Region", "card-region", scores.regions),
        select("Fields", "card-fields", ["headline", "all"]) if len(scores.fields) > len(scores.headline) else None,
    ]
    return join(
        tag("p", about, class_="note"),
        tag("div", *choices, class_="controls scripted"),
        tag("div", scroll(table, "Table of the scorecard"), class_="card-holder"),
        tag("p", _without(scores, pair), class_="note", id="card-without", aria_live="polite"),
        _key(edges),
    )


def _cell(scores: Scores, field: Field, pair: Pair, lead: int, position: int, edges: tuple[int, ...]) -> Html:
    value = scores.ratio(field, pair.other, pair.forecast)[lead]
    if not np.isfinite(value):
        return tag("td", "–", class_="none", aria_label="no score")
    change = 100 * (value - 1)
    own, other = (scores.curve(line, "rmse", field)[lead] for line in (pair.forecast, pair.other))
    at = scores.regions.index(scores.region), scores.fields.index(field), position
    low, high = pair.lower[at], pair.upper[at]
    mark = "▲" if low > 0 else "▼" if high < 0 else ""
    title = (
        f"{field.short} at {duration(scores.leads[lead])}: {pair.forecast} {own:.4g}, {pair.other} {other:.4g} {field.units}"
    ).strip()
    if np.isfinite(low):
        title += f"; skill of MSE {100 * low:.0f} to {100 * high:.0f} %, {'' if mark else 'not '}significant"
    colour = _COLOURS[int(np.searchsorted(edges, change, side="right"))]
    return tag("td", percent(change), tag("i", mark) if mark else None, class_=colour, title=title.replace("-", "−"))


def percent(change: float) -> str:
    """Return a difference in per cent as the scorecard shows it, with a sign."""
    text = f"{abs(change):.0f}" if abs(change) >= 9.95 else f"{abs(change):.1f}"
    return text if float(text) == 0 else f"{'−' if change < 0 else '+'}{text}"


def _without(scores: Scores, pair: Pair) -> str:
    """Return why some or all cells of the first choice have no mark, as ``scorecard.js`` does for others."""
    if pair.without:
        return f"No marks: {pair.without}."
    leads, region = scores.scorecard_leads(), scores.regions.index(scores.region)
    shown = np.stack([np.isfinite(scores.ratio(field, pair.other, pair.forecast)[leads]) for field in scores.headline])
    judged = np.isfinite(pair.lower[region, [scores.fields.index(field) for field in scores.headline]])
    lacking = int((shown & ~judged).sum())
    return f"No marks in {lacking} of {shown.sum()} cells: {FEW_BLOCKS}." if lacking else ""


def _key(edges: tuple[int, ...]) -> Html:
    bounds = [None, *edges, None]
    keys = [
        tag("li", tag("i", class_=colour, aria_hidden="true"), tag("span", _bin(bounds[i], bounds[i + 1])))
        for i, colour in enumerate(_COLOURS)
    ]
    return tag("ul", *keys, class_="key", id="card-key", aria_label="Colours of the scorecard, per cent")


def _bin(low: int | None, high: int | None) -> str:
    if low is None:
        return f"below {_signed(high)} %"
    return f"above {_signed(low)} %" if high is None else f"{_signed(low)} to {_signed(high)}"


def _signed(value: int | None) -> str:
    return "0" if not value else f"{'−' if value < 0 else '+'}{abs(value)}"
