"""Run the stages of a configuration on this machine: each in a process of its own, independent ones at the same time.

`run` decides what has to work (see `dags.plan`) and in which order (`dags.schedule`), holds the run's lock, starts each
stage (`dags.stage_process`) and records in `state.json` what became of it. `dags.stage_work` is what happens inside a
stage's process.
"""

from __future__ import annotations

import contextlib
import functools
import selectors
import shutil
import signal
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
from dags.damage import put_aside, told
from dags.display import Display, display_for, plan_table
from dags.fingerprints import graph
from dags.logs import log_path
from dags.machine import default_jobs, require_address_space
from dags.plan import Step, descendants, plan
from dags.progress import ProgressFile
from dags.schedule import Patience, Schedule
from dags.stage_process import Ending, StageProcess
from dags.stages import STAGES, Stage
from dags.state import State, holds, utc_now
from pipeline.artefacts import working_path
from pipeline.config import Config
from pipeline.processes.membership import PREEMPTED
from pipeline.runs import Run, refuse_foreign
from transforms.errors import InputError

__all__ = ["run", "stage_command"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK = 0.1
_ENDING = 0.02
"""Seconds between looks at a process that has let go of its pipe and is about to end."""

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
    jobs: int | None = None,
    patience: Patience = Patience(),
    console: Console | None = None,
    stages: dict[str, Stage] = STAGES,
    command: Command = stage_command,
) -> int:
    """Bring the artefacts of a run up to date.

    Once a stage has failed no other is started; those at work are let finish.

    Args:
        directory: the run directory; made when missing.
        start, until, force: see `dags.plan.plan`.
        dry_run: only print what would run and why; nothing is written.
        jobs: most stages at work at once; by default what the machine has cores and memory for.
        patience: how often a stage is tried again that failed for a reason that passes.
        console: where progress is printed; standard error by default.
        stages, command: the table of stages, and how one is started.

    Returns:
        Exit status: 0 when everything asked for is up to date, 1 when a stage failed, 2 when it refused its input,
        128 + the signal's number when the run was told to stop, `PREEMPTED` when the stage saved its work first.

    Raises:
        InputError: the configuration, the source, the choice of stages or the directory cannot be used, another process
            works in it, or a limit leaves too little address space; nothing has been changed.
    """
    console = console or Console(stderr=True)
    refuse_foreign(directory)
    choice: dict[str, Any] = {"start": start, "until": until, "force": force, "stages": stages}
    if dry_run:
        console.print(plan_table(plan(config, directory, **choice)))
        return 0
    require_address_space()
    if not directory.exists():
        plan(config, directory, **choice)  # What is refused leaves no directory behind.
    try:
        (directory / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: cannot write there ({error.strerror}). Choose another --runs-dir.") from error
    with processes.hold(directory) as lock:
        steps = plan(config, directory, **choice)
        Run.create(directory, config)
        state = _planned_state(directory, steps)
        working = [step for step in steps if step.work]
        if not working:
            console.print(f"[green]Nothing to do[/]: {escape(str(directory))} is up to date.", highlight=False)
            return 0
        _tell_of_damage(console, working)
        nodes = graph(config, stages)
        downstream = {name: descendants(nodes, [name]) - {name} for name in nodes}
        earlier = {name: entry["seconds"] for name, entry in state.stages.items() if entry.get("seconds")}
        with (
            display_for(console, steps, earlier) as display,
            ProgressFile(directory) as progress,
            _signals() as received,
        ):
            runner = _Runner(directory, lock, state, display, progress, received, command, patience, downstream)
            outcomes = runner.work(Schedule(working, jobs or default_jobs(config)))
    return _explain(console, directory, outcomes)


@dataclass(frozen=True)
class _Outcome:
    """What became of one stage: done, failed or interrupted, with an exit status and what to say."""

    stage: str
    state: str
    status: int
    error: str = ""


@dataclass
class _Attempt:
    """A stage at work."""

    step: Step
    process: StageProcess
    number: int
    clock: float
    ending: bool = False


class _Runner:
    """Starts the stages of one run, follows them and records what became of them."""

    def __init__(
        self,
        directory: Path,
        lock: int,
        state: State,
        display: Display,
        progress: ProgressFile,
        received: list[int],
        command: Command,
        patience: Patience,
        downstream: dict[str, set[str]],
    ) -> None:
        self._directory, self._lock, self._state = directory, lock, state
        self._display, self._progress, self._received = display, progress, received
        self._command, self._patience, self._downstream = command, patience, downstream
        self._attempts: dict[str, _Attempt] = {}
        self._numbers: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()

    def work(self, schedule: Schedule) -> list[_Outcome]:
        """Work until all is done, a stage has failed, or the runner was told to stop; return what became of stages."""
        outcomes: list[_Outcome] = []
        try:
            while True:
                stopping = bool(self._received) or any(outcome.state != "done" for outcome in outcomes)
                while not stopping and (step := schedule.start_next(time.monotonic())) is not None:
                    self._begin(step)
                if not self._attempts and (stopping or not schedule.waiting):
                    break
                self._listen()
                for attempt in list(self._attempts.values()):
                    ended = attempt.process.ending()
                    if ended is not None:
                        outcome = self._end(attempt, ended, schedule)
                        outcomes += [outcome] if outcome else []
        finally:
            for attempt in self._attempts.values():
                attempt.process.end()
            self._selector.close()
        if self._received and not any(outcome.state != "done" for outcome in outcomes):
            outcomes += [_Outcome(step.stage.name, "interrupted", self._stopped()) for step in schedule.waiting[:1]]
        return outcomes

    def _begin(self, step: Step) -> None:
        name = step.stage.name
        log = log_path(self._directory, name)
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        started = utc_now()
        self._display.begin(step)
        if step.forced:
            for after in self._downstream[name]:
                self._state.stages.setdefault(after, {})["stale"] = True
        if step.anew and number == 1:
            for artefact in step.stage.artefacts:
                _discard(working_path(self._directory / artefact))
        if number == 1:
            put_aside(self._directory, step.damages)
        why = step.why if number == 1 else f"attempt {number}"
        with log.open("ab") as stream:
            stream.write(f"=== {name}, {started}: {why}\n".encode())
        process = StageProcess(self._command(name, self._directory, step.forced), log, self._lock)
        self._attempts[name] = _Attempt(step, process, number, time.monotonic())
        self._selector.register(process, selectors.EVENT_READ)
        self._state.update(
            name,
            state="running",
            pid=process.pid,
            log=str(log),
            attempt=number,
            started=started,
            # What is known of earlier artefacts is not true of those to come.
            **dict.fromkeys(("ended", "seconds", "shared", "checksums", "stamps", "error")),
        )

    def _listen(self) -> None:
        """Wait a moment for news, and show it."""
        ending = any(attempt.ending for attempt in self._attempts.values())
        self._selector.select(_ENDING if ending else _TICK)
        for attempt in self._attempts.values():
            events, ending = attempt.process.listen()
            for event in events:
                self._display.event(attempt.step, event)
            if ending and not attempt.ending:  # Its pipe would wake this loop over and over.
                attempt.ending = True
                self._selector.unregister(attempt.process)
            attempt.process.tell(self._received)
        self._display.tick()
        self._progress.keep(self._display)

    def _end(self, attempt: _Attempt, ending: Ending, schedule: Schedule) -> _Outcome | None:
        """Record how a stage ended; None where it starts again."""
        step, name = attempt.step, attempt.step.stage.name
        if not attempt.ending:
            self._selector.unregister(attempt.process)
        del self._attempts[name]
        seconds = time.monotonic() - attempt.clock
        log = log_path(self._directory, name)
        fault = "" if ending.status else holds(self._directory, step.stage, step.expected.fingerprint) or ""
        wait = self._patience.wait(attempt.number) if ending.transient and not self._received else None
        if ending.status and wait is not None:
            with contextlib.suppress(OSError):
                self._state.update(name, state="pending", pid=None)
            self._display.pause(step, wait, ending.cause(log))
            schedule.put_back(step, time.monotonic() + wait, alone=ending.status < 0)
            return None
        if not ending.status and not fault:
            outcome = _Outcome(name, "done", 0)
        elif self._received or ending.status == PREEMPTED:
            status = PREEMPTED if ending.status == PREEMPTED else self._stopped()
            outcome = _Outcome(name, "interrupted", status)
        else:
            error = f"{name} ended, but {fault}." if not ending.status else ending.cause(log)
            outcome = _Outcome(name, "failed", 2 if ending.status == 2 else 1, error)
        self._record(step, outcome, seconds, ending.shared)
        schedule.end(step)
        return outcome

    def _record(self, step: Step, outcome: _Outcome, seconds: float, shared: str) -> None:
        name, done = step.stage.name, outcome.state == "done"
        # On a full disk the reason for the failure matters more than its record.
        with contextlib.nullcontext() if done else contextlib.suppress(OSError):
            times = {"ended": utc_now(), "seconds": round(seconds, 2)}
            about = {"shared": shared or None, "error": outcome.error or None}
            self._state.update(name, state=outcome.state, pid=None, **about, **times)
        if done:
            self._state.record_done(step.stage, step.expected, "done")
        self._display.end(step, outcome.state, seconds, f"taken over from {shared}" if shared and done else "")

    def _stopped(self) -> int:
        return 128 + self._received[0]


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


def _tell_of_damage(console: Console, working: list[Step]) -> None:
    for step in working:
        if step.damages:
            console.print(f"[yellow]{step.stage.name}[/] is made again, since it is damaged:", highlight=False)
            console.print(told(step.damages), markup=False, highlight=False, soft_wrap=True)


def _explain(console: Console, directory: Path, outcomes: list[_Outcome]) -> int:
    """Say which stages are not done, why, and how to go on; return the status of the whole."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    stopped = [outcome for outcome in outcomes if outcome.state == "interrupted"]
    for outcome in failed:
        console.print(f"\n[bold red]{outcome.stage} failed[/]", highlight=False)
        say(outcome.error)
        say(f"\nLog:    {log_path(directory, outcome.stage)}")
    if failed:
        say(f"Resume: spherecast run {directory}")
    elif stopped:
        names = ", ".join(outcome.stage for outcome in stopped)
        console.print(f"[yellow]Stopped[/] in {names}; finished stages are kept.", highlight=False)
        say(f"Go on with: spherecast run {directory}")
    if failed:
        return max(outcome.status for outcome in failed)
    # Who starts runs again looks for the status of work that was saved.
    return min((outcome.status for outcome in stopped), default=0)


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


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
