"""Locks and stage processes: nothing works twice at once, and nothing outlives its runner.

A runner holds an exclusive lock on the run directory and hands the open file to the stage it starts, so the lock is
free only when both are gone. The stage asks the kernel to be killed when the runner dies. A stage started on its own
(by hand, or by another scheduler) shares the run's lock with other stages and holds one of its own name.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dags.state import utc_now
from pipeline.jobs.progress import FD_VARIABLE
from pipeline.redaction import redact
from transforms.errors import InputError

__all__ = [
    "LOCK_VARIABLE",
    "PARENT_VARIABLE",
    "InUseError",
    "end_within",
    "hold",
    "in_use",
    "inherited_lock",
    "report_error",
    "tell",
    "tie_to_parent",
]

LOCK_VARIABLE = "SPHERECAST_LOCK_FD"
PARENT_VARIABLE = "SPHERECAST_RUNNER_PID"
_PATIENCE = 5.0
"""Seconds to wait for what a dead runner left behind; the kernel kills it, which takes a moment."""
_PR_SET_PDEATHSIG = 1


class InUseError(InputError):
    """Another process works there; later it may not."""


@contextlib.contextmanager
def hold(directory: Path, name: str = ".lock", *, shared: bool = False) -> Iterator[int]:
    """Hold the lock `name` of a run directory; yield its file descriptor.

    Raises:
        InUseError: another process holds it; the message says which.
        InputError: the directory cannot be written to.
    """
    path = directory / name
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(
            f"{directory}: cannot write there ({error.strerror}). Choose a folder you can write to, e.g. with --runs-dir."
        ) from error
    try:
        _acquire(descriptor, directory, shared)
        if not shared:
            with contextlib.suppress(OSError):  # On a full disk the lock holds all the same; only its owner is unnamed.
                os.ftruncate(descriptor, 0)
                owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}
                os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def in_use(directory: Path) -> bool:
    """Return whether a runner or a stage works on this run directory."""
    try:
        descriptor = os.open(directory / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def inherited_lock() -> bool:
    """Return whether the runner that started this process holds the lock for it."""
    return LOCK_VARIABLE in os.environ


def tie_to_parent() -> None:
    """Have the kernel kill this process when the runner that started it dies; leave at once if that has happened.

    Does nothing in a process that no runner started, or on a kernel other than Linux.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)


def end_within(seconds: int, status: int) -> None:
    """Have this process end with `status` at most so long after this, once its own work has ended.

    After a failure a library's threads may wait for one another for many minutes, and the interpreter for them.
    """

    def leave(*_: Any) -> None:
        if not threading.main_thread().is_alive():
            os._exit(status)

    signal.signal(signal.SIGALRM, leave)
    signal.alarm(seconds)


def report_error(text: str, *, transient: bool = False) -> None:
    """Tell the runner, where there is one, why this stage fails, and whether the same may succeed later."""
    tell(error=redact(text)[:3000], transient=transient)


def tell(**values: Any) -> None:
    """Tell the runner, where there is one, values that JSON can hold: progress, an error, what was taken over."""
    descriptor = os.environ.get(FD_VARIABLE)
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(int(descriptor), (json.dumps(values) + "\n").encode())


def _acquire(descriptor: int, directory: Path, shared: bool) -> None:
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + _PATIENCE
    while not _try(descriptor, operation):
        owner = _owner(descriptor)
        if _is_alive(owner) or time.monotonic() > deadline:
            who = "another process"
            if owner:
                state = "" if _is_alive(owner) else ", which is gone, but a stage of this run still works"
                who = f"process {owner['pid']} on {owner['host']} (since {owner['since']}){state}"
            raise InUseError(f"{directory}: in use by {who}. Wait for it or stop it; `spherecast status {directory}`.")
        time.sleep(0.1)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(descriptor: int) -> dict | None:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return owner if {"pid", "host", "since"} <= owner.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _is_alive(owner: dict | None) -> bool:
    if owner is None:
        return False
    if owner["host"] != socket.gethostname():
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
