"""Whether the artefacts of a run are whole and belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dags import processes
from dags.damage import damages
from dags.doctor import Finding, fault, note, sound
from dags.fingerprints import graph
from dags.plan import expected_of
from dags.stages import STAGES, Stage
from dags.state import State, holds
from pipeline.artefacts import SCHEMA_VERSION, read_description
from pipeline.runs import Run
from transforms.errors import InputError

__all__ = ["verify_run"]

_GROUP = "Run"


def verify_run(directory: Path, stages: dict[str, Stage] = STAGES) -> Iterator[Finding]:
    """Yield what is found of each stage's artefacts: there, of this version, of this lineage, and undamaged.

    Raises:
        InputError: `directory` is no run.
    """
    run = Run.open(directory)
    nodes, state = graph(run.config, stages), State(directory)
    if processes.in_use(directory):
        yield note(_GROUP, "in use", "a stage works on this run", "wait until it has ended and look again")
    try:
        expected = expected_of(run.config, state, stages)
    except InputError as error:
        mend = "bring it back; the artefacts are verified all the same"
        yield note(_GROUP, "source", str(error).splitlines()[0], mend)
        expected = {}
    marks = {name: _mark(directory / stage.artefacts[0]) for name, stage in nodes.items()}
    for name, stage in nodes.items():
        missing = [artefact for artefact in stage.artefacts if not (directory / artefact).exists()]
        if missing:
            yield _missing(name, missing, state, directory)
            continue
        faults = list(_damages(directory, stage, state))
        faults += list(_lineage(directory, stage, marks))
        if not faults and name in expected:
            other = holds(directory, stage, expected[name].fingerprint)
            if other:
                faults.append(f"{other}: out of date")
        if faults:
            repair = f"spherecast run {directory} --force {name}"
            remake = f"spherecast run {directory}"
            only_old = all(text.endswith("out of date") for text in faults)
            yield fault(_GROUP, name, "\n".join(faults), remake if only_old else repair)
        else:
            yield sound(_GROUP, name, f"{', '.join(stage.artefacts)}: {_told(state, name)}")


def _missing(name: str, missing: list[str], state: State, directory: Path) -> Finding:
    text = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    mend = f"spherecast run {directory}"
    made = state.stages.get(name, {}).get("state") in ("done", "skipped")
    return fault(_GROUP, name, text, mend) if made else note(_GROUP, name, "not made yet", mend)


def _damages(directory: Path, stage: Stage, state: State) -> Iterator[str]:
    """Yield what is not as it was when the stage was done."""
    for name in stage.artefacts:
        description = read_description(directory / name)
        if description is None:
            yield f"{name}: does not say what it is"
        elif description.get("schema") != SCHEMA_VERSION:
            yield f"{name}: has schema version {description.get('schema')}, expected {SCHEMA_VERSION}"
    yield from map(str, damages(directory, stage, state))


def _lineage(directory: Path, stage: Stage, marks: dict[str, str]) -> Iterator[str]:
    """Yield which artefacts were made from others than those that are there."""
    for name in stage.artefacts:
        inputs: dict[str, Any] = (read_description(directory / name) or {}).get("inputs") or {}
        for upstream, mark in inputs.items():
            if marks.get(upstream) and mark != marks[upstream]:
                yield f"{name}: was made from another result of {upstream} than is there: out of date"


def _mark(path: Path) -> str:
    return str((read_description(path) or {}).get("fingerprint", ""))


def _told(state: State, name: str) -> str:
    entry = state.stages.get(name, {})
    shared = f", taken over from {entry['shared']}" if entry.get("shared") else ""
    known = "checksums and lineage agree" if entry.get("checksums") else "lineage agrees; no checksum was recorded"
    return f"{known}{shared}"
