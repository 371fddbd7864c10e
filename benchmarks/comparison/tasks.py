"""Tasks of the comparison: each a process of its own on one core, whose result is a JSON file that is made once.

A task is a trial or a full training of a line. Its updates follow from its budget of CPU seconds and from what an update
costs, which is measured once for a line's setting; from then on the same updates are made, so that a task can be repeated
bit for bit.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from comparison.lines import ABLATIONS, LINES, Line, Setting

__all__ = ["Task", "line_of", "publish_result", "run_all", "scores_before_rollouts", "work"]


@dataclass(frozen=True)
class Task:
    """One training and its scores.

    Attributes:
        line: a key of `LINES` or `ABLATIONS`.
        setting: index among the line's settings.
        seed: of parameters and the order of windows.
        minutes: budget of CPU time for training.
        period: ``test`` or, of trials, ``validation``.
    """

    line: str
    setting: int
    seed: int
    minutes: float
    period: str

    @property
    def name(self) -> str:
        """Of the result's file."""
        return f"{self.line}-{self.setting}-{self.minutes:g}min-seed{self.seed}-{self.period}"


def line_of(name: str) -> Line:
    """Return a line or an ablation."""
    return LINES[name] if name in LINES else ABLATIONS[name]


def work(task: Task, base: Path, results: Path) -> dict[str, Any]:
    """Do a task in this process and return its result."""
    # Imported here: the process that starts others needs none of it.
    from comparison import ours
    from comparison.ground import Ground, digest_of

    from pipeline.runs import Run

    line = line_of(task.line)
    setting, run = line.settings[task.setting], Run.open(base)
    folder = base.parent / "skill-work" / task.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mine = line.kind == "spherecast"

    def ground(updates: dict[int, int]) -> Ground:
        return Ground(run, folder, ours.overrides(line, setting, task.seed, updates) if mine else dict(line.overrides))

    costs = _costs(task, results, lambda: _calibrate(line, setting, ground(dict.fromkeys(line.rollouts, 20))))
    budget = 60.0 * task.minutes
    updates = {
        steps: max(1, round(share * budget / costs["update_seconds"][str(steps)]))
        for steps, share in line.rollouts.items()
    }
    prepared, target = ground(updates), folder / "forecast.zarr"
    began, began_cpu = time.perf_counter(), time.process_time()
    if mine:
        ours.train(prepared)
    else:
        from comparison.theirs import Rival

        rival = Rival(prepared, line, setting, task.seed)
        rival.train(updates)
    trained, trained_cpu = time.perf_counter(), time.process_time()
    if mine:
        ours.forecast(prepared, target, task.period)
    else:
        rival.forecast(target, task.period)
    forecast_cpu = time.process_time() - trained_cpu
    result = {
        **asdict(task),
        "title": line.title,
        "chosen": asdict(setting),
        "updates": updates,
        "train_cpu_seconds": trained_cpu - began_cpu,
        "train_wall_seconds": trained - began,
        "compile_cpu_seconds": costs["compile_seconds"],
        "forecast_cpu_seconds": forecast_cpu,
        "samples_per_cpu_second": setting.batch / costs["update_seconds"][str(min(line.rollouts))],
        "parameters": costs["parameters"],
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "scores": prepared.scores(target),
        "digest": digest_of(target),
        "machine": f"{platform.machine()}, one core",
    }
    if task.period == "test":
        result["power_ratio"] = prepared.spectra(target)
        # Of more stages than two the end of the first is no longer kept.
        if mine and len(updates) == 2:
            result["scores_before_rollouts"] = scores_before_rollouts(prepared, updates)
    for name in ("checkpoints", "logs"):
        if task.period != "test":
            shutil.rmtree(folder / name, ignore_errors=True)
    return result


def scores_before_rollouts(ground: Any, updates: Mapping[int, int]) -> dict[str, Any]:
    """Return the scores of the test period by the checkpoint with which a trained line's first stage ended."""
    from comparison import ours

    target = ground.folder / "forecast-before-rollouts.zarr"
    ours.forecast(ground, target, "test", next(iter(updates.values())))
    return ground.scores(target)


def _calibrate(line: Line, setting: Setting, ground: Any) -> dict[str, Any]:
    from comparison import ours

    if line.kind == "spherecast":
        return ours.calibrate(ground)
    from comparison.theirs import Rival

    return Rival(ground, line, setting, 0).calibrate()


def _costs(task: Task, results: Path, measure: Any) -> dict[str, Any]:
    """Return what an update of a setting costs: as measured once, then as written down."""
    path = results / "costs" / f"{task.line}-{task.setting}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _publish(path, measure())
    return json.loads(path.read_text())


def run_all(tasks: Sequence[Task], base: Path, results: Path, cores: Sequence[int]) -> list[dict[str, Any]]:
    """Do what is not done, as many tasks at once as there are cores; return all results in the order of the tasks.

    Raises:
        RuntimeError: tasks failed; their logs are named. The others are done.
    """
    results.mkdir(parents=True, exist_ok=True)
    free: Queue[int] = Queue()
    for core in cores:
        free.put(core)

    def do(task: Task) -> str | None:
        path = results / f"{task.name}.json"
        if path.is_file():
            return None
        core = free.get()
        log = base.parent / "skill-work" / f"{task.name}.log"
        log.parent.mkdir(exist_ok=True)
        try:
            print(f"{task.name}: started on core {core}", flush=True)
            with log.open("w") as output:
                command = [sys.executable, str(Path(__file__).resolve().parents[1] / "skill.py"), "--task"]
                command += [json.dumps(asdict(task)), "--runs-dir", str(base.parent), "--results", str(results)]
                cache = str(base.parent / "skill-work" / "programs")
                environment = {**os.environ, "SKILL_CORE": str(core), "JAX_COMPILATION_CACHE_DIR": cache}
                status = subprocess.run(command, stdout=output, stderr=output, env=environment).returncode
            print(f"{task.name}: {'done' if status == 0 else f'failed, see {log}'}", flush=True)
            return None if status == 0 else str(log)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        failed = [log for log in pool.map(do, tasks) if log]
    if failed:
        raise RuntimeError(f"{len(failed)} tasks failed: {', '.join(failed)}")
    return [json.loads((results / f"{task.name}.json").read_text()) for task in tasks]


def _publish(path: Path, value: Any) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def publish_result(task: Task, results: Path, result: dict[str, Any]) -> None:
    """Write a task's result, all at once."""
    _publish(results / f"{task.name}.json", result)
