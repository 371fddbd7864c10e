"""Independent stages at work at once, and stages that are tried again."""

from __future__ import annotations

import itertools
import json
import signal

import pytest
from rich.console import Console

from dags import display, machine, schedule
from dags.failures import may_pass
from dags.fingerprints import expectations, graph
from dags.logs import log_path
from dags.plan import Step
from dags.schedule import Patience, Schedule
from dags.stages import STAGES
from dags.state import State
from pipeline.config_files import load_config
from pipeline.stores.retrying import UnreachableError
from transforms.errors import InputError


def steps_of(*names: str, done: tuple[str, ...] = ()) -> list[Step]:
    """Return steps of the real stages, those in `done` with nothing to do."""
    config = load_config("tiny")
    expected = expectations(config, None)
    nodes = graph(config)
    return [Step(nodes[name], expected[name], name not in done, "") for name in names or nodes]


def started(plan: Schedule, now: float = 0.0) -> list[str]:
    """Start all that can start now."""
    names = []
    while (step := plan.start_next(now)) is not None:
        names.append(step.stage.name)
    return names


def end(plan: Schedule, name: str) -> None:
    plan.end(next(step for step in plan.working if step.stage.name == name))


def test_branches_overlap(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "statistics=meet")
    both = fresh.run(until=["statistics", "climatology"], jobs=2)
    assert both.status == 0, both.text


def test_one_job_is_one_stage_at_a_time(fresh):
    run = fresh.run(jobs=1)
    assert run.worked == ["simulate", "regrid", "statistics", "climatology", "train", "evaluate"]
    stages = State(fresh.directory).stages
    for before, after in itertools.pairwise(run.worked):
        assert stages[before]["ended"] <= stages[after]["started"]


def test_a_failure_lets_the_other_branch_finish_and_starts_nothing(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "climatology=crash")
    failed = fresh.run(jobs=2)
    assert failed.status == 1
    assert "climatology failed" in failed.text
    assert (fresh.directory / "statistics.json").is_file()
    assert "evaluate" not in failed.worked
    monkeypatch.delenv("FAKE")
    again = fresh.run(jobs=2)
    assert again.status == 0
    assert not {"simulate", "regrid", "statistics"} & set(again.worked)


def test_a_signal_stops_every_branch(fresh, start_runner, until):
    runner = start_runner(FAKE="statistics=slow", JOBS="2")
    until(lambda: {"statistics", "climatology"} <= set(fresh.attempts()))
    runner.send_signal(signal.SIGTERM)
    text, _ = runner.communicate(timeout=60)
    assert runner.returncode == 128 + signal.SIGTERM, text
    assert "Stopped in " in text
    assert State(fresh.directory).stages["statistics"]["state"] == "interrupted"
    assert fresh.run().status == 0


def test_a_lost_connection_is_tried_again(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "regrid=lost")
    run = fresh.run(until=["statistics"])
    assert run.status == 0, run.text
    assert run.worked == ["simulate", "regrid", "regrid", "regrid", "statistics"]
    assert run.text.count("regrid       starts again in ") == 2
    assert "ConnectionResetError" in run.text
    assert State(fresh.directory).stages["regrid"]["attempt"] == 3
    assert "attempt 3\n" in log_path(fresh.directory, "regrid").read_text()


def test_attempts_are_bounded(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "regrid=lost")
    run = fresh.run(patience=Patience(retries=1, pause=0.01))
    assert run.status == 1
    assert run.worked == ["simulate", "regrid", "regrid"]
    assert "regrid failed\nConnectionResetError" in run.text


def test_a_stage_killed_for_memory_is_tried_again_alone(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "statistics=killed once")
    run = fresh.run(jobs=2)
    assert run.status == 0, run.text
    assert run.worked.count("statistics") == 2
    assert "starts again in" in run.text


@pytest.mark.parametrize("behaviour", ["input", "crash", "full", "preempted"])
def test_what_will_not_pass_is_not_tried_again(fresh, monkeypatch, behaviour):
    monkeypatch.setenv("FAKE", f"regrid={behaviour}")
    assert fresh.run().worked == ["simulate", "regrid"]


def test_what_may_pass(tmp_path):
    lost = UnreachableError("source.path: gs://b/e.zarr could not be read")
    lost.__cause__ = ConnectionResetError()
    refused = InputError("temperature: level 925 hPa is missing")
    refused.__cause__ = ConnectionResetError()
    assert may_pass(lost, tmp_path)
    assert may_pass(TimeoutError(), tmp_path)
    assert not may_pass(refused, tmp_path)
    assert not may_pass(OSError(28, "No space left on device"), tmp_path)
    assert not may_pass(ZeroDivisionError(), tmp_path)


def test_waits_grow_and_end(monkeypatch):
    monkeypatch.setattr(schedule.random, "uniform", lambda low, high: high)
    assert [Patience(3, 10.0).wait(attempt) for attempt in (1, 2, 3, 4)] == [10.0, 40.0, 160.0, None]


def test_stages_start_after_what_they_need():
    plan = Schedule(steps_of(), jobs=9)
    order = []
    while plan.waiting or plan.working:
        order.append(started(plan))
        for step in plan.working:
            plan.end(step)
    assert order == [
        *(["simulate"], ["validate"], ["regrid"], ["statistics", "climatology"]),
        *(["train"], ["forecast"], ["evaluate"], ["report"]),
    ]


def test_what_is_up_to_date_is_not_waited_for():
    assert started(Schedule(steps_of("statistics", "climatology", "train"), jobs=9)) == ["statistics", "climatology"]
    assert started(Schedule(steps_of("climatology", "train", "forecast"), jobs=9)) == ["climatology", "train"]


def test_the_accelerator_has_one_user():
    assert STAGES["train"].accelerator
    assert STAGES["forecast"].accelerator
    plan = Schedule(steps_of("simulate", "forecast", "statistics"), jobs=9)
    assert started(plan) == ["simulate", "statistics"]
    end(plan, "simulate")
    assert started(plan) == ["forecast"]


def test_who_starts_alone_starts_beside_nothing():
    plan = Schedule(steps_of("statistics", "climatology"), jobs=9)
    started(plan)
    statistics = next(step for step in plan.working if step.stage.name == "statistics")
    plan.put_back(statistics, 5.0, alone=True)
    assert started(plan, 9.0) == []
    end(plan, "climatology")
    assert started(plan, 4.0) == []
    assert started(plan, 5.0) == ["statistics"]


def test_jobs_fit_cores_and_memory(monkeypatch):
    config = load_config("tiny", ["execution.memory_mb=1000"])
    monkeypatch.setattr(machine, "cores", lambda: 8)
    for memory, jobs in [(None, 8), (1e8, 1), (4.1e9, 2), (64e9, 8)]:
        monkeypatch.setattr(machine, "available_memory", lambda memory=memory: memory and int(memory))
        assert machine.default_jobs(config) == jobs


def test_the_time_left_is_that_of_the_longest_branch(monkeypatch):
    steps = steps_of("statistics", "climatology", "train", "evaluate")
    shown = display.Display(
        Console(), steps, {"statistics": 10.0, "climatology": 100.0, "train": 50.0, "evaluate": 1.0}
    )
    assert shown.remaining() == 101.0
    assert display.Display(Console(), steps, {"statistics": 10.0}).remaining() is None
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    shown.begin(steps[1])
    shown.event(steps[1], {"task": "climatology", "done": 0, "total": 4, "note": ""})
    now = 10.0
    shown.event(steps[1], {"task": "climatology", "done": 2, "total": 4, "note": ""})
    assert shown.remaining() == 60.0
    shown.end(steps[1], "done", 10.0)
    assert shown.remaining() == 60.0


def test_the_live_table_has_a_row_for_each_stage(monkeypatch):
    console = Console(force_terminal=True, width=160, record=True)
    steps = steps_of("statistics", "climatology", "train", done=("statistics",))
    with display.LiveDisplay(console, steps, {"train": 60.0, "climatology": 30.0}) as shown:
        shown.begin(steps[1])
        shown.event(steps[1], {"task": "climatology", "done": 1, "total": 4, "note": "day 90"})
        console.print(shown._table())
        shown.pause(steps[1], 8.0, "ConnectionResetError\nmore")
        console.print(shown._table())
        shown.begin(steps[1])
        shown.end(steps[1], "done", 3.0, "taken over from runs/other")
    text = console.export_text()
    for words in (
        "up to date",
        "day 90",
        "1:00",
        "until all is done, at ",
        "to start again: ConnectionResetError",
        "other",
    ):
        assert words in text


def test_a_garbled_event_is_passed_over(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "statistics=garbled")
    assert fresh.run(until=["statistics"]).status == 0
    assert json.loads((fresh.directory / "statistics.json").read_text())
