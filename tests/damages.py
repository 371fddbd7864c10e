"""Ways to damage an artefact, and the file of it that each strikes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["DAMAGES", "struck"]

_METADATA = ("_SUCCESS.json", "zarr.json", ".zattrs")


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def _flip(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


def _empty(path: Path) -> None:
    os.truncate(path, 0)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncate": _truncate,
    "flip": _flip,
    "delete": Path.unlink,
    "empty-metadata": _empty,
}
"""What is done to a file, by the name of the damage."""


def struck(artefact: Path, name: str) -> Path:
    """Return the file that a damage strikes: the largest, or the metadata of an artefact that has any."""
    if artefact.is_file():
        return artefact
    if name == "empty-metadata":
        return next(path for document in _METADATA if (path := artefact / document).is_file())
    return max((path for path in artefact.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
