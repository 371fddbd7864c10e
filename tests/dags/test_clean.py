"""Cleaning removes what no run refers to, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dags import cleaning, sharing
from dags.logs import log_path
from dags.state import State
from pipeline.artefacts import write_description
from pipeline.config_files import load_config
from transforms.errors import InputError


def names(found: cleaning.Survey) -> set[str]:
    return {leftover.path.name for leftover in found.leftovers}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def checkpoint(folder: Path, update: int, loss: float) -> None:
    (folder / str(update) / "metrics").mkdir(parents=True)
    (folder / str(update) / "metrics" / "metrics").write_text(json.dumps({"stage": 0, "loss": loss}))


def test_a_finished_run_has_nothing_left_over(finished, chain):
    folder = finished.directory.parent
    before = everything(folder)
    assert cleaning.remove(folder, chain.STAGES).leftovers == []
    assert everything(folder).keys() == before.keys()


def test_what_is_left_over_goes_and_the_rest_stays(finished, chain):
    run, folder = finished.directory, finished.directory.parent
    before = everything(run)
    mine = [
        run / "notes.txt",
        run / ".partial-thesis.tex",
        folder / "other" / "data.bin",
        run / "logs" / "train.log.old",
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (run / ".partial-checkpoints.json").write_text("half")
    (run / "m" / ".retired-model.json").write_text("before")
    (run / ".partial-state.json").write_text("{")
    log = log_path(run, "train")
    log.with_name("train.log.1").write_text("x" * 1000)
    (folder / sharing.LOCKS).mkdir(exist_ok=True)
    (folder / sharing.LOCKS / "regrid-abc").write_text("{}")
    expected = {".partial-checkpoints.json", ".retired-model.json", ".partial-state.json", "train.log.1", "regrid-abc"}
    listed = cleaning.survey(folder, chain.STAGES)
    assert names(listed) == expected
    assert all(leftover.path.exists() for leftover in listed.leftovers)
    assert next(leftover.size for leftover in listed.leftovers if leftover.path.name == "train.log.1") == 1000
    removed = cleaning.remove(folder, chain.STAGES)
    assert names(removed) == expected
    assert not any(leftover.path.exists() for leftover in removed.leftovers)
    assert all(path.read_text() == "mine" for path in mine)
    after = everything(run)
    assert all(after[name] == data for name, data in before.items() if name not in ("state.json", ".lock"))
    assert "Nothing to do" in finished.run().text


def test_what_an_unfinished_stage_goes_on_from_is_kept(fresh, chain, monkeypatch):
    monkeypatch.setenv("FAKE", "train=preempted")
    fresh.run()
    retired = fresh.directory / ".retired-checkpoints.json"
    retired.write_text("killed between two renames")
    assert cleaning.remove(fresh.directory.parent, chain.STAGES).leftovers == []
    monkeypatch.delenv("FAKE")
    fresh.run()
    assert json.loads((fresh.directory / "checkpoints.json").read_text())["resumed"] == "half"
    retired.write_text("before")
    assert names(cleaning.survey(fresh.directory, chain.STAGES)) == {".retired-checkpoints.json"}


def test_what_is_made_by_no_stage_any_more_goes(finished, chain, tmp_path):
    source = tmp_path / "era5.nc"
    source.write_bytes(b"x")
    finished.run("source.kind=store", f"source.path={source}")
    assert names(cleaning.survey(finished.directory, chain.STAGES)) == {"source.json", "simulate.log"}
    source.unlink()
    (finished.directory / ".partial-training.json").write_text("half")
    found = cleaning.survey(finished.directory, chain.STAGES)
    assert ".partial-training.json" in names(found)  # The record tells what the source was.


def test_a_run_at_work_is_passed_over(fresh, chain, start_runner, until):
    runner = start_runner(FAKE="train=slow")
    until(lambda: (fresh.directory / ".partial-checkpoints.json").exists(), 120)
    (fresh.directory / ".partial-training.json").write_text("left over, but the run is at work")
    found = cleaning.remove(fresh.directory.parent, chain.STAGES)
    assert found.passed_over == [(fresh.directory, "in use")]
    assert not [leftover for leftover in found.leftovers if leftover.run == fresh.directory]
    assert (fresh.directory / ".partial-training.json").exists()
    runner.kill()


def test_a_lock_that_is_held_is_kept(finished, chain):
    folder = finished.directory.parent
    with sharing.making(finished.directory, chain.STAGES["regrid"], "abc"):
        assert cleaning.survey(folder, chain.STAGES).leftovers == []
        assert not cleaning._remove_unheld(folder / sharing.LOCKS / "regrid-abc")
        assert (folder / sharing.LOCKS / "regrid-abc").exists()


@pytest.mark.parametrize(
    ("overrides", "unreferenced"),
    [
        ((), {100, 200, 300}),
        (("training.keep_checkpoints=4",), {100}),
        (("training.keep_every=200",), {100, 300}),
        (("training.keep_best=2",), {100, 200}),
        (("forecast.checkpoints=[100, latest]",), {200, 300}),
    ],
)
def test_checkpoints_that_nothing_refers_to(tmp_path, overrides, unreferenced):
    folder = tmp_path / "checkpoints"
    for update, loss in [(100, 0.9), (200, 0.8), (300, 0.5), (400, 0.4), (500, 0.7)]:
        checkpoint(folder, update, loss)
    config = load_config("tiny", overrides)
    assert list(cleaning._checkpoints(folder, config)) == []  # Not published.
    write_description(folder, {"kind": "checkpoint"})
    assert {int(path.name) for path, _ in cleaning._checkpoints(folder, config)} == unreferenced


def test_the_record_forgets_removed_checkpoints(tmp_path):
    state = State(tmp_path)
    state.update("train", checksums={"checkpoints": {"100": "a", "200": "b"}})
    leftover = cleaning.Leftover(tmp_path, tmp_path / "checkpoints" / "100", 1, "")
    cleaning._forget_checkpoints(tmp_path, [leftover])
    assert State(tmp_path).stages["train"]["checksums"] == {"checkpoints": {"200": "b"}}


def test_the_command_lists_and_then_removes(finished, say):
    # The real table of stages: the fake artefacts mean nothing to it.
    folder = finished.directory.parent
    log = log_path(finished.directory, "train").with_name("train.log.1")
    log.write_text("x" * 5000)
    status, text = say("clean", folder)
    assert status == 0
    assert "train.log.1" in text
    assert f"5.0 kB in all; nothing was removed. Remove it with: spherecast clean {folder} --delete" in text
    assert log.exists()
    status, text = say("clean", folder, "--delete")
    assert (status, log.exists()) == (0, False)
    assert "Removed 5.0 kB." in text
    assert "nothing is left over" in say("clean", folder)[1]
    assert "no such folder" in say("clean", "nowhere")[1]
    with pytest.raises(InputError, match="no such folder"):
        cleaning.survey(folder / "nowhere")
