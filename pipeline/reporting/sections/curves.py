"""The curves: scores against lead time, drawn by the page's script."""

from __future__ import annotations

from pipeline.reporting.elements import Section, empty, select
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.scores import Scores
from transforms.metrics import METRICS

__all__ = ["curves_section"]

_ABOUT = (
    "Score against lead time. Shaded bands are 95 % intervals from a block bootstrap over initial times. A dotted rule marks "
    "an anomaly correlation of 0.6, above which a forecast is called useful. Point at a chart, or focus it and use the arrow "
    "keys, to read it; below each figure are its numbers, to copy or download."
)


def curves_section(scores: Scores | None) -> Section:
    """Return charts of the headline fields and one of any field; the scores travel with the scorecard."""
    heading = "Error and skill against lead time"
    if scores is None or not scores.metrics:
        return Section("curves", "Curves", heading, empty("There are no scores to draw."))
    return Section("curves", "Curves", heading, _content(scores))


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
    boxes = [
        tag("label", tag("input", type="checkbox", name="line", value=i, checked=True), tag("span", name))
        for i, name in enumerate(scores.names)
    ]
    lines = tag("fieldset", tag("legend", "Lines"), tag("div", *boxes, class_="chips"), id="lines")
    controls = tag(
        "div", select("Region", "region", scores.regions), _scale("scale"), lines, class_="controls scripted"
    )
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


def _scale(name: str) -> Html:
    options = [
        tag("label", tag("input", type="radio", name=name, value=value, checked=value == "linear"), tag("span", value))
        for value in ("linear", "log")
    ]
    return tag("fieldset", tag("legend", "Axis of scores"), tag("div", *options, class_="segments"))


def _field_options(scores: Scores) -> list[Html]:
    groups: dict[str, list[Html]] = {}
    for i, field in enumerate(scores.fields):
        groups.setdefault(field.group, []).append(tag("option", field.label, value=i))
    return [tag("optgroup", *options, label=group) for group, options in groups.items()]
