"""Forecast skill on a simulated atmosphere (SPEEDY, T31): this project's network, its ablations and its rivals.

All are trained on the same windows with the same loss for the same CPU seconds, each on one core, after the same number
of trials of learning rate, batch and width. What is done is kept under --results, so that the same command goes on where it
was stopped, and --page writes its tables. The whole takes a day of two cores; --lines ours --minutes 2 --seeds 1 --trials 1
takes minutes once the data are made, which takes an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

if "SKILL_CORE" in os.environ:
    # Before any library counts the cores.
    os.sched_setaffinity(0, {int(os.environ["SKILL_CORE"])})
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import main, row
from comparison.lines import ABLATIONS, FIELDS, LEADS, LINES, OURS, TRIALS
from comparison.page import write_page
from comparison.tasks import Task, publish_result, run_all, work

CONFIGURATION = Path(__file__).with_name("comparison") / "t31.yaml"
RESULTS = Path(__file__).with_name("comparison") / "results"
BARS = {
    # lead: (baseline, bars of FIELDS)
    24: ("persistence", (0.15, 0.22, 0.19)),
    72: ("climatology", (0.26, 0.38, 0.40)),
    120: ("climatology", (0.45, 0.58, 0.63)),
}
RIVAL_BARS = {24: 0.75, 72: 0.75, 120: 0.85}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="folder of the data's run")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="of what is done; an empty one: all"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables of what is done; docs/skill.md")
    parser.add_argument("--lines", default=",".join(LINES), help=f"of {', '.join([*LINES, *ABLATIONS])}; or ablations")
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU minutes of a training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of a line's best setting")
    parser.add_argument("--trials", type=int, default=TRIALS, help="settings tried of each line, a quarter as long")
    parser.add_argument("--cores", default=",".join(map(str, sorted(os.sched_getaffinity(0)))), help="e.g. 0,1")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return rows of RMSE ratios; a ratio of at most one meets a bar."""
    results = arguments.results
    base = arguments.runs_dir / "skill-t31"
    if arguments.task:
        task = Task(**arguments.task)
        publish_result(task, results, work(task, base, results))
        return []
    if arguments.page:
        if not results.is_dir():
            sys.exit(f"--results: got {results}, expected a folder of results; without --page they are made")
        write_page(results, arguments.page)
        return []
    command = [sys.executable, "-m", "dags", "run", str(CONFIGURATION), "--runs-dir", str(arguments.runs_dir)]
    for stage in ("statistics", "climatology"):
        subprocess.run([*command, "--until", stage], check=True)
    names = list(ABLATIONS) if arguments.lines == "ablations" else arguments.lines.split(",")
    unknown = [name for name in names if name not in (*LINES, *ABLATIONS)]
    if unknown:
        sys.exit(f"--lines: {unknown[0]} is not known; known are {', '.join([*LINES, *ABLATIONS])}")
    cores = [int(core) for core in arguments.cores.split(",")]
    chosen = choose(names, arguments, base, results, cores)
    tasks = [
        Task(name, chosen[name], seed, arguments.minutes, "test") for seed in range(arguments.seeds) for name in names
    ]
    done = run_all(tasks, base, results, cores)
    by_line = {name: [result for result in done if result["line"] == name] for name in names}
    return [line for name in names for line in rows(name, by_line)]


def choose(
    names: list[str], arguments: argparse.Namespace, base: Path, results: Path, cores: list[int]
) -> dict[str, int]:
    """Return the best setting of every line, by what it makes of the validation period; ablations have ours."""
    lines = list(dict.fromkeys(OURS if name in ABLATIONS else name for name in names))
    trials = [
        Task(name, setting, 0, arguments.minutes / 4, "validation")
        for setting in range(arguments.trials)
        for name in lines
    ]
    if arguments.trials == 1:
        best = dict.fromkeys(lines, 0)
    else:
        done = run_all(trials, base, results, cores)
        best = {
            name: min((loss(result), result["setting"]) for result in done if result["line"] == name)[1]
            for name in lines
        }
    return {name: best[OURS if name in ABLATIONS else name] for name in names}


def loss(result: dict) -> float:
    """Return the mean over fields, and leads of 1 and 3 days, of RMSE over persistence's; not finite comes last."""
    model, persistence = (result["scores"][system]["rmse"] for system in ("model", "persistence"))
    ratios = [
        float("inf") if model[field][LEADS.index(lead)] is None else model[field][at] / persistence[field][at]
        for field in FIELDS
        for lead in (24, 72)
        for at in [LEADS.index(lead)]
    ]
    return sum(ratios) / len(ratios)


def mean_rmse(results: list[dict], field: str, lead: int, system: str = "model") -> float:
    """Return the mean over seeds of a field's RMSE."""
    values = [result["scores"][system]["rmse"][field][LEADS.index(lead)] for result in results]
    return float("nan") if None in values else sum(values) / len(values)


def rows(name: str, by_line: dict[str, list[dict]]) -> list[dict]:
    """Return the rows of a line: ours beside the bars, others beside ours."""
    results = by_line[name]
    found = []
    for lead, (baseline, bars) in BARS.items():
        for field, bar in zip(FIELDS, bars, strict=True):
            value = mean_rmse(results, field, lead)
            if name == OURS:
                ratio = value / mean_rmse(results, field, lead, baseline)
                found.append(row(f"{name}: RMSE {field} at {lead} h", ratio, f"of {baseline}", bar, bar=1.0))
            elif OURS in by_line:
                ours = mean_rmse(by_line[OURS], field, lead)
                bar = RIVAL_BARS[lead] if name in LINES and name != "paper" else None
                found.append(row(f"ours against {name}: RMSE {field} at {lead} h", ours, "", value, bar=bar))
    return found


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, ("numpy", "jax", "torch", "torch-harmonics"))
