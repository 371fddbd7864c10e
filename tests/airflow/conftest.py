"""An Airflow of its own for these tests: a home in a temporary folder, and only the DAGs of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv-airflow" / "bin"


class Airflow:
    """Commands of one Airflow, whose stages run in this environment."""

    def __init__(self, home: Path) -> None:
        self.home, self.runs = home, home / "runs"
        inherited = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
        self.environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__SPHERECAST__PYTHON": sys.executable,
            "AIRFLOW__SPHERECAST__CONFIGURATION": "tiny",
            "AIRFLOW__SPHERECAST__RETRIES": "0",
        }

    def __call__(self, *arguments: str | Path, **environment: str) -> str:
        """Run a command of Airflow and return all it printed."""
        result = subprocess.run(
            [BIN / "airflow", *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    def python(self, code: str, *arguments: str | Path, **environment: str) -> str:
        """Run a program in Airflow's environment and return its standard output."""
        result = subprocess.run(
            [BIN / "python", "-c", code, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture(scope="session")
def make_airflow(tmp_path_factory) -> Callable[[], Airflow]:
    """Return a function that makes an Airflow without a database."""
    if not (BIN / "airflow").exists():
        pytest.skip("Apache Airflow is not in .venv-airflow; `make airflow` installs it")
    return lambda: Airflow(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="session")
def airflow(make_airflow) -> Airflow:
    """An Airflow with a database."""
    made = make_airflow()
    made("db", "migrate")
    return made
