"""The scorecard: fields by lead times, coloured by the error beside that of a baseline."""

from __future__ import annotations

import numpy as np

from pipeline.reporting.elements import Section, empty, scroll, short_duration
from pipeline.reporting.fields import Field, duration
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.scores import Scores

__all__ = ["scorecard_section"]

# Upper bounds of the ratio and what the colour says; the last is open.
_RATIO_BINS = ((0.4, "g4"), (0.6, "g3"), (0.8, "g2"), (1.0, "g1"), (1.1, "b1"), (1.3, "b2"), (float("inf"), "b3"))


def scorecard_section(scores: Scores) -> Section:
    """Return the scorecard of the headline fields in the region of `scores`."""
    return Section("scorecard", "Scorecard", "Scorecard", _content(scores))


def _content(scores: Scores) -> Html:
    leads = scores.scorecard_leads()
    baselines = [name for name in ("persistence", "climatology") if name in scores.lines]
    if not leads or not baselines:
        missing = "no lead time" if not leads else "neither persistence nor climatology"
        return empty(f"The metrics hold {missing} to compare with.")
    top = [tag("td")] + [
        tag("th", f"Fraction of {name}", colspan=len(leads), scope="colgroup", class_="group") for name in baselines
    ]
    second = [tag("th", "Field", scope="col", class_="field")] + [
        tag("th", short_duration(scores.leads[i]), scope="col", class_="first" if i == leads[0] else None)
        for _ in baselines
        for i in leads
    ]
    rows = [
        tag(
            "tr",
            tag("th", tag("b", field.short), tag("span", field.label), scope="row"),
            *(_cell(scores, field, name, i, i == leads[0]) for name in baselines for i in leads),
        )
        for field in scores.headline
    ]
    caption = (
        f"RMSE of the model as a fraction of each baseline's, region {scores.region}. Below 1 the model is better; "
        "hold the pointer on a cell for the scores themselves."
    )
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *top), tag("tr", *second)),
        tag("tbody", *rows),
        class_="scorecard",
    )
    bounds = [0.0] + [bound for bound, _ in _RATIO_BINS[:-1]]
    keys = [
        tag("li", tag("i", class_=name, aria_hidden="true"), _bin_label(low, high))
        for low, (high, name) in zip(bounds, _RATIO_BINS, strict=True)
    ]
    key = tag("ul", *keys, class_="key", aria_label="Colours of the scorecard")
    return join(scroll(table, "Scorecard"), key)


def _cell(scores: Scores, field: Field, baseline: str, lead: int, first: bool) -> Html:
    value = scores.ratio(field, baseline)[lead]
    edge = " first" if first else ""
    if not np.isfinite(value):
        return tag("td", "–", class_=f"none{edge}", title="no score", aria_label="no score")
    model, other = (scores.curve(line, "rmse", field)[lead] for line in ("model", baseline))
    name = next(name for bound, name in _RATIO_BINS if value < bound)
    title = f"{field.short} at {duration(scores.leads[lead])}: model {model:.4g}, {baseline} {other:.4g} {field.units}"
    return tag("td", f"{value:.2f}", class_=f"{name}{edge}", title=title)


def _bin_label(low: float, high: float) -> str:
    if low == 0:
        return f"below {high:g}"
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
