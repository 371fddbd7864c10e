"""Reports of several runs side by side, written when they are asked for and kept while the server runs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from dags.viewing.library import Library, token_of
from pipeline.redaction import redact
from transforms.errors import InputError

__all__ = ["MOST_RUNS", "Comparisons"]

MOST_RUNS = 20
"""Runs on one page."""
_KEPT = 8
_SECONDS = 600.0


class Comparisons:
    """Writes reports of several runs into a temporary folder, each in a process of its own, one at a time."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._folder = Path(tempfile.mkdtemp(prefix="spherecast-view-"))
        self._asked: dict[tuple, Future[Path]] = {}
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "comparison")
        self._process: subprocess.Popen | None = None
        self._closed = False
        self._number = 0

    def close(self) -> None:
        """Stop what is being written and remove all that was."""
        self._closed = True
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        self._writer.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def page(self, names: Sequence[str]) -> bytes | None:
        """Return the report of runs side by side, in the order given; None while it is written, which asking begins.

        Raises:
            InputError: there are fewer than two or too many runs, one is not known, or they cannot be compared.
        """
        names = list(dict.fromkeys(names))
        runs = self._library.runs()
        unknown = [name for name in names if name not in runs]
        if unknown:
            raise InputError(f"{', '.join(unknown)}: no such run in this folder.")
        if not 2 <= len(names) <= MOST_RUNS:
            raise InputError(f"{len(names)} runs chosen: choose 2 to {MOST_RUNS}.")
        directories = [runs[name] for name in names]
        key = tuple((name, *self._tokens(path)) for name, path in zip(names, directories, strict=True))
        with self._lock:
            asked = self._asked.get(key)
            if asked is None:
                asked = self._asked[key] = self._writer.submit(self._write, directories)
                self._forget()
            if not asked.done():
                return None
            if asked.exception() is not None:
                del self._asked[key]  # What was at fault may be mended: the next who asks has it tried again.
            return asked.result().read_bytes()

    def _forget(self) -> None:
        """Remove the oldest pages, where there are too many."""
        for key in list(self._asked)[:-_KEPT]:
            old = self._asked.pop(key)
            if not old.cancel() and old.done() and old.exception() is None:
                old.result().unlink(missing_ok=True)

    def _tokens(self, directory: Path) -> list[str | None]:
        names = ("config.yaml", "state.json", "metrics/model.nc", "forecast.zarr/zarr.json")
        return [token_of(directory / name) for name in names]

    def _write(self, directories: list[Path]) -> Path:
        self._number += 1
        target = self._folder / f"{self._number}.html"
        command = [sys.executable, "-m", "dags", "report", *(str(path.absolute()) for path in directories)]
        self._process = subprocess.Popen(
            [*command, "--output", str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        if self._closed:
            self._process.kill()
        try:
            _, errors = self._process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise InputError(f"The comparison was not written within {_SECONDS:g} s. Choose fewer runs.") from error
        finally:
            status, self._process = self._process.returncode, None
        if status or not target.is_file():
            raise InputError(
                redact(errors.strip())[-2000:] or f"The comparison could not be written (status {status})."
            )
        return target
