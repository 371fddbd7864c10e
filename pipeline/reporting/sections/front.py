"""The front: what was forecast, on which data, and the result in one sentence."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.reporting.cases import MapCase
from pipeline.reporting.facts import FEW_DAYS, Facts, cautions
from pipeline.reporting.fields import duration
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.maps import globe
from pipeline.reporting.scores import Scores, verdict

__all__ = ["front", "page_title"]


def page_title(config: Config) -> str:
    """Return the title of the page."""
    return config.report.title or f"{config.name}: forecast verification"


def front(config: Config, facts: Facts, scores: Scores, case: MapCase | None) -> Html:
    """Return the front; `case` is the forecast on the globe, if there is one."""
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
        tag("h1", page_title(config)),
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
    return join(tag("div", hero, figure, class_="hero"), listing)
