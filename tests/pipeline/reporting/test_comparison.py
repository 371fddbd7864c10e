"""Several runs and other results beside each other: what is common, what is comparable, what may be chance."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import xarray as xr

from pipeline.report import write_report
from pipeline.reporting.comparable import differences, mixed_worlds
from pipeline.reporting.lines import read_line
from pipeline.reporting.pairs import pairs
from pipeline.reporting.payload import decode, scores_payload
from pipeline.reporting.scores import compare
from pipeline.reporting.sections.scorecard import scorecard_section
from pipeline.reporting.verdicts import ranking
from pipeline.runs import Run
from tests.pipeline.reporting.test_report import Page
from transforms.bootstrap import skill_score
from transforms.errors import InputError

ATTACK = "<img src=x onerror=alert(1)>"


@pytest.fixture
def lines(make, tmp_path):
    """Make lines of Z500 at 1 and 2 days from squared errors by (block, lead), None of a file without blocks."""

    def made(kind="forecast", **squares):
        found = []
        for name, blocks in squares.items():
            values = np.sqrt(np.mean(blocks, axis=0)) if blocks is not None else np.array([1.0, 2.0])
            path = make.scored(values, blocks=blocks, path=tmp_path / f"{name}.nc", about={"simulated": True})
            found.append(read_line(name, kind, path))
        return found

    return made


def test_a_pair_is_judged_by_the_paired_bootstrap(lines):
    rng = np.random.default_rng(0)
    blocks = rng.gamma(4.0, size=(12, 2))
    own, better, other = lines(own=blocks, better=0.5 * blocks, other=rng.gamma(4.0, size=(12, 2)))
    found = {(pair.forecast, pair.other): pair for pair in pairs(compare([own, better, other]))}
    assert len(found) == 6
    np.testing.assert_allclose(found["better", "own"].lower, 0.5, rtol=1e-12)
    np.testing.assert_allclose(found["own", "better"].upper, -1.0, rtol=1e-12)
    skill = skill_score(np.stack([blocks, other.blocks["geopotential"].values[:, 0, :, 0]], axis=1))
    np.testing.assert_allclose(found["own", "other"].lower[0, 0], skill.lower)
    np.testing.assert_allclose(found["own", "other"].upper[0, 0], skill.upper)


def test_a_pair_without_the_same_forecasts_is_not_judged(lines):
    own, later, plain, few, few_too = lines(
        own=np.ones((9, 2)), later=np.ones((10, 2)), plain=None, few=np.ones((3, 2)), few_too=np.ones((3, 2))
    )
    why = {(p.forecast, p.other): p.without for p in pairs(compare([own, later, plain, few, few_too]))}
    assert why["own", "later"] == "own and later are scored on different forecasts' times"
    assert why["own", "plain"] == "plain was scored without sums of blocks (`spherecast score --bands`)"
    assert why["few", "few_too"] == "there are only 3 blocks of forecasts, and 8 are needed"


def test_runs_are_shown_on_what_they_share(make, tmp_path):
    config, hours = make.config(), np.timedelta64(1, "h").astype("timedelta64[ns]")
    for name, leads in (("long", [24, 48, 72]), ("short", [24, 48])):
        metrics = make.metrics(config, np.array(leads) * hours, np.full(len(leads), 9), "model")
        metrics = metrics.drop_vars("2m_temperature") if name == "short" else metrics
        metrics.isel(region=[0, 2] if name == "long" else [0, 1]).to_netcdf(tmp_path / f"{name}.nc")
    make.metrics(config, np.array([24, 96]) * hours, np.full(2, 9), "persistence").to_netcdf(tmp_path / "other.nc")
    runs = [read_line(name, "forecast", tmp_path / f"{name}.nc") for name in ("long", "short")]
    scores = compare([*runs, read_line("other", "other", tmp_path / "other.nc")])
    assert scores.leads.tolist() == [24, 48]
    assert scores.regions == ["global"]
    assert "2m_temperature" not in {field.variable for field in scores.fields}
    assert scores.left_out == [
        "long also has 1 lead times to 3 days, T2M, region extra-tropics, which not every run has: not shown.",
        "short also has region tropics, which not every run has: not shown.",
        "other has no scores of 1 of 2 lead times.",
    ]
    assert ranking(scores).startswith("long has the least RMSE in 10 of 10 cells")
    far = runs[1].data.assign_coords(lead_time=[240.0, 264.0])
    with pytest.raises(InputError, match="The runs have no lead time in common"):
        compare([runs[0], type(runs[0])("far", "forecast", runs[1].path, far, {})])


def test_simulated_and_real_weather_are_never_silently_compared(make, tmp_path):
    def line(name, about):
        path = make.scored(np.ones(2), blocks=None, path=tmp_path / f"{name}.nc", about=about)
        return read_line(name, "forecast", path)

    one, two = (line(name, {"simulated": True, "grid": "a", "period": ["2001", "2002"]}) for name in ("one", "two"))
    era5 = line(
        "era5", {"simulated": False, "grid": "b", "period": ["2020-01-01T00", "2021"], "inputs": {"regrid": "x"}}
    )
    silent = line("silent", None)
    assert mixed_worlds([one, two]) is None
    assert differences([one, two]) == []
    assert mixed_worlds([one, two, era5, silent]) == (
        "Not comparable: one and two are scored against a simulated atmosphere, era5 against observed or analysed "
        "weather, silent does not say against what. Numbers beside each other on this page do not rank them."
    )
    assert differences([one, era5, silent]) == [
        "Scored on different grids: one: a; era5: b.",
        "Scored over different periods: one: 2001 to 2002; era5: 2020-01-01 to 2021.",
        "silent: the file does not say on which data, period and grid it was scored. Make sure yourself that they are the "
        "same.",
    ]


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "text.nc").write_text("no")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc")
    for name, message in (
        ("none", "no such file"),
        ("text", "cannot be read"),
        ("other", "no axis metric and no lead"),
    ):
        with pytest.raises(InputError, match=message):
            read_line("x", "other", tmp_path / f"{name}.nc")


def test_page_of_runs_and_results_with_hostile_names(finished_run, tmp_path):
    field, script = f"a{ATTACK}", "<script>alert(1)</script>"
    for name in ("plain", ATTACK):
        shutil.copytree(finished_run.directory, tmp_path / name)
        for path in (tmp_path / name / "metrics").glob("*.nc"):
            with xr.open_dataset(path, decode_timedelta=True) as data:
                data = (
                    data.load()
                    .rename({"2m_temperature": field})
                    .assign_coords(region=[script, *data.region.values[1:]])
                )
            data.to_netcdf(path)
    data.drop_attrs().to_netcdf(tmp_path / f"{ATTACK}.nc")
    record = json.loads((tmp_path / ATTACK / "validation.json").read_text())
    record["source"]["title"] = script
    (tmp_path / ATTACK / "validation.json").write_text(json.dumps(record))
    runs = [Run(tmp_path / name, finished_run.config) for name in ("plain", ATTACK)]
    assert write_report(tmp_path / "page.html", runs, [tmp_path / f"{ATTACK}.nc"]) == []
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert "<img" not in text
    assert "<script>alert" not in text
    assert "Title of the source: <script>alert(1)</script>." in page.words
    assert f"plain, {ATTACK}: comparison of forecasts" in page.words
    assert "Not comparable: " in page.words
    assert text.count("<p>Of <b>plain</b>, the first of the runs.</p>") == 2  # The maps and the spectra.
    scores = json.loads(page.data["scores"])
    assert scores["regions"][0] == script
    assert field in {each["id"] for each in scores["fields"]}
    assert [(line["name"], line["kind"]) for line in scores["lines"]] == [
        ("plain", "forecast"),
        (ATTACK, "forecast"),
        ("persistence", "baseline"),
        ("climatology", "baseline"),
        (f"{ATTACK} (2)", "other"),
    ]
    shape = [len(scores[axis]) for axis in ("metrics", "regions", "fields", "leads")]
    one, two = (decode(line["values"], *shape) for line in scores["lines"][:2])
    np.testing.assert_array_equal(one, two)


def test_what_many_runs_lack_is_said_once(make, tmp_path):
    runs = [Run(tmp_path / f"run{i}", make.config()) for i in range(20)]
    for i, run in enumerate(runs):
        run.directory.mkdir()
        stages = {"train": {"state": "failed"}} | {f"stage{i}": {"state": "pending"}}
        (run.directory / "state.json").write_text(json.dumps({"stages": stages}))
    missing = write_report(tmp_path / "page.html", runs)
    assert len(missing) >= 20 * 5
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.words.count("There is no training log") == 1 + 1  # There and in the section of the training.
    assert "run0, run1, run2, run3, run4 and 15 more: The stage train failed" in page.words
    assert "run19: Not done yet: stage19" in page.words
    notice = text[text.index('class="notice"') :]
    notice = notice[: notice.index("</div>")]
    assert notice[: notice.index("<details>")].count("<li>") == 6
    assert "<summary>19 more</summary>" in notice
    assert str(tmp_path) not in text


def test_cells_without_a_mark_say_why(lines, monkeypatch):
    rng = np.random.default_rng(0)
    blocks = rng.gamma(4.0, size=(12, 2))
    own, other = lines(own=blocks, other=rng.gamma(4.0, size=(12, 2)))
    scores = compare([own, other])
    assert "No marks" not in scorecard_section(scores).html()
    (pair, _) = pairs(scores)
    pair.lower[0, 0, 1] = np.nan
    said = "No marks in 1 of 2 cells: fewer than 8 blocks of forecasts are scored in both."
    monkeypatch.setattr("pipeline.reporting.sections.scorecard.pairs", lambda _: [pair])
    assert said in scorecard_section(scores).html()
    monkeypatch.setattr("pipeline.reporting.pairs._MOST_CELLS", 3)
    limited = "of so many results only the headline fields in region global are judged"
    assert scores_payload(scores, pairs(scores))["limited"] == limited


def test_page_of_a_run_with_nothing_says_so_first(make, tmp_path):
    run = Run(tmp_path / "begun", make.config())
    run.directory.mkdir()
    stages = {
        "simulate": {"state": "done", "seconds": 12.0},
        "regrid": {"state": "failed"},
        "train": {"state": "pending"},
    }
    (run.directory / "state.json").write_text(json.dumps({"stages": stages}))
    run.logs.mkdir()
    log = "=== regrid, 2026-01-01T00:00:00Z: missing\n2026-01-01 00:00:01,123 WARNING pipeline.regrid: disk is full\n"
    (run.logs / "regrid.log").write_text(log)
    missing = write_report(tmp_path / "page.html", [run])
    text = (tmp_path / "page.html").read_text()
    words = Page(text).words
    assert "There are no scores: the stage evaluate has not made metrics/model.nc" in words
    assert str(tmp_path) not in text
    expected = ("The stage regrid failed", "Not done yet: train", "There are no forecasts", "There are no scores")
    for sentence in (*expected, "There is no training log"):
        assert any(f"begun: {sentence}" in line for line in missing), sentence
        assert words.index(sentence) < words.rindex("quickstart: forecast verification")
    assert "1 warning in the logs" in words
    assert "disk is full" in words
