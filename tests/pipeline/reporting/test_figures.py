"""Figures for papers: which there are, that they can be read anywhere, and that they do not change."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from pipeline.report import write_figures
from pipeline.reporting.fields import Field
from pipeline.reporting.figures.scores import curves, scorecard
from pipeline.reporting.figures.style import PAGE, style
from pipeline.reporting.scores import LINES, read_scores
from transforms.errors import InputError


@pytest.fixture(scope="module")
def small_run(make, tmp_path_factory):
    """A run with one headline field, so that few figures are drawn."""
    config = make.config(
        name="small",
        data={"grid": {"latitude": 16, "longitude": 32}, "variables": ["geopotential"], "levels": [500]},
        periods={"train": ["2001-01-01T00:00", "2001-01-06T00:00"], "test": ["2001-02-01T00:00", "2001-02-04T18:00"]},
        forecast={"lead_hours": 24, "every_hours": 12},
    )
    return make.run(tmp_path_factory.mktemp("runs") / "small", config)


@pytest.mark.slow
def test_every_figure_is_written_the_same_each_time(small_run, tmp_path):
    first = write_figures(tmp_path / "one", [small_run])
    names = ["scorecard", "curves-geopotential-500", "map-geopotential-500-24h", "training"]
    assert [path.name for path in first] == [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]
    for path, again in zip(first, write_figures(tmp_path / "two", [small_run]), strict=True):
        assert path.read_bytes() == again.read_bytes(), path.name
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert b"/FontFile2" in path.read_bytes()  # Its fonts, TrueType, are in it.


def test_lines_are_the_scores(finished_run):
    scores = read_scores({line: finished_run.metrics / f"{line}.nc" for line in LINES})
    field = Field("geopotential", 500)
    with style():
        drawn = curves(scores, field)
    assert drawn.get_figwidth() == PAGE
    for axes, metric in zip(drawn.axes, ("rmse", "acc"), strict=True):
        shown = {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}
        assert set(shown) == {"model", "persistence", "climatology"} - ({"climatology"} if metric == "acc" else set())
        for name, values in shown.items():
            np.testing.assert_array_equal(values, scores.curve(name, metric, field))


def test_scorecard_has_the_change_in_every_cell(finished_run):
    scores = read_scores({line: finished_run.metrics / f"{line}.nc" for line in LINES})
    with style():
        drawn = scorecard(scores)
    leads = scores.scorecard_leads()
    for axes, other in zip(drawn.axes, ("persistence", "climatology"), strict=True):
        wanted = [
            f"{100 * (scores.ratio(field, other)[i] - 1):+.0f}".replace("-", "−")
            for field in scores.headline
            for i in leads
        ]
        assert [text.get_text() for text in axes.texts] == wanted


def test_a_run_without_anything_has_no_figures(small_run, tmp_path):
    shutil.copytree(small_run.directory, tmp_path / "small")
    bare = type(small_run)(tmp_path / "small", small_run.config)
    for path in (bare.metrics, bare.forecast, bare.training_store, bare.checkpoints):
        shutil.rmtree(path)
    assert write_figures(tmp_path / "figures", [bare], formats=["png"]) == []


def test_unknown_formats_and_missing_matplotlib_are_refused(small_run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"--format: expected some of png, pdf, got tiff"):
        write_figures(tmp_path, [small_run], formats=["pdf", "tiff"])
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or ".figures." in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'spherecast\[figures\]'"):
        write_figures(tmp_path, [small_run])
