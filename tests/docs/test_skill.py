"""docs/skill.md is what its benchmark writes from the results that are kept."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "comparison" / "results"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    (tmp_path / "images").mkdir()
    shutil.copy(ROOT / "docs" / "images" / "skill.svg", tmp_path / "images")
    return importlib.import_module("comparison.page")


def test_the_page_is_written_from_the_results(page, tmp_path: Path):
    page.write_page(RESULTS, tmp_path / "skill.md")
    assert (tmp_path / "skill.md").read_text() == (ROOT / "docs" / "skill.md").read_text()


def test_another_processor_has_sections_of_its_own(page, tmp_path: Path):
    results = tmp_path / "results"
    (results / "half-the-speed" / "costs").mkdir(parents=True)
    names = {"": "ours-0-2.5min-seed0-test.json", "half-the-speed": "ours-0-2.5min-seed1-test.json"}
    for folder, name in names.items():
        shutil.copy(RESULTS / name, results / folder)
    page.write_page(results, tmp_path / "skill.md")
    text = (tmp_path / "skill.md").read_text()
    first, second = text.split("## 2.5 CPU minutes, half the speed\n")
    assert "## 2.5 CPU minutes\n" in first
    for section in (first, second):
        assert "| Spherecast | 1 |" in section
