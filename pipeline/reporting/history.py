"""What became of a run: its stages, what they took, what they warned of, and on which machine it was trained."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artefacts import read_description
from pipeline.runs import Run

__all__ = ["History", "StageRecord", "read_history"]

_LOGGED = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S* (WARNING|ERROR|CRITICAL) (.*)$")
_START = re.compile(r"^=== (\w+), (\S+): (.*)$")
_RESUMED = re.compile(r"going on after (\d+) of \d+ updates")
_PREEMPTED = re.compile(r"stopped by .* after (\d+) updates, all saved")
_MOST_WARNINGS = 100


@dataclass(frozen=True)
class StageRecord:
    """One stage of a run.

    Attributes:
        state: pending, running, done, skipped, failed or interrupted.
        started: UTC, ISO 8601, empty where it never was.
        seconds: that it took, None where it has not ended.
        size: bytes of what it made.
        stale: whether a stage before it was made anew since.
    """

    name: str
    state: str
    started: str
    seconds: float | None
    size: int | None
    stale: bool


@dataclass(frozen=True)
class History:
    """What became of a run.

    Attributes:
        stages: in running order; empty where the run has no record.
        warnings: stage, time and text of each line of the logs that warns.
        beyond: how many more warnings there are than `warnings` holds.
        resumed: (update, when) of each time that training went on from a checkpoint; preempted: likewise stopped.
        hardware: what the network was trained on, by name; empty where nothing says.
    """

    stages: list[StageRecord]
    warnings: list[tuple[str, str, str]]
    beyond: int
    resumed: list[tuple[int, str]]
    preempted: list[tuple[int, str]]
    hardware: dict[str, Any]

    @property
    def unfinished(self) -> list[StageRecord]:
        """Stages that are not done."""
        return [stage for stage in self.stages if stage.state not in ("done", "skipped")]


def read_history(run: Run) -> History:
    """Read the record and the logs of a run; what is missing or broken is empty."""
    warnings: list[tuple[str, str, str]] = []
    resumed, preempted = [], []
    for path in sorted(run.logs.glob("*.log"), key=lambda path: path.stat().st_mtime):
        started = ""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if begun := _START.match(line):
                started = begun[2]
            elif found := _LOGGED.match(line):
                warnings.append((path.stem, found[1], found[3]))
            if again := _RESUMED.search(line):
                resumed.append((int(again[1]), started))
            if stopped := _PREEMPTED.search(line):
                preempted.append((int(stopped[1]), started))
    shown = list(dict.fromkeys(warnings))
    hardware = (read_description(run.checkpoints) or {}).get("hardware", {})
    return History(
        _stages(run.directory / "state.json"),
        shown[:_MOST_WARNINGS],
        max(0, len(shown) - _MOST_WARNINGS),
        resumed,
        list(dict.fromkeys(preempted)),
        hardware,
    )


def _stages(path: Path) -> list[StageRecord]:
    try:
        stages = json.loads(path.read_text())["stages"].items()
    except (OSError, ValueError, KeyError, AttributeError):
        return []
    return [
        StageRecord(
            name,
            str(entry.get("state", "pending")),
            entry.get("started") or "",
            entry.get("seconds"),
            sum(entry["bytes"].values()) if entry.get("bytes") else None,
            bool(entry.get("stale")),
        )
        for name, entry in stages
    ]
