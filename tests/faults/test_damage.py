"""Artefacts damaged after they were published: found, refused by who reads them, and made again by the same command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dags.stages import STAGES
from dags.verifying import verify_run
from pipeline.artefacts import DESCRIPTION_FILE

EVERY_STAGE = pytest.mark.parametrize("name", STAGES)
READERS = [(name, reader) for name in STAGES for reader, stage in STAGES.items() if name in stage.upstream]


def truncate(artefact: Path) -> Path:
    path = _part(artefact, "2")
    path.write_bytes(path.read_bytes()[:-7])
    return path


def flip(artefact: Path) -> Path:
    path = _part(artefact, "1")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    return path


def delete(artefact: Path) -> Path:
    path = _part(artefact, "3")
    path.unlink()
    return path


def empty_metadata(artefact: Path) -> Path:
    path = _part(artefact, DESCRIPTION_FILE)
    path.write_bytes(b"")
    return path


def _part(artefact: Path, name: str) -> Path:
    return artefact / name if artefact.is_dir() else artefact


DAMAGES = pytest.mark.parametrize("damage", [truncate, flip, delete, empty_metadata], ids=lambda it: it.__name__)


@EVERY_STAGE
@DAMAGES
def test_what_is_damaged_is_named_and_made_again_alone(drill, whole, name, damage: Callable[[Path], Path]):
    (artefact, *_) = drill.stages[name].artefacts
    before = drill.worked()
    damaged = damage(drill.directory / artefact)
    faults = [finding for finding in verify_run(drill.directory, drill.stages) if finding.level == "fault"]
    assert [finding.name for finding in faults] == [name]
    assert str(damaged.relative_to(drill.directory)) in faults[0].found
    done = drill.run()
    assert done.status == 0, done.text
    if damaged.exists() and damaged != drill.directory / artefact:
        assert f"{name} is made again, since it is damaged:\n{damaged.relative_to(drill.directory)}: " in done.text
    assert drill.worked() == {**before, name: before[name] + 1}
    assert drill.contents() == whole.contents()
    assert "Nothing to do" in drill.run().text


@pytest.mark.parametrize(("name", "reader"), READERS)
@DAMAGES
def test_nothing_is_computed_from_what_is_damaged(drill, name, reader, damage):
    drill.begin_before(reader)
    (artefact, *_) = drill.stages[name].artefacts
    damage(drill.directory / artefact)
    refused = drill.stage(reader)
    assert refused.status == 2
    assert artefact in refused.text
    assert f"Run `spherecast run {drill.directory}`" in refused.text
    assert not any((drill.directory / result).exists() for result in drill.stages[reader].artefacts)


@pytest.mark.parametrize(("name", "reader"), READERS)
def test_a_byte_that_the_disk_has_flipped_unseen(drill, whole, name, reader):
    drill.begin_before(reader)
    (artefact, *_) = drill.stages[name].artefacts
    path = _part(drill.directory / artefact, "1")
    times = path.stat()
    flip(drill.directory / artefact)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    failed = drill.run()
    assert failed.status == 2
    assert f"{reader} failed\n{reader}: what it reads is damaged:\n{path.relative_to(drill.directory)}: " in failed.text
    assert not any((drill.directory / result).exists() for result in drill.stages[reader].artefacts)
    done = drill.run()
    assert done.status == 0, done.text
    assert f"{name} is made again, since it is damaged:" in done.text
    assert drill.contents() == whole.contents()


def test_a_copy_with_other_times_is_verified_and_kept(drill, whole):
    for path in drill.directory.rglob("*"):
        os.utime(path)
    done = drill.run()
    assert "Nothing to do" in done.text
    assert drill.worked() == whole.worked()


def test_damage_is_not_forgotten_when_the_run_ends_before_its_stage_begins(drill, whole):
    for name in ("statistics", "report"):
        (artefact, *_) = drill.stages[name].artefacts
        flip(drill.directory / artefact)
    assert drill.run(FAULT="statistics=memory").status == 1
    done = drill.run()
    assert "report is made again, since it is damaged:" in done.text
    assert drill.contents() == whole.contents()


def test_what_a_stage_makes_by_itself_is_no_damage_to_what_a_runner_recorded(drill, whole):
    before = drill.worked()
    (artefact, *_) = drill.stages["statistics"].artefacts
    assert drill.stage("statistics", "--force").status == 0
    path = drill.directory / artefact
    path.write_text(path.read_text() + "\n")  # As where a stage's bytes are not the same each time.
    assert "Nothing to do" in drill.run().text
    assert drill.worked() == before
    flip(path)
    assert "statistics is made again, since it is damaged" in drill.run().text
    assert drill.contents() == whole.contents()


def test_what_was_added_does_not_undo_a_training(drill, whole):
    (drill.directory / "checkpoints" / "notes.txt").write_text("lr was too high")
    assert "Nothing to do" in drill.run().text
    assert drill.worked() == whole.worked()


def test_whole_parts_of_a_damaged_folder_are_gone_on_from(drill, whole):
    folder = drill.directory / "checkpoints"
    kept = (folder / "0").stat().st_ino
    delete(folder)
    assert drill.run().status == 0
    assert (folder / "0").stat().st_ino == kept
    assert drill.contents() == whole.contents()


@EVERY_STAGE
def test_a_damaged_result_is_not_taken_over_by_another_run(drill, whole, name):
    other = type(drill)(drill._serve, drill.stages, drill.folder)
    other.directory = drill.folder / "other"
    (artefact, *_) = drill.stages[name].artefacts
    flip(drill.directory / artefact)
    done = other.run()
    assert done.status == 0, done.text
    assert f"taken over from {drill.directory}" in done.text or name == "simulate"
    shutil.rmtree(drill.directory)
    assert other.contents() == whole.contents()
