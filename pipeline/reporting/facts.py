"""What ran on what data, how much of it there was, and how to do it again."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from pipeline.config import Config
from pipeline.config_files import list_configs, load_config
from pipeline.reporting.fields import calendar_day, duration, instant
from pipeline.reporting.scores import Scores
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import description_of, select_period, valid_times
from pipeline.validating.record import read_record
from transforms.variables import VARIABLES

__all__ = [
    "FEW_DAYS",
    "FEW_FORECASTS",
    "Facts",
    "cautions",
    "data_notes",
    "gather_facts",
    "library_versions",
    "reproduce",
    "training_curve",
]

FEW_FORECASTS = 100
"""Forecasts that score a lead, below which the page says that they are few."""

FEW_DAYS = 60
"""Days of training data, below which the page says that no skill can be claimed."""

_NAMED = 5
_LIBRARIES = ("jax", "flax", "optax", "numpy", "xarray", "zarr", "apache-beam")


@dataclass(frozen=True)
class Facts:
    """The run in figures.

    Attributes:
        simulated: whether the data come from a simulation, not from observations or an analysis.
        origin: where the data come from, in words.
        training_samples: pairs of valid times one step apart in the training period.
        training_days: time they span together.
        test_samples: forecasts made.
        least_valid, most_valid: forecasts that score a lead, fewest and most over the leads that any scores; None
            where there are none or nothing was recorded.
        rows: label and text of each fact on the page.
    """

    simulated: bool
    origin: str
    training_samples: int
    training_days: float
    test_samples: int
    least_valid: int | None
    most_valid: int | None
    rows: list[tuple[str, str]]


def gather_facts(config: Config, training: xr.Dataset, forecast: xr.Dataset, scores: Scores) -> Facts:
    """Read the facts from the configuration and the stores, whose data are not touched.

    Args:
        training: the training store, dims (time, [level], latitude, longitude).
        forecast: dims (time, prediction_timedelta, [level], latitude, longitude).
    """
    simulated = bool(description_of(training).get("simulated", config.source.kind != "store"))
    origin = _origin(config, simulated)
    times = training.time.values
    positions = select_period(training, config.periods.train, "training store")
    step = config.data.time_step_hours
    samples = int((np.diff(times[positions]) == np.timedelta64(step, "h")).sum())
    initial = forecast.time.values
    leads = scores.leads
    counts = scores.valid_samples if scores.valid_samples is not None else np.empty(0)
    scored = (leads > 0) & (counts > 0) if counts.size else np.zeros(leads.shape, bool)
    least, most = (int(counts[scored].min()), int(counts[scored].max())) if scored.any() else (None, None)
    beyond = leads[scored][-1] if scored.any() and leads[-1] > leads[scored][-1] else None
    levels = config.data.levels if "level" in training.dims else []
    missing = int((~valid_times(training)).sum())
    rows = [
        ("Data", origin),
        ("Configuration", config.name),
        (
            "Training",
            f"{_span(times[positions])}, {_count(samples, 'sample')} ({_days(samples * step / 24)})",
        ),
        (
            "Test",
            f"{_count(initial.size, 'forecast')} from {_span(initial)}, every {config.forecast.every_hours} hours",
        ),
        ("Valid samples", _valid(least, most, beyond)),
        ("Lead times", f"to {duration(float(leads[-1]))}, {_way(config, step)}"),
        ("Fields", _fields(config, levels)),
        ("Grid", str(grid_of(training))),
    ]
    if missing:
        rows.append(("Missing", f"{missing} of {_count(times.size, 'time')} of the data incomplete, skipped"))
    return Facts(simulated, origin, samples, samples * step / 24, int(initial.size), least, most, rows)


def cautions(facts: Facts) -> list[str]:
    """Return what must be said first when data are few; empty when they are not."""
    found = []
    if facts.training_days < FEW_DAYS:
        found.append(
            f"{_count(facts.training_samples, 'training sample')} over {_days(facts.training_days)}: "
            "this shows that the chain works, not skill."
        )
    if facts.least_valid is not None and facts.least_valid < FEW_FORECASTS:
        least, most = facts.least_valid, facts.most_valid
        each = f"only {least}" if least == most else f"only {least} to {most}"
        forecasts = "forecast scores" if most == 1 else "forecasts score"
        found.append(
            f"{each.capitalize()} {forecasts} a lead time (fewer than {FEW_FORECASTS}): differences may be chance."
        )
    return found


def data_notes(path: Path | None) -> list[str]:
    """Return what validation found in the source that a reader of scores should know, from its record."""
    if path is None or not path.is_file():
        return ["The record of the source's validation is missing."]
    record = read_record(path)
    notes = []
    if record.source.get("title"):
        notes.append(f"Title of the source: {record.source['title']}.")
    steps = record.times
    if steps["source_step_hours"] != steps["step_hours"]:
        notes.append(
            f"The source has a time every {steps['source_step_hours']:g} hours; every {steps['step_hours']:g} hours are used."
        )
    for before, after in record.gaps:
        notes.append(f"Gap between {_instant(before)} and {_instant(after)}; no sample or forecast crosses it.")
    for name, lost in record.missing.items():
        times = ", ".join(map(_instant, lost[:_NAMED])) + (" ..." if len(lost) > _NAMED else "")
        notes.append(f"{name}: values missing at {_count(len(lost), 'time')}, which are skipped: {times}.")
    return notes


def reproduce(config: Config) -> str | None:
    """Return the command that repeats the run from a shipped configuration, None where it needs its own file."""
    if config.name not in list_configs():
        return None
    shipped = _leaves(load_config(config.name).model_dump(mode="json"))
    changed = {
        key: value for key, value in _leaves(config.model_dump(mode="json")).items() if shipped.get(key) != value
    }
    overrides = [shlex.quote(f"{key}={_inline(value)}") for key, value in changed.items()]
    return " ".join(["spherecast run", config.name, *overrides])


def library_versions() -> list[tuple[str, str]]:
    """Return name and version of Spherecast and the libraries that compute its results."""
    found = []
    for name in ("spherecast", *_LIBRARIES):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def training_curve(path: Path | None, most: int = 400) -> dict[str, Any] | None:
    """Read the training log for the page's script.

    Args:
        path: JSON lines with ``event`` (``train``, ``validation`` or ``forecast``), ``update``, ``stage`` and ``loss``, or
            for forecasts ``lead_hours``, ``rmse`` and ``persistence`` by field; repeated updates, as a resumed training
            writes them, count once, the last.
        most: points of the training loss; more are averaged in groups of consecutive updates.

    Returns:
        ``train`` and ``validation`` as lists of [update, loss], ``stages`` as [first update, rollout steps], and
        ``forecasts`` as [update, list of [field, lead in hours, RMSE over that of persistence]]; None where there is no log
        or it holds no loss.
    """
    if path is None or not path.is_file():
        return None
    train: dict[int, dict[str, Any]] = {}
    validation: dict[int, dict[str, Any]] = {}
    forecasts: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # A line cut short by a crash; the resumed training wrote the update again.
        if event.get("event") == "forecast":
            forecasts[int(event["update"])] = event
        target = {"train": train, "validation": validation}.get(event.get("event"))
        if target is not None and isinstance(event.get("loss"), int | float):
            target[int(event["update"])] = event
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
    }


def _over_persistence(event: dict[str, Any]) -> list[list[Any]]:
    return [
        [field, int(lead), _finite(error / reference)]
        for field, errors in event["rmse"].items()
        for lead, error, reference in zip(event["lead_hours"], errors, event["persistence"][field], strict=True)
        if error is not None and reference
    ]


def _finite(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _origin(config: Config, simulated: bool) -> str:
    if config.source.kind == "simulation":
        return f"simulated atmosphere (SPEEDY, T{config.simulation.truncation})"
    if config.source.kind == "waves":
        return "simulated: closed-form Rossby-Haurwitz waves"
    name = (config.source.path or "").rstrip("/").rsplit("/", 1)[-1] or "a store"
    return f"simulated, read from {name}" if simulated else name


def _way(config: Config, step: float) -> str:
    leads = config.model.leads_hours
    return f"{_count(len(leads), 'lead')} each forecast directly" if leads else f"in steps of {duration(step)}"


def _fields(config: Config, levels: list[int]) -> str:
    pressure = [name for name in config.data.variables if VARIABLES[name].kind == "pressure"]
    surface = [name for name in config.data.variables if VARIABLES[name].kind == "surface"]
    parts = []
    if pressure:
        heights = f"{', '.join(map(str, levels))} hPa" if len(levels) <= 4 else f"{levels[0]} to {levels[-1]} hPa"
        parts.append(f"{_count(len(pressure), 'variable')} × {_count(len(levels), 'level')} ({heights})")
    if surface:
        parts.append(f"{_count(len(surface), 'surface variable')}")
    text, predicted = " and ".join(parts), config.model.outputs
    if not predicted:
        return text
    names = " and ".join(predicted) if len(predicted) <= 2 else f"{len(predicted)} of their fields"
    return f"{text}; {names} forecast"


def _valid(least: int | None, most: int | None, beyond: float | None) -> str:
    if least is None:
        return "none, or not recorded"
    text = f"{least} at every lead" if least == most else f"{least} to {most}, by lead"
    return text if beyond is None else f"{text}; none beyond {duration(beyond)}, where the truth ends"


def _span(times: np.ndarray) -> str:
    return f"{calendar_day(times[0])} to {calendar_day(times[-1])}"


def _instant(text: str) -> str:
    return instant(np.datetime64(text))


def _days(days: float) -> str:
    return f"{days:.3g} day" + ("" if days == 1 else "s")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
