"""Logs of stages do not grow without bounds."""

from __future__ import annotations

import functools
import re

from dags import stage_process
from dags.logs import log_path, older_logs, rotate, tail


def test_a_log_that_is_written_to_is_put_aside_and_loses_nothing(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "simulate=chatty")
    monkeypatch.setattr(stage_process, "rotate", functools.partial(rotate, largest=100_000))
    monkeypatch.setattr(stage_process, "_LOG_CHECK", 0.8)
    assert fresh.run(until=["simulate"]).status == 0
    log = log_path(fresh.directory, "simulate")
    older = older_logs(log)
    assert older
    text = "".join(path.read_text() for path in [*reversed(older), log])
    assert [int(number) for number in re.findall(r"^line (\d+) ", text, re.MULTILINE)] == list(range(24))


def test_only_so_many_are_kept(tmp_path):
    log = tmp_path / "train.log"
    (tmp_path / "train.log.old").write_text("mine")
    for number in range(6):
        log.write_text(f"{number}" * 20)
        rotate(log, largest=10, kept=3)
    assert log.read_text() == ""
    assert [path.read_text()[0] for path in older_logs(log)] == ["5", "4", "3"]
    log.write_text("short")
    rotate(log, largest=10, kept=3)
    assert log.read_text() == "short"
    rotate(tmp_path / "none.log", largest=10)


def test_the_tail_of_a_long_log(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("\n".join(f"line {number}" for number in range(30_000)))
    assert tail(log, 2) == "line 29998\nline 29999"
