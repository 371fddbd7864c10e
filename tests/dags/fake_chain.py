"""A small chain of stages that take no time, run by the real runner: `fake_chain.py STAGE RUN [--force]`.

The environment variable FAKE (``STAGE=BEHAVIOUR``) makes one stage misbehave.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from dags import failures, local, processes, stage_work
from dags.stages import Stage
from pipeline.artefacts import describe, publishing
from pipeline.jobs.progress import FD_VARIABLE, progress
from pipeline.processes.membership import PREEMPTED
from transforms.errors import InputError

STAGES = {
    stage.name: stage
    for stage in (
        Stage("simulate", (), ("source.kind", "simulation"), ("source.json",), "make data"),
        Stage("regrid", ("simulate",), ("source", "data"), ("training.json",), "regrid"),
        Stage("statistics", ("regrid",), ("periods.train",), ("statistics.json",), "statistics"),
        Stage("climatology", ("regrid",), ("climatology",), ("climatology.json",), "climatology"),
        Stage("train", ("regrid", "statistics"), ("model", "training"), ("checkpoints.json",), "train"),
        Stage("evaluate", ("climatology", "train"), ("evaluation",), ("m/model.json", "m/other.json"), "score"),
    )
}


def command(name: str, directory: Path, force: bool) -> list[str]:
    return [sys.executable, __file__, name, str(directory), *(["--force"] if force else [])]


def function(name: str):
    def run_stage(run, fingerprint, inputs):
        stage, _, behaviour = os.environ.get("FAKE", "").partition("=")
        with (run.directory / "attempts").open("a") as stream:
            stream.write(f"{name} {os.getpid()} {time.time()}\n")
        if stage == name:
            misbehave(name, behaviour, run.directory)
        with progress(name, 4) as bar:
            for _ in range(4):
                bar.advance()
        for artefact in STAGES[name].artefacts:
            with publishing(run.directory / artefact, keep_partial=True) as partial:
                mark = partial.read_text() if partial.exists() else ""
                content = {"spherecast": describe(name, fingerprint, inputs), "resumed": mark}
                partial.write_text(json.dumps(content))

    return run_stage


def attempts(name: str, directory: Path) -> int:
    """Return how often a stage has begun to work."""
    path = directory / "attempts"
    return sum(line.split()[0] == name for line in path.read_text().splitlines()) if path.exists() else 0


def misbehave(name: str, behaviour: str, directory: Path) -> None:
    if behaviour == "input":
        raise InputError("temperature: level 925 hPa is missing; the source has 500, 850.")
    if behaviour == "crash":
        raise RuntimeError("the seventh row of the matrix is missing")
    if behaviour == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere/training.json")
    if behaviour == "fill":
        with (directory / ".partial-checkpoints.json").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "killed once" and attempts(name, directory) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "lost" and attempts(name, directory) < 3:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    if behaviour == "meet":  # Ends when another branch has begun beside it.
        deadline = time.monotonic() + 60.0
        while not attempts("climatology", directory):
            if time.monotonic() > deadline:
                raise RuntimeError("nothing works beside this stage")
            time.sleep(0.02)
    if behaviour == "chatty":
        for number in range(24):
            print(f"line {number} " + "word " * 5_000, flush=True)
            time.sleep(0.1)
    if behaviour == "garbled":
        for line in (b"{half\n", b"[1, 2]\n", b'{"task": "x"}\n', b"\n"):
            os.write(int(os.environ[FD_VARIABLE]), line)
    if behaviour == "nothing":
        raise SystemExit(0)
    if behaviour == "preempted":
        (directory / ".partial-checkpoints.json").write_text("half")
        raise SystemExit(PREEMPTED)
    if behaviour == "orphan":  # Outlives its runner, as work in an uninterruptible call would for a while.
        import ctypes

        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(8)
    if behaviour == "pause":
        time.sleep(1.5)
    if behaviour == "slow":
        (directory / ".partial-checkpoints.json").write_text("half")
        time.sleep(30)


def main() -> None:
    processes.tie_to_parent()
    logging.basicConfig(level=logging.INFO)
    name, directory = sys.argv[1], Path(sys.argv[2])
    print(f"working on {name}")
    try:
        stage_work.work(name, directory, force="--force" in sys.argv, stages=STAGES, function=function)
    except InputError as error:
        processes.report_error(str(error), transient=failures.may_pass(error, directory))
        raise SystemExit(2) from error
    except Exception as error:
        transient = failures.may_pass(error, directory)
        processes.report_error(failures.short_message(error, directory), transient=transient)
        raise


def runner() -> None:
    """`fake_chain.py run CONFIG RUN`: the runner itself, for tests that signal it."""
    from pipeline.config_files import load_config

    config, jobs = load_config(sys.argv[2]), int(os.environ.get("JOBS", "2"))
    try:
        raise SystemExit(local.run(config, Path(sys.argv[3]), stages=STAGES, command=command, jobs=jobs))
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    runner() if sys.argv[1] == "run" else main()
