"""Wall time, memory and skill of the quickstart, and the time of a second run that has nothing to do.

Runs `spherecast run quickstart` in a new folder, twice. Memory is the peak resident size of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.scores import headline_rmse

SKILL_BARS = {
    # lead in hours: (peer, bar)
    24: {"persistence": 0.35},
    72: {"persistence": 0.55, "climatology": 0.70},
    120: {"persistence": 0.90},
}
FIELDS = ("geopotential@500", "temperature@850", "wind_vector@850")
WALL_BAR, MEMORY_BAR, SECOND_BAR, TRAINING_BAR = 360.0, 6.0, 10.0, 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows of name, value, unit, peer, ratio")
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help="folder of the run; temporary by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(arguments.runs_dir or Path(scratch))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for row in rows:
        print(
            f"{row['name']:<44} {row['value']:9.3f} {row['unit']:<12} bar {row['peer']:7.2f}   ratio {row['ratio']:.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(runs: Path) -> list[dict]:
    """Return a row for each bar; a ratio of at most one meets it."""
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
        _row("first run", wall, "s wall", WALL_BAR),
        _row("training alone", stages["train"]["seconds"], "s wall", TRAINING_BAR),
        _row("peak memory of any process", memory, "GB", MEMORY_BAR),
        _row("second run", second, "s wall", SECOND_BAR),
    ]
    leads = tuple(SKILL_BARS)
    scores = {
        name: headline_rmse(run / "metrics" / f"{name}.nc", leads) for name in ("model", "persistence", "climatology")
    }
    for i, (lead, bars) in enumerate(SKILL_BARS.items()):
        for peer, bar in bars.items():
            for field in FIELDS:
                ratio = scores["model"][field][i] / scores[peer][field][i]
                rows.append(_row(f"RMSE {field} at {lead} h", ratio, f"of {peer}", bar))
    return rows


def _row(name: str, value: float, unit: str, bar: float) -> dict:
    return {"name": name, "value": value, "unit": unit, "peer": bar, "ratio": value / bar}


if __name__ == "__main__":
    main()
