"""The training: losses, pace and events, and how forecasts of held-out times got better."""

from __future__ import annotations

from typing import Any

from pipeline.reporting.elements import Section, empty, scroll, table
from pipeline.reporting.fields import Field, clock, duration
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.subjects import Subject

__all__ = ["training_section"]

_SHOWN_UPDATES = 6
_MOST_EVENTS = 50
_EVENTS = {"rollback": "rolled back", "skipped": "skipped"}


def training_section(subjects: list[Subject]) -> Section:
    """Return the training of each run that has a log."""
    trained = [subject for subject in subjects if subject.training is not None]
    if not trained:
        return Section("training", "Training", "Training", empty("There is no training log."))
    data = {"training-log": [{"name": subject.name, **_drawn(subject)} for subject in trained]}
    alone = len(subjects) == 1
    parts = [_content(number, subject, alone=alone) for number, subject in enumerate(trained)]
    return Section("training", "Training", "Training", join(*parts), data)


def _drawn(subject: Subject) -> dict[str, Any]:
    """What the script draws: the log, and events at their updates."""
    training = subject.training or {}
    events = [[event["update"], _EVENTS[event["event"]]] for event in training["events"]]
    events += [[update, "resumed"] for update, _ in subject.history.resumed]
    events += [[update, "preempted"] for update, _ in subject.history.preempted]
    held = [
        [update, [[_field(name).short, lead, ratio] for name, lead, ratio in ratios]]
        for update, ratios in training["forecasts"]
    ]
    kept = {key: value for key, value in training.items() if key not in ("events", "forecasts")}
    return {**kept, "forecasts": held, "events": sorted(events)[:_MOST_EVENTS]}


def _field(identifier: str) -> Field:
    name, _, level = identifier.partition("@")
    return Field(name, int(level) if level else None)


def _content(number: int, subject: Subject, *, alone: bool) -> Html:
    training = subject.training or {}
    group = training["averaged"]
    text = "Loss by optimiser update"
    text += f", mean over {group} logged updates" if group > 1 else ""
    text += "; shaded stages unroll as many model steps as they say."
    validated = [loss for _, loss in training["validation"] if loss is not None]
    if validated:
        text += f" The last validation loss is {validated[-1]:.3g}."
    body = join(
        tag("p", text, class_="note"),
        tag("div", tag("div", class_="plots"), class_="card training-loss", data_run=number),
        tag("div", class_="cards training-pace", data_run=number),
        _events(subject),
        *_held_out_forecasts(training["forecasts"]),
    )
    if alone:
        return body
    return tag("details", tag("summary", tag("h3", subject.name)), body, open=number == 0, class_="run-training")


def _events(subject: Subject) -> Html:
    """Interruptions and repairs, in the order of updates."""
    training = subject.training or {}
    # Of the same update: it is stopped before it goes on.
    rows = [(update, "stopped, all saved", when) for update, when in subject.history.preempted]
    rows += [(update, "resumed from a checkpoint", when) for update, when in subject.history.resumed]
    for event in training["events"]:
        if event["event"] == "rollback":
            rows.append(
                (event["update"], f"rolled back to update {event.get('to')} after values that are not finite", "")
            )
        else:
            rows.append((event["update"], "update skipped: loss or gradient not finite", ""))
    if not rows:
        return tag("p", "The training ran without an interruption, a rollback or a skipped update.", class_="note")
    shown = sorted(rows, key=lambda row: row[0])[:_MOST_EVENTS]
    more = f", the first {len(shown)} of {len(rows)}" if len(rows) > len(shown) else ""
    cells = [(f"{update:,}", what, clock(when)) for update, what, when in shown]
    return scroll(table(f"Events{more}", ("Update", "What", "Started, UTC"), cells, "events"), "Events of the training")


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
        texts = ("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        rows.append((_field(field).label, duration(lead), *texts))
    caption = "RMSE of forecasts from a few held-out times while training went on, over that of persistence"
    columns = ("Field", "Lead time", *(f"{update:,} updates" for update, _ in shown))
    return [scroll(table(caption, columns, rows, "updates"), "Held-out forecasts while training")]
