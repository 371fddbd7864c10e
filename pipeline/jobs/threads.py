"""How many threads a process of a job uses: those of the environment variable, or one for each processor it may run on.

Where a runner has as many processes as there are processors, one thread each wastes least.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import tensorstore as ts

from transforms.errors import InputError

__all__ = ["THREADS_VARIABLE", "background", "decoding_context", "keep_freed_memory_low", "thread_limit"]

THREADS_VARIABLE = "SPHERECAST_THREADS"
_M_ARENA_MAX = -8


def thread_limit() -> int | None:
    """Return the number of threads asked for, or None.

    Raises:
        InputError: the environment variable is no positive number.
    """
    text = os.environ.get(THREADS_VARIABLE, "")
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{THREADS_VARIABLE}: expected a number of threads of at least 1, got {text!r}.")
    return int(text)


def background() -> Executor:
    """Return what runs one task beside the caller's, or, of a single thread, in place of it."""
    return _AtOnce() if thread_limit() == 1 else ThreadPoolExecutor(1)


def decoding_context(cache_bytes: int = 0) -> ts.Context:
    """Return the resources with which tensorstore reads and decodes.

    Args:
        cache_bytes: bound on the decoded chunks that are kept.
    """
    limit = thread_limit()
    resources = () if limit is None else ("data_copy_concurrency", "file_io_concurrency")
    limits = {name: {"limit": limit} for name in resources}
    return ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}, **limits})


def keep_freed_memory_low() -> None:
    """Let the threads of this process share two arenas of the C library's allocator, where it is glibc.

    Left to itself every thread gets one that keeps what was freed in it; with the many threads that decode and encode
    that is as much again as the data, and grows with the length of the job.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


class _AtOnce(Executor):
    """Runs a task when it is submitted."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  Whoever asks for the result gets it.
            future.set_exception(error)
        return future
