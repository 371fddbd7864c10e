"""Artefacts that are no longer as they were when their stage was done: found, and put aside to be made again.

Planning compares what costs a look at each file: its name, size and time of change. Only where these differ from the
record are checksums compared, which reads the artefact. A stage compares the checksums of what it is about to read,
except where reading compares them anyway, and of all of it when it has failed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dags.checksums import METADATA, checksums, is_zarr, stamp
from dags.stages import Stage
from dags.state import State
from pipeline.artefacts import DESCRIPTION_FILE, working_path
from transforms.errors import InputError

__all__ = ["Damage", "damages", "put_aside", "refuse_damaged", "told", "unlike_record"]

_SHOWN = 5
"""Damaged objects of a store that are named; there may be thousands."""


@dataclass(frozen=True)
class Damage:
    """Something of an artefact that is not as it was.

    Attributes:
        artefact: relative to the run directory.
        part: entry of its folder, as in `dags.checksums`; empty where the artefact is one file or all of it is meant.
        text: what is wrong, for a person.
        added: whether it is something that was not there before, which harms no reader.
    """

    artefact: str
    part: str
    text: str
    added: bool = False

    def __str__(self) -> str:
        return f"{self.artefact}{'/' if self.part else ''}{self.part}: {self.text}"


def unlike_record(directory: Path, stage: Stage, state: State) -> list[Damage]:
    """Return what is damaged of a stage's artefacts, reading only those whose files have changed since it was done.

    Nothing is known of artefacts without a record, and of a file that changed while its size and time did not.
    """
    entry = state.stages.get(stage.name, {})
    stamps = entry.get("stamps") or {}
    changed = [name for name in entry.get("checksums") or {} if stamps.get(name) != stamp(directory / name)]
    return [damage for damage in damages(directory, stage, state, changed) if not damage.added]


def damages(
    directory: Path, stage: Stage, state: State, names: Collection[str] | None = None, *, objects: bool = True
) -> Iterator[Damage]:
    """Yield what of a stage's artefacts differs from the checksums recorded when it was done.

    Args:
        names: artefacts to look at; by default all that there is a record of.
        objects: whether those objects of zarr stores are read, too, that hold checksums of their own.
    """
    recorded = state.stages.get(stage.name, {}).get("checksums") or {}
    for name in recorded if names is None else names:
        path = directory / name
        try:
            found = checksums(path)
            yield from _differences(name, path, found, recorded.get(name) or found)
            documents = (recorded.get(name) or {}).get(METADATA)
            # Damaged documents say nothing true of the objects.
            if objects and is_zarr(path) and documents in (None, found.get(METADATA)):
                yield from _faults_of_objects(name, path)
        except OSError as error:
            yield Damage(name, "", f"cannot be read ({error.strerror})")


def told(found: Sequence[Damage]) -> str:
    """Return damages as text, one a line, and how many more there are."""
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "\n".join([*map(str, found[:_SHOWN]), *more])


def put_aside(directory: Path, found: Collection[Damage]) -> None:
    """Take damaged artefacts away, so that their stage makes them again.

    Of a folder whose entries are independent of each other, as checkpoints are, those that are whole become the
    unfinished work that the stage goes on from. Anything else waits under another name until its like is published.
    """
    for name in {damage.artefact for damage in found}:
        path = directory / name
        partial, retired = working_path(path), path.with_name(f".retired-{path.name}")
        if path.is_dir() and not is_zarr(path):
            _remove(partial)
            for part in {damage.part for damage in found if damage.artefact == name} | {DESCRIPTION_FILE}:
                if part:
                    _remove(path / part)
            path.rename(partial)
        elif path.exists():
            _remove(retired)
            path.rename(retired)


def refuse_damaged(directory: Path, reader: str, upstream: Collection[Stage], *, objects: bool) -> None:
    """Refuse to read damaged artefacts, and have the next plan look at them.

    Args:
        reader: the stage that is about to read, or has failed to read, the artefacts of the stages `upstream`.
        objects: see `damages`.

    Raises:
        InputError: some are damaged.
    """
    state = State(directory)
    found = [damage for stage in upstream for damage in damages(directory, stage, state, objects=objects)]
    found = [damage for damage in found if not damage.added]
    if found:
        for name in {damage.artefact for damage in found}:
            _draw_attention(directory / name)
        raise InputError(
            f"{reader}: what it reads is damaged:\n{told(found)}\nRun `spherecast run {directory}`, which makes that again."
        )


def _differences(name: str, path: Path, found: dict[str, str], recorded: dict[str, str]) -> Iterator[Damage]:
    for part in sorted(recorded.keys() | found.keys()):
        if found.get(part) == recorded.get(part):
            continue
        where = "" if part == path.name else part
        if part not in recorded:
            yield Damage(name, where, "was not there when the stage was done", added=True)
        else:
            yield Damage(name, where, "differs from its checksum" if part in found else "is missing")


def _faults_of_objects(name: str, path: Path) -> Iterator[Damage]:
    from pipeline.stores.writing import verify_store

    faults = verify_store(path)
    yield from (Damage(name, "", text) for text in faults[:_SHOWN])
    if len(faults) > _SHOWN:
        yield Damage(name, "", f"{len(faults) - _SHOWN} more; `spherecast verify {path}` names all")


def _draw_attention(path: Path) -> None:
    """Change the time of a file of an artefact, by which planning tells that it has to look closely.

    A disk may corrupt a file without that, and another process may be keeping the run's record.
    """
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    with contextlib.suppress(OSError):
        os.utime(files[0])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
