"""The report: how large, how long to write, how soon its first picture, how long to draw.

``run`` is the page of a finished run. ``comparison`` is one of 20 runs with 8 variables, 40 lead times, 5 regions and 5
scores with their intervals, made of random numbers, each with sums of 12 blocks of forecasts. Both are opened in Chromium
without a network; drawing has ended when every chart of a field is there. The first opening warms the browser and is not
counted. A step of the slider of the maps counts from the moment it is moved to the next frame, of all fields and lead times.

    python benchmarks/report.py --run runs/quickstart
    python benchmarks/report.py --only comparison
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from common import main, row

from pipeline.artefacts import describe
from pipeline.config_files import load_config
from pipeline.report import write_report
from pipeline.runs import Run
from pipeline.scoring.bands import COUNT, write_result

RUNS, LEADS, BLOCKS = 20, 40, 12
VARIABLES = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "total_precipitation_6hr",
    "surface_pressure",
    "sea_surface_temperature",
    "total_cloud_cover",
)
_REGIONS = ["global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere"]
_METRICS = ["rmse", "mse", "mae", "bias", "acc"]
_DRAWN = "!document.querySelector('.card.curve .plots:empty, #explorer .plots:empty')"
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_STEPS = """async () => {
  const slider = document.getElementById("forecast-maps-lead"), times = [];
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  for (const field of document.getElementById("forecast-maps-field").options) {
    field.selected = true;
    document.getElementById("forecast-maps-field").dispatchEvent(new Event("change"));
    await new Promise((done) => setTimeout(done, 300));
    for (let lead = 0; lead <= Number(slider.max); lead++) {
      await frame();
      const began = performance.now();
      slider.value = lead;
      slider.dispatchEvent(new Event("input"));
      await frame();
      times.push(performance.now() - began);
    }
  }
  return times;
}"""
RUN_MB, RUN_PAINT, COMPARISON_MB, COMPARISON_SECONDS, SLIDER_STEP = 6.0, 1.0, 15.0, 2.0, 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, metavar="RUN", help="a finished run; without one only the comparison")
    parser.add_argument("--only", choices=("run", "comparison"), help="one of the two")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the pages asked for."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.run and arguments.only != "comparison":
            size, write, paint, drawn = _page(Path(scratch) / "run.html", [Run.open(arguments.run)])
            rows += [
                row("run: size", size, "MB", RUN_MB, 1.0),
                row("run: time to write", write, "s", None),
                row("run: first picture", paint, "s", RUN_PAINT, 1.0),
                row("run: all charts drawn", drawn, "s", None),
                row("run: a step of the maps' slider", _slider_step(Path(scratch) / "run.html"), "s", SLIDER_STEP, 1.0),
            ]
        if arguments.only != "run":
            runs = [_random_run(Path(scratch) / f"run{number:02d}", number) for number in range(RUNS)]
            size, write, paint, drawn = _page(Path(scratch) / "comparison.html", runs)
            rows += [
                row("comparison: size", size, "MB", COMPARISON_MB, 1.0),
                row("comparison: time to write", write, "s", None),
                row("comparison: first picture", paint, "s", None),
                row("comparison: all charts drawn", drawn, "s", COMPARISON_SECONDS, 1.0),
            ]
    return rows


def _page(path: Path, runs: list[Run]) -> tuple[float, float, float, float]:
    """Return megabytes, seconds to write, seconds to the first picture and to the last chart."""
    began = time.perf_counter()
    write_report(path, runs)
    written = time.perf_counter() - began
    return path.stat().st_size / 1e6, written, *_opened(path)


def _opened(path: Path) -> tuple[float, float]:
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or sys.exit("chromium is not on this machine.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        times = []
        for _ in range(4):
            page = browser.new_context(offline=True, viewport={"width": 1600, "height": 1000}).new_page()
            page.goto(path.as_uri())
            page.wait_for_function(_DRAWN)
            drawn = page.evaluate("performance.now()") / 1000
            times.append((page.evaluate(_PAINT) / 1000, drawn))
            page.close()
        browser.close()
    first, last = np.min(times[1:], axis=0)
    return float(first), float(last)


def _slider_step(path: Path) -> float:
    """Return seconds from moving the slider to the next frame, longer than 95 % of all fields' steps."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or sys.exit("chromium is not on this machine.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(offline=True, viewport={"width": 1600, "height": 1000}).new_page()
        page.goto(path.as_uri())
        page.wait_for_selector("#forecast-maps canvas", state="attached")
        page.locator("#forecast-maps").scroll_into_view_if_needed()
        times = page.evaluate(_STEPS)
        browser.close()
    return float(np.quantile(times, 0.95)) / 1000


def _random_run(directory: Path, seed: int) -> Run:
    """Write a run directory that has scores alone."""
    directory.mkdir()
    (directory / "metrics").mkdir()
    config = load_config("quickstart", [f"name=run{seed:02d}"])
    (directory / "config.yaml").write_text(config.to_yaml())
    generator = np.random.default_rng(seed)
    metrics = [*_METRICS, *(f"{name}_{end}" for name in _METRICS for end in ("lower", "upper"))]
    leads = (6 * np.arange(1, LEADS + 1)).astype("timedelta64[h]").astype("timedelta64[ns]")
    coords = {"metric": metrics, "region": _REGIONS, "lead_time": leads}
    growth = np.sqrt(np.arange(1, LEADS + 1))
    shape = (len(metrics), len(_REGIONS), LEADS)
    about = {"spherecast": json.dumps(describe("metrics", simulated=True))}
    for line in ("model", "persistence", "climatology"):
        fields, sums = {}, {}
        for name in VARIABLES:
            fields[name] = (tuple(coords), growth * generator.uniform(0.9, 1.1, shape))
            squares = growth**2 * generator.uniform(0.8, 1.2, (BLOCKS, *shape[1:]))
            axes = ("block", "region", "lead_time")
            sums |= {name: (axes, squares), f"{name}{COUNT}": (axes, np.ones(squares.shape, np.int32))}
        times = np.datetime64("2020-01-01", "ns") + 72 * np.arange(BLOCKS) * np.timedelta64(1, "h")
        blocks = xr.Dataset(sums, {"region": _REGIONS, "lead_time": leads, "time": times}, {"block_hours": 72.0})
        write_result(xr.Dataset(fields, coords, about), blocks, directory / "metrics" / f"{line}.nc")
    return Run(directory, config)


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, ("numpy", "xarray", "playwright"))
