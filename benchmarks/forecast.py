"""What a forecast costs beside the model's arithmetic: writing, memory, and what a killed one leaves.

The quickstart's network with random parameters forecasts random fields of a realistic spectrum, on the quickstart's grid. The
same compiled program runs the same blocks with and without writing, in turns, medians; what is compared are walls and, since
other work on the machine weighs less there, CPU seconds of all threads. Memory is the peak of a process of its own after it has compiled.

    python benchmarks/forecast.py
    python benchmarks/forecast.py --only writing --repeats 9
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from common import main, row
from flax import nnx

from model.random_fields import RandomFields, gaussian_spectrum
from model.training import loss_weights
from pipeline.artefacts import describe, write_description
from pipeline.config_files import load_config
from pipeline.forecast import forecast_store
from pipeline.forecasting.integration import Integration
from pipeline.forecasting.writing import forecast_content, lay_out
from pipeline.objects import Objects
from pipeline.planning.programs import specification
from pipeline.states.reading import StateReader
from pipeline.training.checkpoints import CheckpointStore, Choice, load_trained
from pipeline.training.curriculum import configured_trainer

CONFIG = "quickstart"
INITIAL, LEADS, BATCH, TIMES, MEMORY_MB = 40, 40, 8, 120, 1024
WALL_BAR, MEMORY_BAR = 1.15, 1.05
_STEP = np.timedelta64(6, "h")
_START = np.datetime64("2001-01-01", "ns")

_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import forecast
forecast.{call}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated; all by default")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns of each measurement (default 5)")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the chosen sections."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # Children compile what this process has compiled.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
        prepare(folder)
        return [
            line
            for name, section in SECTIONS.items()
            if name in (arguments.only or SECTIONS)
            for line in section(folder, arguments.repeats)
        ]


def prepare(folder: Path) -> None:
    """Write a checkpoint and states to start from."""
    config = load_config(CONFIG)
    spec = specification(config)
    spec = replace(spec, normalisation=replace(spec.normalisation, tendency_std=0.02 * spec.normalisation.std))
    model = spec.build(0)
    rng = np.random.default_rng(0)
    # The decoder starts at zero, and states that do not change would be written faster.
    values = jax.tree.map(lambda leaf: leaf + 0.02 * rng.normal(size=leaf.shape), nnx.state(model, nnx.Param))
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype("float32"), values))
    weights = loss_weights(spec.grid.latitude_weights(), np.ones(len(spec.layout.fields)))
    trainer = configured_trainer(model, weights, config.training, config.training.stages[0], None)
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    spec.save(checkpoints)
    store = CheckpointStore(checkpoints)
    store.save(1, trainer.init(nnx.state(model, nnx.Param)), {})
    store.close()
    write_description(checkpoints, describe("checkpoint", "benchmark"))
    fields = RandomFields(spec.grid, gaussian_spectrum(spec.grid.shape[0], 800.0))
    axes, levels = ("time", "level", "latitude", "longitude"), list(spec.layout.levels)
    states = {}
    for name in spec.layout.variables:
        draws = fields.scalars(rng.standard_normal((TIMES * len(levels), fields.normals)))
        states[name] = (axes, draws.reshape(TIMES, len(levels), *spec.grid.shape))
    coordinates = {"time": _START + np.arange(TIMES) * _STEP, "level": levels}
    grid = {"latitude": spec.grid.latitude, "longitude": spec.grid.longitude}
    xr.Dataset(states, coordinates | grid).to_zarr(folder / "states.zarr", zarr_format=2)


def writing_rows(folder: Path, repeats: int) -> list[dict]:
    """Wall and CPU seconds of a forecast from initial states to a finished store, against its program alone."""
    (model,) = load_trained([Choice(folder / "checkpoints")])
    spec, states = model.spec, xr.open_zarr(folder / "states.zarr").load()
    work = Integration(
        [model],
        StateReader(states, spec.layout, "states"),
        states.time.values[:INITIAL],
        np.arange(INITIAL)[:, None],
        [0],
        False,
        None,
        list(range(len(spec.layout.fields))),
        list(range(1, LEADS + 1)),
    )
    coordinates = {
        "level": np.array(spec.layout.levels),
        "latitude": spec.grid.latitude,
        "longitude": spec.grid.longitude,
    }
    content = forecast_content(work.initial, np.array(work.steps) * _STEP, spec.layout.variables, coordinates, {}, {})
    written = sum(array.nbytes for array in content.data_vars.values())
    batches = list(work.batches(BATCH))
    store = lay_out(content, "job", Objects(str(folder / "out.zarr")))
    held = sum(array.value_bytes for array in store.arrays.values())
    length = work.block_steps(BATCH, MEMORY_MB * 1e6, held)
    inputs = [
        (work.history(b), [work.forcings(b, first, length) for first in range(0, LEADS, length)]) for b in batches
    ]
    program = work.programs[id(model.graph)]

    def compute() -> None:
        for history, blocks in inputs:
            for forcings in blocks:
                history, block = program(model.state, history, forcings)
                jax.block_until_ready(block.states)

    def forecast() -> None:
        store.objects.remove()
        store.start()
        work.run(store, BATCH, MEMORY_MB * 1e6, resumed=False)

    seconds: dict[Callable[[], None], list[tuple[float, float]]] = {compute: [], forecast: []}
    for turn in range(repeats + 1):
        for function, found in seconds.items():
            wall, processor = time.perf_counter(), time.process_time()
            function()
            if turn:
                found.append((time.perf_counter() - wall, time.process_time() - processor))
    assert np.isfinite(xr.open_zarr(folder / "out.zarr").geopotential[-1, -1]).all()
    medians = {
        function: [statistics.median(column) for column in zip(*found, strict=True)]
        for function, found in seconds.items()
    }
    label = f"forecast written, {INITIAL} initial times x {LEADS} leads, {written / 1e6:.0f} MB"
    size = sum(path.stat().st_size for path in (folder / "out.zarr").rglob("*") if path.is_file())
    return [
        row(label, medians[forecast][0], "s wall", medians[compute][0], WALL_BAR),
        row(label, medians[forecast][1], "CPU s", medians[compute][1]),
        row("on disk", size / 1e6, "MB", written / 1e6),
    ]


def memory_rows(folder: Path, repeats: int) -> list[dict]:
    """Peak memory with ten times as many leads, and ten times as many initial times."""
    few = _peak(folder, BATCH, LEADS)
    return [
        row(
            f"peak memory, {BATCH} initial times x {10 * LEADS} leads",
            _peak(folder, BATCH, 10 * LEADS),
            "MB",
            few,
            MEMORY_BAR,
        ),
        row(
            f"peak memory, {10 * BATCH} initial times x {LEADS} leads",
            _peak(folder, 10 * BATCH, LEADS),
            "MB",
            few,
            MEMORY_BAR,
        ),
    ]


def print_peak(folder: str, initial: int, leads: int) -> None:
    """Forecast once to compile, then as asked, and print the peak of the second in MB."""
    write(folder, BATCH, LEADS, "first.zarr")
    Path("/proc/self/clear_refs").write_text("5")
    write(folder, initial, leads, "second.zarr")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) / 1024)


def killed_rows(folder: Path, repeats: int) -> list[dict]:
    """Objects that differ from an uninterrupted forecast, after one was killed half way and started again."""
    write(str(folder), INITIAL, LEADS, "whole.zarr")
    whole = _contents(folder / "whole.zarr")
    partial = folder / ".partial-killed.zarr"
    process = _start(f"write({str(folder)!r}, {INITIAL}, {LEADS}, 'killed.zarr')")
    while process.poll() is None and len(list(partial.rglob("c.*"))) < len(whole) // 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(_contents(partial))
    write(str(folder), INITIAL, LEADS, "killed.zarr")
    again = _contents(folder / "killed.zarr")
    differ = sum(again.get(key) != data for key, data in whole.items()) + len(again.keys() - whole.keys())
    return [row(f"objects that differ, kill -9 with {left} of them written", differ, "of", len(whole), 0.0)]


def write(folder: str, initial: int, leads: int, name: str) -> None:
    """Write a forecast into the folder."""
    times = (_START + np.arange(initial) * _STEP).astype("datetime64[s]").tolist()
    base = Path(folder)
    options = {"lead_hours": 6 * leads, "batch_size": BATCH, "memory_mb": MEMORY_MB}
    forecast_store(base / "checkpoints", base / "states.zarr", base / name, initial_times=times, **options)


def _peak(folder: Path, initial: int, leads: int) -> float:
    process = _start(f"print_peak({str(folder)!r}, {initial}, {leads})")
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the process that measures memory ended with status {process.returncode}")
    return float(output.splitlines()[-1])


def _start(call: str) -> subprocess.Popen:
    script = _CHILD.format(folder=str(Path(__file__).resolve().parent), call=call)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


SECTIONS: dict[str, Callable[[Path, int], list[dict]]] = {
    "writing": writing_rows,
    "memory": memory_rows,
    "killed": killed_rows,
}

if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("numpy", "jax", "tensorstore"))
