"""docs/skill.md is what its benchmark writes from the results that are kept."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_written_from_the_results(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = importlib.import_module("comparison.page")
    (tmp_path / "images").mkdir()
    shutil.copy(ROOT / "docs" / "images" / "skill.svg", tmp_path / "images")
    page.write_page(ROOT / "benchmarks" / "comparison" / "results", tmp_path / "skill.md")
    assert (tmp_path / "skill.md").read_text() == (ROOT / "docs" / "skill.md").read_text()
