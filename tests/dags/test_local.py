"""The runner: what runs, what is skipped, and what is left when something goes wrong."""

from __future__ import annotations

import json
import os
import signal

import pytest

from dags import processes, stage_work
from dags.state import State
from pipeline.processes.membership import PREEMPTED
from pipeline.training import preemption
from transforms.errors import InputError

ALL = ["simulate", "regrid", "statistics", "climatology", "train", "evaluate"]


def test_runs_everything_once_then_nothing(fresh):
    first = fresh.run()
    assert first.status == 0
    assert sorted(first.worked) == sorted(ALL)
    for early, late in [
        ("simulate", "regrid"),
        ("regrid", "statistics"),
        ("statistics", "train"),
        ("train", "evaluate"),
    ]:
        assert first.worked.index(early) < first.worked.index(late)
    second = fresh.run()
    assert (second.status, second.worked) == (0, [])
    assert "Nothing to do" in second.text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.seed=7", ["train", "evaluate"]),
        ("climatology.window_days=31", ["climatology", "evaluate"]),
        ("evaluation.skipna=true", ["evaluate"]),
        ("simulation.seed=1", ALL),
        ("data.method=nearest", [name for name in ALL if name != "simulate"]),
        ("execution.loader_memory_mb=7", []),
        ("description=other", []),
    ],
)
def test_a_change_runs_just_what_depends_on_it(finished, override, expected):
    again = finished.run(override)
    assert again.status == 0
    assert sorted(again.worked) == sorted(expected)
    assert finished.run(override).worked == []


def test_a_missing_artefact_is_made_again_alone(finished):
    (finished.directory / "training.json").unlink()
    assert finished.run().worked == ["regrid"]


def test_one_artefact_of_several_missing(finished):
    (finished.directory / "m" / "other.json").unlink()
    assert finished.run().worked == ["evaluate"]


def test_an_artefact_of_foreign_make_is_replaced(finished):
    (finished.directory / "statistics.json").write_text("{}")
    again = finished.run(dry_run=True)
    assert "statistics.json does not say what it is" in again.text
    assert finished.run().worked == ["statistics"]


def test_dry_run_names_reasons_and_changes_nothing(fresh):
    text = fresh.run(dry_run=True).text
    assert "source.json is missing" in text
    assert not fresh.directory.exists()
    fresh.run()
    before = {path: path.stat().st_mtime_ns for path in fresh.directory.rglob("*")}
    plan = fresh.run("training.seed=7", "climatology.window_days=31", dry_run=True)
    lines = {line.split()[0]: line for line in plan.text.splitlines()}
    assert "skip" in lines["regrid"]
    assert "up to date" in lines["regrid"]
    assert "configuration changed: training" in lines["train"]
    assert "configuration changed: climatology" in lines["climatology"]
    assert "upstream changed: climatology, train" in lines["evaluate"]
    assert plan.worked == []
    assert before == {path: path.stat().st_mtime_ns for path in fresh.directory.rglob("*")}


def test_force_runs_the_stage_and_what_follows(finished):
    assert sorted(finished.run(force=["statistics"]).worked) == ["evaluate", "statistics", "train"]
    assert finished.run().worked == []


def test_what_follows_a_forced_stage_is_caught_up_later(finished):
    assert finished.run(force=["statistics"], until=["statistics"]).worked == ["statistics"]
    plan = finished.run(dry_run=True)
    assert "comes after a stage that was forced earlier" in plan.text
    assert finished.run().worked == ["train", "evaluate"]
    assert finished.run().worked == []


def test_force_begins_anew_where_a_run_would_resume(finished):
    partial = finished.directory / ".partial-checkpoints.json"
    partial.write_text("half")
    finished.run("training.seed=3")
    assert json.loads((finished.directory / "checkpoints.json").read_text())["resumed"] == "half"
    partial.write_text("half")
    finished.run("training.seed=3", force=["train"])
    assert json.loads((finished.directory / "checkpoints.json").read_text())["resumed"] == ""


def test_until_and_from(fresh):
    assert sorted(fresh.run(until=["statistics"]).worked) == ["regrid", "simulate", "statistics"]
    with pytest.raises(InputError, match=r"evaluate: cannot start.*\n +climatology: climatology.json is missing\n"):
        fresh.run(start="train", until=["evaluate"])
    assert fresh.run(start="train", until=["train"]).worked == ["train"]
    assert fresh.run(until=["climatology"]).worked == ["climatology"]
    assert fresh.run(start="train").worked == ["evaluate"]
    with pytest.raises(InputError, match=r"regrid: training.json was made from other settings"):
        fresh.run("data.method=nearest", start="train")
    with pytest.raises(InputError, match="train does not come before climatology"):
        fresh.run(start="train", until=["climatology"])


@pytest.mark.parametrize("option", [{"start": "trian"}, {"until": ["trian"]}, {"force": ["trian"]}])
def test_an_unknown_stage_is_refused(fresh, option):
    with pytest.raises(InputError, match="'trian' is not known; the stages of this run are simulate, regrid"):
        fresh.run(**option)
    assert not fresh.directory.exists()


def test_state_records_times_sizes_logs_and_fingerprints(finished):
    stages = json.loads((finished.directory / "state.json").read_text())["stages"]
    assert set(stages) == set(ALL)
    entry = stages["train"]
    assert entry["state"] == "done"
    assert entry["seconds"] > 0
    assert entry["started"] <= entry["ended"]
    assert entry["bytes"] == {"checkpoints.json": (finished.directory / "checkpoints.json").stat().st_size}
    assert entry["log"].endswith("logs/train.log")
    artefact = json.loads((finished.directory / "checkpoints.json").read_text())["spherecast"]
    assert artefact["fingerprint"] == entry["fingerprint"]
    assert artefact["inputs"] == entry["inputs"]
    finished.run()
    again = json.loads((finished.directory / "state.json").read_text())["stages"]["train"]
    assert again["state"] == "skipped"
    assert again["seconds"] == entry["seconds"]


@pytest.mark.parametrize(
    ("behaviour", "status", "message"),
    [
        ("input", 2, "temperature: level 925 hPa is missing; the source has 500, 850."),
        ("crash", 1, "RuntimeError: the seventh row of the matrix is missing"),
        ("full", 1, "somewhere/training.json: cannot be written, the disk is full. Free some space"),
        ("killed", 1, "killed by SIGKILL"),
        ("nothing", 1, "train ended, but checkpoints.json is missing"),
    ],
)
def test_a_failure_says_what_where_and_how_to_resume(fresh, monkeypatch, behaviour, status, message):
    monkeypatch.setenv("FAKE", f"train={behaviour}")
    failed = fresh.run()
    assert failed.status == status
    assert "train failed" in failed.text
    assert message in failed.text
    assert f"Log:    {fresh.directory / 'logs' / 'train.log'}" in failed.text
    assert f"Resume: spherecast run {fresh.directory}" in failed.text
    assert "evaluate" not in failed.worked
    assert State(fresh.directory).stages["train"]["state"] == "failed"
    monkeypatch.delenv("FAKE")
    assert fresh.run().worked == ["train", "evaluate"]


def test_logs_keep_earlier_attempts(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "train=crash")
    fresh.run()
    monkeypatch.delenv("FAKE")
    fresh.run()
    log = (fresh.directory / "logs" / "train.log").read_text()
    assert log.count("=== train, ") == 2
    assert log.count("working on train") == 2
    assert log.index("the seventh row") < log.rindex("=== train, ")


def test_plain_progress_is_a_line_at_start_and_end(fresh):
    text = fresh.run().text
    for name in ALL:
        assert sum(line.startswith(f"{name} ") for line in text.splitlines()) == 2


def test_a_second_runner_is_refused_and_told_who_works(fresh, start_runner, until):
    first = start_runner(FAKE="regrid=slow")
    until(lambda: "regrid" in fresh.attempts())
    assert processes.in_use(fresh.directory)
    with pytest.raises(InputError, match=rf"in use by process {first.pid} on "):
        fresh.run()
    first.kill()
    first.wait()
    assert fresh.run().status == 0
    assert not processes.in_use(fresh.directory)


def test_the_stage_dies_with_its_runner(fresh, start_runner, until):
    runner = start_runner(FAKE="train=slow")
    until(lambda: "train" in fresh.attempts())
    stage = State(fresh.directory).stages["train"]["pid"]
    runner.kill()
    runner.wait()
    until(lambda: not _alive(stage), 5)
    again = fresh.run()
    assert (again.status, again.worked) == (0, ["train", "evaluate"])
    assert json.loads((fresh.directory / "checkpoints.json").read_text())["resumed"] == "half"


def test_no_stage_runs_beside_an_orphan(fresh, start_runner, until):
    runner = start_runner(FAKE="train=orphan")
    until(lambda: "train" in fresh.attempts())
    stage = State(fresh.directory).stages["train"]["pid"]
    runner.kill()
    runner.wait()
    with pytest.raises(InputError, match=f"process {runner.pid} .* gone, but a stage of this run still works"):
        fresh.run()
    assert _alive(stage)
    assert fresh.attempts().count("train") == 1
    os.kill(stage, signal.SIGKILL)
    assert fresh.run().status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_stage_and_then_the_runner(fresh, start_runner, until, number):
    runner = start_runner(FAKE="train=slow")
    until(lambda: "train" in fresh.attempts())
    stage = State(fresh.directory).stages["train"]["pid"]
    runner.send_signal(number)
    text, _ = runner.communicate(timeout=60)
    assert runner.returncode == 128 + number
    assert "Stopped in train; finished stages are kept." in text
    assert "Traceback" not in text
    assert not _alive(stage)
    assert State(fresh.directory).stages["train"]["state"] == "interrupted"
    assert fresh.run().worked == ["train", "evaluate"]


def test_a_foreign_directory_is_left_alone(fresh):
    fresh.directory.mkdir(parents=True)
    (fresh.directory / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a run directory"):
        fresh.run()
    assert [entry.name for entry in fresh.directory.iterdir()] == ["thesis.tex"]


def test_the_resolved_configuration_is_saved_and_secret_options_are_private(fresh, tmp_path):
    source = tmp_path / "era5.nc"
    source.write_bytes(b"x")
    store = ["source.kind=store", f"source.path={source}", "source.storage_options={secret: hunter2}"]
    assert fresh.run(*store).status == 0
    path = fresh.directory / "config.yaml"
    assert "seed: 0" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    others = [entry for entry in fresh.directory.rglob("*") if entry.is_file() and entry != path]
    assert others
    assert not any(b"hunter2" in entry.read_bytes() for entry in others)


def test_given_data_needs_no_simulation_and_is_followed(fresh, tmp_path):
    source = tmp_path / "era5.nc"
    source.write_bytes(b"x")
    store = ["source.kind=store", f"source.path={source}"]
    assert sorted(fresh.run(*store).worked) == sorted(set(ALL) - {"simulate"})
    assert fresh.run(*store, "source.storage_options={token: anon}").worked == []
    source.write_bytes(b"xy")
    assert "the data at source.path changed" in fresh.run(*store, dry_run=True).text
    assert sorted(fresh.run(*store).worked) == sorted(set(ALL) - {"simulate"})
    source.unlink()
    assert fresh.run(*store, "training.seed=5").worked == ["train", "evaluate"]
    with pytest.raises(InputError, match=r"source\.path: nothing is at "):
        fresh.run(*store, "data.method=nearest")


def test_a_source_that_is_not_there_is_refused_before_anything_is_made(fresh):
    with pytest.raises(InputError, match=r"source\.path: nothing is at /no/such"):
        fresh.run("source.kind=store", "source.path=/no/such")
    with pytest.raises(InputError, match=r"source\.path: not set"):
        fresh.run("source.kind=store")
    assert not fresh.directory.exists()


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_an_ignored_signal_stays_ignored(fresh, start_runner, until):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        runner = start_runner(FAKE="train=pause")
    finally:
        signal.signal(signal.SIGHUP, before)
    until(lambda: "train" in fresh.attempts())
    runner.send_signal(signal.SIGHUP)
    text, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0, text


def test_a_preempted_stage_is_no_failure_and_goes_on(fresh, monkeypatch):
    monkeypatch.setenv("FAKE", "train=preempted")
    stopped = fresh.run()
    assert stopped.status == PREEMPTED == preemption.Preempted("").code
    assert "Stopped in train" in stopped.text
    assert State(fresh.directory).stages["train"]["state"] == "interrupted"
    monkeypatch.delenv("FAKE")
    assert fresh.run().worked[0] == "train"
    assert json.loads((fresh.directory / "checkpoints.json").read_text())["resumed"] == "half"


def test_where_a_training_runs_does_not_make_it_another(fresh):
    fresh.run()
    changes = ("training.sphere=2", "training.accumulate=2", "training.keep_checkpoints=5", "training.skip_limit=7")
    assert fresh.run(*changes).worked == []


def test_a_process_beside_the_leading_one_works_when_that_has_started(fresh):
    fresh.run()
    done = []
    follow = {"stages": fresh.chain.STAGES, "function": lambda name: lambda *arguments: done.append(arguments)}
    stage_work.follow("train", fresh.directory, **follow)
    assert not done  # Up to date.
    state = State(fresh.directory)
    state.update("train", state="running")
    stage_work.follow("train", fresh.directory, **follow)
    assert len(done) == 1
    state.update("train", state="failed")
    (fresh.directory / "checkpoints.json").unlink()
    with pytest.raises(InputError, match="process 0 has not started train within 0"):
        stage_work.follow("train", fresh.directory, timeout=0, **follow)
