"""Fixtures shared by all tests: where real data and reference results lie, where they lie at all."""

from __future__ import annotations

from pathlib import Path

import pytest

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
