"""Artefacts that runs have in common: made once, under a lock, and taken over by hard links.

Runs in one folder that agree in all that determines an artefact, so in its fingerprint, need it once. A stage about to
work first takes the lock ``.locks/STAGE-FINGERPRINT`` of the folder; who waited for it finds the artefact in the run
that held it. Its files are linked, not copied: they take no room twice, and either run can be removed without harm to
the other, since nothing changes a published file (see `pipeline.artefacts`). Where links cannot be made the stage
works as if it were alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dags import processes
from dags.damage import damages
from dags.stages import Stage
from dags.state import State, holds, published
from pipeline.artefacts import publishing, read_description

__all__ = ["LOCKS", "making", "runs_in", "take_over"]

LOCKS = ".locks"
_INTERVAL = 0.2

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def making(directory: Path, stage: Stage, fingerprint: str) -> Iterator[None]:
    """Hold the lock on the artefacts of `stage` with this fingerprint, among all runs beside `directory`.

    Waits, and says for whom, while another run makes them. A folder that cannot be written to has no such locks.
    """
    path = directory.parent / LOCKS / f"{stage.name}-{fingerprint}"
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
    descriptor, told = None, False
    while descriptor is None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            yield
            return
        if not _lock(descriptor, path):
            if not told:
                told = True
                _tell_wait(descriptor, stage)
            os.close(descriptor)
            descriptor = None
            time.sleep(_INTERVAL)
    try:
        with contextlib.suppress(OSError):  # On a full disk the lock holds all the same; only its owner is unnamed.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"run": str(directory), "pid": os.getpid()}).encode(), 0)
        yield
    finally:
        # Whoever has opened the same file sees that it is gone and makes a new one.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def take_over(directory: Path, stage: Stage, fingerprint: str) -> bool:
    """Link the artefacts of `stage` from a run beside `directory` that has them; return whether there was one."""
    for other in runs_in(directory.parent):
        if other.samefile(directory) or holds(other, stage, fingerprint) is not None:
            continue
        state = State(other)
        if state.stages.get(stage.name, {}).get("stale"):
            continue
        if any(not damage.added for damage in damages(other, stage, state, objects=False)):
            continue
        try:
            with contextlib.ExitStack() as stack:
                for name in published(other, stage):
                    partial = stack.enter_context(publishing(directory / name))
                    _link(other / name, partial)
                    description = read_description(partial) or {}
                    if description.get("fingerprint") != fingerprint:
                        raise OSError(f"{other / name} was replaced meanwhile")
        except OSError as error:
            _log.info("%s: cannot be taken over from %s (%s)", stage.name, other, error)
            continue
        _log.info("%s: taken over from %s, made from the same settings and inputs", stage.name, other)
        processes.tell(shared=str(other))
        return True
    return False


def runs_in(folder: Path) -> list[Path]:
    """Return the run directories in a folder, by name."""
    with contextlib.suppress(OSError):
        return sorted(path.parent for path in folder.glob("*/config.yaml"))
    return []


def _lock(descriptor: int, path: Path) -> bool:
    """Take the lock, unless another process has it or has just removed the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _tell_wait(descriptor: int, stage: Stage) -> None:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))["run"]
    except (OSError, ValueError, KeyError):
        owner = "another run"
    note = f"waits for {owner}, which makes the same"
    _log.info("%s: %s", stage.name, note)
    processes.tell(task=stage.name, done=0.0, total=0.0, note=note)


def _link(source: Path, target: Path) -> None:
    """Link a file, or everything below a folder, which must not be replaced meanwhile."""
    before = source.stat().st_ino
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        os.link(source, target)
        return
    for folder, _, files in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir()
        for name in files:
            os.link(Path(folder, name), place / name)
    if source.stat().st_ino != before:
        raise OSError(f"{source} was replaced meanwhile")
