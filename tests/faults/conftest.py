"""Drills on the rehearsed chain: a runner to start, signal and wait for, and a complete run to compare with."""

from __future__ import annotations

import importlib.util
import json
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

from dags.plan import descendants
from dags.stages import Stage
from dags.state import State

SCRIPT = Path(__file__).with_name("rehearsal.py")
PATIENCE = 120.0


@pytest.fixture(scope="session")
def rehearsal() -> ModuleType:
    """The module of rehearsed stages."""
    return _module(SCRIPT)


@pytest.fixture(scope="session")
def damages() -> ModuleType:
    """The module of ways to damage an artefact."""
    return _module(Path(__file__).parents[1] / "damages.py")


def _module(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., int]]:
    """Ask the process that forks runners for something."""
    command = [sys.executable, str(SCRIPT)]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "250"}
    )

    def ask(**request) -> int:
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield ask
    server.stdin.close()
    server.wait(PATIENCE)


class Runner:
    """A runner at work in a process of its own."""

    def __init__(self, serve: Callable[..., int], output: Path, what: str, arguments: list[str], environment) -> None:
        self._serve, self._output, self._before = serve, output, output.stat().st_size if output.exists() else 0
        request = {"what": what, "arguments": arguments, "environment": environment, "output": str(output)}
        self.pid = serve(**request)

    def end(self) -> SimpleNamespace:
        """Wait for it; return its status and what it has printed."""
        status = self._serve(wait=self.pid)
        return SimpleNamespace(status=status, text=self._output.read_text()[self._before :])


class Drill:
    """One run of the rehearsed chain."""

    def __init__(self, serve: Callable[..., int], stages: dict[str, Stage], folder: Path) -> None:
        self._serve, self.stages, self.folder = serve, stages, folder
        self.directory, self.overrides = folder / "run", []

    def start(self, **environment: str) -> Runner:
        """Start `spherecast run`."""
        arguments = [str(self.directory), *self.overrides]
        return Runner(self._serve, self.folder.with_name("output"), "run", arguments, environment)

    def run(self, **environment: str) -> SimpleNamespace:
        """Give the command and wait for its end; return its status and what it has printed."""
        return self.start(**environment).end()

    def stage(self, name: str, *options: str) -> SimpleNamespace:
        """Start one stage by itself, as another scheduler would."""
        arguments = [name, str(self.directory), *options]
        return Runner(self._serve, self.folder.with_name("output"), "stage", arguments, {}).end()

    def start_in(self, name: str, **environment: str) -> tuple[Runner, int]:
        """Start the command, and wait until a stage is half done; return the runner, and the stage's process."""
        runner = self.start(FAULT=f"{name}={environment.pop('fault', 'wait')}", **environment)
        here = self.folder / "here"
        self.until(here.exists)
        return runner, int(here.read_text())

    def begin_before(self, name: str) -> None:
        """Undo a stage and all that comes after it."""
        for undone in descendants(self.stages, [name]):
            for artefact in self.stages[undone].artefacts:
                path = self.directory / artefact
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def worked(self) -> dict[str, int]:
        """Return how often each stage has begun to work."""
        logs = {name: self.directory / "logs" / f"{name}.log" for name in self.stages}
        return {name: log.read_text().count(f"=== {name}, ") for name, log in logs.items() if log.exists()}

    def contents(self) -> dict[str, bytes]:
        """Return every file of every artefact, and whatever else lies beside them."""
        passing = {"state.json", "config.yaml", "logs"}
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        named = {str(path.relative_to(self.directory)): path for path in files}
        return {
            name: path.read_bytes()
            for name, path in named.items()
            if not name.startswith(".lock") and Path(name).parts[0] not in passing
        }

    def state(self, name: str) -> str:
        return State(self.directory).stages[name]["state"]

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)

    @staticmethod
    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
        except (FileNotFoundError, ProcessLookupError):
            return False

    @staticmethod
    def kill(pid: int, number: int = signal.SIGKILL) -> None:
        os.kill(pid, number)


@pytest.fixture(scope="session")
def whole(serve, rehearsal, tmp_path_factory) -> Drill:
    """A complete run that nothing has disturbed; read it only."""
    drill = Drill(serve, rehearsal.STAGES, tmp_path_factory.mktemp("whole") / "runs")
    drill.folder.mkdir()
    done = drill.run()
    assert done.status == 0, done.text
    return drill


@pytest.fixture
def drill(serve, rehearsal, whole, tmp_path) -> Drill:
    """A copy of the complete run."""
    drill = Drill(serve, rehearsal.STAGES, tmp_path / "runs")
    shutil.copytree(whole.folder, drill.folder)
    return drill
