"""Several processes of one training on this machine, for a trial of what runs on many."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.jobs.progress import FD_VARIABLE
from pipeline.processes.membership import COORDINATOR, PREEMPTED, PROCESS, PROCESSES
from transforms.errors import InputError

__all__ = ["launch_local", "parse_local"]

_LINES = 20
_SETTLE = 1.0
"""Seconds in which the failures of several processes are taken for one."""
# Runs in the child, between its start and the command: the kernel's order to die with the parent outlives `exec`, and
# unlike `preexec_fn` this is safe in a parent that has threads.
_TIE = """
import os, signal, sys
if sys.platform.startswith("linux"):
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def parse_local(text: str) -> int:
    """Return N of ``local:N``.

    Raises:
        InputError: `text` is anything else.
    """
    kind, _, number = text.partition(":")
    if kind != "local" or not number.isdigit() or int(number) < 1:
        raise InputError(
            f"--launch: got {text!r}, expected local:N with N processes, e.g. local:4. For several machines see "
            "`spherecast launch`."
        )
    return int(number)


def launch_local(
    processes: int,
    command: Sequence[str],
    *,
    logs: Path,
    environment: Mapping[str, str | None] | None = None,
    grace: float = 30.0,
) -> int:
    """Run `command` in several processes that find each other, on the CPU, until all have ended; return the status.

    Process 0, the lead, has this process's output; the others write ``process-K.log``. When one fails, the others have
    no one to talk to and are stopped: at once, or `grace` seconds after a process left for preemption (status 75), as
    the others do so too. SIGINT and SIGTERM are passed on; a second one kills. The processes die with this one.

    Args:
        command: what each runs; it calls `pipeline.processes.distributed.initialise`.
        logs: folder of the logs; made when missing.
        environment: variables to set or, with None, to remove.

    Returns:
        0, or the status of the process that failed first (128 + n when signal n ended it).

    Raises:
        InputError: `processes` is less than 1.
    """
    if processes < 1:
        raise InputError(f"processes: got {processes}, expected 1 or more.")
    logs.mkdir(parents=True, exist_ok=True)
    shared = {
        COORDINATOR: f"127.0.0.1:{_free_port()}",
        PROCESSES: str(processes),
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        **(environment or {}),
    }
    members: list[subprocess.Popen] = []
    with _passing_on(members, grace) as deadline:
        try:
            for process in range(processes):
                # One by one: those started before a failure are ended.
                members.append(_start(process, command, logs, shared))  # noqa: PERF401
            failed = _first_failure(members, deadline, grace)
        finally:
            _kill(members)
    if failed is None:
        return 0
    status = _status(members[failed])
    # What the lead had to say was shown as it said it.
    if failed != 0:
        path = logs / _log_name(failed)
        print(f"Process {failed} of {processes} left with status {status}. The end of {path}:", file=sys.stderr)
        print("".join(_last_lines(path)), end="", file=sys.stderr, flush=True)
    return status


def _start(process: int, command: Sequence[str], logs: Path, changes: Mapping[str, str | None]) -> subprocess.Popen:
    variables: dict[str, str | None] = {**os.environ, **changes, PROCESS: str(process)}
    output, descriptors = None, tuple[int, ...]()
    if process > 0:
        variables[FD_VARIABLE] = None
        output = (logs / _log_name(process)).open("wb")
    elif (descriptor := variables.get(FD_VARIABLE)) is not None:
        descriptors = (int(descriptor),)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _TIE, str(os.getpid()), *command],
            env={name: value for name, value in variables.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            pass_fds=descriptors,
            process_group=0,  # What a process starts in its turn is stopped with it.
        )
    finally:
        if output is not None:
            output.close()


def _first_failure(members: list[subprocess.Popen], deadline: list[float], grace: float) -> int | None:
    """Wait for all; return which failed first, after stopping the others, or None."""
    failed: int | None = None
    limit = float("inf")
    while any(member.poll() is None for member in members):
        now = time.monotonic()
        if failed is None:
            failed = next((i for i, member in enumerate(members) if member.poll()), None)
            if failed is not None:
                limit = now + (grace if members[failed].poll() == PREEMPTED else _SETTLE)
        if now > min([limit, *deadline]):
            break
        time.sleep(0.05)
    stopped = [i for i, member in enumerate(members) if member.poll() is None]
    _kill(members)
    failures = [i for i, member in enumerate(members) if i not in stopped and member.poll()]
    if failed is None:
        failed = min(failures + stopped, default=None)
    # All fail alike where the fault is in what they were given; then the lead has said it.
    elif 0 in failures and members[0].poll() == members[failed].poll():
        failed = 0
    return failed


@contextlib.contextmanager
def _passing_on(members: list[subprocess.Popen], grace: float) -> Iterator[list[float]]:
    """Pass SIGINT and SIGTERM on to the members; yield a list that then holds the time by which they must have left."""
    deadline: list[float] = []

    def handle(number: int, _frame) -> None:
        # The second is impatience.
        _signal(members, signal.SIGKILL if deadline else number)
        deadline.append(time.monotonic() + 4 * grace)

    if threading.current_thread() is not threading.main_thread():
        yield deadline
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield deadline
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(members: list[subprocess.Popen]) -> None:
    _signal(members, signal.SIGKILL)
    for member in members:
        member.wait()


def _signal(members: list[subprocess.Popen], number: int) -> None:
    for member in members:
        with contextlib.suppress(ProcessLookupError):
            if member.poll() is None:
                os.killpg(member.pid, number)


def _status(member: subprocess.Popen) -> int:
    code = member.wait()
    return code if code >= 0 else 128 - code


def _log_name(process: int) -> str:
    return f"process-{process}.log"


def _last_lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as log:
        return list(collections.deque(log, _LINES))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
