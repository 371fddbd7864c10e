"""The training: its losses, and how forecasts of held-out times got better."""

from __future__ import annotations

from typing import Any

from pipeline.reporting.elements import Section, empty, scroll, table
from pipeline.reporting.fields import Field, duration
from pipeline.reporting.html import Html, join, tag

__all__ = ["training_section"]

_SHOWN_UPDATES = 6


def training_section(training: dict[str, Any] | None) -> Section:
    """Return the training; `training` is as `facts.training_curve` gives it, None to say that there is no log."""
    return Section("training", "Training", "Training", _content(training), {"training-log": training})


def _content(training: dict[str, Any] | None) -> Html:
    if training is None:
        return empty("There is no training log.")
    group = training["averaged"]
    text = "Loss by optimiser update"
    text += f", mean over {group} logged updates" if group > 1 else ""
    text += "; shaded stages unroll as many model steps as they say."
    validated = [loss for _, loss in training["validation"] if loss is not None]
    if validated:
        text += f" The last validation loss is {validated[-1]:.3g}."
    return join(
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
    columns = ("Field", "Lead time", *(f"{update:,} updates" for update, _ in shown))
    return [scroll(table(caption, columns, rows, "updates"), "Held-out forecasts while training")]
