"""Joining: what one process does alone, and what is said when the others do not come."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.processes.distributed import any_process, barrier, initialise, is_lead, leave
from transforms.errors import InputError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(script: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_single_process_joins_nobody():
    found = initialise()
    assert (found.process, found.processes) == (0, 1)
    assert is_lead()
    assert any_process(True)
    assert not any_process(False)
    barrier("alone")
    leave(3)


def test_an_absent_coordinator_is_named():
    address = f"127.0.0.1:{_free_port()}"
    with pytest.raises(InputError, match=f"process 1 of 2, coordinator {address} .*no answer within 0.1 s .*Check"):
        initialise(address, 2, 1, timeout=0.1)


def test_a_lead_that_stays_alone_says_so():
    result = _run(
        f"from pipeline.processes.distributed import initialise; initialise('127.0.0.1:{_free_port()}', 2, 0, timeout=1)"
    )
    assert result.returncode == 2
    assert "process 0 of 2" in result.stderr
    assert "the others have not all come within 1 s" in result.stderr


def test_one_device_has_no_mesh_and_eight_have_one():
    script = """
from pipeline.processes.distributed import training_mesh
from transforms.errors import InputError
print(dict(training_mesh(4).shape))
try:
    training_mesh(3)
except InputError as error:
    print(error)
"""
    told = _run(script, XLA_FLAGS="--xla_force_host_platform_device_count=8").stdout
    assert "{'data': 2, 'sphere': 4}" in told
    assert "training.sphere: got 3 for 8 devices, expected a divisor" in told
    assert (
        _run("from pipeline.processes.distributed import training_mesh; print(training_mesh())").stdout.strip()
        == "None"
    )


def test_sigterm_reaches_a_process_that_has_joined():
    script = f"""
import os, signal, sys, threading
from pipeline.processes.distributed import initialise
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), os._exit(75)))
import jax
jax.config.update("jax_enable_preemption_service", True)
initialise()
assert not jax.config.jax_enable_preemption_service
jax.distributed.initialize("127.0.0.1:{_free_port()}", 1, 0)
os.kill(os.getpid(), {int(signal.SIGTERM)})
threading.Event().wait(20)
"""
    result = _run(script)
    assert (result.returncode, result.stdout.strip()) == (75, "saved"), result.stderr[-2000:]
