"""The page as a whole: what it holds, and that it loads nothing."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline.artefacts import read_description
from pipeline.report import run_stage, write_report
from pipeline.reporting.payload import decode
from pipeline.reporting.scores import LINES
from pipeline.runs import Run
from transforms.errors import InputError

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements of a page; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        self._script = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag
        self._script = None

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            if self._script:
                self.data[self._script] = self.data.get(self._script, "") + data
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def report(finished_run) -> str:
    run_stage(finished_run, "0123", {"evaluate": "4567"})
    return finished_run.report.read_text(encoding="utf-8")


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A run that a test may change."""
    shutil.copytree(finished_run.directory, tmp_path / "quickstart")
    return type(finished_run)(tmp_path / "quickstart", finished_run.config)


def _edit(path, change) -> None:
    with xr.open_dataset(path, decode_timedelta=True) as dataset:
        changed = change(dataset.load())
    changed.to_netcdf(path, engine="netcdf4")


def test_page_is_well_formed_and_describes_itself(report, finished_run):
    page = Page(report)
    description = read_description(finished_run.report)
    assert description["kind"] == "report"
    assert description["fingerprint"] == "0123"
    assert description["inputs"] == {"evaluate": "4567"}
    assert description["simulated"] is True
    assert json.loads(page.data["spherecast"]) == description
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = [attributes["href"][1:] for name, attributes in page.elements if name in ("a", "use")]
    assert set(links) <= set(identifiers)


def test_page_loads_nothing(report):
    for name, attributes in Page(report).elements:
        assert name not in ("link", "iframe", "object", "embed", "base")
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), (name, key, value)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(|WebSocket", report)
    assert len(report.encode()) < 2_500_000


def test_headings_tables_and_pictures_are_named(report):
    page = Page(report)
    names = [name for name, _ in page.elements]
    assert names.count("h1") == 1
    assert names.count("table") == names.count("caption") == 5
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    pictures = [attributes for name, attributes in page.elements if name == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) == 1 + 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)


def test_simulated_data_are_called_simulated(report):
    page = Page(report)
    assert "Simulated data" in page.words
    assert "Do not compare the numbers with scores on ERA5" in page.words
    assert "<title>quickstart: forecast verification (simulated data)</title>" in report


def test_result_comes_first(report):
    words = Page(report).words
    assert (
        "Beats persistence at every lead to 5 days in all 6 headline fields; Z500 is useful (ACC above 0.6) to "
        in words
    )
    assert words.index("Beats persistence") < words.index("Scorecard", words.index("Beats persistence"))
    assert "180 forecasts from 1 Dec 2001 to 28 Feb 2002, every 12 hours" in words
    assert "4 variables × 3 levels (250, 500, 850 hPa) and 4 surface variables" in words


def test_every_curve_and_band_equals_the_metrics_file(report, finished_run):
    scores = json.loads(Page(report).data["scores"])
    shape = [len(scores[axis]) for axis in ("metrics", "regions", "fields", "leads")]
    assert [line["name"] for line in scores["lines"]] == list(LINES)
    for line in scores["lines"]:
        with xr.open_dataset(finished_run.metrics / f"{line['name']}.nc", decode_timedelta=True) as metrics:
            for key, end in (("values", ""), ("lower", "_lower"), ("upper", "_upper")):
                shown = decode(line[key], *shape)
                for (i, metric), (f, field) in itertools.product(
                    enumerate(scores["metrics"]), enumerate(scores["fields"])
                ):
                    if end and metric != "rmse":
                        assert np.isnan(shown[i]).all()
                        continue
                    name, _, level = field["id"].partition("@")
                    array = metrics[name].sel(metric=f"{metric}{end}", region=scores["regions"])
                    wanted = (array.sel(level=int(level)) if level else array).values
                    np.testing.assert_allclose(shown[i, :, f], wanted, rtol=1e-6)


def test_scorecard_equals_the_metrics_file(report, finished_run):
    table = report[report.index('class="scorecard"') :]
    table = table[: table.index("</table>")]
    rows = table.split("<tr>")[2:]
    headline = ["geopotential@500", "temperature@850", "wind_vector@850", "2m_temperature", "10m_wind_vector"]
    days = np.array([12, 24, 48, 72, 96, 120]) * np.timedelta64(1, "h")
    with (
        xr.open_dataset(finished_run.metrics / "model.nc", decode_timedelta=True) as model,
        xr.open_dataset(finished_run.metrics / "persistence.nc", decode_timedelta=True) as persistence,
    ):
        for row, field in zip(rows, headline, strict=False):
            name, _, level = field.partition("@")
            at = {"region": "global", "lead_time": days} | ({"level": int(level)} if level else {})
            own, other = (each[name].sel(metric="rmse", **at).values for each in (model, persistence))
            cells = re.findall(r'<td [^>]*title="([^"]*)">([^<]*)<i>([^<]*)</i></td>', row)
            assert [cell for _, cell, _ in cells] == [f"−{100 * (1 - ratio):.0f}" for ratio in own / other], field
            assert [mark for _, _, mark in cells] == ["▲"] * 6
            for (title, _, _), mine, theirs in zip(cells, own, other, strict=True):
                assert f": model {mine:.4g}, persistence {theirs:.4g}" in title.replace("−", "-")
                assert "skill of MSE 30 to 50 %, significant" in title


def test_two_writes_are_the_same_file(report, finished_run, tmp_path):
    run = finished_run
    write_report(tmp_path / "again.html", [run], fingerprint="0123", inputs={"evaluate": "4567"})
    assert (tmp_path / "again.html").read_text() == report


def test_text_of_the_configuration_stays_text(make, finished_run, tmp_path):
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    config = make.config(description=attack, report={"title": attack})
    write_report(tmp_path / "report.html", [Run(finished_run.directory, config)])
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert attack in page.words
    assert "<img" not in text
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_page_of_winds_alone_with_few_data(make, tmp_path):
    config = make.config(
        name="winds",
        source={"kind": "store", "path": "/data/gfs.nc"},
        data={
            "grid": {"latitude": 32, "longitude": 64},
            "variables": ["10m_u_component_of_wind", "10m_v_component_of_wind"],
            "levels": [],
        },
        periods={
            "train": ["2001-01-01T00:00", "2001-01-06T00:00"],
            "test": ["2001-02-01T00:00", "2001-02-04T18:00"],
        },
        forecast={"lead_hours": 72, "every_hours": 6},
    )
    run = make.run(tmp_path / "winds", config)
    run_stage(run, "", {})
    page = Page(run.report.read_text())
    assert "20 training samples over 5 days: this shows that the chain works, not skill." in page.words
    assert "Only 4 to 15 forecasts score a lead time (fewer than 100)" in page.words
    assert "Simulated" not in page.words
    assert "10 m wind speed, m s⁻¹" in page.words
    scores = json.loads(page.data["scores"])
    assert [scores["fields"][i]["id"] for i in scores["headline"]] == ["10m_wind_vector"]


def test_page_without_baselines_log_and_truth_says_what_is_missing(run_copy):
    for path in (run_copy.metrics / "persistence.nc", run_copy.metrics / "climatology.nc"):
        path.unlink()
    (run_copy.checkpoints / "training.jsonl").unlink()
    run_copy.validation_record.unlink()
    hours = zarr.open_group(run_copy.forecast)["time"]
    hours[:] = hours[:] + 100_000
    run_stage(run_copy, "", {})
    words = Page(run_copy.report.read_text()).words
    assert "The metrics hold neither persistence nor climatology to compare with." in words
    assert "Beats" not in words
    assert "There is no training log." in words
    assert "No forecast has a valid time for which the truth is known." in words
    assert "The record of the source's validation is missing." in words


def test_missing_scores_regions_and_metrics_are_left_out(run_copy):
    def change(dataset):
        dataset = dataset.isel(region=[1, 2]).sel(metric=["mse", "rmse"])
        dataset["geopotential"][:, :, 8:] = np.nan
        return dataset

    _edit(run_copy.metrics / "model.nc", change)
    _edit(run_copy.metrics / "climatology.nc", lambda dataset: dataset.drop_vars("temperature"))
    run_stage(run_copy, "", {})
    page = Page(run_copy.report.read_text())
    scores = json.loads(page.data["scores"])
    assert scores["regions"] == ["tropics", "extra-tropics"]
    assert scores["metrics"] == ["rmse"]
    geopotential = [field["id"] for field in scores["fields"]].index("geopotential@500")
    shape = [len(scores[axis]) for axis in ("metrics", "regions", "fields", "leads")]
    shown = decode(scores["lines"][0]["values"], *shape)[0, 0, geopotential]
    assert np.isnan(shown[7:10]).tolist() == [False, True, True]
    assert "region tropics" in page.words
    assert "Z500 to 2 days" in page.words


def test_model_metrics_are_needed(run_copy):
    (run_copy.metrics / "model.nc").unlink()
    with pytest.raises(
        InputError, match=r"model\.nc: the model's metrics are missing; run `spherecast evaluate` first"
    ):
        run_stage(run_copy, "", {})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(theme):
    style = (resources.files("pipeline.reporting") / "assets" / "base.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", light))
    if theme == "dark":
        colour |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", dark))

    def luminance(name):
        encoded = np.array([int(colour[name][i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("page", "card")]
    pairs += [(line, "card") for line in ("model", "persistence", "climatology", "validation")]
    pairs += [(f"c{i}", "card") for i in range(8)]
    pairs += [("badge", "badge-ground"), ("ink", "badge-ground"), ("page", "accent")]
    pairs += [("on-dark", "g4"), ("on-dark", "b4")]
    pairs += [("on-light", ground) for ground in ("g1", "g2", "g3", "b1", "b2", "b3")]
    for text, ground in pairs:
        dark_one, light_one = sorted([luminance(text), luminance(ground)])
        assert (light_one + 0.05) / (dark_one + 0.05) >= 4.5, (text, ground)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on this machine")
def test_browser_draws_the_page_without_complaint(report, finished_run, tmp_path):
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--virtual-time-budget=2000"]
    command += ["--window-size=1400,3000", "--dump-dom", f"file://{finished_run.report}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    drawn = done.stdout
    assert drawn.count('class="plot"') == 6 * 2 + 1 + 5
    assert len(re.findall(r'aria-label="RMSE in m² s⁻²: model [\d.]+ at 6 h', drawn)) == 2
    assert drawn.count("<canvas") == 3
