"""Logs of stages, bounded: of each stage the current file and a few before it, none larger than a limit."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

__all__ = ["KEPT", "LARGEST", "log_path", "older_logs", "rotate", "tail"]

LARGEST = 4_000_000
"""Bytes of a log before it is put aside."""
KEPT = 3
"""Older logs of a stage that are kept."""
_TAIL_BYTES = 64_000


def log_path(directory: Path, stage: str) -> Path:
    """Return where a stage of the run in `directory` writes its log."""
    return directory / "logs" / f"{stage}.log"


def older_logs(log: Path) -> list[Path]:
    """Return what was put aside of a log, the latest first."""
    pattern = re.compile(rf"{re.escape(log.name)}\.(\d+)")
    found = [
        (int(match[1]), path) for path in log.parent.glob(f"{log.name}.*") if (match := pattern.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def rotate(log: Path, largest: int = LARGEST, kept: int = KEPT) -> None:
    """Put a log aside as ``LOG.1``, that before it as ``LOG.2`` and so on, where it has outgrown `largest` bytes.

    The stage goes on writing to the file it has open, so that it is copied and emptied, not renamed; the stage appends.
    """
    try:
        if log.stat().st_size <= largest:
            return
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):  # On a full disk a long log does less harm than a failure for its sake.
        for number in range(kept, 1, -1):
            older = log.with_name(f"{log.name}.{number - 1}")
            if older.exists():
                os.replace(older, log.with_name(f"{log.name}.{number}"))
        with log.open("r+b") as stream, log.with_name(f"{log.name}.1").open("wb") as copy:
            shutil.copyfileobj(stream, copy)
            stream.truncate(0)


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log."""
    with log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = stream.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
