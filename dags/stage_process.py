"""A stage at work in a process of its own: started, listened to, told to stop, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dags import processes
from dags.logs import rotate, tail
from pipeline.jobs.progress import FD_VARIABLE

__all__ = ["Ending", "StageProcess"]

_GRACE = 20.0
"""Seconds a stage has to end after it was told to, before it is killed."""
_LOG_TAIL = 12
_HINTS = {
    "SIGKILL": " The machine may have run out of memory.",
    "SIGABRT": " A library aborted, as they do where a limit leaves too little memory (ulimit -v); see the log.",
}
_LOG_CHECK = 1.0


@dataclass(frozen=True)
class Ending:
    """How a stage's process ended.

    Attributes:
        status: its exit status; minus the number of the signal that ended it.
        error: what it reported, empty where it said nothing.
        transient: whether what failed may pass by itself.
        shared: the run whose artefacts it took over instead of making its own, or empty.
    """

    status: int
    error: str
    transient: bool
    shared: str

    def cause(self, log: Path) -> str:
        """Return why the stage failed, from its log where it said nothing itself."""
        if self.error:
            return self.error
        if self.status < 0:
            name = signal.Signals(-self.status).name
            return f"killed by {name}.{_HINTS.get(name, '')}"
        return tail(log, _LOG_TAIL) or f"ended with status {self.status}"


class StageProcess:
    """One process; `listen` until it returns an ending."""

    def __init__(self, arguments: list[str], log: Path, lock: int) -> None:
        """Start it.

        Args:
            log: where its output is appended.
            lock: descriptor of the run's lock, which it keeps open.

        Raises:
            OSError: it cannot be started.
        """
        self._log = log
        self._events: dict[str, Any] = {}
        self._rest = b""
        self._told, self._deadline = 0, float("inf")
        self._checked = time.monotonic()
        self._pipe, writer = os.pipe()
        environment = {
            **os.environ,
            FD_VARIABLE: str(writer),
            processes.LOCK_VARIABLE: str(lock),
            processes.PARENT_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        try:
            with log.open("ab") as stream:
                self._child = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writer, lock),
                    process_group=0,
                    env=environment,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(writer)
        os.set_blocking(self._pipe, False)

    @property
    def pid(self) -> int:
        return self._child.pid

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the process has something to tell."""
        return self._pipe

    def listen(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what the stage has reported of its progress, and whether its process is about to end or has ended."""
        events = []
        ending = self._child.poll() is not None
        chunk = b"start"
        while chunk:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            ending = ending or not chunk
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # Threads that report at once may garble a line.
                event = json.loads(line)
                if "task" in event:
                    events.append({key: event[key] for key in ("task", "done", "total", "note")})
                else:
                    self._events.update(event)
        now = time.monotonic()
        if now > self._checked + _LOG_CHECK:
            self._checked = now
            rotate(self._log)
        if now > self._deadline:
            self._signal(signal.SIGKILL)
        return events, ending

    def tell(self, signals: list[int]) -> None:
        """Pass on the signals that the runner has received so far: the first as it is, and with the second kill."""
        if len(signals) > self._told:
            self._signal(signals[0] if self._told == 0 and len(signals) == 1 else signal.SIGKILL)
            self._told, self._deadline = len(signals), time.monotonic() + _GRACE

    def ending(self) -> Ending | None:
        """Return how the process ended, after which nothing of it is left; None while it works."""
        if self._child.poll() is None:
            return None
        self._signal(signal.SIGKILL)  # Workers that a dying stage left behind.
        self.listen()
        os.close(self._pipe)
        transient = bool(self._events.get("transient")) or self._was_killed()
        error, shared = (str(self._events.get(key, "")) for key in ("error", "shared"))
        return Ending(self._child.returncode, error, transient, shared)

    def end(self) -> None:
        """Kill the process if it still works."""
        if self._child.poll() is None:
            self._signal(signal.SIGKILL)
            self._child.wait()
            os.close(self._pipe)

    def _was_killed(self) -> bool:
        """Whether somebody else killed it: the kernel, out of memory, as a rule."""
        return self._child.returncode == -signal.SIGKILL and self._told == 0

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)
