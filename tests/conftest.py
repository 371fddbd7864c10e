"""Fixtures shared by all tests: where real data and reference results lie, where they lie at all."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# Many tests compile the same programs, some in processes of their own; each is compiled once and kept. Set before jax
# is imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/spherecast-test-programs-{os.getuid()}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("SPHERECAST_CACHE", f"{tempfile.gettempdir()}/spherecast-test-tables-{os.getuid()}")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"{path.name} data are not on this machine")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real atmospheric data; its README says what is there."""
    return _folder(SHARED / "data" / "real")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of results of the official WeatherBench 2 on small stores."""
    return _folder(SHARED / "reference")


@pytest.fixture(scope="session")
def reference_stores(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes, once a session, the store of that name which the reference results belong to."""
    folder = tmp_path_factory.mktemp("reference")

    def stores(name: str) -> Path:
        if not (folder / name).is_dir():
            environment = {**os.environ, "REFERENCE_STORES": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
            script = [sys.executable, "-W", "ignore", str(reference / "make_data.py"), name]
            subprocess.run(script, env=environment, check=True, capture_output=True)
        return folder / name

    return stores


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Directory of one complete run of the configuration `tiny`, shared by all tests; read it only."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    with (base / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Of several test workers the first makes it and the others wait.
        directory = base / "shared-runs" / "tiny"
        if not (directory / "report.html").exists():
            command = [sys.executable, "-m", "dags", "run", "tiny", "--runs-dir", str(directory.parent)]
            result = subprocess.run(command, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
    return directory


@pytest.fixture(scope="session")
def differences() -> Callable[[Path, Path], list[str]]:
    """Return a function that names the published files in which two runs of `tiny` differ."""
    spec = importlib.util.spec_from_file_location("run_contents", Path(__file__).with_name("run_contents.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.differences
