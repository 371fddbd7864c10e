"""Objects under a root: the files of a local folder, or the objects of any fsspec address, read and written whole.

An object appears whole or not at all, so that a reader, or a job that starts again, never meets half of one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Objects", "is_url"]

_TEMPORARY = ".writing-"


def is_url(path: str | Path) -> bool:
    """Whether `path` is an address for fsspec and not a path of this machine."""
    return "://" in str(path)


@dataclass(frozen=True)
class Objects:
    """The objects below `root`; keys are relative paths with ``/``.

    Attributes:
        root: local folder or fsspec address.
        options: passed to fsspec for addresses.
    """

    root: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self, key: str) -> bytes | None:
        """Return the whole object, None where there is none."""
        try:
            if is_url(self.root):
                filesystem, path = self._place(key)
                return filesystem.cat_file(path)
            return Path(self.root, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return None

    def write(self, key: str, data: bytes) -> None:
        """Write an object, replacing what was there at once."""
        if is_url(self.root):
            filesystem, place = self._place(key)
            filesystem.pipe_file(place, data)
            return
        path = Path(self.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writers in other threads, processes or machines must not meet in one temporary file.
        temporary = path.with_name(f"{_TEMPORARY}{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}")
        try:
            with temporary.open("wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def find(self, prefix: str = "") -> set[str]:
        """Return the keys of all objects below the folder `prefix`, leftovers of killed writers excluded."""
        return {key for key in self._find(prefix) if not key.rpartition("/")[2].startswith(_TEMPORARY)}

    def remove(self, prefix: str = "") -> None:
        """Remove everything below the folder `prefix`."""
        if is_url(self.root):
            filesystem, path = self._place(prefix)
            with contextlib.suppress(FileNotFoundError):
                filesystem.rm(path, recursive=True)
            filesystem.invalidate_cache()
            return
        import shutil

        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(Path(self.root, prefix))

    def remove_leftovers(self) -> None:
        """Remove the temporary files that killed writers left."""
        if not is_url(self.root):
            for key in self._find(""):
                if key.rpartition("/")[2].startswith(_TEMPORARY):
                    Path(self.root, key).unlink(missing_ok=True)

    def _find(self, prefix: str) -> Iterator[str]:
        if is_url(self.root):
            filesystem, root = self._place("")
            _, folder = self._place(prefix)
            filesystem.invalidate_cache()
            try:
                found = filesystem.find(folder)
            except FileNotFoundError:
                return
            start = len(filesystem._strip_protocol(root).rstrip("/")) + 1
            yield from (path[start:] for path in found)
            return
        for folder, _, files in os.walk(Path(self.root, prefix)):
            below = os.path.relpath(folder, self.root)
            yield from (name if below == "." else f"{below}/{name}" for name in files)

    def _place(self, key: str) -> tuple[Any, str]:
        import fsspec

        filesystem, root = fsspec.core.url_to_fs(self.root, **self.options)
        return filesystem, f"{root.rstrip('/')}/{key}" if key else root
