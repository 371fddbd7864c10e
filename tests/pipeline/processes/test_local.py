"""Processes on one machine find each other, fail together and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.processes.local import launch_local, parse_local
from transforms.errors import InputError

_HERE = {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "XLA_FLAGS": None}

_SUM = """
import jax, numpy as np
from pipeline.processes.distributed import any_process, barrier, initialise, is_lead, training_mesh
from jax.sharding import NamedSharding, PartitionSpec
found = initialise()
assert initialise().processes == found.processes == 2
mesh = training_mesh(sphere=2)
assert dict(mesh.shape) == {"data": 2, "sphere": 2}, mesh
split = NamedSharding(mesh, PartitionSpec("data", "sphere"))
mine = np.full((1, 2), 10.0 ** found.process, np.float32)
whole = jax.make_array_from_process_local_data(split, mine, (2, 2))
total = jax.shard_map(
    lambda x: jax.lax.psum(x, ("data", "sphere")), mesh=mesh, in_specs=split.spec, out_specs=PartitionSpec(None, None)
)
result = float(jax.block_until_ready(jax.jit(total)(whole)).addressable_data(0)[0, 0])
assert any_process(found.process == 1) and not any_process(False)
barrier("end")
print(f"{found.process} {is_lead()} {result:g}", flush=True)
"""


def test_two_processes_of_two_devices_add_up(tmp_path, capfd):
    environment = {**_HERE, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    assert launch_local(2, [sys.executable, "-c", _SUM], logs=tmp_path, environment=environment) == 0
    shown = capfd.readouterr().out
    assert "0 True 22" in shown
    assert "1 False" not in shown
    assert "1 False 22" in (tmp_path / "process-1.log").read_text()


_FAIL = """
import jax, numpy as np
from jax.experimental.multihost_utils import process_allgather
from pipeline.processes.distributed import initialise, leave
found = initialise()
if found.process == 1:
    print("no such level", flush=True)
    leave(3)
process_allgather(np.ones(3))
process_allgather(np.ones(3))
"""


def test_a_process_that_fails_stops_the_others_and_is_quoted(tmp_path, capfd):
    started = time.monotonic()
    assert launch_local(2, [sys.executable, "-c", _FAIL], logs=tmp_path, environment=_HERE) == 3
    assert time.monotonic() - started < 60
    told = capfd.readouterr().err
    assert "Process 1 of 2 left with status 3" in told
    assert "no such level" in told


_WAIT = """
import os, signal, sys, time
number = os.environ["SPHERECAST_PROCESS"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
open(f"{sys.argv[1]}/{number}.tmp", "w").write(str(os.getpid()))
os.rename(f"{sys.argv[1]}/{number}.tmp", f"{sys.argv[1]}/{number}.pid")
time.sleep(100)
"""
_LAUNCHER = """
import sys
from pathlib import Path
from pipeline.processes.local import launch_local
sys.exit(launch_local(2, [sys.executable, "-c", sys.argv[2], sys.argv[1]], logs=Path(sys.argv[1])))
"""


def _start_launcher(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    environment = {**os.environ, "PYTHONPATH": _HERE["PYTHONPATH"]}
    launcher = subprocess.Popen([sys.executable, "-c", _LAUNCHER, str(folder), _WAIT], env=environment)
    files = [folder / f"{number}.pid" for number in range(2)]
    _wait_until(lambda: all(file.exists() for file in files))
    return launcher, [int(file.read_text()) for file in files]


def _wait_until(holds, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_preemption_reaches_all_and_its_status_is_passed_on(tmp_path):
    launcher, members = _start_launcher(tmp_path)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == 75
    assert all(map(_is_gone, members))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the kernel's parent-death signal")
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path):
    launcher, members = _start_launcher(tmp_path)
    launcher.kill()
    launcher.wait(30)
    _wait_until(lambda: all(map(_is_gone, members)))


def test_the_same_failure_of_all_is_told_once(tmp_path, capfd):
    script = "import sys; print('training.sphere: got 3', file=sys.stderr); sys.exit(2)"
    assert launch_local(3, [sys.executable, "-c", script], logs=tmp_path) == 2
    assert capfd.readouterr().err.count("training.sphere") == 1


def test_a_signal_is_a_status(tmp_path):
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert launch_local(1, [sys.executable, "-c", script], logs=tmp_path) == 128 + 9


@pytest.mark.parametrize("text", ["local", "local:", "local:0", "gke:4", "4"])
def test_what_is_no_local_launch_is_refused(text):
    with pytest.raises(InputError, match="expected local:N"):
        parse_local(text)
    assert parse_local("local:4") == 4
