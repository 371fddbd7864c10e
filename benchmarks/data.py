"""What preparing data costs: the regridding kernel, a store regridded, its memory, its workers, winds, climatology, statistics.

Makes its own stores (kept in --stores for the next time): 240 x 121 points, 200 times, 13 levels, 5 variables, 1.51 GB of
float32 in WeatherBench 2's order of axes, 4 times a chunk; and 4 years of 6-hourly fields on 64 x 32. Every measurement runs
in a process of its own, after imports: CPU seconds of it and its children, wall seconds, and peak memory. Measurements take
turns; figures are medians. The peers' figures are the official WeatherBench 2's, measured once on such a machine: a ratio
of at most the bar passes.

    python benchmarks/data.py --stores stores
    python benchmarks/data.py --stores stores --only regrid --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from common import main, row

from transforms.grids import Grid
from transforms.regridding import Regridder

SECTIONS = ("kernel", "regrid", "memory", "workers", "climatology", "statistics", "winds")
VARIABLES = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
TIMES = 200
FINE, COARSE = Grid.equiangular(121, 240, poles=True), Grid.equiangular(32, 64, poles=False)
TYPICAL = {  # mean, spread
    "geopotential": (54000.0, 900.0),
    "temperature": (260.0, 3.0),
    "u_component_of_wind": (6.0, 8.0),
    "v_component_of_wind": (0.0, 8.0),
    "specific_humidity": (1.2e-3, 2e-4),
}

OFFICIAL = {"regrid": 10.5, "climatology": 17.0, "kernel": 0.43}
REGRID_CPU_BAR, REGRID_RATE_BAR, KERNEL_BAR, CLIMATOLOGY_BAR = 4.0, 350.0, 2.0, 1.8
MEMORY_GROWTH_BAR, MEMORY_BAR, WORKERS_BAR, WIND_BAR = 1.1, 1.2, 0.65, 3.0

_CHILD = """
import json, os, resource, sys, time
from pipeline.jobs.beam_runner import beam, run_job
{imports}
source, target, options = json.loads(sys.argv[1])
# Beam imports its runner when the first job starts.
run_job("warm-up", 0, lambda pipeline: pipeline | beam.Create([0]) | beam.Reshuffle() | beam.Map(str))
start, wall = os.times(), time.perf_counter()
{work}
end = os.times()
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([sum(end[:4]) - sum(start[:4]), time.perf_counter() - wall, peak / 1e6]))
"""

_WORK = {
    "regrid": (
        "from pipeline.regrid import regrid_store\nfrom transforms.grids import Grid",
        "grids = [Grid.equiangular(*shape, poles=False) for shape in options.pop('grids')]\n"
        "also = [(f'{target}.{i}', grid, 'conservative') for i, grid in enumerate(grids[1:])]\n"
        "regrid_store(source, target, grids[0], also=also, **options)",
    ),
    "climatology": (
        "from pipeline.climatology import climatology_store",
        "climatology_store(source, target, **options)",
    ),
    "statistics": ("from pipeline.statistics import statistics_store", "statistics_store(source, target, **options)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stores", type=Path, metavar="DIR", help="folder to keep the stores in; temporary by default")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated; all by default")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns of each measurement (default 3)")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the chosen sections."""
    chosen = arguments.only or SECTIONS
    with tempfile.TemporaryDirectory() as scratch:
        stores = (arguments.stores or Path(scratch)).resolve()
        stores.mkdir(parents=True, exist_ok=True)
        sections = {
            "kernel": lambda: kernel_rows(arguments.repeats),
            "regrid": lambda: store_rows(stores, Path(scratch), arguments.repeats, chosen),
            "memory": lambda: memory_rows(stores, Path(scratch)),
            "workers": lambda: worker_rows(stores, Path(scratch), arguments.repeats),
            "winds": wind_rows,
        }
        sections["climatology"] = sections["statistics"] = sections["regrid"]
        rows, done = [], set()
        for name in SECTIONS:
            if name in chosen and sections[name] not in done:
                done.add(sections[name])
                rows += sections[name]()
        return rows


def kernel_rows(repeats: int) -> list[dict]:
    """The matrix products alone, on blocks of 20 times as the job reads them; latitude and longitude either way round."""
    regridder = Regridder(FINE, COARSE, "conservative")
    rng = np.random.default_rng(0)
    block = rng.standard_normal((20, len(LEVELS), *FINE.shape), dtype=np.float32)
    layouts = {
        "latitude, longitude": block,
        "longitude, latitude": np.ascontiguousarray(block.swapaxes(-1, -2)).swapaxes(-1, -2),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in layouts}
    for _ in range(repeats + 1):
        for name, values in layouts.items():
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(10):
                regridder(values)
            gigabytes = 10 * values.nbytes / 1e9
            rates[name].append((gigabytes / (time.process_time() - cpu), gigabytes / (time.perf_counter() - wall)))
    rows = []
    for name, measured in rates.items():
        cpu, wall = np.median(measured[1:], axis=0)
        # A rate passes when it is large: the bar is on what it is compared with.
        rows.append(
            row(f"kernel, CPU s per GB ({name})", 1 / cpu, "CPU s", 1 / OFFICIAL["kernel"], OFFICIAL["kernel"] / 2)
        )
        rows.append(row(f"kernel, wall s per GB ({name})", 1 / wall, "wall s", None))
    return rows


def store_rows(stores: Path, scratch: Path, repeats: int, chosen: list[str]) -> list[dict]:
    """A store regridded, a climatology and statistics, zarr to zarr, in turns."""
    tasks = {}
    if "regrid" in chosen:
        tasks["regrid"] = (fine_store(stores), {"grids": [COARSE.shape]})
    if "climatology" in chosen:
        tasks["climatology"] = (years_store(stores), {})
    if "statistics" in chosen:
        tasks["statistics"] = (fine_store(stores), {})
    results: dict[str, list[list[float]]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, (source, options) in tasks.items():
            results[name].append(_child(name, source, scratch / name, options))
    rows = []
    for name, measured in results.items():
        cpu, wall, peak = (statistics.median(values) for values in zip(*measured, strict=True))
        gigabytes = _values_bytes(tasks[name][0]) / 1e9
        label = f"{name}, {gigabytes:.2f} GB"
        bar = {"regrid": REGRID_CPU_BAR, "climatology": CLIMATOLOGY_BAR}.get(name)
        official = OFFICIAL.get(name)
        rows.append(row(label, cpu, "CPU s", official, bar and bar / official))
        rows.append(
            row(label, wall, "wall s", *((1e3 * gigabytes / REGRID_RATE_BAR, 1.0) if name == "regrid" else (None,)))
        )
        rows.append(row(label, peak, "GB peak", None))
    return rows


def memory_rows(stores: Path, scratch: Path) -> list[dict]:
    """Peak memory for a store and for one ten times as long."""
    peaks = {}
    for times in (TIMES, 10 * TIMES):
        source = fine_store(stores, times)
        peaks[times] = _child("regrid", source, scratch / "regridded", {"grids": [COARSE.shape]})[2]
    return [
        row(f"peak memory, {TIMES} times", peaks[TIMES], "GB", MEMORY_BAR, 1.0),
        row(f"peak memory, {10 * TIMES} times", peaks[10 * TIMES], "GB", MEMORY_BAR, 1.0),
        row("peak memory, ten times the length", peaks[10 * TIMES], "GB", peaks[TIMES], MEMORY_GROWTH_BAR),
    ]


def worker_rows(stores: Path, scratch: Path, repeats: int) -> list[dict]:
    """One and two processes of Beam's DirectRunner, each of one thread, on a job of a minute or more."""
    source = fine_store(stores, 10 * TIMES)
    # Many small grids: the time goes into reading and regridding, not into the disk.
    options = {"grids": [(rows, 2 * rows) for rows in range(32, 16, -2)]}
    threads = {"SPHERECAST_THREADS": "1"}
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(max(1, repeats // 2)):
        for workers, seconds in walls.items():
            beam = [
                "--runner=DirectRunner",
                "--direct_running_mode=multi_processing",
                f"--direct_num_workers={workers}",
            ]
            seconds.append(
                _child("regrid", source, scratch / "regridded", options | {"beam_options": beam}, threads)[1]
            )
    one, two = (statistics.median(values) for values in walls.values())
    return [row("two processes over one", two, "wall s", one, WORKERS_BAR)]


def wind_rows() -> list[dict]:
    """Largest error poleward of 80 degrees when winds are refined, as vectors and component by component."""
    rng = np.random.default_rng(1)
    refine = Regridder(COARSE, FINE, "bilinear")
    worst = {"vector": [], "component": []}
    for _ in range(20):
        fields = _smooth_wind(rng, COARSE, FINE)
        given, expected = fields
        scale = np.sqrt(np.mean(np.square(expected)))
        polar = np.abs(FINE.latitude) > 80
        for way, result in (("vector", refine.wind(*given)), ("component", tuple(map(refine, given)))):
            worst[way].append(max(np.abs(r - e)[polar].max() for r, e in zip(result, expected, strict=True)) / scale)
    vector, component = (float(np.mean(values)) for values in worst.values())
    return [row("refining winds, poleward of 80 degrees", vector, "of rms", component, 1 / WIND_BAR)]


def _smooth_wind(rng: np.random.Generator, *grids: Grid, degrees: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    """A random wind of degrees up to 12, the same one on every grid: rotational and divergent parts of equal power."""
    import jax.numpy as jnp

    from model.reference import ReferenceTransform

    coefficients = []
    for _ in range(2):
        values = rng.standard_normal((2, degrees + 1, degrees + 1))
        values *= np.tri(degrees + 1).T
        values[1, 0] = values[:, :, 0] = 0.0
        coefficients.append(jnp.asarray(values[..., None, None], jnp.float32))
    winds = []
    for grid in grids:
        u, v = ReferenceTransform(grid, degrees + 1).vectors_to_nodal(*coefficients)
        winds.append(tuple(np.asarray(part[:, :, 0, 0]).T for part in (u, v)))
    return winds


def fine_store(stores: Path, times: int = TIMES) -> Path:
    """The source at 1.5 degrees; a longer one repeats the chunks of the first as links, and costs no disk."""
    path = stores / f"fine-{times}.zarr"
    if path.exists():
        return path
    if times == TIMES:
        _fine_dataset(times).to_zarr(path, zarr_format=3, consolidated=False)
        return path
    short = fine_store(stores)
    template = _fine_dataset(times, empty=True)
    template.to_zarr(path, zarr_format=3, consolidated=False, compute=False)
    for name in VARIABLES:
        for chunk in range(times // 4):
            old = short / name / "c" / str(chunk % (TIMES // 4)) / "0/0/0"
            new = path / name / "c" / str(chunk) / "0/0/0"
            new.parent.mkdir(parents=True, exist_ok=True)
            os.link(old, new)
    return path


def _fine_dataset(times: int, empty: bool = False) -> xr.Dataset:
    """Travelling waves and a little noise, axes (time, level, longitude, latitude)."""
    import dask.array

    shape = (times, len(LEVELS), *FINE.shape[::-1])
    fields = {}
    for i, (name, (mean, spread)) in enumerate(TYPICAL.items()):
        if empty:
            fields[name] = dask.array.zeros(shape, chunks=(4, *shape[1:]), dtype=np.float32)
            continue
        rng = np.random.default_rng(100 + i)
        waves = rng.integers(1, 9, 16)
        angle = np.deg2rad(FINE.longitude)[:, None, None] * waves + rng.uniform(0, 6, 16)
        shapes = np.cos(angle) * np.cos(np.deg2rad(FINE.latitude))[:, None] ** np.minimum(waves, 3)
        moving = np.cos(np.arange(times)[:, None] * rng.normal(0.2, 0.1, 16) + rng.uniform(0, 6, 16))
        values = np.empty(shape, np.float32)
        for level in range(len(LEVELS)):
            values[:, level] = mean + spread * (1 + 0.1 * level) * (moving @ shapes.reshape(-1, 16).T).reshape(
                values[:, 0].shape
            )
            values[:, level] += 0.05 * spread * rng.standard_normal(shape[2:], dtype=np.float32)
        fields[name] = values
    coordinates = {
        "time": pd.date_range("2020-01-01", periods=times, freq="6h"),
        "level": np.array(LEVELS, np.int32),
        "longitude": FINE.longitude,
        "latitude": FINE.latitude,
    }
    dataset = xr.Dataset(
        {name: (("time", "level", "longitude", "latitude"), values) for name, values in fields.items()}, coordinates
    )
    for name in fields:
        dataset[name].encoding["chunks"] = (4, *shape[1:])
    return dataset


def years_store(stores: Path) -> Path:
    """Four years of five 6-hourly fields on 64 x 32: two variables on two levels, and one at the surface."""
    path = stores / "years.zarr"
    if path.exists():
        return path
    rng = np.random.default_rng(3)
    times = pd.date_range("2017-01-01", "2020-12-31T18", freq="6h")
    season = np.cos(2 * np.pi * times.dayofyear.to_numpy() / 365.25)[:, None, None]
    latitude = np.sin(np.deg2rad(COARSE.latitude))[None, None, :]

    def field(mean: float, spread: float) -> np.ndarray:
        noise = rng.standard_normal((times.size, *COARSE.shape[::-1]), dtype=np.float32)
        return (mean - spread * season * latitude + 0.5 * spread * noise).astype(np.float32)

    axes = ("time", "level", "longitude", "latitude")
    dataset = xr.Dataset(
        {
            "geopotential": (axes, np.stack([field(54000, 900), field(14000, 300)], axis=1)),
            "temperature": (axes, np.stack([field(260, 4), field(283, 7)], axis=1)),
            "2m_temperature": (("time", "longitude", "latitude"), field(285, 9)),
        },
        {"time": times, "level": np.array([500, 850]), "longitude": COARSE.longitude, "latitude": COARSE.latitude},
    )
    for variable in dataset.data_vars.values():
        variable.encoding["chunks"] = (1461, *variable.shape[1:])
    dataset.to_zarr(path, zarr_format=3, consolidated=False)
    return path


def _values_bytes(source: Path) -> int:
    return sum(variable.nbytes for variable in xr.open_zarr(source, consolidated=False).data_vars.values())


def _child(name: str, source: Path, target: Path, options: dict, environment: dict | None = None) -> list[float]:
    """Return CPU seconds, wall seconds and peak GB of one task in a process of its own, imports aside."""
    imports, work = _WORK[name]
    target = target.with_suffix(".nc" if name == "statistics" else ".zarr")
    for old in target.parent.glob(f"{target.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    script = _CHILD.format(imports=imports, work=work)
    command = [sys.executable, "-c", script, json.dumps([str(source), str(target), options])]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        cwd=Path(__file__).resolve().parents[1],
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("numpy", "xarray", "zarr", "tensorstore", "apache-beam"))
