"""A chain of fake stages for tests of the runner."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from dags import local
from pipeline.config import load_config

SCRIPT = Path(__file__).with_name("fake_chain.py")


@pytest.fixture(scope="session")
def chain():
    """The module of fake stages."""
    spec = importlib.util.spec_from_file_location("fake_chain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(chain, tmp_path) -> SimpleNamespace:
    """Runs the fake chain in a fresh directory: `fake.run(overrides...)` returns status, text and what worked."""
    directory = tmp_path / "runs" / "fake"

    def run(*overrides: str, **options) -> SimpleNamespace:
        before = attempts(directory)
        text = io.StringIO()
        status = local.run(
            load_config("tiny", overrides),
            directory,
            stages=chain.STAGES,
            command=chain.command,
            console=Console(file=text, width=200),
            **options,
        )
        return SimpleNamespace(status=status, text=text.getvalue(), worked=attempts(directory)[len(before) :])

    return SimpleNamespace(run=run, directory=directory, attempts=lambda: attempts(directory))


@pytest.fixture
def start_runner(fake) -> Callable[..., subprocess.Popen]:
    """Start the runner of the fake chain as a process of its own."""
    started = []

    def start(**environment: str) -> subprocess.Popen:
        import os

        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "run", "tiny", str(fake.directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def attempts(directory: Path) -> list[str]:
    """Return the stages that worked, in order."""
    path = directory / "attempts"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_for
