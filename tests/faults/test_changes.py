"""What a run finds otherwise than it left it: the source, and artefacts of another version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dags.stages import STAGES

GIVEN = [name for name in STAGES if name != "simulate"]
"""Stages of a run whose source is given."""
READERS = [(name, reader) for name in STAGES for reader, stage in STAGES.items() if name in stage.upstream]


def write(source: Path, text: str, second: int) -> None:
    source.write_text(text)
    os.utime(source, (second, second))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "era5.nc"
    write(path, "after", 2)
    return path


@pytest.fixture(scope="module")
def after(serve, whole, source, tmp_path_factory):
    """An undisturbed run on the source as it is in the end."""
    run = type(whole)(serve, whole.stages, tmp_path_factory.mktemp("after") / "runs")
    run.folder.mkdir()
    run.overrides = ["source.kind=store", f"source.path={source}"]
    done = run.run()
    assert done.status == 0, done.text
    return run


@pytest.fixture
def given(serve, after, source, tmp_path):
    """A run that has not begun, on the source as it was at first."""
    write(source, "before", 1)
    run = type(after)(serve, after.stages, tmp_path / "runs")
    run.folder.mkdir()
    run.overrides = after.overrides
    return run


@pytest.mark.parametrize("name", GIVEN)
def test_the_source_changes_between_a_kill_and_the_same_command(given, after, source, name):
    runner, stage = given.start_in(name)
    given.kill(runner.pid)
    runner.end()
    given.until(lambda: not given.is_alive(stage))
    write(source, "after", 2)
    done = given.run()
    assert done.status == 0, done.text
    assert given.contents() == after.contents()


@pytest.mark.parametrize("name", GIVEN)
def test_the_source_changes_while_a_stage_works(given, after, source, name):
    runner, _ = given.start_in(name, fault="wait for go")
    write(source, "after", 2)
    (given.folder / "go").touch()
    ended = runner.end()
    if name != GIVEN[-1]:
        assert ended.status == 2
        assert "cannot start, since" in ended.text
        assert "was made from other settings or inputs" in ended.text
    done = given.run()
    assert done.status == 0, done.text
    assert given.contents() == after.contents()


@pytest.fixture(scope="module")
def older(serve, whole, tmp_path_factory):
    """A complete run of another version of the artefacts' schema."""
    run = type(whole)(serve, whole.stages, tmp_path_factory.mktemp("older") / "runs")
    run.folder.mkdir()
    assert run.run(VERSION="0").status == 0
    return run


def put(artefact: str, source: Path, target: Path) -> None:
    one, other = source / artefact, target / artefact
    if one.is_dir():
        shutil.rmtree(other)
        shutil.copytree(one, other)
    else:
        shutil.copy(one, other)


@pytest.mark.parametrize("name", STAGES)
def test_an_artefact_of_another_version_is_made_again(drill, whole, older, name):
    before = drill.worked()
    for artefact in drill.stages[name].artefacts:
        put(artefact, older.directory, drill.directory)
    done = drill.run()
    assert done.status == 0, done.text
    assert drill.worked() == {**before, name: before[name] + 1}
    assert drill.contents() == whole.contents()


@pytest.mark.parametrize(("name", "reader"), READERS)
def test_an_artefact_of_another_version_is_not_read(drill, older, name, reader):
    drill.begin_before(reader)
    for artefact in drill.stages[name].artefacts:
        put(artefact, older.directory, drill.directory)
    refused = drill.stage(reader)
    assert refused.status == 2
    assert f"{reader}: cannot start, since\n  {name}: " in refused.text
    assert "was made from other settings or inputs" in refused.text
    assert not any((drill.directory / result).exists() for result in drill.stages[reader].artefacts)


def test_a_run_of_another_version_is_made_again(serve, whole, older, tmp_path):
    run = type(whole)(serve, whole.stages, tmp_path / "runs")
    shutil.copytree(older.folder, run.folder)
    done = run.run()
    assert done.status == 0, done.text
    assert run.contents() == whole.contents()
