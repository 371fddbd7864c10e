"""The house keeps its order: who may import whom, and a table of stages that fits its parts."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from dags.stages import PREPROCESS_END, STAGES, order
from pipeline.config import Config

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dags", "pipeline", "model", "transforms")
MAY_IMPORT = {
    "dags": ("dags", "pipeline", "transforms.errors"),
    "pipeline": ("pipeline", "model", "transforms"),
    "model": ("model", "transforms.grids", "transforms.errors"),
    "transforms": ("transforms",),
}
ROOMS = (
    ("jobs", "objects", "presets", "redaction"),
    ("config_data",),
    ("config",),
    ("artefacts", "config_files", "config_reference", "processes", "simulating"),
    ("runs", "stores"),
    ("climatologies", "simulate", "sources", "stages", "states", "statistics"),
    ("climatology", "defaults", "regridding", "scoring", "training", "validating"),
    ("evaluate", "forecasting", "planning", "reporting", "train", "validate"),
    ("baselines", "forecast", "regrid", "report"),
    ("commands",),
    ("cli",),
)
"""Folders and modules of pipeline/; each imports those of earlier rows alone."""
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules and members that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    for name in imported(path):
        if name.split(".")[0] in PACKAGES:
            assert any(f"{name}.".startswith(f"{home}.") for home in allowed), f"{path} imports {name}"


def test_rooms_of_the_pipeline_import_those_below_them():
    row = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    for path in (path for path in FILES if path.is_relative_to(ROOT / "pipeline")):
        room, *_ = path.relative_to(ROOT / "pipeline").with_suffix("").parts
        if room == "__init__":
            continue
        others = {name.split(".")[1] for name in imported(path) if name.startswith("pipeline.")} - {room}
        assert all(row[other] < row[room] for other in others), f"{path} imports {', '.join(sorted(others))}"


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("transforms", {"jax", "flax", "optax", "zarr", "apache_beam"}),
        ("model", {"xarray", "zarr", "netCDF4", "apache_beam", "pandas"}),
    ],
)
def test_packages_keep_out_what_is_not_their_work(package, foreign):
    for path in (ROOT / package).rglob("*.py"):
        assert not foreign & {name.split(".")[0] for name in imported(path)}, path


def test_the_stage_table_needs_the_standard_library_alone():
    roots = {name.split(".")[0] for name in imported(ROOT / "dags" / "stages.py")}
    assert roots <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dags.cli", {"jax", "xarray", "apache_beam", "numpy", "zarr"}),
        ("pipeline.report", {"jax", "apache_beam", "matplotlib"}),
    ],
)
def test_commands_start_light(module, heavy):
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {heavy}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_stage_table_is_complete():
    names = order()
    assert sorted(names) == sorted(STAGES)
    for name, stage in STAGES.items():
        assert stage.name == name
        assert stage.artefacts
        assert all(names.index(upstream) < names.index(name) for upstream in stage.upstream)
    artefacts = [artefact for stage in STAGES.values() for artefact in stage.artefacts]
    assert len(artefacts) == len(set(artefacts))
    assert set(PREPROCESS_END) <= set(STAGES)


def test_every_section_of_the_configuration_is_read_by_a_stage_or_changes_nothing():
    read = {key for stage in STAGES.values() for key in stage.reads}
    for key in read:
        section = Config
        for part in key.split("."):
            section = section.model_fields[part].annotation if isinstance(section, type) else section
    assert {key.split(".")[0] for key in read} | {"execution"} == set(Config.model_fields)


def test_every_stage_has_a_module():
    for name in STAGES:
        path = ROOT / "pipeline" / f"{name}.py"
        assert path.is_file(), f"{name}: {path}"
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert "run_stage" in functions, f"{name}: {path} has no run_stage"


@pytest.mark.parametrize(
    "path", [path for path in FILES if ">>> " in path.read_text()], ids=lambda path: str(path.relative_to(ROOT))
)
def test_examples_in_docstrings_run(path):
    results = doctest.testmod(importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
    assert results.attempted > 0
    assert results.failed == 0
