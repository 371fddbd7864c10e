"""The wheel and the sdist hold the four packages, all their data and the command, and nothing else."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dags", "pipeline", "model", "transforms")


def tracked(*patterns: str) -> set[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout, to know which files belong to the project")
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True)
    return {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the tracked files alone, so that a build leaves nothing in the checkout and takes nothing stray."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs setuptools, which builds the wheel")
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (70, 1) and (major < 68 or importlib.util.find_spec("wheel") is None):
        pytest.skip(f"needs setuptools 70.1, or 68 with wheel, to build the wheel; there is {version}")
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def build(checkout: Path, kind: str, into: Path) -> Path:
    """Have the build backend make a wheel or an sdist, with what is installed here alone."""
    code = f"import setuptools.build_meta as backend; backend.build_{kind}({str(into)!r})"
    result = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (made,) = into.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> zipfile.ZipFile:
    with zipfile.ZipFile(build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))) as file:
        yield file


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert names == tracked(*PACKAGES)
    suffixes = {Path(name).suffix for name in names}
    assert {".py", ".yaml", ".sh", ".json", ".css", ".js"} <= suffixes


def test_the_wheel_installs_the_command_and_the_licence(wheel):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(entry_points).decode())
    assert dict(parser["console_scripts"]) == {"spherecast": "dags.cli:main"}
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_the_sdist_holds_all_that_builds_the_wheel(checkout, tmp_path):
    with tarfile.open(build(checkout, "sdist", tmp_path)) as file:
        names = {name.partition("/")[2] for name in file.getnames() if "/" in name}
    assert tracked(*PACKAGES) | {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= names
