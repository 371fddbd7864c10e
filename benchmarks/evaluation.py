"""Evaluation beside the official WeatherBench 2: its numbers, its CPU time, and memory.

``speed`` scores the reference stores (40 initial times x 41 leads, 64 x 32) with 4 metrics, the wind vector and 3 regions,
by threads and as a Beam job, and makes the hourly explicit climatology of 4 years. Times are CPU seconds without imports,
least of some; ours include reading from disk. The peer's were measured once on two quiet cores. ``agreement`` is the
largest relative difference from the official results, of values below a thousandth of a score's size relative to that.
``memory`` is the peak of a process that scores stores of 240 x 121 points, for 10 and 80 initial times.

    python benchmarks/evaluation.py --stores stores
    python benchmarks/evaluation.py --stores stores --only memory
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from common import main, row

from pipeline.climatology import climatology_store
from pipeline.evaluate import Request, score, score_store
from transforms.grids import Grid

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
OFFICIAL_EVALUATION_SECONDS, OFFICIAL_BEAM_SECONDS, OFFICIAL_CLIMATOLOGY_SECONDS = 16.4, 46.0, 17.0
EVALUATION_BAR, BEAM_BAR, MEMORY_BAR, GROWTH_BAR = 1.3, 5.0, 1.0, 1.1

_YEARS = "import make_data, sys; make_data.make_clim4y(sys.argv[1], 64, 32, big=True)"
_REGIONS = ("global", "tropics", "extra-tropics")
_SINGLE = ("mse", "rmse", "mae", "bias", "acc", "rmse_sqrt_before_time_avg")
_CHILD = """
import sys
sys.path.insert(0, {folder!r})
from evaluation import score_large
score_large({stores!r}, {count})
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stores", type=Path, metavar="DIR", help="folder to keep the stores in; temporary by default")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated; all by default")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the chosen sections."""
    if not REFERENCE.is_dir():
        sys.exit(f"{REFERENCE} is missing: it holds the script that makes the reference stores.")
    logging.getLogger("pipeline").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        stores = (arguments.stores or Path(scratch)).resolve()
        stores.mkdir(parents=True, exist_ok=True)
        chosen = [SECTIONS[name] for name in arguments.only or SECTIONS]
        return [line for section in chosen for line in section(stores, Path(scratch))]


def speed_rows(stores: Path, scratch: Path) -> list[dict]:
    """CPU seconds of an evaluation, by threads and by Beam, and of a climatology."""
    paths = _reference(stores, "64x32p", "64x32p/forecast", "64x32p/truth", "64x32p/climatology")
    request = Request(*paths, metrics=("mse", "mae", "bias", "acc"), regions=_REGIONS)
    here = _cpu_seconds(lambda: score(request))
    with_beam = _cpu_seconds(lambda: score_store(request, scratch / "beam.nc", beam_options=["--runner=DirectRunner"]))
    if not (stores / "years.zarr").is_dir():
        _make(stores, ["-c", _YEARS, str(stores / "years.zarr")])
    years = _cpu_seconds(lambda: climatology_store(stores / "years.zarr", scratch / "climatology.zarr"))
    return [
        row("evaluation, 64x32, 40 initial times", here, "CPU s", EVALUATION_BAR, 1.0),
        row("evaluation, the official package", here, "CPU s", OFFICIAL_EVALUATION_SECONDS),
        row("evaluation as a Beam job", with_beam, "CPU s", BEAM_BAR, 1.0),
        row("evaluation as a Beam job, the official package", with_beam, "CPU s", OFFICIAL_BEAM_SECONDS),
        row("hourly explicit climatology, 4 years, 64x32", years, "CPU s", OFFICIAL_CLIMATOLOGY_SECONDS),
    ]


def agreement_rows(stores: Path, scratch: Path) -> list[dict]:
    """Largest relative difference from each official result."""
    plain = _reference(stores, "64x32p", "64x32p/forecast", "64x32p/truth", "64x32p/climatology")
    ensemble = _reference(stores, "ens", "ens/forecast", "64x32p/truth")
    rain = _reference(stores, "ens", "ens/tp_forecast", "ens/tp_truth", "ens/tp_climatology")
    cases: dict[str, tuple[list[str], dict]] = {
        "64x32p_skipna0_deterministic": (plain, {}),
        "64x32p_skipna1_deterministic": (plain, {"skipna": True}),
        "64x32p_skipna0_deterministic_temporal": (plain, {"average": "temporal"}),
        "64x32p_skipna0_deterministic_spatial": (plain, {"average": "spatial"}),
        "64x32p_persistence_beam_deterministic": (plain, {"systems": ("persistence",)}),
        "64x32p_climatology_deterministic": (plain, {"systems": ("climatology",)}),
        "ens_probabilistic": (ensemble, {}),
        "seeps_deterministic": (rain, {}),
    }
    rows = []
    for name, (paths, options) in cases.items():
        with xr.open_dataset(REFERENCE / "results" / f"{name}.nc", decode_timedelta=True) as official:
            request = Request(
                *paths,
                metrics=tuple(official.metric.values.tolist()),
                regions=tuple(official.region.values.tolist()) if "region" in official.dims else _REGIONS,
                variables=tuple(each for each in official.data_vars if each != "wind_vector"),
                **options,
            )
            result = score(request)[request.systems[0]]
            rows.append(row(f"agreement, {name}", _difference(result, official.load()), "relative", 1e-6, 1.0))
    return rows


def memory_rows(stores: Path, scratch: Path) -> list[dict]:
    """Peak memory of scoring large fields, for few and many initial times."""
    _large_stores(stores)
    peaks = []
    for count in (10, 80):
        script = _CHILD.format(folder=str(Path(__file__).resolve().parent), stores=str(stores), count=count)
        done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    return [
        row("peak memory, 240x121, 80 initial times", peaks[1], "GB", MEMORY_BAR, 1.0),
        row("peak memory, 80 initial times over 10", peaks[1], "GB", peaks[0], GROWTH_BAR),
    ]


def score_large(stores: str, count: int) -> None:
    """Score the first initial times of the large stores, and print this process's peak memory."""
    from transforms.selections import parse_times

    folder = Path(stores)
    paths = [str(folder / f"large-{name}.zarr") for name in ("forecast", "truth", "climatology")]
    last = np.datetime64("2020-01-01T00") + (count - 1) * np.timedelta64(6, "h")
    request = Request(
        *paths,
        systems=("model", "persistence", "climatology"),
        against=("persistence", "climatology"),
        metrics=("rmse", "mse", "mae", "bias", "acc"),
        regions=("global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere"),
        initial_times=parse_times(f"2020-01-01:{last}"),
    )
    score(request)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps(int(line.split()[1]) * 1024 / 1e9))


def _large_stores(stores: Path) -> None:
    """Make noise of 240 x 121 points: 4 variables on 13 levels, 80 initial times x 8 leads, chunks of one field."""
    grid, levels = Grid.equiangular(121, 240, poles=True), np.arange(1, 14) * 75
    space = {"level": levels, "latitude": grid.latitude, "longitude": grid.longitude}
    times = np.datetime64("2020-01-01", "ns") + np.arange(92) * np.timedelta64(6, "h")
    leads = np.arange(1, 9) * np.timedelta64(6, "h").astype("timedelta64[ns]")
    names = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind")
    noise = np.random.default_rng(0).normal(size=(13, *grid.shape)).astype("f4")
    axes = {
        "truth": {"time": times},
        "forecast": {"time": times[:80], "prediction_timedelta": leads},
        "climatology": {"hour": np.arange(4) * 6, "dayofyear": np.arange(1, 367)},
    }
    for name, leading in axes.items():
        path = stores / f"large-{name}.zarr"
        if path.is_dir():
            continue
        shape = tuple(len(values) for values in leading.values())
        fields = {}
        for i, variable in enumerate(names):
            values = np.broadcast_to(noise * (i + 1), (*shape, *noise.shape))
            fields[variable] = ((*leading, *space), values)
        dataset = xr.Dataset(fields, {**leading, **space}).chunk(dict.fromkeys(leading, 1))
        dataset.to_zarr(path.with_suffix(".partial"), mode="w", zarr_format=2, consolidated=True)
        path.with_suffix(".partial").rename(path)


def _difference(result: xr.Dataset, official: xr.Dataset) -> float:
    worst = 0.0
    for name in official.data_vars:
        for metric in official.metric.values:
            expected = official[name].sel(metric=metric)
            got = result[name].sel(metric=metric).transpose(*expected.dims).values
            if not np.array_equal(np.isnan(got), np.isnan(expected)):
                return np.inf
            size = np.abs(expected.values)
            if np.isfinite(size).any():
                # The square of the root of zero is zero: a bias that vanishes is compared absolutely, to 1e-9.
                least = max(1e-3 * np.sqrt(np.nanmean(size**2)), 1e-3)
                worst = max(worst, float(np.nanmax(np.abs(got - expected) / np.maximum(size, least))))
    return worst


def _reference(stores: Path, name: str, *paths: str) -> list[str]:
    """Return the paths of reference stores, made where they are missing."""
    for each in {name, *(path.split("/")[0] for path in paths)}:
        if not (stores / each).is_dir():
            _make(stores, ["make_data.py", each])
    return [str(stores / f"{path}.zarr") for path in paths]


def _make(stores: Path, command: list[str]) -> None:
    environment = {**os.environ, "REFERENCE_STORES": str(stores), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-W", "ignore", *command], cwd=REFERENCE, env=environment, check=True)


def _cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the least of a few measurements: the first one also pays for lazy imports."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


SECTIONS: dict[str, Callable[[Path, Path], list[dict]]] = {
    "speed": speed_rows,
    "agreement": agreement_rows,
    "memory": memory_rows,
}

if __name__ == "__main__":
    main(measure, __doc__, add_arguments)
