"""Runs of strange names side by side in a browser, with results of another forecast, and without forecasts or a training."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

ATTACK = "<img src=x onerror=alert(1)><script>alert(1)<"


@pytest.fixture(scope="module")
def compared(reported, tmp_path_factory):
    """The page of two runs that have scores alone, and of results in WeatherBench 2's layout whose errors are twice as large."""
    from pipeline.report import write_report
    from pipeline.runs import Run

    root, config = tmp_path_factory.mktemp("compared"), reported.make_config(description=ATTACK)
    leads = (24 * np.arange(1, 6)).astype("timedelta64[h]").astype("timedelta64[ns]")
    counts, runs = np.full(5, 200), []
    for number, name in enumerate(("plain", ATTACK)):
        run = Run(root / name, config)
        run.metrics.mkdir(parents=True)
        (run.directory / "config.yaml").write_text(config.to_yaml())
        for line in ("model", "persistence", "climatology"):
            factor = 1 + 0.1 * number * (line == "model")
            scores = reported.make_metrics(config, leads, counts, line)
            named = scores.map(lambda values, factor=factor: values * factor, keep_attrs=True).assign_attrs(
                scores.attrs
            )
            named["valid_samples"] = scores["valid_samples"]
            named.to_netcdf(run.metrics / f"{line}.nc", engine="netcdf4")
        runs.append(run)
    official = (2 * reported.make_metrics(config, leads, counts, "model")).drop_attrs().drop_vars("valid_samples")
    official.to_netcdf(root / f"{ATTACK}.nc", engine="netcdf4")
    write_report(root / "page.html", runs, [root / f"{ATTACK}.nc"])
    return root / "page.html"


def change(page):
    """Return the numbers of the scorecard's first row."""
    texts = page.locator("#scorecard-table tbody tr").first.locator("td").all_text_contents()
    return [float(re.sub("[▲▼]", "", text).replace("−", "-")) for text in texts]


@pytest.mark.parametrize("width", [360, 1600])
def test_names_stay_text_and_every_line_can_be_chosen(visit, compared, width):
    seen = visit(compared, width=width)
    page = seen.page
    page.on("dialog", lambda dialog: seen.faults.append(f"dialog: {dialog.message}"))
    page.wait_for_function("document.querySelector('#explorer svg')")
    # What is missing is said first, and the rest is shown.
    notices = page.locator(".notice").all_inner_texts()
    assert any("forecast" in text and "training" in text for text in notices), notices
    assert page.locator("#curves svg").count() > 5
    other = page.get_by_label("Compared with")
    assert other.locator("option").all_text_contents() == ["persistence", "climatology", ATTACK, f"{ATTACK} (2)"]
    other.select_option(label=ATTACK)
    assert change(page) == pytest.approx([-9.1] * 5)  # 1 / 1.1
    other.select_option(label=f"{ATTACK} (2)")
    assert change(page) == pytest.approx([-50.0] * 5)
    page.locator("#card-forecast").select_option(label=ATTACK)
    assert change(page) == pytest.approx([-45.0] * 5)
    assert ATTACK in page.locator("#scorecard-table caption").inner_text()
    labels = page.locator("#explorer svg").get_attribute("aria-label")
    assert f"{ATTACK} (2) " in labels
    assert page.locator("img, main script:not([type])").count() == 0
    faults = seen.look_faults() if width == 360 else seen.checks("sideways()")
    assert faults == []
    assert seen.unreached() == []


def test_numbers_of_the_other_results_are_those_of_their_file(visit, compared):
    page = visit(compared).page
    page.wait_for_function("document.querySelector('#explorer svg')")
    page.locator("#any-field").select_option(label="2 m temperature")
    page.locator("#any-metric").select_option(label="RMSE")
    page.locator("#explorer svg").press("End")
    said = page.locator("#explorer .tip > span").all_inner_texts()
    official = xr.load_dataset(compared.parent / f"{ATTACK}.nc", decode_timedelta=True)
    wanted = float(official["2m_temperature"].sel(metric="rmse", region="global")[-1])
    shown = next(text for text in said if text.startswith(f"{ATTACK} (2)"))
    assert float(shown.split()[-1]) == pytest.approx(wanted, rel=1e-3)
