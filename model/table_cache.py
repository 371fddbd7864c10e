"""Built tables kept on disk, so that only the first process that needs them builds them.

The folder is the environment variable SPHERECAST_CACHE, else XDG_CACHE_HOME/spherecast, else ~/.cache/spherecast;
SPHERECAST_CACHE="" keeps nothing. The folder can be removed at any time. A folder that cannot be read or written costs
the time of building and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

__all__ = ["cache_folder", "cached"]

_FORMAT = 1
"""Part of every key: raise it when the same parameters come to mean other numbers."""

_SIZE_LIMIT = 4 * 2**30
_SUFFIX = ".tables.npz"
_UNFINISHED = ".tables.tmp"
_ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file belongs to a writer that died."""

_log = logging.getLogger(__name__)

Parameter = str | int | float | bool | None | np.ndarray
Tables = dict[str, np.ndarray]


def cached(
    parameters: Mapping[str, Parameter],
    build: Callable[[], Tables],
    *,
    minimum_bytes: int = 2**20,
    size_limit: int = _SIZE_LIMIT,
) -> Tables:
    """Return the tables that belong to some parameters, from disk if they are there, else from `build`.

    Args:
        parameters: everything the tables depend on, by name: the kind of table, sizes, dtype, and arrays such as the
            latitudes, of which every byte counts.
        build: makes the tables by name: arrays of booleans or numbers, unchanged by a round trip.
        minimum_bytes: tables smaller than this in all are not kept: they are built faster than read.
        size_limit: bytes the folder may hold; the least recently used tables make room.

    Raises:
        TypeError: a parameter or a table cannot be kept.
    """
    key = _key(parameters)
    folder = cache_folder()
    if folder is None:
        return build()
    path = folder / f"{key}{_SUFFIX}"
    tables = _read(path)
    if tables is None:
        tables = build()
        for name, table in tables.items():
            if table.dtype.kind not in "biufc":
                raise TypeError(f"{name}: expected an array of numbers that numpy can save, got dtype {table.dtype}")
        if minimum_bytes <= sum(table.nbytes for table in tables.values()) <= size_limit:
            _write(path, tables)
            _make_room(folder, size_limit)
    return tables


def cache_folder() -> Path | None:
    """Return the folder that tables are kept in, or None where they are not kept."""
    chosen = os.environ.get("SPHERECAST_CACHE")
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says that a relative path is to be ignored.
    if os.path.isabs(base):
        return Path(base) / "spherecast"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "spherecast" if os.path.isabs(home) else None


def _key(parameters: Mapping[str, Parameter]) -> str:
    digest = hashlib.sha256(f"format {_FORMAT}".encode())
    for name, value in sorted(parameters.items()):
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            text, data = f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes()
        elif value is None or isinstance(value, str | int | float):
            text, data = f"{type(value).__name__} {value!r}", b""
        else:
            raise TypeError(f"{name}: expected a string, number, None or numeric array, got {type(value).__name__}")
        # Lengths keep neighbouring fields apart.
        for part in (name.encode(), text.encode(), data):
            digest.update(f"\n{len(part)}:".encode() + part)
    return digest.hexdigest()


def _read(path: Path) -> Tables | None:
    """Return the tables of a file, or None if it is not there, not readable or not whole."""
    try:
        with np.load(path, allow_pickle=False) as archive:  # Checks the sum of every member.
            tables = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001  A damaged file may fail anywhere in zipfile or numpy; it is built again.
        _log.debug("%s is not usable: %r", path, error)
        return None
    try:
        os.utime(path)  # Modification time stands for last use.
    except OSError as error:
        _log.debug("%s cannot be marked as used: %r", path, error)
    return tables


def _write(path: Path, tables: Tables) -> None:
    """Publish a file whole or not at all."""
    unfinished = path.with_name(f"{secrets.token_hex(16)}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                np.savez(file, **tables)  # type: ignore[arg-type]  # NumPy's stub takes a table for allow_pickle
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("%s cannot be written: %r", path, error)


def _make_room(folder: Path, size_limit: int) -> None:
    """Remove the least recently used tables beyond the limit, and what dead writers left."""
    try:
        entries = [(path, path.stat()) for path in folder.iterdir() if path.name.endswith((_SUFFIX, _UNFINISHED))]
        total = 0
        for path, stat in sorted(entries, key=lambda entry: entry[1].st_mtime, reverse=True):
            if path.name.endswith(_UNFINISHED):
                surplus = time.time() - stat.st_mtime > _ABANDONED_AFTER
            else:
                total += stat.st_size
                surplus = total > size_limit
            if surplus:
                path.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("%s cannot be tidied: %r", folder, error)
