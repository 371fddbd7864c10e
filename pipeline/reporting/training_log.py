"""What the log of a training tells: losses, rates and events, few enough to draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["training_curve"]

_EVENTS = ("skipped", "rollback")
_PACE = ("learning_rate", "samples_per_second", "waiting")


def training_curve(path: Path | None, most: int = 400) -> dict[str, Any] | None:
    """Read the training log for the page's script.

    Args:
        path: JSON lines with ``event`` (``train``, ``validation``, ``forecast``, ``skipped`` or ``rollback``), ``update``,
            ``stage`` and ``loss``, or for forecasts ``lead_hours``, ``rmse`` and ``persistence`` by field; repeated
            updates, as a resumed training writes them, count once, the last.
        most: points of the training loss; more are averaged in groups of consecutive updates.

    Returns:
        ``train`` and ``validation`` as lists of [update, loss], ``stages`` as [first update, rollout steps],
        ``forecasts`` as [update, list of [field, lead in hours, RMSE over that of persistence]], ``pace`` by
        ``learning_rate``, ``samples_per_second`` and ``waiting`` (the share of time spent on waiting for data) as lists
        of [update, value], and ``events`` as the log has them; None where there is no log or it holds no loss.
    """
    if path is None or not path.is_file():
        return None
    kinds: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in ("train", "validation", "forecast")}
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
            kind, update = event["event"], int(event["update"])
        except (ValueError, KeyError, TypeError):
            continue  # A line cut short by a crash; the resumed training wrote the update again.
        if kind in _EVENTS:
            events.append(event)
        if kind in kinds and (kind == "forecast" or isinstance(event.get("loss"), int | float)):
            kinds[kind][update] = event
    train, validation, forecasts = kinds.values()
    if not train and not validation:
        return None
    stages: dict[int, tuple[int, int | None]] = {}
    for update, event in sorted(train.items()):
        stages.setdefault(event.get("stage", 0), (update, event.get("rollout_steps")))
    updates = np.array(sorted(train))
    losses = np.array([train[update]["loss"] for update in updates], dtype=np.float64)
    groups = np.array_split(np.arange(updates.size), min(most, updates.size)) if updates.size else []
    return {
        "train": [[float(updates[g].mean()), _finite(losses[g].mean())] for g in groups],
        "validation": [[update, _finite(event["loss"])] for update, event in sorted(validation.items())],
        "stages": [[first, steps] for first, steps in stages.values()],
        "averaged": int(np.ceil(updates.size / len(groups))) if groups else 1,
        "forecasts": [[update, _over_persistence(event)] for update, event in sorted(forecasts.items())],
        "pace": {name: _series(train, name, most) for name in _PACE},
        "events": events,
    }


def _series(train: dict[int, dict[str, Any]], name: str, most: int) -> list[list[float | None]]:
    """Return [update, value] of a number that is logged beside the loss, averaged over groups where there are many."""
    points = [
        (update, event[name]) for update, event in sorted(train.items()) if isinstance(event.get(name), int | float)
    ]
    groups = np.array_split(np.array(points, dtype=np.float64), min(most, len(points))) if points else []
    return [[float(group[:, 0].mean()), _finite(group[:, 1].mean())] for group in groups]


def _over_persistence(event: dict[str, Any]) -> list[list[Any]]:
    return [
        [field, int(lead), _finite(error / reference)]
        for field, errors in event["rmse"].items()
        for lead, error, reference in zip(event["lead_hours"], errors, event["persistence"][field], strict=True)
        if error is not None and reference
    ]


def _finite(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None
