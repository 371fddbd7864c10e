"""What ran on what data, how much of it there was, and how to do it again."""

from __future__ import annotations

import re
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
from pipeline.redaction import redact
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
    "public_config",
    "reproduce",
]

FEW_FORECASTS = 100
"""Forecasts that score a lead, below which the page says that they are few."""

FEW_DAYS = 60
"""Days of training data, below which the page says that no skill can be claimed."""

_HIDDEN = "(hidden)"
_CREDENTIALS = re.compile(r"^(\w+://)[^/@]+@")
_NAMED = 5
_LIBRARIES = ("jax", "flax", "optax", "numpy", "xarray", "zarr", "apache-beam")


@dataclass(frozen=True)
class Facts:
    """The run in figures.

    Attributes:
        simulated: whether the data come from a simulation, not from observations or an analysis.
        origin: where the data come from, in words.
        training_samples: pairs of valid times one step apart in the training period; None without a training store.
        training_days: time they span together, likewise.
        test_samples: forecasts made, None without forecasts.
        least_valid, most_valid: forecasts that score a lead, fewest and most over the leads that any scores; None
            where there are none or nothing was recorded.
        rows: label and text of each fact on the page.
    """

    simulated: bool
    origin: str
    training_samples: int | None
    training_days: float | None
    test_samples: int | None
    least_valid: int | None
    most_valid: int | None
    rows: list[tuple[str, str]]


def gather_facts(
    config: Config, training: xr.Dataset | None, forecast: xr.Dataset | None, scores: Scores | None
) -> Facts:
    """Read the facts from the configuration and the stores, whose data are not touched.

    Args:
        training: the training store, dims (time, [level], latitude, longitude), None where there is none.
        forecast: dims (time, prediction_timedelta, [level], latitude, longitude), likewise.
        scores: of the forecast, likewise.
    """
    said = description_of(training) if training is not None else {}
    simulated = bool(said.get("simulated", config.source.kind != "store"))
    origin = _origin(config, simulated)
    step = config.data.time_step_hours
    rows = [("Data", origin), ("Configuration", config.name)]
    samples = days = None
    if training is not None:
        times = training.time.values
        positions = select_period(training, config.periods.train, "training store")
        samples = int((np.diff(times[positions]) == np.timedelta64(step, "h")).sum())
        days = samples * step / 24
        rows.append(("Training", f"{_span(times[positions])}, {_count(samples, 'sample')} ({_days(days)})"))
    tests = None
    if forecast is not None:
        initial = forecast.time.values
        tests = int(initial.size)
        every = config.forecast.every_hours
        rows.append(("Test", f"{_count(tests, 'forecast')} from {_span(initial)}, every {every} hours"))
    least, most, beyond = _scored(scores) if scores is not None else (None, None, None)
    if scores is not None:
        rows.append(("Valid samples", _valid(least, most, beyond)))
        rows.append(("Lead times", f"to {duration(float(scores.leads[-1]))}, {_way(config, step)}"))
    rows.append(("Fields", _fields(config, config.data.levels if training is None or "level" in training.dims else [])))
    if training is not None:
        rows.append(("Grid", str(grid_of(training))))
        missing = int((~valid_times(training)).sum())
        if missing:
            rows.append(("Missing", f"{missing} of {_count(times.size, 'time')} of the data incomplete, skipped"))
    return Facts(simulated, origin, samples, days, tests, least, most, rows)


def _scored(scores: Scores) -> tuple[int | None, int | None, float | None]:
    """Return the fewest and the most forecasts that score a lead, and the last lead scored where others follow."""
    leads, counts = scores.leads, scores.valid_samples
    scored = (leads > 0) & (counts > 0) if counts is not None else np.zeros(leads.shape, bool)
    if counts is None or not scored.any():
        return None, None, None
    last = leads[scored][-1]
    return int(counts[scored].min()), int(counts[scored].max()), last if leads[-1] > last else None


def cautions(facts: Facts) -> list[str]:
    """Return what must be said first when data are few; empty when they are not."""
    found = []
    if facts.training_samples is not None and facts.training_days is not None and facts.training_days < FEW_DAYS:
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
    changed = {key: value for key, value in _leaves(config.shown()).items() if shipped.get(key) != value}
    overrides = [shlex.quote(f"{key}={_inline(value)}") for key, value in changed.items()]
    return " ".join(["spherecast run", config.name, *overrides])


def public_config(config: Config) -> Config:
    """Return the configuration without what may be secret: values of storage options, and a password in an address."""
    source = config.source
    hidden = dict.fromkeys(source.storage_options, _HIDDEN)
    path = source.path if source.path is None else _CREDENTIALS.sub(r"\g<1>" + _HIDDEN + "@", source.path)
    return config.model_copy(update={"source": source.model_copy(update={"storage_options": hidden, "path": path})})


def library_versions() -> list[tuple[str, str]]:
    """Return name and version of Spherecast and the libraries that compute its results."""
    found = []
    for name in ("spherecast", *_LIBRARIES):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def _origin(config: Config, simulated: bool) -> str:
    if config.source.kind == "simulation":
        return f"simulated atmosphere (SPEEDY, T{config.simulation.truncation})"
    if config.source.kind == "waves":
        return "simulated: closed-form Rossby-Haurwitz waves"
    name = redact(config.source.path or "").rstrip("/").rsplit("/", 1)[-1] or "a store"
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


class _ShellDumper(yaml.SafeDumper):
    """Quotes with " alone, since a shell's line quotes with '."""

    def choose_scalar_style(self) -> str:
        style = super().choose_scalar_style()
        return '"' if style == "'" else style


def _inline(value: Any) -> str:
    text = yaml.dump(value, Dumper=_ShellDumper, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
