"""How far a run is, as another process sees it."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

from dags.progress import ProgressFile, read_progress
from dags.state import State


def test_the_runner_keeps_the_progress_of_what_works_and_removes_it(start_runner, fresh, until):
    process = start_runner(FAKE="train=slow")
    until(lambda: "train" in read_progress(fresh.directory).get("stages", {}))
    record = read_progress(fresh.directory)
    assert list(record["stages"]) == ["train"]
    assert record["stages"]["train"].keys() == {"task", "fraction", "note", "elapsed", "remaining"}
    assert record["stages"]["train"]["elapsed"] >= 0
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert read_progress(fresh.directory) == {}
    assert not list(fresh.directory.glob("*progress*"))


def test_progress_is_kept_once_a_second(tmp_path):
    asked = []
    display = SimpleNamespace(clocks={}, remaining=lambda: asked.append(1) or 2.25)
    with ProgressFile(tmp_path) as kept:
        for _ in range(50):
            kept.keep(display)
        assert len(asked) == 1
        assert read_progress(tmp_path)["remaining"] == 2.2
    assert read_progress(tmp_path) == {}


def test_a_broken_file_is_no_progress(tmp_path):
    for text in ("", "[]", '{"stages": 3}', "{"):
        (tmp_path / "progress.json").write_text(text)
        assert read_progress(tmp_path) == {}


def test_the_record_says_why_a_stage_failed_until_it_works_again(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "train=input")
    assert fresh.run().status == 2
    assert "level 925 hPa is missing" in State(fresh.directory).stages["train"]["error"]
    monkeypatch.delenv("FAKE")
    assert fresh.run().status == 0
    assert json.loads((fresh.directory / "state.json").read_text())["stages"]["train"]["error"] is None
