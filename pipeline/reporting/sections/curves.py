"""The curves: scores against lead time, drawn by the page's script."""

from __future__ import annotations

from pipeline.reporting.elements import Section, empty, select
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.scores import Scores
from transforms.metrics import METRICS

__all__ = ["curves_section"]

_ABOUT = (
    "Score against lead time. A dashed rule marks an anomaly correlation of 0.6, above which a forecast is called "
    "useful. Point at a chart, or focus it and use the arrow keys, to read it."
)


def curves_section(scores: Scores) -> Section:
    """Return charts of the headline fields and one of any field; all scores travel as data."""
    data = {"scores": scores.payload() | {"headline": [scores.fields.index(field) for field in scores.headline]}}
    return Section("curves", "Curves", "Error and skill against lead time", _content(scores), data)


def _content(scores: Scores) -> Html:
    cards = [
        tag(
            "section",
            tag("h3", field.short, tag("span", field.label)),
            tag("div", class_="plots"),
            class_="card curve",
            data_field=scores.fields.index(field),
            aria_label=field.label,
        )
        for field in scores.headline
    ]
    legend = tag(
        "ul",
        *(tag("li", tag("i", class_=f"line {line}", aria_hidden="true"), line) for line in scores.lines),
        class_="legend",
        aria_label="Lines",
    )
    controls = tag("div", select("Region", "region", scores.regions), legend, class_="controls scripted")
    explorer = tag(
        "section",
        tag("h3", "Any field", tag("span", "every variable, level, region and score")),
        tag(
            "div",
            select("Field", "any-field", _field_options(scores)),
            select("Score", "any-metric", [METRICS[name].title or name for name in scores.metrics]),
            select("Region", "any-region", scores.regions),
            class_="controls",
        ),
        tag("div", class_="plots"),
        class_="card explorer scripted",
        id="explorer",
    )
    without = tag("noscript", empty("The curves are drawn by the page's own script, which is switched off."))
    return join(tag("p", _ABOUT, class_="note"), without, controls, tag("div", *cards, class_="cards"), explorer)


def _field_options(scores: Scores) -> list[Html]:
    groups: dict[str, list[Html]] = {}
    for i, field in enumerate(scores.fields):
        groups.setdefault(field.group, []).append(tag("option", field.label, value=i))
    return [tag("optgroup", *options, label=group) for group, options in groups.items()]
