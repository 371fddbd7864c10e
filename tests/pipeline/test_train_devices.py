"""Training on several devices and processes gives what one device gives, and goes on from each other's checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

STAGES = "[{steps: 1, updates: 14, learning_rate: 0.003}, {steps: 2, updates: 6, learning_rate: 0.001}]"
CHANGES = (
    "model.levels=[{band_limit: 8, scalars: 3, vectors: 2, blocks: 1}]",
    f"training.stages={STAGES}",
    "training.batch_size=8",
    "training.checkpoint_every=7",
    "training.keep_checkpoints=9",
    "training.validate_every=14",
    "training.validation_windows=8",
    "training.lead_weights=[1, 2]",
)
RESTART = 7


def main() -> None:
    """Train the runs named on the command line, ``NAME=SPHERE[+ORIGIN]``; ORIGIN's checkpoint is gone on from."""
    from test_train import make_run

    from pipeline import train
    from pipeline.processes import distributed
    from pipeline.runs import Run
    from pipeline.training import curriculum

    base, *jobs = sys.argv[1:]
    process = os.environ.get("SPHERECAST_TEST_PROCESS")
    if process is not None:
        distributed.initialise(os.environ["SPHERECAST_TEST_COORDINATOR"], 2, int(process))
    curriculum._REPORT_EVERY = 1
    for job in jobs:
        name, _, setup = job.partition("=")
        sphere, _, origin = setup.partition("+")
        directory = Path(base) / name
        if distributed.is_lead():
            make_run(
                directory, *CHANGES, f"training.sphere={sphere}", *os.environ.get("SPHERECAST_TEST_MORE", "").split()
            )
            if origin:
                partial = directory / ".partial-checkpoints"
                shutil.copytree(Path(base) / origin / "checkpoints", partial)
                for path in partial.iterdir():
                    if path.name.isdigit() and int(path.name) > RESTART:
                        shutil.rmtree(path)
        distributed.barrier("prepared")
        train.run_stage(Run.open(directory), "f", {"regrid": "t"})


def start(base: Path, *jobs: str, devices: int = 1, **environment: str) -> subprocess.Popen:
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    command = [sys.executable, __file__, str(base), *jobs]
    return subprocess.Popen(command, env={**os.environ, **settings, **environment}, stderr=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, error = process.communicate(timeout=400)
        assert process.returncode == 0, error[-3000:]


def losses(base: Path, name: str) -> list[float]:
    lines = (base / name / "checkpoints" / "training.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if event["event"] in ("train", "validation")]


def two_processes(base: Path, *jobs: str) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    settings = {"SPHERECAST_TEST_COORDINATOR": address}
    finish(*(start(base, *jobs, SPHERECAST_TEST_PROCESS=str(process), **settings) for process in range(2)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``one`` on one device and ``data`` on eight."""
    base = tmp_path_factory.mktemp("devices")
    finish(start(base, "one=1"))
    finish(start(base, "data=1", "both=2+one", "sphere=8+data", devices=8))
    return base


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "both", "sphere"])
def test_eight_devices_equal_one(base: Path, name: str):
    assert len(losses(base, "one")) == 22
    assert losses(base, name) == pytest.approx(losses(base, "one"), rel=1e-5)


@pytest.mark.slow
def test_one_device_goes_on_from_eight(base: Path):
    finish(start(base, "back=1+sphere"))
    assert losses(base, "back") == pytest.approx(losses(base, "one"), rel=1e-5)


@pytest.mark.slow
def test_two_processes_equal_one(base: Path):
    two_processes(base, "processes=1", "again=2+both")
    for name in ("processes", "again"):
        assert losses(base, name) == pytest.approx(losses(base, "one"), rel=1e-5)


if __name__ == "__main__":
    main()
