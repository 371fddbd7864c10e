"""The runs of a folder and what can be shown of each, as JSON-like values.

Nothing is taken from outside the folder: a run, a report or a log that is a symbolic link to elsewhere is not there.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from dags.fingerprints import graph
from dags.logs import log_path, tail
from dags.progress import read_progress, run_record
from dags.stages import STAGES
from pipeline.artefacts import working_path
from pipeline.redaction import redact
from pipeline.reporting.fields import Field
from pipeline.reporting.training_log import training_curve
from pipeline.runs import Run
from pipeline.scoring.table import HEADLINE_FIELDS, LEAD_HOURS, headline_rmse
from transforms.errors import InputError

__all__ = ["Library", "address_of", "token_of"]

T = TypeVar("T")

_DONE = ("done", "skipped")
_LOG_LINES = 14
_FORECASTS = ("model", "persistence")
_COLUMNS, _MOST_COLUMNS = 3, 6
"""Fields whose scores the index shows, and how many at most so that each run has one among them."""
_POINTS = 300
"""Points of the loss curve."""


def address_of(name: str) -> str:
    """Return the path of a run's page on the server."""
    return f"/runs/{quote(name, safe='', errors='surrogateescape')}/"


class Library:
    """All runs directly below a folder. Its methods may be called from several threads at once.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = root.resolve()
        self._kept: dict[tuple[str, str], tuple[Any, Any]] = {}
        # HDF5, which scores are read with, is not safe in several threads.
        self._reading = threading.Lock()

    def runs(self) -> dict[str, Path]:
        """Return the directories of all runs by name, in the order of their names."""
        try:
            names = sorted(os.listdir(self.root))
        except OSError:
            return {}
        found = {name: self.root / name for name in names}
        return {name: path for name, path in found.items() if self._within(path / "config.yaml")}

    def index(self) -> dict[str, Any]:
        """Return what the index shows.

        Returns:
            ``runs``: a `summary` each; ``fields``: ``id``, ``name``, ``label`` and ``units`` of those whose scores are
            shown; ``leads``: hours of the scores.
        """
        runs = [self.summary(name) for name in self.runs()]
        fields = _columns([list(run["scores"]) for run in runs])
        for run in runs:
            run["scores"] = {name: run["scores"][name] for name in fields if name in run["scores"]}
        return {"runs": runs, "fields": [_field(name) for name in fields], "leads": list(LEAD_HOURS)}

    def summary(self, name: str) -> dict[str, Any]:
        """Return what the index shows of one run.

        Returns:
            ``name``, ``address``, ``state`` (done, running, failed, interrupted, incomplete or unreadable), ``fault`` of
            an unreadable one, ``description``, ``simulated`` (None where not known yet), ``data`` in words, ``done`` and
            ``total`` stages, ``when`` (UTC, of the last change), ``report`` (whether there is one), ``scored`` (whether it
            can be compared), and ``scores`` by field: RMSE of ``model`` and ``persistence`` by lead time.
        """
        directory = self.root / name
        about = {"name": name, "address": address_of(name), "report": self.report(name) is not None}
        try:
            run = self._open(name)
        except InputError as error:
            unknown: dict[str, Any] = {
                "description": "",
                "simulated": None,
                "data": "",
                "done": 0,
                "total": 0,
                "scored": False,
                "scores": {},
            }
            return {
                **about,
                **unknown,
                "state": "unreadable",
                "fault": redact(str(error)),
                "when": _when(directory, {}),
            }
        record = run_record(run)
        simulated, data = self._data(run)
        scores = self._scores(run)
        return {
            **about,
            "state": _state(record),
            "fault": "",
            "description": run.config.description,
            "simulated": simulated,
            "data": data,
            "done": sum(entry["state"] in _DONE for entry in record["stages"].values()),
            "total": len(record["stages"]),
            "when": _when(directory, record["stages"]),
            "scored": bool(scores),
            "scores": scores,
        }

    def status(self, name: str) -> dict[str, Any]:
        """Return what the page of a run shows, which changes while it is worked on.

        Returns:
            ``state`` as of `summary`, ``simulated``, ``description``, ``report``, ``resume`` (the command), ``remaining``
            seconds or None, ``stages`` in order (``name``, ``summary``, ``depth`` in the graph, ``upstream``, ``state``,
            ``seconds``, ``bytes``, ``error``, and of those at work ``started``, ``task``, ``fraction``, ``note``,
            ``elapsed``, ``remaining``), ``log`` (``stage`` and last ``lines``) and ``training`` (a token that changes with
            the training's log, None without one).

        Raises:
            InputError: the run's configuration cannot be read.
        """
        run = self._open(name)
        record = run_record(run)
        progress = read_progress(run.directory) if record["working"] else {}
        stages = _stages(run, record["stages"], progress.get("stages", {}))
        return {
            "state": _state(record),
            "simulated": self._data(run)[0],
            "description": run.config.description,
            "report": self.report(name) is not None,
            "resume": shlex.join(["spherecast", "run", str(run.directory)]),
            "remaining": progress.get("remaining"),
            "stages": stages,
            "log": self._log(run, stages),
            "training": token_of(self._training_log(run)),
        }

    def training(self, name: str) -> dict[str, Any] | None:
        """Return the losses of a run, see `pipeline.reporting.training_log.training_curve`; None where there are none."""
        log = self._training_log(self._open(name))
        return None if log is None else self._cached("training", log, lambda: training_curve(log, _POINTS))

    def report(self, name: str) -> Path | None:
        """Return the path of a run's report, None where there is none."""
        path = self.root / name / "report.html"
        return path if self._within(path) else None

    def _open(self, name: str) -> Run:
        """Open a run; as a configuration is read only once, credentials in it stay known to `redact`."""
        directory = self.root / name
        return self._cached("run", directory / "config.yaml", lambda: Run.open(directory))

    def _within(self, path: Path) -> bool:
        """Whether this is a regular file, and of this folder."""
        try:
            real = path.resolve(strict=True)
            return real.is_relative_to(self._real) and stat.S_ISREG(real.stat().st_mode)
        except (OSError, ValueError):
            return False

    def _data(self, run: Run) -> tuple[bool | None, str]:
        """Return whether the data of a run are simulated, and what they are."""
        if run.config.source.kind != "store":
            return True, "Simulated"
        name = redact(run.config.source.path or "").rstrip("/").rsplit("/", 1)[-1]
        if not self._within(run.validation_record):
            return None, name
        source = self._cached("source", run.validation_record, lambda: _source(run.validation_record))
        return source.get("simulated"), str(source.get("title") or name)

    def _scores(self, run: Run) -> dict[str, dict[str, list[float | None]]]:
        found: dict[str, dict[str, list[float | None]]] = {}
        for line in _FORECASTS:
            path = run.metrics / f"{line}.nc"
            if not self._within(path):
                continue
            with self._reading, contextlib.suppress(OSError, KeyError, IndexError, ValueError):  # It is being replaced.
                for field, values in self._cached("scores", path, functools.partial(headline_rmse, path)).items():
                    found.setdefault(field, {})[line] = values
        return {field: lines for field, lines in found.items() if "model" in lines}

    def _training_log(self, run: Run) -> Path | None:
        folders = (working_path(run.checkpoints), run.checkpoints)
        return next((folder / "training.jsonl" for folder in folders if self._within(folder / "training.jsonl")), None)

    def _log(self, run: Run, stages: list[dict[str, Any]]) -> dict[str, str] | None:
        """Return the end of the log that matters: of what works, or failed, or was interrupted."""
        for state in ("running", "failed", "interrupted"):
            for stage in reversed(stages):
                log = log_path(run.directory, stage["name"])
                if stage["state"] == state and self._within(log):
                    return {"stage": stage["name"], "lines": redact(tail(log, _LOG_LINES))}
        return None

    def _cached(self, kind: str, path: Path, read: Callable[[], T]) -> T:
        """Return what `read` made of a file, anew where the file is another than the last time."""
        token, key = token_of(path), (kind, str(path))
        kept = self._kept.get(key)
        if kept is None or token is None or kept[0] != token:
            kept = self._kept[key] = (token, read())
        return kept[1]


def _stages(run: Run, entries: dict[str, dict[str, Any]], progress: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    depth: dict[str, int] = {}
    found = []
    for name, stage in graph(run.config).items():
        depth[name] = 1 + max((depth[up] for up in stage.upstream), default=-1)
        entry = entries[name]
        found.append(
            {
                "name": name,
                "summary": STAGES[name].summary,
                "depth": depth[name],
                "upstream": list(stage.upstream),
                "state": entry["state"],
                "started": entry.get("started"),
                # What waits to be done again still has the figures of the last time.
                "seconds": entry.get("seconds") if entry["state"] != "pending" else None,
                "bytes": (sum((entry.get("bytes") or {}).values()) or None) if entry["state"] != "pending" else None,
                "error": redact(entry.get("error") or "") if entry["state"] == "failed" else "",
                **(progress.get(name, {}) if entry["state"] == "running" else {}),
            }
        )
    return found


def _state(record: dict[str, Any]) -> str:
    states = {entry["state"] for entry in record["stages"].values()}
    if record["working"]:
        return "running"
    if states <= set(_DONE):
        return "done"
    return next((state for state in ("failed", "interrupted") if state in states), "incomplete")


def _when(directory: Path, stages: dict[str, dict[str, Any]]) -> str:
    """Return when something was last done, UTC."""
    told = [entry.get(key) or "" for entry in stages.values() for key in ("started", "ended")]
    if any(told):
        return max(told)
    with contextlib.suppress(OSError):
        time = datetime.fromtimestamp((directory / "config.yaml").stat().st_mtime, UTC)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return ""


def _columns(scored: list[list[str]]) -> list[str]:
    """Return the fields whose scores the index shows, from those of each run."""
    there = {field for fields in scored for field in fields}
    known = [name for name in HEADLINE_FIELDS if name in there] or sorted(there)
    shown = known[:_COLUMNS]
    for fields in scored:
        if fields and len(shown) < _MOST_COLUMNS and not set(fields) & set(shown):
            shown.append(next((name for name in known if name in fields), min(fields)))
    return shown


def _field(identifier: str) -> dict[str, str]:
    variable, _, level = identifier.partition("@")
    field = Field(variable, int(float(level)) if level else None)
    return {"id": identifier, "name": field.short.strip(), "label": field.label, "units": field.units}


def _source(record: Path) -> dict[str, Any]:
    try:
        source = json.loads(record.read_text())["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return source if isinstance(source, dict) else {}


def token_of(path: Path | None) -> str | None:
    """Return a text that changes whenever the file does; None where there is none."""
    if path is None:
        return None
    try:
        about = path.stat()
    except OSError:
        return None
    return f"{about.st_mtime_ns}-{about.st_size}-{about.st_ino}"
