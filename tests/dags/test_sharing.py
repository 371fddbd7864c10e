"""What runs in one folder have in common is made once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dags import sharing
from dags.state import State

ALL = {"simulate", "regrid", "statistics", "climatology", "train", "evaluate"}


@pytest.fixture
def beside(chain, finished):
    """The fake chain in a run beside the finished one."""
    return type(finished)(chain, finished.directory.with_name("other"))


def test_an_equal_run_takes_all_over_and_works_on_nothing(beside, finished):
    run = beside.run()
    assert (run.status, run.worked) == (0, [])
    assert "regrid       done in" in run.text
    assert f"taken over from {finished.directory}" in run.text
    for name in ("training.json", "m/other.json"):
        assert (beside.directory / name).samefile(finished.directory / name)
    entry = State(beside.directory).stages["regrid"]
    assert (entry["state"], entry["shared"]) == ("done", str(finished.directory))
    assert "taken over from" in (beside.directory / "logs" / "regrid.log").read_text()
    again = beside.run()
    assert "Nothing to do" in again.text


def test_what_differs_is_made(beside):
    assert beside.run("training.seed=7").worked == ["train", "evaluate"]


def test_force_and_the_configuration_keep_runs_apart(beside, finished):
    assert set(beside.run("execution.share_results=false", until=["regrid"]).worked) == {"simulate", "regrid"}
    assert beside.run(force=["regrid"], until=["regrid"]).worked == ["simulate", "regrid", "regrid"][2:]
    assert not (beside.directory / "training.json").samefile(finished.directory / "training.json")


def test_what_comes_after_a_forced_stage_is_not_taken_over(beside, finished):
    finished.run(force=["regrid"], until=["regrid"])
    assert set(beside.run().worked) == ALL - {"simulate", "regrid"}


def test_a_damaged_or_foreign_artefact_is_not_taken_over(beside, finished):
    (finished.directory / "m" / "other.json").write_text("{}")
    (finished.directory / "climatology.json").write_text("gone")
    assert beside.run().worked == ["climatology", "evaluate"]
    assert not list(beside.directory.rglob(".partial-*"))


def test_removing_one_run_leaves_the_other_whole(beside, finished):
    beside.run()
    for path in finished.directory.rglob("*.json"):
        path.unlink()
    assert "Nothing to do" in beside.run().text


def test_where_links_cannot_be_made_the_stage_works(beside, finished, chain, monkeypatch):
    def refuse(*paths):
        raise PermissionError(1, "Operation not permitted")

    beside.run(until=["simulate"])
    monkeypatch.setattr(sharing.os, "link", refuse)
    stage = chain.STAGES["regrid"]
    fingerprint = State(finished.directory).stages["regrid"]["fingerprint"]
    assert not sharing.take_over(beside.directory, stage, fingerprint)
    assert {path.name for path in beside.directory.glob("*.json")} == {"state.json", "source.json"}


def test_folders_are_linked_whole_and_a_swap_is_noticed(tmp_path, monkeypatch):
    source = tmp_path / "a"
    (source / "c" / "0").mkdir(parents=True)
    (source / "zarr.json").write_text("{}")
    (source / "c" / "0" / "1").write_bytes(b"x")
    sharing._link(source, tmp_path / "b")
    assert (tmp_path / "b" / "c" / "0" / "1").samefile(source / "c" / "0" / "1")
    real = os.link

    def swap(one, other):
        real(one, other)
        if source.exists():
            source.rename(tmp_path / "retired")
            source.mkdir()

    monkeypatch.setattr(sharing.os, "link", swap)
    with pytest.raises(OSError, match="replaced meanwhile"):
        sharing._link(source, tmp_path / "d")


def test_two_runs_at_once_make_what_they_share_once(fresh, chain):
    runs = [fresh.directory, fresh.directory.with_name("other")]
    processes = [
        subprocess.Popen(
            [sys.executable, chain.__file__, "run", "tiny", str(run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "FAKE": "regrid=pause"},
        )
        for run in runs
    ]
    texts = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    worked = [line.split()[0] for run in runs for line in _lines(run / "attempts")]
    assert sorted(worked) == sorted(ALL)
    one, other = (json.loads((run / "m" / "model.json").read_text()) for run in runs)
    assert one == other
    assert list((fresh.directory.parent / sharing.LOCKS).iterdir()) == []


def test_a_lock_whose_owner_died_is_free(chain, finished):
    stage = chain.STAGES["regrid"]
    folder = finished.directory.parent / sharing.LOCKS
    folder.mkdir(exist_ok=True)
    (folder / "regrid-abc").write_text('{"run": "gone", "pid": 1}')
    with sharing.making(finished.directory, stage, "abc"):
        assert json.loads((folder / "regrid-abc").read_text())["run"] == str(finished.directory)
    assert not (folder / "regrid-abc").exists()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
