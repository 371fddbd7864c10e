"""Options of the commands on runs: each does what it says, and no option of any command is without a test."""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path

import pytest
import typer.main
from rich.console import Console

from dags import local, stage_work
from dags.cli import app
from dags.schedule import Patience
from pipeline.config_files import load_config
from pipeline.planning.plan import Plan
from pipeline.processes.membership import COORDINATOR, PROCESS, PROCESSES

TESTS = [path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py")]
OPTIONS = [
    (name, option)
    for name, command in typer.main.get_command(app).commands.items()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
    if option.startswith("--")
]


@pytest.fixture
def fake_stages(monkeypatch, chain):
    """Have the commands work on the chain of fake stages."""
    console = Console(stderr=True, width=200)
    runner = functools.partial(local.run, stages=chain.STAGES, command=chain.command, console=console)
    monkeypatch.setattr(local, "run", runner)
    monkeypatch.setattr(
        stage_work, "work", functools.partial(stage_work.work, stages=chain.STAGES, function=chain.function)
    )


@pytest.fixture
def asked(monkeypatch, say):
    """Run a command that succeeds, without its work; return what it asked of `local.run`: (config, directory), options."""

    def run(*words: str | Path):
        calls = []
        monkeypatch.setattr(local, "run", lambda *given, **options: calls.append((given, options)) or 0)
        status, text = say(*words)
        assert status == 0, text
        (call,) = calls
        return call

    return run


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_an_option_is_named_by_a_test_of_its_command(command, option):
    word = re.compile(rf"{option}(?![\w-])")
    assert any(word.search(text) and f'"{command}"' in text for text in TESTS), f"no test gives {option} to {command}"


@pytest.mark.parametrize("command", ["run", "preprocess", "train", "forecast", "evaluate", "report"])
def test_runs_dir_and_name_say_where_a_run_is(asked, command):
    (config, directory), _ = asked(command, "tiny")
    assert (config.name, directory) == ("tiny", Path("runs/tiny"))
    (config, directory), _ = asked(command, "tiny", "--runs-dir", "elsewhere", "--name", "other")
    assert (config.name, directory) == ("other", Path("elsewhere/other"))


def test_status_looks_for_a_run_in_runs_dir(say, finished):
    assert say("status", "fake")[0] == 0
    finished.directory.parent.rename("elsewhere")
    status, text = say("status", "fake")
    assert status == 2
    assert "not a run directory" in text
    status, text = say("status", "fake", "--runs-dir", "elsewhere", "--json")
    assert status == 0, text
    assert json.loads(text)["run"] == "elsewhere/fake"


def test_run_from_a_stage_leaves_out_what_comes_before(say, fake_stages, finished):
    status, text = say("run", finished.directory, "--from", "train", "--dry-run")
    assert status == 0
    assert [line.split()[0] for line in text.splitlines() if "up to date" in line] == ["train", "evaluate"]
    (finished.directory / "statistics.json").unlink()
    status, text = say("run", finished.directory, "--from", "train")
    assert status == 2
    assert "cannot start, since\n  statistics: " in text
    before = finished.attempts()
    assert say("run", finished.directory)[0] == 0
    assert finished.attempts() == [*before, "statistics"]


def test_run_until_a_stage_and_forced(say, fake_stages, finished):
    before = len(finished.attempts())
    force = ("--force", "statistics", "--force", "train")
    assert say("run", finished.directory, *force, "--until", "train")[0] == 0
    assert finished.attempts()[before:] == ["statistics", "train"]


def test_force_works_again_on_a_stage_that_is_up_to_date(say, fake_stages, finished):
    before = finished.attempts()
    assert say("evaluate", finished.directory)[0] == 0
    assert finished.attempts() == before
    assert say("evaluate", finished.directory, "--force")[0] == 0
    assert finished.attempts() == [*before, "evaluate"]


@pytest.mark.parametrize("command", ["train", "forecast", "evaluate", "report"])
def test_force_is_of_the_commands_own_stage(asked, command):
    assert asked(command, "tiny")[1] == {"start": command, "until": [command], "force": []}
    assert asked(command, "tiny", "--force")[1] == {"start": command, "until": [command], "force": [command]}


def test_a_stage_of_a_scheduler_is_forced(say, fake_stages, finished):
    before = finished.attempts()
    assert say("stage", "train", finished.directory)[0] == 0
    assert finished.attempts() == before
    assert say("stage", "train", finished.directory, "--force")[0] == 0
    assert finished.attempts() == [*before, "train"]


def test_preprocess_hands_a_runner_of_beam_to_the_configuration(asked):
    (config, _), options = asked("preprocess", "tiny", "--runner", "FlinkRunner", "--dry-run", "--", "--parallelism=4")
    assert config.execution.beam == ["--runner=FlinkRunner", "--parallelism=4"]
    assert options["dry_run"]


@pytest.mark.parametrize("command", ["run", "preprocess"])
def test_jobs_are_those_asked_for(asked, command):
    assert asked(command, "tiny")[1]["jobs"] is None
    assert asked(command, "tiny", "--jobs", "3")[1]["jobs"] == 3


def test_retries_are_those_asked_for(asked):
    assert asked("run", "tiny")[1]["patience"] == Patience()
    assert asked("run", "tiny", "--retries", "0")[1]["patience"].wait(1) is None


def test_a_process_of_several_trains_or_follows(monkeypatch, asked, say):
    monkeypatch.setattr(os, "environ", {**os.environ})
    several = ("--coordinator", "10.0.0.2:8476", "--processes", "3", "--process")
    _, options = asked("train", "tiny", *several, "0")
    assert options["until"] == ["train"]
    assert [os.environ[name] for name in (COORDINATOR, PROCESSES, PROCESS)] == ["10.0.0.2:8476", "3", "0"]
    followed = []
    monkeypatch.setattr(local, "run", None)
    monkeypatch.setattr(stage_work, "follow", lambda *given: followed.append(given))
    assert say("train", "tiny", *several, "2") == (0, "")
    assert followed == [("train", Path("runs/tiny"))]
    assert os.environ[PROCESS] == "2"
    status, text = say("train", "tiny", *several, "3")
    assert status == 2
    assert "process: got 3 of 3" in text


def test_a_launch_on_this_machine_passes_all_on(monkeypatch, say):
    launched = []
    monkeypatch.setattr(
        "pipeline.processes.local.launch_local", lambda *given, **more: launched.append((given, more)) or 0
    )
    words = ("tiny", "training.seed=3", "--runs-dir=elsewhere", "--name=other")
    assert say("train", "--launch", "local:2", "--force", *words) == (0, "")
    ((number, command), more) = launched[0]
    assert number == 2
    assert command[1:] == ["-m", "dags", "train", *words, "--force"]
    assert more["logs"] == Path("elsewhere/other/logs")


def test_plan_passes_its_options_on(monkeypatch, say):
    calls = []

    def made(config, **options) -> Plan:
        calls.append((config, options))
        return Plan(config.name, "v4:2x2x2", 8, {"data": 4, "sphere": 2}, None, 1.0, [], [], [], [])

    monkeypatch.setattr("pipeline.planning.plan.plan", made)
    words = ("--topology", "v4:2x2x2", "--sphere", 2, "--batch", 16, "--every-stage", "--json", "plan.json")
    assert say("plan", "tiny", "training.batch_size=8", *words)[0] == 0
    assert say("plan", "tiny", "--devices", 4)[0] == 0
    (config, options), (_, plain) = calls
    assert config == load_config("tiny", ["training.batch_size=8"])
    options.pop("report")
    plain.pop("report")
    assert options == {"topology": "v4:2x2x2", "devices": None, "sphere": 2, "batch": 16, "every_stage": True}
    assert plain == {"topology": None, "devices": 4, "sphere": None, "batch": None, "every_stage": False}
    assert '"target": "v4:2x2x2"' in Path("plan.json").read_text()
