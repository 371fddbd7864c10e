"""Training on several devices and processes gives what one device gives, and goes on from each other's checkpoints."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.processes.local import launch_local

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
    membership = distributed.initialise()
    curriculum._REPORT_EVERY = 1
    for job in jobs:
        name, _, setup = job.partition("=")
        sphere, _, origin = setup.partition("+")
        directory = Path(base) / name
        if distributed.is_lead() and not directory.exists():
            make_run(
                directory, *CHANGES, f"training.sphere={sphere}", *os.environ.get("SPHERECAST_TEST_MORE", "").split()
            )
            if origin:
                partial = directory / ".partial-checkpoints"
                shutil.copytree(Path(base) / origin / "checkpoints", partial)
                for path in partial.iterdir():
                    if path.name.isdigit() and int(path.name) > RESTART:
                        shutil.rmtree(path)
        if os.environ.get("SPHERECAST_TEST_KILLED") == str(membership.process):
            die_after(directory / ".partial-checkpoints" / str(RESTART))
        distributed.barrier("prepared")
        train.run_stage(Run.open(directory), "f", {"regrid": "t"})


def die_after(checkpoint: Path) -> None:
    """Let this process be killed in the third update after a checkpoint, once that is written."""
    from model.training import Trainer

    update, made = Trainer.update, itertools.count(1)

    def mortal(self, state, batch):
        if next(made) == RESTART + 3:
            while not checkpoint.is_dir():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, state, batch)

    Trainer.update = mortal


def settings(devices: int = 1) -> dict[str, str]:
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }


def one_process(base: Path, *jobs: str, devices: int = 1) -> None:
    command = [sys.executable, __file__, str(base), *jobs]
    ended = subprocess.run(
        command, env={**os.environ, **settings(devices)}, stderr=subprocess.PIPE, text=True, timeout=400, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def two_processes(base: Path, *jobs: str, **environment: str) -> int:
    command = [sys.executable, __file__, str(base), *jobs]
    return launch_local(2, command, logs=base / "logs", environment={**settings(), **environment})


def losses(base: Path, name: str) -> list[float]:
    lines = (base / name / "checkpoints" / "training.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if event["event"] in ("train", "validation")]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run ``one`` on one device, for more runs."""
    base = tmp_path_factory.mktemp("devices")
    one_process(base, "one=1")
    return base


@pytest.fixture(scope="module")
def eight(one: Path) -> Path:
    """That folder with ``data`` on eight devices, and ``both`` and ``sphere`` that go on from others' checkpoints on eight."""
    one_process(one, "data=1", "both=2+one", "sphere=8+data", devices=8)
    return one


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "both", "sphere"])
def test_eight_devices_equal_one(eight: Path, name: str):
    assert len(losses(eight, "one")) == 22
    assert losses(eight, name) == pytest.approx(losses(eight, "one"), rel=1e-5)


@pytest.mark.slow
def test_one_device_goes_on_from_eight(eight: Path):
    one_process(eight, "back=1+sphere")
    assert losses(eight, "back") == pytest.approx(losses(eight, "one"), rel=1e-5)


@pytest.mark.slow
def test_two_processes_equal_one(eight: Path):
    assert two_processes(eight, "processes=1", "again=2+both") == 0
    for name in ("processes", "again"):
        assert losses(eight, name) == pytest.approx(losses(eight, "one"), rel=1e-5)


@pytest.mark.slow
def test_the_same_command_goes_on_after_one_of_two_processes_was_killed(one: Path):
    assert two_processes(one, "killed=1", SPHERECAST_TEST_KILLED="1") != 0
    assert not (one / "killed" / "checkpoints").exists()
    assert (one / "killed" / ".partial-checkpoints" / str(RESTART)).is_dir()
    assert two_processes(one, "killed=1") == 0
    assert losses(one, "killed") == pytest.approx(losses(one, "one"), rel=1e-5)


if __name__ == "__main__":
    main()
