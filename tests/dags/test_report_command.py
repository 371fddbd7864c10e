"""The command `report`: of one run, of several side by side, of one that is not complete, and with figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dags import local
from pipeline.runs import Run
from tests.pipeline.reporting.conftest import make_config, make_run

FEW = {
    "data": {
        "grid": {"latitude": 16, "longitude": 32},
        "variables": ["10m_u_component_of_wind", "10m_v_component_of_wind"],
        "levels": [],
    },
    "periods": {"train": ["2001-01-01T00:00", "2001-01-06T00:00"], "test": ["2001-02-01T00:00", "2001-02-04T18:00"]},
    "forecast": {"lead_hours": 72, "every_hours": 6},
}


@pytest.fixture
def runs(say, tmp_path) -> list[Run]:
    """Two runs in the folder that commands work in."""
    return [make_run(Path("runs") / name, make_config(name=name, **FEW)) for name in ("one", "two")]


def test_several_runs_make_one_page(say, runs):
    status, text = say("report", "one", "runs/two", "--against", runs[1].metrics / "persistence.nc", "-o", "both.html")
    assert status == 0, text
    assert f"Report: {Path('both.html').absolute()}" in text
    page = Path("both.html").read_text()
    assert "<h1>one, two: comparison of forecasts</h1>" in page
    assert '"name":"persistence (2)"' in page
    assert say("report", "one", "report.title=Mine", "--output", "mine.html")[0] == 0
    assert "<h1>Mine</h1>" in Path("mine.html").read_text()
    assert say("report", "one", "../elsewhere/two", "--runs-dir", "runs")[0] == 2


def test_what_is_for_one_run_is_refused_for_several(say, runs):
    for words, message in (
        (("one", "two", "--force"), "--force: is for a run's own report"),
        (("one", "two", "--name", "x"), "--name: is for a run's own report"),
        (("one", "two", "training.seed=1"), "only values of report.* can be changed here"),
        (("one", "two", "-o", "no/such.html"), "there is no folder no"),
        (("one", "three"), "three: not a run directory"),
        (("report.title=x",), "changes a value of no run"),
    ):
        status, text = say("report", *words)
        assert status == 2, words
        assert message in text, words


def test_an_incomplete_run_is_reported_as_it_is(say, runs, monkeypatch):
    monkeypatch.setattr(local, "run", lambda *_, **__: pytest.fail("no stage is to work"))
    status, text = say("report", "runs/one", "report.title=Begun")
    assert status == 0, text
    assert "Report: " in text
    page = runs[0].report.read_text()
    assert "<h1>Begun</h1>" in page


def test_figures_are_written_in_the_formats_asked_for(say, runs):
    # The training is left alone, one figure.
    for folder in (runs[0].metrics, runs[0].forecast):
        shutil.rmtree(folder)
    words = ("report", "runs/one", "--output", "page.html", "--figures", "figures")
    status, text = say(*words, "--format", "pdf")
    assert status == 0, text
    assert f"Figures: 1 files in {Path('figures').absolute()}" in text
    assert [path.name for path in Path("figures").iterdir()] == ["training.pdf"]
    assert say("report", "runs/one", "--figures", "figures")[0] == 0
    assert {path.name for path in Path("figures").iterdir()} == {"training.pdf", "training.png"}
    status, text = say(*words, "--format", "svg")
    assert status == 2
    assert "--format: expected some of png, pdf, got svg" in text
