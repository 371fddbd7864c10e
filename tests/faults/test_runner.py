"""Every fault that can strike a runner or a stage at work, in every stage."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from dags.stages import STAGES

EVERY_STAGE = pytest.mark.parametrize("name", STAGES)
SIGNALS = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])


def finish(drill, whole, name: str) -> None:
    """The same command finishes the work, with the results of a run that nothing has disturbed."""
    assert not any((drill.directory / artefact).exists() for artefact in drill.stages[name].artefacts)
    done = drill.run()
    assert done.status == 0, done.text
    assert drill.contents() == whole.contents()
    assert "Nothing to do" in drill.run().text


@EVERY_STAGE
def test_a_stage_that_the_kernel_kills_starts_again_by_itself(drill, whole, name):
    drill.begin_before(name)
    runner, stage = drill.start_in(name)
    before = drill.worked()[name]
    drill.kill(stage)
    done = runner.end()
    assert done.status == 0, done.text
    assert "starts again in" in done.text
    assert "killed by SIGKILL. The machine may have run out of memory." in done.text
    assert drill.worked()[name] == before + 1
    assert drill.contents() == whole.contents()


@EVERY_STAGE
def test_a_stage_that_is_told_to_end(drill, whole, name):
    drill.begin_before(name)
    runner, stage = drill.start_in(name)
    drill.kill(stage, signal.SIGTERM)
    done = runner.end()
    assert done.status == 1
    assert f"{name} failed\nkilled by SIGTERM." in done.text
    assert f"Resume: spherecast run {drill.directory}" in done.text
    finish(drill, whole, name)


@EVERY_STAGE
@SIGNALS
def test_a_runner_that_is_killed_or_told_to_end(drill, whole, name, number):
    drill.begin_before(name)
    runner, stage = drill.start_in(name)
    drill.kill(runner.pid, number)
    done = runner.end()
    drill.until(lambda: not drill.is_alive(stage))
    if number == signal.SIGTERM:
        assert done.status == 128 + number
        assert f"Stopped in {name}; finished stages are kept." in done.text
        assert drill.state(name) == "interrupted"
    finish(drill, whole, name)


@EVERY_STAGE
@SIGNALS
def test_runner_and_stage_at_once(drill, whole, name, number):
    drill.begin_before(name)
    runner, stage = drill.start_in(name)
    drill.kill(runner.pid, number)
    drill.kill(stage, number)
    status = runner.end().status
    assert status == (128 + number if number == signal.SIGTERM else -number)
    drill.until(lambda: not drill.is_alive(stage))
    finish(drill, whole, name)


@EVERY_STAGE
def test_two_at_once_on_one_directory(drill, whole, name):
    drill.begin_before(name)
    runner, _ = drill.start_in(name, fault="wait for go")
    refused = drill.run()
    assert refused.status == 2
    assert f"{drill.directory}: in use by process {runner.pid} on " in refused.text
    by_hand = drill.stage(name)
    assert by_hand.status == 2
    assert "in use by process" in by_hand.text
    (drill.folder / "go").touch()
    done = runner.end()
    assert done.status == 0, done.text
    assert drill.worked()[name] == whole.worked()[name] + 1
    assert drill.contents() == whole.contents()


@EVERY_STAGE
def test_too_little_memory_under_a_limit(drill, whole, name):
    drill.begin_before(name)
    failed = drill.run(FAULT=f"{name}=memory")
    assert failed.status == 1
    assert f"{name} failed\nMemoryError: out of memory" in failed.text
    assert "execution.memory_mb" in failed.text
    finish(drill, whole, name)


@EVERY_STAGE
def test_a_clock_that_runs_backwards(drill, whole, name):
    drill.begin_before(name)
    runner, _ = drill.start_in(name, BACKWARDS="1")
    drill.kill(runner.pid)
    runner.end()
    done = drill.run(BACKWARDS="1")
    assert done.status == 0, done.text
    assert drill.contents() == whole.contents()
    assert "Nothing to do" in drill.run(BACKWARDS="1").text


@pytest.fixture
def disk(drill) -> Path:
    """A file system of its own under the run, of a megabyte, that holds a copy of the complete run."""
    kept = drill.folder.rename(drill.folder.with_name("kept"))
    drill.folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(drill.folder)], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount a file system here")
    subprocess.run(["cp", "-a", f"{kept}/.", str(drill.folder)], check=True)
    yield drill.folder
    subprocess.run(["umount", "--lazy", str(drill.folder)], check=True)


@EVERY_STAGE
def test_a_full_disk(drill, disk, whole, name):
    drill.begin_before(name)
    failed = drill.run(FAULT=f"{name}=fill")
    assert failed.status == 1
    assert f"{name} failed" in failed.text
    assert "cannot be written, the disk is full. Free some space or choose another place" in failed.text
    (drill.directory / ".partial-filling").unlink()
    finish(drill, whole, name)


@EVERY_STAGE
def test_a_disk_that_is_read_only(drill, disk, whole, name):
    drill.begin_before(name)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused = drill.run()
    assert refused.status == 2
    assert f"{drill.directory}: cannot write there" in refused.text
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    finish(drill, whole, name)
