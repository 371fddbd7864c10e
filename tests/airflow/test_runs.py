"""Airflow runs the tiny configuration: the whole chain, a killed training, a forecast of one logical date."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dags.stages import STAGES, ancestors
from pipeline.artefacts import read_description

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Sharding info not provided"),
]

PATIENCE = 240.0


@pytest.fixture(scope="module")
def whole(airflow) -> Path:
    """The run that the DAG of the whole chain has made."""
    airflow("dags", "test", "spherecast")
    return airflow.runs / "tiny"


def test_the_whole_chain_makes_what_the_local_runner_makes(whole, tiny_run, differences):
    assert (whole / "report.html").is_file()
    for stage in STAGES.values():
        for name in stage.artefacts:
            assert read_description(whole / name)["fingerprint"] == read_description(tiny_run / name)["fingerprint"]
    # The page tells how long each stage took, where the local runner has recorded it.
    assert set(differences(whole, tiny_run)) <= {"report.html"}


def test_a_second_time_every_stage_is_skipped(whole, airflow):
    text = airflow("dags", "test", "spherecast")
    assert text.count("there was nothing to do") == len(STAGES)


def test_a_logical_date_is_an_initial_time_with_a_store_of_its_own(whole, airflow):
    settings = json.dumps({"leads": "6h,12h"})
    airflow("dags", "test", "spherecast_forecast", "2001-02-01T12:00:00+00:00", "--conf", settings)
    store = airflow.home / "forecasts" / "tiny" / "2001-02-01T12.zarr"
    assert read_description(store)["kind"] == "forecast"
    assert [path.name for path in store.parent.glob("*.zarr")] == [store.name]


def test_a_training_whose_task_is_killed_goes_on_when_cleared(airflow, tiny_run, differences):
    # In a folder of its own: beside the run of the whole chain it would take over that one's checkpoints.
    run = airflow.home / "alone" / "killed"
    made = {name for stage in ancestors(["statistics"]) for name in STAGES[stage].artefacts}
    configure = ["configure", "tiny", "--name", "killed", "--runs-dir", str(run.parent)]
    subprocess.run([sys.executable, "-m", "dags", *configure], check=True, capture_output=True)
    for name in made:
        (shutil.copytree if (tiny_run / name).is_dir() else shutil.copy)(tiny_run / name, run / name)
    settings = json.dumps({"configuration": "tiny", "name": "killed", "runs_dir": str(run.parent)})
    airflow("pools", "set", "spherecast_accelerator", "1", "the accelerator")
    with services(airflow):
        wait(lambda: rows(airflow, "select 1 from dag where dag_id = 'spherecast_train'"))
        airflow("dags", "unpause", "spherecast_train")
        airflow(
            "dags", "trigger", "spherecast_train", "--run-id", "one", "--logical-date", "2001-03-01", "--conf", settings
        )
        wait(lambda: any(path.name.isdigit() for path in (run / ".partial-checkpoints").glob("*")))
        (stage,) = stages_at_work(run)
        os.kill(parent(stage), signal.SIGKILL)
        wait(lambda: state(airflow) == "failed")
        assert stages_at_work(run) == []
        assert not (run / "checkpoints").exists()
        airflow("tasks", "clear", "spherecast_train", "--only-failed", "--yes")
        wait(lambda: state(airflow) == "success")
    log = "".join(path.read_text() for path in (airflow.home / "logs").rglob("run_id=one/task_id=train/**/*.log"))
    assert re.search(r"going on after \d+ of 200 updates", log)
    later = {name.partition("/")[0] for stage in STAGES.values() for name in stage.artefacts} - made - {"checkpoints"}
    expected = shutil.copytree(tiny_run, run.with_name("expected"), ignore=shutil.ignore_patterns(*later))
    assert differences(run, expected) == []


@contextlib.contextmanager
def services(airflow):
    """Keep a scheduler, a DAG processor and the server that tasks speak to, on a port of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        **airflow.environment,
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "2",
    }
    program = Path(__file__).resolve().parents[2] / ".venv-airflow" / "bin" / "airflow"
    started = []
    try:
        for name in ("api-server", "dag-processor", "scheduler"):
            log = (airflow.home / f"{name}.log").open("wb")
            options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            started.append(subprocess.Popen([program, name], env=environment, **options))
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def rows(airflow, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{airflow.home}/airflow.db?mode=ro", uri=True, timeout=30)) as base:
        return base.execute(query).fetchall()


def state(airflow) -> str | None:
    found = rows(
        airflow, "select state from task_instance where task_id = 'train' and run_id = 'one' and map_index = 0"
    )
    return found[0][0] if found else None


def stages_at_work(run: Path) -> list[int]:
    """Return the processes that train this run."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"stage" in words and b"train" in words and str(run).encode() in words:
                found.append(int(entry.name))
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
