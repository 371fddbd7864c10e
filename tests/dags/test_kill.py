"""The runner is killed in every stage of a real run; the same command goes on, and the results are the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dags.stages import STAGES
from pipeline.reporting.history import read_history
from pipeline.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Sharding info not provided")]

PATIENCE = 400.0


def test_killed_in_every_stage_it_resumes_to_the_same_results(tiny_run, differences, tmp_path):
    directory = tmp_path / "runs" / "tiny"
    command = [sys.executable, "-m", "dags", "run", "tiny", "--runs-dir", str(directory.parent)]
    for name in STAGES:
        runner = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _wait(lambda name=name, runner=runner: _is_deep_in(name, directory, runner), runner)
        stage = _state(directory)[name]["pid"]
        runner.send_signal(signal.SIGKILL)
        runner.communicate()
        _wait(lambda stage=stage: not _is_alive(stage), None)
        for artefact in STAGES[name].artefacts:
            assert not (directory / artefact).exists(), f"{artefact} appeared before {name} was done"
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    for name in STAGES:
        log = (directory / "logs" / f"{name}.log").read_text()
        # Branches run at once, so that a stage may also have been at work when the runner was killed in another.
        assert len(re.findall(rf"^=== {name}, ", log, re.MULTILINE)) >= 2, f"{name} was not run again:\n{log}"
    ((update, started),) = read_history(Run.open(directory)).resumed
    assert update > 0
    assert started[:4].isdigit()
    # The page tells that the training was resumed, and what each stage took.
    assert differences(directory, tiny_run) == ["report.html"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert "Nothing to do" in again.stderr


def _is_deep_in(name: str, directory: Path, runner: subprocess.Popen) -> bool:
    """Whether the stage is at work; training, whether it has something to resume from."""
    if not (directory / "state.json").exists():
        return False
    entry = _state(directory).get(name, {})
    if entry.get("state") != "running" or not entry.get("pid"):
        return False
    if name == "train":
        return any(path.name.isdigit() for path in (directory / ".partial-checkpoints").glob("*"))
    time.sleep(0.5)
    return True


def _state(directory: Path) -> dict:
    return json.loads((directory / "state.json").read_text())["stages"]


def _wait(condition, runner: subprocess.Popen | None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        if runner is not None and runner.poll() is not None:
            pytest.fail(f"the runner ended with {runner.returncode}: {runner.stderr.read()}")
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (ProcessLookupError, FileNotFoundError):
        return False
