"""CPU time of evaluation and climatology, beside the official WeatherBench 2 on the same stores.

Makes the reference stores (kept in --stores for the next time), scores them with 4 metrics, the wind vector and 3
regions, and computes the hourly explicit climatology of 4 years on 64 x 32. Times are CPU seconds without imports; ours
include reading from disk and writing the climatology. The peer's were measured once on two quiet cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import main, row

from pipeline.climatology import climatology_store
from pipeline.evaluate import evaluate_stores

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
OFFICIAL_EVALUATION_SECONDS = 16.4
OFFICIAL_CLIMATOLOGY_SECONDS = 17.0

_YEARS = "import make_data, sys; make_data.make_clim4y(sys.argv[1], 64, 32, big=True)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stores", type=Path, metavar="DIR", help="folder to keep the stores in; temporary by default")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return a row for the evaluation and one for the climatology."""
    if not REFERENCE.is_dir():
        sys.exit(f"{REFERENCE} is missing: it holds the script that makes the reference stores.")
    with tempfile.TemporaryDirectory() as scratch:
        return _measure((arguments.stores or Path(scratch)).resolve(), Path(scratch))


def _measure(stores: Path, scratch: Path) -> list[dict]:
    folder = stores / "64x32p"
    if not folder.is_dir():
        _make(stores, ["make_data.py", "64x32p"])
    if not (stores / "years.zarr").is_dir():
        _make(stores, ["-c", _YEARS, str(stores / "years.zarr")])
    paths = [folder / f"{name}.zarr" for name in ("forecast", "truth", "climatology")]
    options = {"regions": ["global", "tropics", "extra-tropics"], "metrics": ["mse", "mae", "bias", "acc"]}
    evaluation = _cpu_seconds(lambda: evaluate_stores(*paths, **options))
    years = _cpu_seconds(lambda: climatology_store(stores / "years.zarr", scratch / "climatology.zarr"))
    return [
        row("evaluation of 64x32, 40 initial times", evaluation, "CPU s", OFFICIAL_EVALUATION_SECONDS),
        row("hourly explicit climatology, 4 years, 64x32", years, "CPU s", OFFICIAL_CLIMATOLOGY_SECONDS),
    ]


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


if __name__ == "__main__":
    main(measure, __doc__, add_arguments)
