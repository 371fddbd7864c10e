"""The page: its sections in order, each a function from results to HTML."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

from pipeline.artefacts import ATTRIBUTE
from pipeline.config import Config
from pipeline.reporting.cases import MapCase
from pipeline.reporting.facts import FEW_DAYS, Facts, cautions, library_versions, reproduce
from pipeline.reporting.fields import Field, duration, instant
from pipeline.reporting.html import Html, data_script, join, tag
from pipeline.reporting.maps import globe, map_definitions, map_section
from pipeline.reporting.scores import Scores, verdict
from transforms.metrics import METRICS

__all__ = ["page"]

_SECTIONS = (
    ("scorecard", "Scorecard"),
    ("curves", "Curves"),
    ("maps", "Maps"),
    ("training", "Training"),
    ("provenance", "Provenance"),
)
# Upper bounds of the ratio and what the colour says; the last is open.
_SHOWN_UPDATES = 6
_RATIO_BINS = ((0.4, "g4"), (0.6, "g3"), (0.8, "g2"), (1.0, "g1"), (1.1, "b1"), (1.3, "b2"), (float("inf"), "b3"))


def page(
    config: Config,
    facts: Facts,
    scores: Scores,
    case: MapCase | None,
    training: dict[str, Any] | None,
    notes: list[str],
    description: dict[str, Any],
    upstream: list[tuple[str, dict[str, Any]]],
) -> str:
    """Return the whole document.

    Args:
        case: the forecast on the maps, None to say that there is none.
        training: see `facts.training_curve`, None to say that there is no log.
        notes: what validation recorded about the data.
        description: of the report itself.
        upstream: file name and description of every artefact it was made from.
    """
    title = config.report.title or f"{config.name}: forecast verification"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"Spherecast {description['spherecast']}"),
        tag("title", f"{title}{' (simulated data)' if facts.simulated else ''}"),
        data_script(ATTRIBUTE, description),
        tag("style", _asset("report.css")),
        tag("script", Html("document.documentElement.classList.add('js')")),
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#scorecard", class_="skip"),
        map_definitions() if case else None,
        _header(title, config, facts, scores, case),
        tag(
            "main",
            _scorecard(scores),
            _curves(scores),
            _maps(case),
            _training(training),
            _provenance(config, facts, notes, description, upstream),
        ),
        tag(
            "footer",
            tag(
                "p", f"Written by Spherecast {description['spherecast']}. Everything on this page is in this one file."
            ),
        ),
        data_script(
            "scores", scores.payload() | {"headline": [scores.fields.index(field) for field in scores.headline]}
        ),
        data_script("training-log", training),
        tag("script", _asset("report.js")),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _header(title: str, config: Config, facts: Facts, scores: Scores, case: MapCase | None) -> Html:
    warnings = cautions(facts)
    sentences = verdict(scores)
    few = facts.training_days < FEW_DAYS
    badge = tag("p", "Simulated data", class_="badge") if facts.simulated else None
    note = None
    if facts.simulated:
        note = tag(
            "p",
            "These forecasts are made from, and scored against, a simulated atmosphere. "
            "Do not compare the numbers with scores on ERA5 or other analyses.",
            class_="note",
        )
    lead = warnings[0] if few else sentences[0]
    rest = [*(warnings[1:] if few else warnings), *(sentences if few else sentences[1:])]
    hero = tag(
        "div",
        tag("p", "Spherecast ", tag("span", "verification report"), class_="brand"),
        badge,
        tag("h1", title),
        tag("p", config.description, class_="description") if config.description else None,
        tag("p", lead, class_="verdict"),
        tag("ul", *(tag("li", sentence) for sentence in rest), class_="findings") if rest else None,
        note,
        class_="hero-text",
    )
    figure = None
    if case is not None:
        caption = f"{case.fields[0].label}, {duration(case.leads[-1])} ahead"
        figure = tag("figure", globe(case), tag("figcaption", caption), class_="hero-globe")
    listing = tag("dl", *(tag("div", tag("dt", label), tag("dd", text)) for label, text in facts.rows), class_="facts")
    links = tag("nav", *(tag("a", label, href=f"#{name}") for name, label in _SECTIONS), aria_label="Sections")
    return tag("header", tag("div", hero, figure, class_="hero"), listing, links)


def _scorecard(scores: Scores) -> Html:
    leads = scores.scorecard_leads()
    baselines = [name for name in ("persistence", "climatology") if name in scores.lines]
    if not leads or not baselines:
        missing = "no lead time" if not leads else "neither persistence nor climatology"
        return _section(
            "scorecard", "Scorecard", tag("p", f"The metrics hold {missing} to compare with.", class_="empty")
        )
    top = [tag("td")] + [
        tag("th", f"Fraction of {name}", colspan=len(leads), scope="colgroup", class_="group") for name in baselines
    ]
    second = [tag("th", "Field", scope="col", class_="field")] + [
        tag("th", _short_duration(scores.leads[i]), scope="col", class_="first" if i == leads[0] else None)
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
    return _section("scorecard", "Scorecard", _scroll(table, "Scorecard"), key)


def _cell(scores: Scores, field: Field, baseline: str, lead: int, first: bool) -> Html:
    value = scores.ratio(field, baseline)[lead]
    edge = " first" if first else ""
    if not np.isfinite(value):
        return tag("td", "–", class_=f"none{edge}", title="no score", aria_label="no score")
    model, other = (scores.curve(line, "rmse", field)[lead] for line in ("model", baseline))
    name = next(name for bound, name in _RATIO_BINS if value < bound)
    title = f"{field.short} at {duration(scores.leads[lead])}: model {model:.4g}, {baseline} {other:.4g} {field.units}"
    return tag("td", f"{value:.2f}", class_=f"{name}{edge}", title=title)


def _curves(scores: Scores) -> Html:
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
    controls = tag("div", _select("Region", "region", scores.regions), legend, class_="controls scripted")
    explorer = tag(
        "section",
        tag("h3", "Any field", tag("span", "every variable, level, region and score")),
        tag(
            "div",
            _field_select(scores),
            _select("Score", "any-metric", [METRICS[name].title or name for name in scores.metrics]),
            _select("Region", "any-region", scores.regions),
            class_="controls",
        ),
        tag("div", class_="plots"),
        class_="card explorer scripted",
        id="explorer",
    )
    without = tag(
        "noscript", tag("p", "The curves are drawn by the page's own script, which is switched off.", class_="empty")
    )
    about = (
        "Score against lead time. A dashed rule marks an anomaly correlation of 0.6, above which a forecast is called "
        "useful. Point at a chart, or focus it and use the arrow keys, to read it."
    )
    return _section(
        "curves",
        "Error and skill against lead time",
        tag("p", about, class_="note"),
        without,
        controls,
        tag("div", *cards, class_="cards"),
        explorer,
    )


def _maps(case: MapCase | None) -> Html:
    heading = "One forecast on the map"
    if case is None:
        return _section(
            "maps", heading, tag("p", "No forecast has a valid time for which the truth is known.", class_="empty")
        )
    member = "" if case.member is None else f", member {case.member}"
    about = (
        f"The forecast from {instant(case.initial)}{member}, nearest the middle of the test period; "
        "it was not chosen for its score. Equal Earth projection; values are interpolated between grid points for display."
    )
    return _section("maps", heading, tag("p", about, class_="note"), map_section(case))


def _training(training: dict[str, Any] | None) -> Html:
    if training is None:
        return _section("training", "Training", tag("p", "There is no training log.", class_="empty"))
    group = training["averaged"]
    text = "Loss by optimiser update"
    text += f", mean over {group} logged updates" if group > 1 else ""
    text += "; shaded stages unroll as many model steps as they say."
    validated = [loss for _, loss in training["validation"] if loss is not None]
    if validated:
        text += f" The last validation loss is {validated[-1]:.3g}."
    return _section(
        "training",
        "Training",
        tag("p", text, class_="note"),
        tag("div", tag("div", class_="plots"), id="training-chart", class_="card"),
        *_held_out_forecasts(training["forecasts"]),
    )


def _held_out_forecasts(forecasts: list[list[Any]]) -> list[Html]:
    """A table of how forecasts of the validation period got better, at a few updates with the last among them."""
    if not forecasts:
        return []
    chosen = sorted({round(i * (len(forecasts) - 1) / (_SHOWN_UPDATES - 1)) for i in range(_SHOWN_UPDATES)})
    shown = [(update, {(field, lead): ratio for field, lead, ratio in ratios}) for update, ratios in forecasts]
    shown = [shown[i] for i in chosen]
    rows = []
    for field, lead in shown[-1][1]:
        ratios = [of.get((field, lead)) for _, of in shown]
        name, _, level = field.partition("@")
        texts = ("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        rows.append((Field(name, int(level) if level else None).label, duration(lead), *texts))
    caption = "RMSE of forecasts from a few held-out times while training went on, over that of persistence"
    table = _table(caption, ("Field", "Lead time", *(f"{update:,} updates" for update, _ in shown)), rows, "updates")
    return [_scroll(table, "Held-out forecasts while training")]


def _provenance(
    config: Config,
    facts: Facts,
    notes: list[str],
    description: dict[str, Any],
    upstream: list[tuple[str, dict[str, Any]]],
) -> Html:
    command = reproduce(config)
    if command:
        again = tag("pre", tag("code", command), tabindex="0", aria_label="Command")
    else:
        again = join(
            tag("p", "Save the resolved configuration below as a file, then:"),
            tag("pre", tag("code", f"spherecast run {config.name}.yaml"), tabindex="0", aria_label="Command"),
        )
    rows = [(path, about) for path, about in upstream] + [("report.html", description)]
    artefacts = _table(
        "What this page was made from. A fingerprint is a hash of all that a file depends on.",
        ("File", "Kind", "Fingerprint", "Spherecast"),
        [
            (path, about.get("kind", ""), about.get("fingerprint", ""), about.get("spherecast", ""))
            for path, about in rows
        ],
        "mono",
    )
    software = _table("Versions of the software", ("Package", "Version"), library_versions(), "mono")
    return _section(
        "provenance",
        "Provenance",
        tag("h3", "Do it again"),
        again,
        tag("h3", "Notes on the data"),
        tag("ul", *(tag("li", note) for note in notes)) if notes else tag("p", "Validation found nothing to note."),
        tag("details", tag("summary", "Files and fingerprints"), _scroll(artefacts, "Files and fingerprints")),
        tag("details", tag("summary", "Software"), _scroll(software, "Software")),
        tag(
            "details",
            tag("summary", "Resolved configuration"),
            tag("pre", tag("code", config.to_yaml()), tabindex="0", aria_label="Configuration"),
        ),
    )


def _section(name: str, heading: str, *children: Html | None) -> Html:
    return tag(
        "section", tag("h2", heading, id=f"{name}-heading"), *children, id=name, aria_labelledby=f"{name}-heading"
    )


def _table(caption: str, columns: tuple[str, ...], rows: list[tuple], kind: str) -> Html:
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns))),
        tag(
            "tbody",
            *(tag("tr", tag("th", row[0], scope="row"), *(tag("td", value) for value in row[1:])) for row in rows),
        ),
        class_=kind,
    )


def _scroll(table: Html, label: str) -> Html:
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def _select(label: str, identifier: str, options: list[str]) -> Html:
    choices = [tag("option", option, value=i) for i, option in enumerate(options)]
    return tag("label", tag("span", label), tag("select", *choices, id=identifier))


def _field_select(scores: Scores) -> Html:
    groups: dict[str, list[Html]] = {}
    for i, field in enumerate(scores.fields):
        groups.setdefault(field.group, []).append(tag("option", field.label, value=i))
    choices = [tag("optgroup", *options, label=group) for group, options in groups.items()]
    return tag("label", tag("span", "Field"), tag("select", *choices, id="any-field"))


def _short_duration(hours: float) -> str:
    return f"{hours / 24:g} d" if hours >= 24 else f"{hours:g} h"


def _bin_label(low: float, high: float) -> str:
    if low == 0:
        return f"below {high:g}"
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"


def _asset(name: str) -> Html:
    return Html((resources.files("pipeline.reporting") / "assets" / name).read_text(encoding="utf-8"))
