"""Wall time, memory and skill of the quickstart, and the time of a second run that has nothing to do.

Runs `spherecast run quickstart` in a new folder, twice. Memory is the peak resident size of the largest process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import main, row

from pipeline.scoring.table import headline_rmse

SKILL_BARS = {
    # lead in hours: (peer, bar)
    24: {"persistence": 0.35},
    72: {"persistence": 0.55, "climatology": 0.70},
    120: {"persistence": 0.90},
}
FIELDS = ("geopotential@500", "temperature@850", "wind_vector@850")
WALL_BAR, MEMORY_BAR, SECOND_BAR, TRAINING_BAR = 360.0, 6.0, 10.0, 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help="folder of the run; temporary by default")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return a row for each bar; a ratio of at most one meets it."""
    with tempfile.TemporaryDirectory() as scratch:
        return _measure(arguments.runs_dir or Path(scratch))


def _measure(runs: Path) -> list[dict]:
    command = [sys.executable, "-m", "dags", "run", "quickstart", "--runs-dir", str(runs)]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    start = time.perf_counter()
    subprocess.run(command, check=True)
    second = time.perf_counter() - start
    run = runs / "quickstart"
    stages = json.loads((run / "state.json").read_text())["stages"]
    rows = [
        row("first run", wall, "s wall", WALL_BAR, bar=1.0),
        row("training alone", stages["train"]["seconds"], "s wall", TRAINING_BAR, bar=1.0),
        row("peak memory of any process", memory, "GB", MEMORY_BAR, bar=1.0),
        row("second run", second, "s wall", SECOND_BAR, bar=1.0),
    ]
    leads = tuple(SKILL_BARS)
    scores = {
        name: headline_rmse(run / "metrics" / f"{name}.nc", leads) for name in ("model", "persistence", "climatology")
    }
    for i, (lead, bars) in enumerate(SKILL_BARS.items()):
        for peer, bar in bars.items():
            for field in FIELDS:
                ratio = scores["model"][field][i] / scores[peer][field][i]
                rows.append(row(f"RMSE {field} at {lead} h", ratio, f"of {peer}", bar, bar=1.0))
    return rows


if __name__ == "__main__":
    main(measure, __doc__, add_arguments)
