"""The wheel and the sdist hold the four packages, all their data and the command, and nothing else."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import os
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
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


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
def built(checkout, tmp_path_factory) -> Path:
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    with zipfile.ZipFile(built) as file:
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


def test_the_wheel_installs_in_an_empty_environment(built, tmp_path):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    # What it requires would come from a package index; the table of stages and the data need none of it.
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", built]
    subprocess.run(install, check=True, env=ALONE)
    code = (
        "import importlib.resources as r, dags.stages as s; "
        "files = [f.name for p in ('configs', 'reporting/assets', 'processes/templates') for f in (r.files('pipeline') / p).iterdir()]; "
        "print(s.__file__, *files, sep='\\n')"
    )
    shown = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=ALONE)
    where, *files = shown.stdout.split()
    assert Path(where).is_relative_to(environment)
    data = tracked("pipeline/configs", "pipeline/reporting/assets", "pipeline/processes/templates")
    assert {Path(name).name for name in data} <= set(files)
    assert (environment / "bin" / "spherecast").is_file()


def test_a_wheel_built_from_the_sdist_is_the_same(checkout, built, tmp_path):
    (tmp_path / "sdist").mkdir()
    (tmp_path / "wheel").mkdir()
    with tarfile.open(build(checkout, "sdist", tmp_path / "sdist")) as file:
        file.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("spherecast-*")
    again = build(unpacked, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(built) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def test_the_sdist_holds_all_that_builds_the_wheel(checkout, tmp_path):
    with tarfile.open(build(checkout, "sdist", tmp_path)) as file:
        names = {name.partition("/")[2] for name in file.getnames() if "/" in name}
    assert tracked(*PACKAGES) | {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= names
