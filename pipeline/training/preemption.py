"""Stopping a training that is asked to: a checkpoint at the next update, then an exit that says 'try again'."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax

from pipeline.processes.distributed import any_process
from pipeline.processes.membership import PREEMPTED

__all__ = ["Preempted", "StopRequest", "stop_requests"]


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AGREE_EVERY = 5
"""Updates after which processes ask each other: what they ask runs on the devices, and a device then waits."""


class Preempted(SystemExit):
    """Ends the program with `PREEMPTED`; all that was done is saved."""

    def __init__(self, message: str) -> None:
        super().__init__(PREEMPTED)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopRequest:
    """Whether a signal has asked this training to stop.

    Attributes:
        signal: name of the signal that came first to this process, or None.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    def agreed(self, update: int) -> bool:
        """Return whether to stop after `update`, on all processes alike; all must call it for every update.

        With several processes they agree every few updates only.
        """
        asked = self.signal is not None
        if jax.process_count() == 1:
            return asked
        return update % _AGREE_EVERY == 0 and any_process(asked)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of dying of them; a second one does what it did before.

    Outside the main thread, which alone may handle signals, none is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[signal.Signals, Any] = {}

    def note(number: int, _frame: object) -> None:
        request.signal = signal.Signals(number).name
        for each, handler in before.items():
            signal.signal(each, handler)

    # What nohup or a background job has the process ignore stays ignored.
    for number in _SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
