"""The front: what was forecast, on which data, and the result in one sentence."""

from __future__ import annotations

from pipeline.reporting.cases import MapCase
from pipeline.reporting.comparable import differences, mixed_worlds
from pipeline.reporting.elements import scroll
from pipeline.reporting.facts import FEW_DAYS, cautions
from pipeline.reporting.fields import duration
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.maps import globe
from pipeline.reporting.scores import Scores
from pipeline.reporting.subjects import Subject
from pipeline.reporting.verdicts import ranking, verdict

__all__ = ["front", "page_title"]

_NAMED = 5
"""Runs named in one sentence of a notice."""
_SENTENCES = 6
"""Of a notice, before the others are folded away."""
_SIMULATED = (
    "These forecasts are made from, and scored against, a simulated atmosphere. "
    "Do not compare the numbers with scores on ERA5 or other analyses."
)


def page_title(subjects: list[Subject]) -> str:
    """Return the title of the page."""
    if len(subjects) > 1:
        shown = ", ".join(subject.name for subject in subjects[:4])
        return shown + (f" and {len(subjects) - 4} more" if len(subjects) > 4 else "") + ": comparison of forecasts"
    config = subjects[0].run.config
    return config.report.title or f"{config.name}: forecast verification"


def front(subjects: list[Subject], scores: Scores | None, case: MapCase | None) -> Html:
    """Return the front: what is missing or cannot be compared first, then the result.

    Args:
        scores: of all lines, None where no run has any.
        case: the forecast on the globe, if there is one.
    """
    first, alone = subjects[0], len(subjects) == 1
    lead, rest = _sentences(subjects, scores)
    simulated = [subject.facts.simulated for subject in subjects]
    description = first.run.config.description if alone else ""
    hero = tag(
        "div",
        tag("p", "Spherecast ", tag("span", "verification report"), class_="brand"),
        tag("p", "Simulated data", class_="badge") if all(simulated) else None,
        tag("h1", page_title(subjects)),
        tag("p", description, class_="description") if description else None,
        tag("p", lead, class_="verdict"),
        tag("ul", *(tag("li", sentence) for sentence in rest), class_="findings") if rest else None,
        tag("p", _SIMULATED, class_="note") if any(simulated) else None,
        class_="hero-text",
    )
    figure = None
    if case is not None and alone:
        caption = f"{case.fields[0].label}, {duration(case.leads[-1])} ahead"
        figure = tag("figure", globe(case), tag("figcaption", caption), class_="hero-globe")
    facts = _listing(first) if alone else _table_of_facts(subjects)
    return join(*_notices(subjects, scores), tag("div", hero, figure, class_="hero"), facts)


def _sentences(subjects: list[Subject], scores: Scores | None) -> tuple[str, list[str]]:
    """Return the sentence that stands out, and those below it."""
    if len(subjects) > 1:
        if scores is None or len(scores.forecasts) < 2:
            return "There are not enough scores to compare these runs.", []
        results = [f"{name}: {verdict(scores, name)[0]}" for name in scores.forecasts[:8]]
        return ranking(scores), results
    facts = subjects[0].facts
    warnings = cautions(facts)
    sentences = verdict(scores) if scores is not None else ["There are no scores yet."]
    if facts.training_days is not None and facts.training_days < FEW_DAYS:
        return warnings[0], [*warnings[1:], *sentences]
    return sentences[0], [*warnings, *sentences[1:]]


def _notices(subjects: list[Subject], scores: Scores | None) -> list[Html]:
    """Return what must be read before anything else."""
    found = []
    mixed = mixed_worlds(scores.lines) if scores is not None else None
    if mixed:
        found.append(tag("div", tag("strong", mixed), class_="notice loud", role="alert"))
    missing = subjects[0].missing if len(subjects) == 1 else _by_sentence(subjects)
    if missing:
        heading = "This run is not complete" if len(subjects) == 1 else "Not every run is complete"
        found.append(_notice(f"{heading}. The page shows what there is.", missing))
    unlike = [*differences(scores.lines), *scores.left_out] if scores is not None and len(scores.lines) > 1 else []
    if unlike:
        found.append(_notice("Before you compare", unlike))
    return found


def _by_sentence(subjects: list[Subject]) -> list[str]:
    """Return each sentence on what is missing once, with the runs that it is about: what most of them lack first."""
    about: dict[str, list[str]] = {}
    for subject in subjects:
        for sentence in subject.missing:
            about.setdefault(sentence, []).append(subject.name)
    return [
        f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}: {sentence}"
        for sentence, names in sorted(about.items(), key=lambda item: -len(item[1]))
    ]


def _notice(heading: str, sentences: list[str]) -> Html:
    """Return a box of sentences, of which many are folded away."""
    shown, more = sentences[:_SENTENCES], sentences[_SENTENCES:]
    items = tag("ul", *(tag("li", sentence) for sentence in shown))
    folded = tag("details", tag("summary", f"{len(more)} more"), tag("ul", *(tag("li", text) for text in more)))
    return tag("div", tag("strong", heading), items, folded if more else None, class_="notice")


def _listing(subject: Subject) -> Html:
    return tag(
        "dl", *(tag("div", tag("dt", label), tag("dd", text)) for label, text in subject.facts.rows), class_="facts"
    )


def _table_of_facts(subjects: list[Subject]) -> Html:
    """Facts side by side, a column for each run; what is the same in all is said once."""
    labels = list(dict.fromkeys(label for subject in subjects for label, _ in subject.facts.rows))
    rows = []
    for label in labels:
        texts = [dict(subject.facts.rows).get(label, "–") for subject in subjects]
        cells = [tag("td", texts[0], colspan=len(texts))] if len(set(texts)) == 1 else [tag("td", t) for t in texts]
        rows.append(tag("tr", tag("th", label, scope="row"), *cells))
    head = tag("tr", tag("th", "Run", scope="col"), *(tag("th", each.name, scope="col") for each in subjects))
    caption = tag("caption", "The runs", class_="hidden")
    return scroll(tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="beside"), "The runs")
