"""Progress of a long step: a bar on the terminal, or events for the runner that started this process.

The runner names a file descriptor in the environment; each event is one JSON line
``{"task": str, "done": float, "total": float, "note": str}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator

__all__ = ["FD_VARIABLE", "Progress", "progress"]

FD_VARIABLE = "SPHERECAST_PROGRESS_FD"
_EVENT_INTERVAL = 0.1


class Progress:
    """Counts one task; see `progress`."""

    def __init__(self, task: str, total: float, emit) -> None:
        self.task, self.total, self.done, self.note = task, float(total), 0.0, ""
        self._emit = emit

    def advance(self, amount: float = 1.0, note: str | None = None) -> None:
        """Add `amount` to what is done; `note` replaces the text beside the bar."""
        self.update(self.done + amount, note)

    def update(self, done: float, note: str | None = None) -> None:
        """Set what is done; `note` replaces the text beside the bar."""
        self.done = float(done)
        if note is not None:
            self.note = note
        self._emit(self)


@contextlib.contextmanager
def progress(task: str, total: float) -> Iterator[Progress]:
    """Show the progress of `task`, which is finished when `total` is done."""
    descriptor = os.environ.get(FD_VARIABLE)
    if descriptor is not None:
        yield from _events(int(descriptor), task, total)
    else:
        yield from _bar(task, total)


def _events(descriptor: int, task: str, total: float) -> Iterator[Progress]:
    last, told = 0.0, ""

    def emit(state: Progress) -> None:
        nonlocal last, told
        now = time.monotonic()
        if now - last < _EVENT_INTERVAL and state.done < state.total and state.note == told:
            return
        last, told = now, state.note
        event = {"task": state.task, "done": state.done, "total": state.total, "note": state.note}
        with contextlib.suppress(
            OSError
        ):  # A runner that went away must not fail the work; the kernel signal does that.
            os.write(descriptor, (json.dumps(event) + "\n").encode())

    state = Progress(task, total, emit)
    emit(state)
    yield state
    last = 0.0
    emit(state)


def _bar(task: str, total: float) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Display(*columns, console=console, disable=not console.is_terminal) as display:
        identifier = display.add_task(task, total=total, note="")
        yield Progress(task, total, lambda state: display.update(identifier, completed=state.done, note=state.note))
