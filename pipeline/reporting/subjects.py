"""What a report knows of each run: all that is there, and what is missing said in words."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from pipeline.artefacts import read_description, working_path
from pipeline.reporting.facts import Facts, data_notes, gather_facts
from pipeline.reporting.history import History, read_history
from pipeline.reporting.lines import Kind, Line, read_line
from pipeline.reporting.scores import BASELINES, LINES, MODEL, compare
from pipeline.reporting.training_log import training_curve
from pipeline.runs import Run
from pipeline.stores.reading import open_store
from transforms.errors import InputError

__all__ = ["Subject", "read_subject"]


@dataclass(frozen=True)
class Subject:
    """One run on the page.

    Attributes:
        name: on the page, where no other run has it.
        facts: the run in figures.
        lines: results of its forecast and its baselines, those that are there.
        truth, forecast: its stores, None where missing.
        training: see `training_log.training_curve`, None without a log.
        notes: what validation recorded about the data.
        history: what became of its stages.
        upstream: file name and description of every artefact that the page is made from.
        missing: a sentence for each thing that a complete run has and this one has not.
    """

    name: str
    run: Run
    facts: Facts
    lines: list[Line]
    truth: xr.Dataset | None
    forecast: xr.Dataset | None
    training: dict[str, Any] | None
    notes: list[str]
    history: History
    upstream: list[tuple[str, dict[str, Any]]]
    missing: list[str]


def read_subject(run: Run, name: str, *, alone: bool) -> Subject:
    """Read what there is of a run.

    Args:
        alone: it is the only run of the page, whose forecast is called the model.

    Raises:
        InputError: a headline field of a run alone has no scores.
    """
    missing: list[str] = []

    def attempt(read: Callable[[], Any], otherwise: str, path: Path | None = None, stage: str = "") -> Any:
        if path is not None and not path.exists():
            missing.append(f"{otherwise}: the stage {stage} has not made {path.relative_to(run.directory)}")
            return None
        try:
            return read()
        except InputError as error:
            missing.append(f"{otherwise} ({_within(run, error)})")
            return None

    truth = attempt(
        lambda: open_store(run.training_store, "truth"), "There is no training store", run.training_store, "regrid"
    )
    forecast = attempt(lambda: open_store(run.forecast, "forecast"), "There are no forecasts", run.forecast, "forecast")
    lines = _lines(run, name, alone, attempt)
    scores = compare(lines, run.config.report.headline if alone else ()) if lines else None
    facts = attempt(lambda: gather_facts(run.config, truth, forecast, scores), "The data cannot be described")
    if facts is None:
        facts = gather_facts(run.config, None, forecast, scores)
    history = read_history(run)
    log = next(
        (
            folder / "training.jsonl"
            for folder in (run.checkpoints, working_path(run.checkpoints))
            if (folder / "training.jsonl").is_file()
        ),
        None,
    )
    training = training_curve(log)
    if training is None:
        missing.append("There is no training log: the stage train has written none")
    paths = [run.training_store, run.forecast, *(run.metrics / f"{line}.nc" for line in LINES)]
    return Subject(
        name,
        run,
        facts,
        lines,
        truth,
        forecast,
        training,
        data_notes(run.validation_record),
        history,
        _upstream(paths),
        [*_states(history), *missing],
    )


def _within(run: Run, error: InputError) -> str:
    """Return what an error says, with paths as seen from the run: a page may be sent to where others are."""
    text = str(error)
    for directory in dict.fromkeys((run.directory.resolve(), run.directory.absolute(), run.directory)):
        text = text.replace(f"{directory}{os.sep}", "")
    return text.rstrip(".")


def _lines(run: Run, name: str, alone: bool, attempt: Callable[..., Any]) -> list[Line]:
    """Read the results of a run: none where those of its forecast are missing."""
    kinds: dict[str, Kind] = {MODEL: "forecast"} | dict.fromkeys(BASELINES, "baseline")  # type: ignore[assignment]
    found = []
    for label, kind in kinds.items():
        path = run.metrics / f"{label}.nc"
        shown = label if alone or kind == "baseline" else name
        otherwise = "There are no scores" if label == MODEL else f"There are no scores of {label}"
        if label != MODEL and not path.is_file():
            continue
        line = attempt(functools.partial(read_line, shown, kind, path), otherwise, path, "evaluate")
        if line is None and label == MODEL:
            return []
        found += [line] if line is not None else []
    return found


def _states(history: History) -> list[str]:
    """Return what is said first of a run whose stages are not all done."""
    unfinished = [stage for stage in history.unfinished if stage.name != "report"]
    found = [f"The stage {stage.name} {_WORDS[stage.state]}" for stage in unfinished if stage.state in _WORDS]
    waiting = [stage.name for stage in unfinished if stage.state not in _WORDS]
    if waiting:
        found.append(f"Not done yet: {', '.join(waiting)}")
    stale = [stage.name for stage in history.stages if stage.stale and stage.name != "report"]
    if stale:
        found.append(f"Older than what it depends on: {', '.join(stale)}")
    return found


_WORDS = {"failed": "failed", "interrupted": "was interrupted", "running": "is running"}


def _upstream(paths: list[Path]) -> list[tuple[str, dict[str, Any]]]:
    found = [(path, read_description(path)) for path in paths]
    return [
        (str(Path(*path.parts[-2:])) if path.suffix == ".nc" else path.name, about) for path, about in found if about
    ]
