"""How far a run is, for whoever looks on from another process.

The runner alone hears what its stages report. It keeps the last of it in `progress.json` while it works; the record of
what is done is `state.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from dags import processes
from dags.display import Display
from dags.fingerprints import graph
from dags.state import State, utc_now
from pipeline.runs import Run

__all__ = ["ProgressFile", "read_progress", "run_record"]

_NAME = "progress.json"
_INTERVAL = 1.0


class ProgressFile:
    """Keeps the progress of one runner, as often as once a second; removes it at the end."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._kept = -_INTERVAL

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def keep(self, display: Display) -> None:
        """Replace the file by what `display` knows, unless that was done less than a second ago."""
        now = time.monotonic()
        if now - self._kept < _INTERVAL:
            return
        self._kept = now
        stages = {}
        # The display's clocks come and go with its stages.
        for name, clock in display.clocks.items():
            stages[name] = {
                "task": clock.task,
                "fraction": clock.fraction,
                "note": clock.note,
                "elapsed": round(clock.elapsed, 1),
                "remaining": _rounded(clock.remaining() if clock.task == name else None),
            }
        record = {
            "pid": os.getpid(),
            "written": utc_now(),
            "remaining": _rounded(display.remaining()),
            "stages": stages,
        }
        partial = self._path.with_name(f".partial-{_NAME}")
        with contextlib.suppress(OSError):  # On a full disk the work matters more than who looks on.
            partial.write_text(json.dumps(record))
            os.replace(partial, self._path)


def read_progress(directory: Path) -> dict[str, Any]:
    """Return the progress of the runner at work in a run directory, empty where there is none.

    Returns:
        ``written`` (UTC), ``remaining`` (seconds until all is done, None where not known), and ``stages`` by name:
        ``task``, ``fraction`` (0 to 1, None where not known), ``note``, ``elapsed`` and ``remaining`` (seconds). It says
        nothing about whether that runner still lives.
    """
    try:
        record = json.loads((directory / _NAME).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("stages"), dict) else {}


def run_record(run: Run) -> dict[str, Any]:
    """Return the record of a run: ``run``, ``working``, and the entries of `State` for all of its ``stages`` in order.

    A stage that nobody works on any more is not running, whatever its entry says, but interrupted.
    """
    state = State(run.directory)
    working = processes.in_use(run.directory)
    entries = {}
    for name in graph(run.config):
        entry = {"state": "pending", **state.stages.get(name, {})}
        if entry["state"] == "running" and not working:
            entry["state"] = "interrupted"
        entries[name] = entry
    return {"run": str(run.directory), "working": working, "stages": entries}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
