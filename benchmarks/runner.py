"""What the runner itself costs: a chain of seven stages with nothing to do, and the way from the command to the first stage.

The stages publish an empty artefact each, so that all that is measured is the runner: a new process that imports it, reads
the configuration, plans and records. Medians of `--repeats` processes; beside the bars, CPU seconds hold on a busy machine
and wall seconds do not.

    python benchmarks/runner.py --repeats 9
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import main, row

_STAGES = 7
_CPU_BAR, _START_BAR = 1.0, 0.5
_CHILD = """
import json, sys, time
from pathlib import Path
from dags import local
from dags.stages import Stage
from pipeline.config_files import load_config

directory, started = Path(sys.argv[1]), Path(sys.argv[2])
names = [f"stage{number}" for number in range(int(sys.argv[3]))]
stages = {
    name: Stage(name, tuple(names[number - 1 : number]), ("data",), (f"{name}.json",), name)
    for number, name in enumerate(names)
}
WORK = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"

def command(name, directory, force):
    if not started.exists():
        started.write_text(f"{time.time()} {time.process_time()}")
    description = json.dumps({"spherecast": {"fingerprint": marks[name]}})
    return [sys.executable, "-S", "-c", WORK, str(directory / f"{name}.json"), description]

config = load_config("tiny")
if not (directory / "state.json").exists():
    from dags.fingerprints import expectations
    marks = {name: each.fingerprint for name, each in expectations(config, None, stages).items()}
sys.exit(local.run(config, directory, stages=stages, command=command))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--repeats", type=int, default=9)


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of both measurements."""
    idle, idle_wall, first, first_wall = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.repeats):
            run, started = Path(folder, f"run{number}"), Path(folder, f"started{number}")
            begun, _, _ = _child(run, started)
            wall, cpu = map(float, started.read_text().split())
            first.append(cpu)
            first_wall.append(wall - begun)
            _, seconds, cpu = _child(run, started)
            idle.append(cpu)
            idle_wall.append(seconds)
            states = json.loads((run / "state.json").read_text())["stages"]
            assert [entry["state"] for entry in states.values()] == ["skipped"] * _STAGES
    median = statistics.median
    return [
        row("nothing to do, CPU", median(idle), "s", _CPU_BAR, 1.0),
        row("nothing to do, wall", median(idle_wall), "s", None),
        row("start to first stage, CPU", median(first), "s", _START_BAR, 1.0),
        row("start to first stage, wall", median(first_wall), "s", _START_BAR, None),
        row("start to first stage, wall, least", min(first_wall), "s", _START_BAR, None),
    ]


def _child(run: Path, started: Path) -> tuple[float, float, float]:
    """Run the chain in a new process; return when it began, and its wall and CPU seconds."""
    before, begun = os.times(), time.time()
    command = [sys.executable, "-c", _CHILD, str(run), str(started), str(_STAGES)]
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return begun, time.time() - begun, cpu


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("pydantic", "rich"))
