"""Run the stages of a configuration on this machine: one process at a time, each with its log.

`run` decides what has to work (see `dags.plan`), holds the run's lock, starts each stage as a process of its own and
records in `state.json` what became of it. `work` is what happens inside that process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from dags import processes
from dags.display import Display, display_for, plan_table
from dags.fingerprints import graph
from dags.plan import Step, descendants, expected_of, plan, upstream_faults
from dags.stages import STAGES, Stage
from dags.state import State, holds, utc_now
from pipeline.artefacts import working_path
from pipeline.config import Config
from pipeline.jobs.progress import FD_VARIABLE
from pipeline.processes.membership import PREEMPTED
from pipeline.runs import Run
from pipeline.stages import load
from transforms.errors import InputError

__all__ = ["follow", "run", "stage_command", "work"]

_GRACE = 20.0
"""Seconds a stage has to end after it was told to, before it is killed."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOG_TAIL = 12
_FOLLOW_SECONDS = 300.0

Command = Callable[[str, Path, bool], list[str]]


def stage_command(name: str, directory: Path, force: bool) -> list[str]:
    """Return the command that works on one stage in a process of its own."""
    return [sys.executable, "-m", "dags", "stage", name, str(directory), *(["--force"] if force else [])]


def run(
    config: Config,
    directory: Path,
    *,
    start: str | None = None,
    until: Collection[str] = (),
    force: Collection[str] = (),
    dry_run: bool = False,
    console: Console | None = None,
    stages: dict[str, Stage] = STAGES,
    command: Command = stage_command,
) -> int:
    """Bring the artefacts of a run up to date.

    Args:
        directory: the run directory; made when missing.
        start, until, force: see `dags.plan.plan`.
        dry_run: only print what would run and why; nothing is written.
        console: where progress is printed; standard error by default.
        stages, command: the table of stages, and how one is started.

    Returns:
        Exit status: 0 when everything asked for is up to date, 1 when a stage failed, 2 when it refused its input,
        128 + the signal's number when the run was told to stop, `PREEMPTED` when the stage saved its work first.

    Raises:
        InputError: the configuration, the source, the choice of stages or the directory cannot be used, or another
            process works in it; nothing has been changed.
    """
    console = console or Console(stderr=True)
    if directory.exists() and not (directory / "config.yaml").is_file() and _occupied(directory):
        raise InputError(f"{directory}: exists and is not a run directory. Choose another --name or --runs-dir.")
    choice: dict[str, Any] = {"start": start, "until": until, "force": force, "stages": stages}
    steps = plan(config, directory, **choice)
    if dry_run:
        console.print(plan_table(steps))
        return 0
    try:
        (directory / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: cannot write there ({error.strerror}). Choose another --runs-dir.") from error
    with processes.hold(directory) as lock:
        steps = plan(config, directory, **choice)
        _save_config(config, directory)
        state = _planned_state(directory, steps)
        working = [step for step in steps if step.work]
        if not working:
            console.print(f"[green]Nothing to do[/]: {escape(str(directory))} is up to date.", highlight=False)
            return 0
        downstream = {name: descendants(graph(config, stages), [name]) - {name} for name in graph(config, stages)}
        with display_for(console, steps) as display, _signals() as received:
            for step in working:
                if step.forced:
                    for name in downstream[step.stage.name]:
                        state.stages.setdefault(name, {})["stale"] = True
                outcome = _attempt(step, directory, lock, state, display, received, command)
                if outcome.state != "done":
                    break
    _explain(console, step, directory, outcome)
    return outcome.status


def work(
    name: str,
    directory: Path,
    *,
    force: bool = False,
    stages: dict[str, Stage] = STAGES,
    function: Callable[[str], Callable[[Run, str, dict[str, str]], None]] = load,
) -> None:
    """Do the work of one stage in this process, unless its artefacts match already.

    Raises:
        InputError: an upstream artefact is missing or does not match, or the stage is worked on already.
    """
    run = Run.open(directory)
    with contextlib.ExitStack() as stack:
        if not processes.inherited_lock():
            stack.enter_context(processes.hold(directory, shared=True))
            stack.enter_context(processes.hold(directory, f".lock-{name}"))
        nodes = graph(run.config, stages)
        if name not in nodes:
            raise InputError(f"stage {name!r} is not part of this run; its stages are {', '.join(nodes)}.")
        expected = expected_of(run.config, State(directory), stages)
        faults = upstream_faults(directory, [nodes[up] for up in nodes[name].upstream], expected)
        if faults:
            raise InputError(f"{name}: cannot start, since\n{faults}\nRun `spherecast run {directory}` to make them.")
        if not force and holds(directory, nodes[name], expected[name].fingerprint) is None:
            logging.getLogger(__name__).info("%s is up to date", name)
            return
        function(name)(run, expected[name].fingerprint, expected[name].inputs)


def follow(
    name: str, directory: Path, *, timeout: float = _FOLLOW_SECONDS, stages: dict[str, Stage] = STAGES, function=load
) -> None:
    """Do a stage's work beside the process that leads it, which holds the locks, keeps the record and publishes.

    Args:
        timeout: seconds to wait until the leading process has started the stage.

    Raises:
        InputError: it did not start.
    """
    limit = time.monotonic() + timeout
    while True:
        if (directory / "config.yaml").is_file():
            config, state = Run.open(directory).config, State(directory)
            if state.stages.get(name, {}).get("state") == "running":
                break
            if holds(directory, stages[name], expected_of(config, state, stages)[name].fingerprint) is None:
                return
        if time.monotonic() > limit:
            raise InputError(
                f"{directory}: process 0 has not started {name} within {timeout:g} s. All processes need the same "
                "folder of runs, on a file system they share."
            )
        time.sleep(0.5)
    expected = expected_of(config, state, stages)[name]
    function(name)(Run.open(directory), expected.fingerprint, expected.inputs)


def _planned_state(directory: Path, steps: list[Step]) -> State:
    """Record which stages are to work and which are up to date; return the record."""
    state = State(directory)
    for step in steps:
        if step.work:
            state.stages.setdefault(step.stage.name, {})["state"] = "pending"
        else:
            state.record_done(step.stage, step.expected, "skipped")
    state.save()
    return state


@dataclass(frozen=True)
class _Outcome:
    state: str
    status: int
    error: str


def _attempt(
    step: Step,
    directory: Path,
    lock: int,
    state: State,
    display: Display,
    received: list[int],
    command: Command,
) -> _Outcome:
    """Start one stage, follow it to its end and record it."""
    name = step.stage.name
    log = directory / "logs" / f"{name}.log"
    started, clock = utc_now(), time.monotonic()
    state.update(name, state="running", started=started, ended=None, seconds=None, log=str(log))
    display.begin(step)
    if step.anew:
        for artefact in step.stage.artefacts:
            _discard(working_path(directory / artefact))
    with log.open("ab") as stream:
        stream.write(f"=== {name}, {started}: {step.why}\n".encode())
        stream.flush()
        status, error = _follow(command(name, directory, step.forced), name, lock, stream, state, display, received)
    fault = holds(directory, step.stage, step.expected.fingerprint) if status == 0 else error or _cause(status, log)
    if fault is None:
        result = "done"
    elif received or status == PREEMPTED:
        result = "interrupted"
    else:
        result, error = "failed", f"{name} ended, but {fault}." if status == 0 else fault
    seconds = time.monotonic() - clock
    # On a full disk the reason for the failure matters more than its record.
    with contextlib.nullcontext() if result == "done" else contextlib.suppress(OSError):
        state.update(name, ended=utc_now(), seconds=round(seconds, 2), state=result, pid=None)
    if result == "done":
        state.record_done(step.stage, step.expected, result)
    display.end(step, result, seconds)
    if result == "interrupted":
        return _Outcome(result, 128 + received[0] if received and status != PREEMPTED else PREEMPTED, "")
    return _Outcome(result, 0 if result == "done" else 2 if status == 2 else 1, error)


def _follow(
    arguments: list[str],
    name: str,
    lock: int,
    log,
    state: State,
    display: Display,
    received: list[int],
) -> tuple[int, str]:
    """Run one process to its end; return its exit status and the error it reported."""
    reader, writer = os.pipe()
    environment = {
        **os.environ,
        FD_VARIABLE: str(writer),
        processes.LOCK_VARIABLE: str(lock),
        processes.PARENT_VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    try:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(writer, lock),
            process_group=0,
            env=environment,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    state.update(name, pid=child.pid)
    error, told, deadline = "", 0, float("inf")
    with os.fdopen(reader, "rb", buffering=0) as pipe, selectors.DefaultSelector() as selector:
        os.set_blocking(reader, False)
        selector.register(pipe, selectors.EVENT_READ)
        rest, ended = b"", False
        while not ended:
            ended = child.poll() is not None
            selector.select(0.0 if ended else 0.1)
            chunk = pipe.read(1 << 16)
            if chunk == b"":  # The stage has let go of the pipe and is about to end.
                time.sleep(0.02)
            *lines, rest = (rest + (chunk or b"")).split(b"\n")
            error = _show_events(lines, display) or error
            display.tick()
            if len(received) > told:
                _signal_group(child.pid, received[0] if told == 0 else signal.SIGKILL)
                told, deadline = len(received), time.monotonic() + _GRACE
            elif time.monotonic() > deadline:
                _signal_group(child.pid, signal.SIGKILL)
    _signal_group(child.pid, signal.SIGKILL)  # Workers that a dying stage left behind.
    return child.returncode, error


def _show_events(lines: list[bytes], display: Display) -> str:
    """Show the progress that a stage reports; return the error among it, or an empty text."""
    error = ""
    for line in lines:
        with contextlib.suppress(ValueError, KeyError):  # Threads that report at once may garble a line.
            event = json.loads(line)
            if "error" in event:
                error = event["error"]
            else:
                display.event(event)
    return error


def _cause(status: int, log: Path) -> str:
    """Return why a stage failed that said nothing itself."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = " The machine may have run out of memory." if name == "SIGKILL" else ""
        return f"killed by {name}.{hint}"
    lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
    return "\n".join(lines) or f"ended with status {status}"


def _explain(console: Console, step: Step, directory: Path, outcome: _Outcome) -> None:
    """Say why the last stage that worked is not done, where it is not, and how to go on."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    if outcome.state == "interrupted":
        console.print(f"[yellow]Stopped[/] in {step.stage.name}; finished stages are kept.", highlight=False)
        say(f"Go on with: spherecast run {directory}")
    elif outcome.state == "failed":
        console.print(f"\n[bold red]{step.stage.name} failed[/]", highlight=False)
        say(outcome.error)
        say(f"\nLog:    {directory / 'logs' / step.stage.name}.log")
        say(f"Resume: spherecast run {directory}")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask this process to stop, instead of stopping."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    # What nohup or a background job has the process ignore stays ignored.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda got, _: received.append(got)) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _occupied(directory: Path) -> bool:
    """Whether somebody else's files are in `directory`; a run that was killed at once leaves only its logs and lock."""
    return not directory.is_dir() or any(entry.name not in ("logs", ".lock") for entry in directory.iterdir())


def _save_config(config: Config, directory: Path) -> None:
    path = directory / "config.yaml"
    text = config.to_yaml()
    if path.is_file() and path.read_text() == text:
        return
    partial = working_path(path)
    # Storage options may hold credentials.
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    if not config.source.storage_options:
        partial.chmod(0o644)
    os.replace(partial, path)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
