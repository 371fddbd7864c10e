"""What the controls of the report show: always the numbers of the metrics, by mouse and by keyboard."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
import xarray as xr

LEVELS = {"T850": ("temperature", 850), "Z500": ("geopotential", 500), "T2m": ("2m_temperature", None)}


@pytest.fixture(scope="module")
def metrics(report_path):
    """The run's scores by line."""
    return {
        line: xr.load_dataset(report_path.parent / "metrics" / f"{line}.nc", decode_timedelta=True)
        for line in ("model", "persistence", "climatology")
    }


@pytest.fixture
def page(shared):
    shared.page.wait_for_function("!document.querySelector('.card.curve .plots:empty, #explorer .plots:empty')")
    return shared.page


def score(dataset, metric, field, region="global"):
    """Return a score by lead time."""
    variable, level = LEVELS[field]
    array = dataset[variable].sel(metric=metric, region=region)
    return (array if level is None else array.sel(level=level)).values


def number(text):
    return float(text.replace("−", "-").replace("+", ""))


def row_of(page, field):
    return page.locator("#scorecard-table tbody tr").filter(has=page.locator(f"b:text-is('{field}')"))


def days(dataset):
    return dataset["lead_time"].values / np.timedelta64(1, "D")


@pytest.mark.parametrize("other", ["persistence", "climatology"])
@pytest.mark.parametrize("region", ["global", "tropics"])
def test_the_scorecard_follows_its_choosers(page, metrics, other, region):
    page.get_by_label("Compared with").select_option(label=other)
    page.locator("#card-region").select_option(label=region)
    page.get_by_label("Fields").select_option(label="all")
    assert page.locator("#scorecard-table tbody tr").count() > 15
    wanted = 100 * (score(metrics["model"], "rmse", "T850", region) / score(metrics[other], "rmse", "T850", region) - 1)
    cells = row_of(page, "T850").locator("td")
    leads = [float(text.split()[0]) / (24 if "h" in text else 1) for text in heads(page)]
    at = [int(np.flatnonzero(days(metrics["model"]) == lead)[0]) for lead in leads]
    shown = [number(re.sub("[▲▼]", "", text)) for text in cells.all_text_contents()]
    np.testing.assert_allclose(shown, wanted[at], atol=0.51)
    # Colours are of the bands that the key names.
    edges = np.array([-60, -40, -20, 0, 20, 40, 60])
    bands = ["g4", "g3", "g2", "g1", "b1", "b2", "b3", "b4"]
    kinds = [cell.get_attribute("class") for cell in cells.all()]
    assert kinds == [bands[int((edges <= value).sum())] for value in wanted[at]]
    assert (
        f"difference from {other} in per cent, region {region}" in page.locator("#scorecard-table caption").inner_text()
    )
    page.get_by_label("Fields").select_option(label="headline")
    assert page.locator("#scorecard-table tbody tr").count() == page.locator(".card.curve").count()


def heads(page):
    return page.locator("#scorecard-table thead th").all_text_contents()[1:]


def test_a_cell_says_its_numbers_to_pointer_keyboard_and_screen_reader(page, metrics):
    page.get_by_label("Compared with").select_option(label="persistence")
    page.locator("#card-region").select_option(label="global")
    own, other = (score(metrics[line], "rmse", "Z500")[3] for line in ("model", "persistence"))  # At 1 day.
    assert heads(page)[1] == "1 d"
    cell = row_of(page, "Z500").locator("td").nth(1)
    tip = page.locator(".card-tip")
    cell.hover()
    assert tip.is_visible()
    for value in (own, other):
        assert any(float(word) == pytest.approx(value, rel=1e-3) for word in re.findall(r"\d+\.?\d*", tip.inner_text()))
    label = cell.get_attribute("aria-label")
    assert tip.locator("div").first.inner_text() in label
    assert "per cent" in label
    page.mouse.move(0, 0)
    first = page.locator("#scorecard-table td").first
    first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        page.locator("#scorecard-table tbody tr").first.locator("td").nth(1).inner_text().strip("▲▼")
    )
    assert tip.is_visible()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("ArrowLeft")


def curve_label(page, selector="#explorer"):
    page.wait_for_function(f"document.querySelector('{selector} svg')")
    return page.locator(f"{selector} svg").first.get_attribute("aria-label")


def explore(page, field="2 m temperature", metric="Mean error", region="tropics"):
    page.locator("#any-field").select_option(label=field)
    page.locator("#any-metric").select_option(label=metric)
    page.locator("#any-region").select_option(label=region)


def metric_titles(page):
    return page.locator("#any-metric option").all_text_contents()


def test_any_score_of_any_field_is_drawn_and_read_out(page, metrics):
    from transforms.metrics import METRICS

    assert {"RMSE", METRICS["bias"].title, METRICS["acc"].title} <= set(metric_titles(page))
    explore(page, metric=METRICS["bias"].title)
    bias = score(metrics["model"], "bias", "T2m", "tropics")
    drawn = re.search(r"model (\S+) at 6 h, (\S+) at 5 d", curve_label(page))
    assert [number(text) for text in drawn.groups()] == pytest.approx([bias[0], bias[-1]], rel=1e-3)
    chart = page.locator("#explorer svg")
    chart.focus()
    for key, lead in (("Home", 0), ("ArrowRight", 1), ("End", -1)):
        page.keyboard.press(key)
        tip = page.locator("#explorer .tip span.c0").inner_text().split()
        assert number(tip[-1]) == pytest.approx(bias[lead], rel=1e-3)
    page.keyboard.press("Escape")
    assert page.locator("#explorer .tip").is_hidden()


def table_rows(page):
    """Open the numbers below the chart of any field; return the rows to be downloaded and those to be copied."""
    details = page.locator("#explorer details")
    if details.get_attribute("open") is None:
        details.locator("summary").press("Enter")
    with page.expect_download() as download:
        details.get_by_text("Download CSV").click()
    saved = download.value.path().read_text(encoding="utf-8")
    copy = details.get_by_role("button", name="Copy")
    copy.press("Enter")
    details.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    name = download.value.suggested_filename
    return name, list(csv.reader(io.StringIO(saved))), [line.split("\t") for line in copied.split("\n")]


def test_the_table_to_download_and_to_copy_holds_the_metrics(page, metrics):
    explore(page, metric="RMSE")
    name, saved, copied = table_rows(page)
    assert name == "2m_temperature-rmse-tropics.csv"
    assert [row for row in saved if row] == copied
    columns = {head: [row[i] for row in saved[1:] if row] for i, head in enumerate(saved[0])}
    assert list(columns) == [
        "lead_hours",
        *(f"{line} rmse{end}" for line in ("model", "persistence", "climatology") for end in ("", "_lower", "_upper")),
    ]
    assert [float(text) for text in columns["lead_hours"]] == (24 * days(metrics["model"])).tolist()
    for line in metrics:
        for end in ("", "_lower", "_upper"):
            wanted = score(metrics[line], f"rmse{end}", "T2m", "tropics")
            np.testing.assert_allclose([float(text) for text in columns[f"{line} rmse{end}"]], wanted, rtol=1e-6)
    # What is seen is the same, to four digits.
    body = page.locator("#explorer tbody tr").all()
    cells = [[number(text) for text in row.locator("td").all_text_contents()] for row in body]
    wanted = np.stack([score(metrics[line], "rmse", "T2m", "tropics") for line in metrics], axis=1)
    np.testing.assert_allclose(cells, wanted, rtol=1e-3)


def ticks(page):
    return [number(text) for text in page.locator("#explorer svg text[text-anchor=end]").all_text_contents()]


def test_the_axis_can_be_logarithmic(page):
    explore(page, metric="RMSE")
    linear = ticks(page)
    assert linear[0] == 0
    np.testing.assert_allclose(np.diff(linear), np.diff(linear)[0])
    page.locator("input[name=scale][value=linear]").focus()
    page.keyboard.press("ArrowRight")  # As a radio button is changed without a mouse.
    page.wait_for_function(
        "!document.querySelector('#explorer svg text[text-anchor=end]').textContent.startsWith('0') || document.querySelector('#explorer svg text[text-anchor=end]').textContent !== '0'"
    )
    logarithmic = ticks(page)
    assert min(logarithmic) > 0
    places = [float(text.get_attribute("y")) for text in page.locator("#explorer svg text[text-anchor=end]").all()]
    rate = np.diff(places) / np.diff(np.log(logarithmic))
    np.testing.assert_allclose(rate, rate[0], rtol=1e-3)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('#explorer svg text[text-anchor=end]').textContent === '0'")


def test_lines_are_switched_off_and_on_in_every_chart(page):
    explore(page, metric="RMSE")
    box = page.get_by_role("checkbox", name="persistence")
    assert box.is_checked()
    box.focus()
    page.keyboard.press("Space")
    without = "![...document.querySelectorAll('.card.curve svg, #explorer svg')].some((svg) => svg.querySelector('g.persistence'))"
    page.wait_for_function(without)
    assert "persistence" not in curve_label(page)
    assert page.locator("#explorer svg g.c0").count() == 1
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('#explorer svg g.persistence')")
    assert "persistence" in curve_label(page)


def ink(page, viewer="#forecast-maps", panel=0):
    """Return a fingerprint of what a map shows."""
    return page.evaluate(
        "([viewer, panel]) => document.querySelectorAll(`${viewer} canvas`)[panel].toDataURL().slice(-4000)",
        [viewer, panel],
    )


def test_the_slider_of_the_maps_moves_them_in_time(page):
    slider = page.locator("#forecast-maps-lead")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext").startswith("6 hours")
    first = ink(page)
    heading = page.locator("#forecast-maps .pane-title").inner_text()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext").startswith("5 days")
    assert ink(page) != first
    assert page.locator("#forecast-maps .pane-title").inner_text() != heading
    assert page.locator("#forecast-maps output").inner_text() == "5 days"
    page.keyboard.press("Home")
    assert ink(page) == first


def test_the_maps_play_and_pause(page):
    slider = page.locator("#forecast-maps-lead")
    slider.press("Home")
    play = page.locator("#forecast-maps-play")
    play.press("Enter")
    assert play.get_attribute("aria-label") == "Pause the lead times"
    page.wait_for_function("document.getElementById('forecast-maps-lead').value === '1'")
    play.press("Enter")
    assert play.inner_text() == "Play"
    held = slider.input_value()
    page.wait_for_timeout(300)
    assert slider.input_value() == held


def test_maps_of_another_field_time_and_projection(page, report_path):
    slider = page.locator("#forecast-maps-lead")
    slider.press("Home")
    before = ink(page)
    start = page.locator("#forecast-maps-start")
    assert start.locator("option").count() == 3
    start.select_option(index=0)
    assert ink(page) != before
    before = ink(page)
    projection = page.locator("#forecast-maps-projection")
    assert "area-true" in projection.locator("option").first.inner_text()
    projection.select_option(label="Two hemispheres (area-true)")
    assert ink(page) != before
    projection.select_option(index=0)
    assert ink(page) == before
    field = page.locator("#forecast-maps-field")
    wind = next(text for text in field.locator("option").all_text_contents() if "wind vector" in text)
    field.select_option(label=wind)
    page.wait_for_function("document.querySelector('#forecast-maps .arrows').getAttribute('d')")
    assert wind in page.locator("#forecast-maps .pane-title").inner_text()
    field.select_option(index=0)
    page.wait_for_function("!document.querySelector('#forecast-maps .arrows').getAttribute('d')")
    maps = page.locator("#forecast-maps .maps")
    maps.focus()
    page.keyboard.press("ArrowRight")
    assert re.match(
        r"45\.0° N 0\.0° E: forecast .+, truth .+, difference ", page.locator("#forecast-maps-reading").inner_text()
    )
    page.keyboard.press("Escape")


def test_maps_of_errors_have_only_what_the_field_has(page):
    viewer = page.locator("#error-maps")
    field = page.locator("#error-maps-field")
    titles = viewer.locator("figure:visible figcaption strong")
    field.select_option(label="2 m temperature")
    page.wait_for_function("document.querySelectorAll('#error-maps figure:not([hidden])').length === 3")
    assert titles.all_inner_texts() == ["Mean error", "RMSE", "Skill against persistence"]
    field.select_option(label="10 m wind vector")
    page.wait_for_function("document.querySelectorAll('#error-maps figure:not([hidden])').length === 2")
    assert titles.all_inner_texts() == ["RMSE", "Skill against persistence"]
    page.locator("#error-maps-lead").press("Home")
    assert "1 day ahead, 3 forecasts" in viewer.locator(".pane-title").inner_text()
    page.locator("#error-maps-lead").press("End")
    assert "3 days ahead, 2 forecasts" in viewer.locator(".pane-title").inner_text()
    assert "no values" not in viewer.inner_text()


def test_spectra_follow_their_chooser(page):
    view = page.locator("#spectra-view")
    field = page.get_by_label("Field").and_(page.locator("#spectra-field"))
    labels = field.locator("option").all_text_contents()
    assert "10 m rotational kinetic energy" in labels
    for label in labels:
        field.select_option(label=label)
        assert view.locator("table:visible caption").all_inner_texts() == [
            f"Effective resolution, {label}: where forecasts have less than half the power of truth"
        ]
        assert view.locator("table:visible td").all_inner_texts()[::2] == ["none to 15", "11"]
        assert view.locator("svg:visible").count() == 2


def test_every_section_is_reached_from_the_list(page):
    links = page.get_by_role("navigation", name="Sections").get_by_role("link")
    assert links.all_inner_texts() == ["Scorecard", "Curves", "Maps", "Spectra", "Training", "Provenance"]
    for link in links.all():
        link.press("Enter")
        target = link.get_attribute("href")
        page.wait_for_function(
            f"Math.abs(document.querySelector('{target}').getBoundingClientRect().top) < innerHeight / 2 || innerHeight + scrollY >= document.documentElement.scrollHeight - 2"
        )
        assert page.url.endswith(target)


def test_training_is_drawn_stage_by_stage(page):
    charts = page.locator("#training figcaption b").all_inner_texts()
    assert charts == [
        "Loss",
        "RMSE of held-out forecasts over persistence",
        "Learning rate",
        "Throughput",
        "Share of time waiting for data",
    ]
    texts = page.locator(".training-loss svg text").all_text_contents()
    assert {"1 step", "4 steps"} <= set(texts)
    assert page.locator("#training .legend li").first.inner_text() == "Z500 1 d"
