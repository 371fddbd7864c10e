"""What to tell a person about an error that is not about the input."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.stores.retrying import UnreachableError, is_transient
from transforms.errors import InputError

__all__ = ["disk_message", "may_pass", "short_message"]

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
}
_LESS_MEMORY = (
    "End other programs, raise the limit (ulimit -v), run fewer stages at once (--jobs 1) or give a stage less "
    "(execution.memory_mb, training.batch_size), then give the same command again."
)
_MEMORY_TEXTS = (
    os.strerror(errno.ENOMEM),
    "can't start new thread",
    "std::bad_alloc",
    "RESOURCE_EXHAUSTED: Out of memory",
)
"""With which the system, Python's threads, C++ and XLA say that there is no memory left."""
_NO_SPACE_BYTES = 64 * 1024


def disk_message(error: BaseException, directory: Path | None = None) -> str | None:
    """Return what to do about a full, exhausted or read-only disk, or None for an error of another kind.

    Libraries wrap the system's error, or keep only its text, or (HDF5) neither; then the room left at `directory`
    decides.
    """
    name = str(directory) if directory else ""
    reason = None
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _REASONS:
            reason, name = _REASONS[cause.errno], str(cause.filename or name)
        else:
            reason = next((text for code, text in _REASONS.items() if os.strerror(code) in str(cause)), None)
        if reason is not None:
            break
    if reason is None and directory is not None and shutil.disk_usage(directory).free < _NO_SPACE_BYTES:
        reason = _REASONS[errno.ENOSPC]
    if reason is None:
        return None
    where = f"{name}: " if name else ""
    return (
        f"{where}cannot be written, {reason}. Free some space or choose another place (--runs-dir), then give the same "
        "command again. Everything finished before is kept."
    )


def short_message(error: BaseException, directory: Path | None = None) -> str:
    """Return one short text for an error of any kind."""
    if _is_want_of_memory(error):
        return f"{type(error).__name__}: out of memory{f' ({error})' if str(error) else ''}. {_LESS_MEMORY}"
    return disk_message(error, directory) or f"{type(error).__name__}: {error}"


def _is_want_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(cause, MemoryError) or any(text in str(cause) for text in _MEMORY_TEXTS) for cause in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def may_pass(error: BaseException, directory: Path | None = None) -> bool:
    """Whether the stage that failed so may succeed when it is tried again: where the network or a server failed it.

    What was refused, a disk that is full and a fault of the program stay as they are.
    """
    if isinstance(error, InputError):
        return isinstance(error, UnreachableError)
    return disk_message(error, directory) is None and is_transient(error)
