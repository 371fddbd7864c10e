"""What is known of a run, kept in its `state.json`: each stage's state, times, sizes, log and fingerprint."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dags.checksums import checksums, stamp
from dags.fingerprints import Expectation
from dags.stages import Stage
from pipeline.artefacts import read_description

__all__ = ["State", "holds", "published", "size_of", "utc_now"]


class State:
    """The record of one run.

    Each stage's entry has ``state`` (pending, running, done, skipped, failed or interrupted), ``started`` and ``ended``
    (UTC), ``seconds``, ``attempt`` (number of it, from 1), ``error`` (why it failed, or null), ``bytes``, ``checksums``
    and ``stamps`` (see `dags.checksums`) by artefact, ``log``, ``pid``, ``fingerprint``, ``parts`` and ``inputs`` (see `Expectation`),
    ``shared`` (the run it was taken over from, or null), and ``stale`` once a stage before it was forced.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stages: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self.stages = dict(json.loads((directory / "state.json").read_text())["stages"])

    def parts(self, stage: str) -> dict[str, str]:
        """Return the pieces that `stage` was last made from, empty where that is not known."""
        return self.stages.get(stage, {}).get("parts", {})

    def update(self, stage: str, **values: Any) -> None:
        """Set values of one stage and save."""
        self.stages.setdefault(stage, {}).update(values)
        self.save()

    def forget(self, stage: str) -> None:
        """Forget what is known of the artefacts of `stage`, which are about to be made again by another than a runner."""
        if self.stages.get(stage, {}).get("checksums"):
            self.update(stage, **dict.fromkeys(("bytes", "checksums", "stamps")))

    def save(self) -> None:
        """Replace `state.json`; readers see the old or the new one, never a half."""
        path = self.directory / "state.json"
        partial = path.with_name(".partial-state.json")
        partial.write_text(json.dumps({"stages": self.stages}, indent=1) + "\n")
        os.replace(partial, path)

    def record_done(self, stage: Stage, expected: Expectation, state: str) -> None:
        """Record that the artefacts of `stage` are there and match."""
        entry = self.stages.get(stage.name, {})
        sizes, sums = entry.get("bytes"), entry.get("checksums")
        names = published(self.directory, stage)
        if state == "done" or not sizes or not sums:  # Reading a large store takes long.
            sizes = {name: size_of(self.directory / name) for name in names}
            sums = {name: checksums(self.directory / name) for name in names}
        self.update(
            stage.name,
            state=state,
            fingerprint=expected.fingerprint,
            parts=expected.parts,
            inputs=expected.inputs,
            bytes=sizes,
            checksums=sums,
            stamps={name: stamp(self.directory / name) for name in names},
            stale=False,
        )


def holds(directory: Path, stage: Stage, fingerprint: str) -> str | None:
    """Return None where every artefact of `stage` carries `fingerprint`, else what is wrong with the first that does not."""
    for name in stage.artefacts:
        if not (directory / name).exists():
            return f"{name} is missing"
    for name in stage.artefacts:
        description = read_description(directory / name)
        if description is None:
            return f"{name} does not say what it is"
        if description.get("fingerprint") != fingerprint:
            return f"{name} was made from other settings or inputs"
    return None


def published(directory: Path, stage: Stage) -> list[str]:
    """Return the artefacts of `stage` and what it has published beside those that lie in a folder of its own."""
    folders = dict.fromkeys(Path(name).parent for name in stage.artefacts if "/" in name)
    beside = [str(folder / path.name) for folder in folders for path in sorted((directory / folder).glob("[!.]*"))]
    return list(dict.fromkeys([*stage.artefacts, *beside]))


def size_of(path: Path) -> int:
    """Return the bytes held by a file or everything below a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def utc_now() -> str:
    """Return the time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
