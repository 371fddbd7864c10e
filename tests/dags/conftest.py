"""The command line in this process, and a chain of fake stages for tests of the runner."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

from dags import local
from dags.cli import main
from dags.schedule import Patience
from pipeline.config_files import load_config

SCRIPT = Path(__file__).with_name("fake_chain.py")


@pytest.fixture(scope="session")
def chain() -> ModuleType:
    """The module of fake stages."""
    spec = importlib.util.spec_from_file_location("fake_chain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def say(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str]]:
    """Run the command in this process and an empty folder; return its status and all it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["spherecast", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        output = capsys.readouterr()
        return int(left.value.code or 0), output.out + output.err

    return run


class Fake:
    """The fake chain in one run directory."""

    def __init__(self, chain: ModuleType, directory: Path) -> None:
        self.chain, self.directory = chain, directory

    def run(self, *overrides: str, **options) -> SimpleNamespace:
        """Run with overrides of `tiny`; return the status, what was printed and the stages that worked."""
        before = len(self.attempts())
        text = io.StringIO()
        status = local.run(
            load_config("tiny", overrides),
            self.directory,
            stages=self.chain.STAGES,
            command=self.chain.command,
            console=Console(file=text, width=200),
            **{"patience": Patience(pause=0.01), **options},
        )
        return SimpleNamespace(status=status, text=text.getvalue(), worked=self.attempts()[before:])

    def attempts(self) -> list[str]:
        """Return the stages that worked, in order."""
        path = self.directory / "attempts"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def fresh(chain, tmp_path) -> Fake:
    """The fake chain where nothing has run."""
    return Fake(chain, tmp_path / "runs" / "fake")


@pytest.fixture(scope="session")
def _finished(chain, tmp_path_factory) -> Path:
    fake = Fake(chain, tmp_path_factory.mktemp("finished") / "fake")
    assert fake.run().status == 0
    return fake.directory


@pytest.fixture
def finished(_finished, fresh) -> Fake:
    """The fake chain after a complete run."""
    shutil.copytree(_finished, fresh.directory)
    return fresh


@pytest.fixture
def start_runner(fresh) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start the runner of the fake chain as a process of its own."""
    started = []

    def start(**environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "run", "tiny", str(fresh.directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
            # A shell starts what runs in the background deaf to interrupts, tests included.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until a condition holds."""

    def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return wait_for
