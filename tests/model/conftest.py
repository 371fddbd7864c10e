"""Fixtures of the tests of `model`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def on_eight_devices() -> Callable[..., None]:
    """Return a function that runs a script on eight host devices, whose number is fixed when JAX starts."""

    def run(script: str, **environment: str) -> None:
        settings = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        result = subprocess.run(
            [sys.executable, script], env={**os.environ, **settings, **environment}, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr[-3000:]

    return run
