"""The real table of stages and the real runner, with a few bytes for each stage's work: `rehearsal.py` serves forks.

A stage reads all that it comes after, so that its result would show any damage there, writes its own in four blocks and
goes on from whole ones that an earlier attempt left. Each runner and each stage is a process of its own, made by a fork
of this one instead of a new interpreter, so that a drill takes a tenth of a second. The environment variable
FAULT (``STAGE=FAULT``) makes a stage fail, or wait, with half of its blocks written.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import dags.fingerprints
import pipeline.artefacts
from dags import failures, local, processes, stage_process, stage_work
from dags.schedule import Patience
from dags.stages import STAGES as REAL
from pipeline.artefacts import describe, publishing, write_description
from pipeline.config_files import load_config
from pipeline.jobs.progress import progress
from transforms.errors import InputError

BLOCKS = 4


def _name(artefact: str) -> str:
    """Return the name of a rehearsed artefact: a folder for a folder, a text for a file."""
    path = Path(artefact)
    return str(path if path.suffix in ("", ".zarr") else path.with_suffix(".json"))


STAGES = {name: replace(stage, artefacts=tuple(map(_name, stage.artefacts))) for name, stage in REAL.items()}


def function(name: str):
    """Return what a stage does."""

    def run_stage(run, fingerprint, inputs):
        read = b"".join(_contents(run.directory / artefact) for up in STAGES[name].upstream for artefact in _of(up))
        if name in ("validate", "regrid") and run.config.source.kind == "store":
            read += Path(run.source_path).read_bytes()
        for artefact in STAGES[name].artefacts:
            with publishing(run.directory / artefact, keep_partial=True) as partial, progress(name, BLOCKS) as bar:
                blocks = [
                    hashlib.sha256(read + f"{artefact} {number}".encode()).hexdigest() for number in range(BLOCKS)
                ]
                description = describe(name, fingerprint, inputs)
                if partial.suffix == ".json":
                    _come_to(name, run.directory)
                    partial.write_text(json.dumps({"spherecast": description, "blocks": blocks}))
                    continue
                partial.mkdir(exist_ok=True)
                for number, block in enumerate(blocks):
                    if number == BLOCKS // 2:
                        _come_to(name, run.directory)
                    path = partial / str(number)
                    if not path.is_file() or path.read_text() != block:
                        path.write_text(block)
                    bar.advance()
                write_description(partial, description)

    return run_stage


def _of(stage: str) -> tuple[str, ...]:
    return STAGES[stage].artefacts


def _contents(artefact: Path) -> bytes:
    """Return all that an artefact holds; nothing where this configuration does not make it."""
    if artefact.is_dir():
        return b"".join((artefact / str(number)).read_bytes() for number in range(BLOCKS))
    return json.dumps(json.loads(artefact.read_text())["blocks"]).encode() if artefact.exists() else b""


def _come_to(name: str, directory: Path) -> None:
    """Suffer the fault that the environment asks for, half way through a stage."""
    stage, _, fault = os.environ.get("FAULT", "").partition("=")
    here = directory.parent / "here"
    if stage != name or here.exists():
        return
    if fault.startswith("wait"):
        (directory.parent / ".here").write_text(str(os.getpid()))
        (directory.parent / ".here").rename(here)  # Whoever sees it can read it.
        while fault == "wait" or not (directory.parent / "go").exists():
            time.sleep(0.01)
    elif fault == "fill":
        with (directory / ".partial-filling").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
    elif fault == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
        bytearray(1 << 31)


def stage() -> None:
    """``stage NAME RUN [--force]``: what a stage's process does, as `spherecast stage` would."""
    processes.tie_to_parent()
    logging.basicConfig(level=logging.INFO, force=True)
    name, directory = sys.argv[1], Path(sys.argv[2])
    try:
        stage_work.work(name, directory, force="--force" in sys.argv, stages=STAGES, function=function)
    except Exception as error:
        refused = isinstance(error, InputError)
        message = str(error) if refused else failures.short_message(error, directory)
        processes.report_error(message, transient=failures.may_pass(error, directory))
        traceback.print_exc()
        raise SystemExit(2 if refused else 1) from error


def runner() -> None:
    """``run RUN [a.b=c ...]``: what `spherecast run tiny` does."""
    _turn_clock_back()
    if "VERSION" in os.environ:
        dags.fingerprints.SCHEMA_VERSION = pipeline.artefacts.SCHEMA_VERSION = int(os.environ["VERSION"])
    stage_process.subprocess.Popen = Forked
    try:
        status = local.run(
            load_config("tiny", sys.argv[2:]),
            Path(sys.argv[1]),
            stages=STAGES,
            command=lambda name, directory, force: [name, str(directory), *(["--force"] if force else [])],
            jobs=int(os.environ.get("JOBS", "1")),
            patience=Patience(pause=0.01),
        )
    except InputError as error:
        print(error, file=sys.stderr)
        status = 2
    raise SystemExit(status)


def _turn_clock_back() -> None:
    """Let each look at the clock find it an hour before the last, where the environment asks for that."""
    if "BACKWARDS" in os.environ:
        now, looks = time.time(), iter(range(1, 1 << 30))
        time.time = lambda: now - 3600 * next(looks)
        local.utc_now = processes.utc_now = lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time()))


class Forked:
    """What the runner uses of `subprocess.Popen`, for a stage in a fork of the runner."""

    def __init__(self, arguments, stdin, stdout, stderr, pass_fds, process_group, env) -> None:
        self.returncode = None
        self.pid = fork(stage, arguments, env, stdout.fileno(), keep=pass_fds, group=process_group)

    def poll(self) -> int | None:
        self._look(os.WNOHANG)
        return self.returncode

    def wait(self) -> int:
        self._look(0)
        return self.returncode

    def _look(self, options: int) -> None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None


def fork(work, arguments, environment, output: int, keep=(), group: int | None = None) -> int:
    """Do `work` in a new process as an interpreter of its own would, with those descriptors alone; return its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if group is not None:
            os.setpgid(0, group)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor not in keep:
                with contextlib.suppress(OSError):  # That of the list itself.
                    os.close(descriptor)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["rehearsal", *arguments]
        work()
        status = 0
    except SystemExit as left:
        status = int(left.code or 0)
    except BaseException:  # noqa: BLE001  As an interpreter does at its end.
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve() -> None:
    """Start runners, and wait for them, as lines of JSON on standard input ask for."""
    gc.collect()
    gc.freeze()  # A collection in a fork would copy every page there is.
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            with open(request["output"], "ab") as output:
                environment = {**os.environ, **request["environment"]}
                work = stage if request["what"] == "stage" else runner
                answer = fork(work, request["arguments"], environment, output.fileno())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
