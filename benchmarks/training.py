"""What training costs beside its arithmetic: the loop, the loader's rate, what the consumer waits, forcings, memory.

Makes its own stores (kept in --stores for the next time), zarr v3, float32, one time a chunk: 32 x 64 points, 5 variables on
3 levels, 1536 times, 128 a shard (the quickstart's shape); and 128 x 256 points, 6 variables on 13 levels, 40 times, all in
one shard. Files are in the system's cache after the first pass. A rate passes as seconds against the slowest seconds that
are allowed; figures are medians. A ratio of at most the bar passes.

    python benchmarks/training.py --stores stores
    python benchmarks/training.py --stores stores --only loader --repeats 5
    python benchmarks/training.py --stores stores --only overhead --repeats 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from common import main, row

from model.training import Batch, Trainer, TrainState, loss_weights
from pipeline.config import RolloutStage
from pipeline.config_files import load_config
from pipeline.planning.programs import specification
from pipeline.states.layout import StateLayout
from pipeline.states.reading import StateReader
from pipeline.stores.reading import open_store
from pipeline.training.curriculum import train
from pipeline.training.loader import Loader
from pipeline.training.windows import WindowSource, window_starts
from transforms.forcings import forcing_fields
from transforms.grids import Grid
from transforms.solar import solar_position

VARIABLES = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
STEP = np.timedelta64(6, "h")
SHAPES = {
    # latitudes, longitudes, variables, levels, times, times a shard
    "32x64x15": (32, 64, VARIABLES, (250, 500, 850), 1536, 128),
    "128x256x78": (128, 256, (*VARIABLES, "vertical_velocity"), LEVELS, 40, 40),
}

UPDATES_PER_SECOND = 20.0
"""Of the quickstart's training, batch 2, 1-step rollouts, on two cores: `benchmarks/quickstart.py`."""

SEGMENT, FIXED_BATCHES, OVERHEAD_BAR = 100, 4, 1.02
FASTER_BAR, RATE_BAR, WAITING_BAR, MEMORY_MB, MEMORY_BAR = 5.0, 0.3, 0.03, 1024, 1.1

_CHILD = """
import json, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from training import memory_growth
print(json.dumps(memory_growth(Path({stores!r}))))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stores", type=Path, metavar="DIR", help="folder to keep the stores in; temporary by default")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated; all by default")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns of each measurement (default 3)")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the chosen sections."""
    with tempfile.TemporaryDirectory() as scratch:
        stores = (arguments.stores or Path(scratch)).resolve()
        stores.mkdir(parents=True, exist_ok=True)
        return [
            line
            for name, section in SECTIONS.items()
            if name in (arguments.only or SECTIONS)
            for line in section(stores, arguments.repeats)
        ]


def loader_rows(stores: Path, repeats: int) -> list[dict]:
    """Rates of the loader alone, with one worker; then what consumers wait, and its memory."""
    rows = []
    step = 1.0 / UPDATES_PER_SECOND
    for name, batch, steps in (("32x64x15", 2, 1), ("32x64x15", 2, 4), ("128x256x78", 1, 4)):
        for cache, megabytes in (("decoded", 4096), ("files", 0)):
            seconds, size = _rate(windows(stores, name, steps), batch, megabytes, repeats)
            label = f"loader, {name}, batch {batch}, {steps} step{'s' * (steps > 1)}, {cache} cached"
            rows.append(row(label, seconds / size * 1e9, "s per GB", 1.0 / RATE_BAR, 1.0))
            if name == "32x64x15" and steps == 1:
                rows.append(row(label, 1e3 * seconds, "ms a batch", 1e3 * step, 1.0 / FASTER_BAR))
    for consumer, work in (("sleeps", lambda: time.sleep(step)), ("computes", _busy(step))):
        share = _waiting(windows(stores, "32x64x15", 1), work)
        rows.append(row(f"waiting, consumer {consumer} {1e3 * step:.0f} ms", share, "of time", 1.0, WAITING_BAR))
    script = _CHILD.format(folder=str(Path(__file__).resolve().parent), stores=str(stores))
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    grown = json.loads(done.stdout.splitlines()[-1])
    rows.append(row(f"memory, 128x256x78, {MEMORY_MB} MB allowed", grown, "GB", MEMORY_MB / 1e3, MEMORY_BAR))
    return rows


def forcing_rows(stores: Path, repeats: int) -> list[dict]:
    """Radiation and clock of a batch's steps by NumPy in a worker, against the device's own, dispatch included."""
    rows = []
    for (nlat, nlon), batch, steps in (((32, 64), 2, 1), ((32, 64), 2, 4), ((128, 256), 1, 1), ((128, 256), 1, 12)):
        grid = Grid.equiangular(nlat, nlon, poles=False)
        times = np.datetime64("2001-03-01T00", "ns") + np.arange(batch * steps) * STEP
        on_device = device_forcings(grid)

        in_worker = partial(forcing_fields, times, grid, solar=True, clock=True)
        np.testing.assert_allclose(on_device(times), in_worker(), atol=2e-4)
        host = _median(in_worker, 10 * repeats)
        device = _median(lambda f=on_device, times=times: jax.block_until_ready(f(times)), 10 * repeats)
        label = f"forcings in a worker, {nlat}x{nlon}, batch {batch}, {steps} step{'s' * (steps > 1)}"
        rows.append(row(label, 1e3 * host, f"ms ({jax.default_backend()})", 1e3 * device))
    return rows


def overhead_rows(stores: Path, repeats: int) -> list[dict]:
    """The quickstart's training loop against its compiled program alone, segments of each in turns, one process.

    Checkpoints and validation, which the loop makes every few hundred updates, are not among the segments.
    """
    config = load_config("quickstart")
    spec = specification(config)
    updates = (repeats + 1) * SEGMENT
    settings = config.training.model_copy(
        update={
            "stages": [RolloutStage(steps=1, updates=updates, learning_rate=1e-4)],
            "validate_every": updates,
            "checkpoint_every": updates,
        }
    )
    turns = _Turns()

    def update(trainer: Trainer, state: TrainState, batch: Batch, original: Callable = Trainer.update) -> tuple:
        turns.before_update(trainer, state, batch, original)
        return original(trainer, state, batch)

    def following(loader: Loader, original: Callable = Loader.__next__) -> Batch:
        waited = loader.wait_seconds
        batch = original(loader)
        turns.waited += loader.wait_seconds - waited
        return batch

    def source(period: str, steps: int) -> WindowSource:
        return windows(stores, "32x64x15", steps, clock=True, empty=period != "train")

    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch.object(Trainer, "update", update),
        mock.patch.object(Loader, "__next__", following),
    ):
        train(
            spec.build(settings.seed),
            spec,
            source,
            loss_weights(spec.grid.latitude_weights(), np.ones(len(spec.layout.fields))),
            settings,
            Path(scratch) / "checkpoints",
            tensorboard=Path(scratch) / "tensorboard",
            memory_mb=config.execution.loader_memory_mb,
        )
    rows, middle = [], {}
    # Processor time holds the loader's reading, which is measured on its own.
    for kind, (unit, bar) in enumerate((("ms", OVERHEAD_BAR), ("ms CPU", None), ("ms CPU of its thread", None))):
        loop, alone = (1e3 * statistics.median(turn[kind] for turn in taken) for taken in (turns.loop, turns.alone))
        middle[kind] = loop, alone
        rows.append(row("update in the loop, over the program alone", loop, unit, alone, bar))
    own = middle[2][0] - middle[2][1]
    rows.append(row("the loop's own work, of the program alone", own, "ms CPU", middle[1][1], OVERHEAD_BAR - 1.0))
    waited = statistics.median(turn[3] / turn[0] for turn in turns.loop)
    rows.append(row("waiting for data in the loop", waited, "of time", 1.0, WAITING_BAR))
    return rows


class _Turns:
    """Interrupts a training every `SEGMENT` updates to call its program as often on a few batches.

    Attributes:
        loop: seconds of an update in each segment of the loop but the first: wall, processor, that of the loop's thread,
            and waiting for data.
        alone: the same of a call of the program in each segment between, which waits for none.
        waited: seconds that the loop has waited for data, in all.
    """

    def __init__(self) -> None:
        self.loop: list[tuple[float, ...]] = []
        self.alone: list[tuple[float, ...]] = []
        self.waited = 0.0
        self._count, self._began = 0, (0.0,) * 4
        self._batches: list[Batch] = []
        self._state: TrainState | None = None

    def before_update(self, trainer: Trainer, state: TrainState, batch: Batch, call: Callable) -> None:
        """Take a turn where one is due."""
        if len(self._batches) < FIXED_BATCHES:
            self._batches.append(batch)
        if self._count and self._count % SEGMENT == 0:
            jax.block_until_ready(state)
            now = self._now()
            if self._count > SEGMENT:
                self.loop.append(tuple((end - start) / SEGMENT for end, start in zip(now, self._began, strict=True)))
            self._call(trainer, state, call)
            self._began = self._now()
        self._count += 1

    def _call(self, trainer: Trainer, state: TrainState, call: Callable) -> None:
        alone = jax.tree.map(jnp.copy, state) if self._state is None else self._state
        jax.block_until_ready(alone)
        began = self._now()
        for number in range(SEGMENT):
            alone, _ = call(trainer, alone, self._batches[number % FIXED_BATCHES])
        jax.block_until_ready(alone)
        self.alone.append(tuple((end - start) / SEGMENT for end, start in zip(self._now(), began, strict=True)))
        self._state = alone

    def _now(self) -> tuple[float, ...]:
        return time.perf_counter(), time.process_time(), time.thread_time(), self.waited


def device_forcings(grid: Grid) -> Callable[[np.ndarray], jax.Array]:
    """Return `forcing_fields` with radiation and clock, computed by a compiled program from a few numbers a time."""
    latitude, longitude = (jnp.asarray(np.deg2rad(axis), jnp.float32) for axis in (grid.latitude, grid.longitude))

    @jax.jit
    def fields(numbers: jax.Array) -> jax.Array:
        declination, noon, distance, of_year, of_day = numbers[:, :, None, None].swapaxes(0, 1)
        hour = 2 * np.pi / 24.0
        a = jnp.sin(latitude)[:, None] * jnp.sin(declination)
        b = jnp.maximum(jnp.cos(latitude)[:, None], 1e-12) * jnp.cos(declination)
        sunset = jnp.arccos(jnp.clip(-a / b, -1.0, 1.0))
        end = jnp.mod(noon + longitude, 2 * np.pi) - np.pi
        start = jnp.mod(noon + longitude - hour, 2 * np.pi) - np.pi
        turn = jnp.where(start > end, 2 * (a * sunset + b * jnp.sin(sunset)), 0.0)
        end, start = (jnp.clip(angle, -sunset, sunset) for angle in (end, start))
        energy = a * (end - start) + b * (jnp.sin(end) - jnp.sin(start)) + turn
        solar = jnp.maximum(energy, 0.0) / (hour * distance**2)
        local = of_day + longitude
        clock = (jnp.sin(of_year), jnp.cos(of_year), jnp.sin(local), jnp.cos(local))
        return jnp.stack([jnp.broadcast_to(field, solar.shape) for field in (solar, *clock)], axis=1)

    def of(times: np.ndarray) -> jax.Array:
        declination, equation, distance = solar_position(times - np.timedelta64(30, "m"))
        of_day = 2 * np.pi * ((times - times.astype("datetime64[D]")) / np.timedelta64(1, "D"))
        year = times.astype("datetime64[Y]")
        length = (year + 1).astype("datetime64[s]") - year.astype("datetime64[s]")
        of_year = 2 * np.pi * ((times - year.astype("datetime64[ns]")) / length)
        return fields(np.stack([declination, of_day + equation, distance, of_year, of_day], axis=1).astype(np.float32))

    return of


def windows(stores: Path, name: str, steps: int, *, clock: bool = False, empty: bool = False) -> WindowSource:
    """Return all windows of a store, or none, with radiation as forcing, or radiation and clock."""
    nlat, nlon, variables, levels, count, _ = SHAPES[name]
    grid = Grid.equiangular(nlat, nlon, poles=False)
    times, path = _times(count), training_store(stores, name)
    return WindowSource(
        StateReader(open_store(path, name), StateLayout(tuple(variables), tuple(levels)), name),
        times,
        window_starts(times, np.full(count, not empty), 1 + steps, STEP, None),
        input_steps=1,
        steps=steps,
        forcing=lambda times: forcing_fields(times, grid, solar=True, clock=clock),
    )


def training_store(stores: Path, name: str) -> Path:
    """Travelling waves with noise, in the layout of a training store."""
    path = stores / f"training-{name}.zarr"
    if path.exists():
        return path
    nlat, nlon, variables, levels, count, shard = SHAPES[name]
    rng = np.random.default_rng(0)
    grid = Grid.equiangular(nlat, nlon, poles=False)
    latitude, longitude = np.deg2rad(grid.latitude), np.deg2rad(grid.longitude)
    phase = 0.1 * np.arange(count)[:, None, None, None] + np.arange(len(levels))[None, :, None, None]
    fields = {}
    for variable in variables:
        waves = (np.cos(latitude)[:, None] * np.cos(3 * longitude + phase)).astype(np.float32)
        fields[variable] = waves + 0.1 * rng.standard_normal(waves.shape, dtype=np.float32)
    dataset = xr.Dataset(
        {key: (("time", "level", "latitude", "longitude"), values) for key, values in fields.items()},
        {"time": _times(count), "level": list(levels), "latitude": grid.latitude, "longitude": grid.longitude},
    )
    space = (len(levels), nlat, nlon)
    encoding = {key: {"chunks": (1, *space), "shards": (shard, *space)} for key in fields}
    partial = path.with_suffix(".partial")
    dataset.to_zarr(partial, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    partial.rename(path)
    return path


def memory_growth(stores: Path) -> float:
    """Return by how many GB the peak of this process grows while the loader reads 100 batches."""
    source = windows(stores, "128x256x78", 1)
    with Loader(source, global_batch=1, memory_mb=100) as loader:
        next(loader)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    with Loader(source, global_batch=2, memory_mb=MEMORY_MB) as loader:
        for _ in range(100):
            next(loader)
    return (_status("VmHWM") - before) / 1e9


def _rate(source: WindowSource, batch: int, cache_mb: int, repeats: int) -> tuple[float, int]:
    """Return seconds and bytes of a batch from one worker; without a cache, of the store's files in the system's."""
    least = Loader(source, global_batch=batch, workers=1, memory_mb=4096)
    plan = least.memory
    least.close()
    megabytes = cache_mb or (plan.batches * plan.batch_bytes + plan.scratch_bytes) * 2 / 1e6
    with Loader(source, global_batch=batch, workers=1, memory_mb=megabytes) as loader:
        once, seconds = len(source) // batch + 1, []
        for _ in range(once if cache_mb else plan.batches):
            next(loader)
        count = max(5, min(200, 200_000_000 // plan.batch_bytes))
        for _ in range(repeats):
            began = time.perf_counter()
            for _ in range(count):
                next(loader)
            seconds.append((time.perf_counter() - began) / count)
    return statistics.median(seconds), plan.batch_bytes


def _waiting(source: WindowSource, work: Callable[[], None], updates: int = 100) -> float:
    with Loader(source, global_batch=2) as loader:
        next(loader)
        waited, began = loader.wait_seconds, time.perf_counter()
        for _ in range(updates):
            work()
            next(loader)
        return (loader.wait_seconds - waited) / (time.perf_counter() - began)


def _busy(seconds: float) -> Callable[[], None]:
    """Return matrix products on all cores that take so long where nothing else runs."""
    product = jax.jit(lambda x: jax.lax.fori_loop(0, 8, lambda _, y: jnp.tanh(y @ x), x))
    x = jnp.full((512, 512), 1e-3)
    once = _median(lambda: jax.block_until_ready(product(x)), 5)
    count = max(1, round(seconds / once))

    def work() -> None:
        for _ in range(count):
            jax.block_until_ready(product(x))

    return work


def _median(function: Callable[[], object], repeats: int) -> float:
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _times(count: int) -> np.ndarray:
    return pd.date_range("2001-01-01", periods=count, freq="6h").to_numpy().astype("datetime64[ns]")


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


SECTIONS: dict[str, Callable[[Path, int], list[dict]]] = {
    "overhead": overhead_rows,
    "loader": loader_rows,
    "forcings": forcing_rows,
}

if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("numpy", "jax", "grain", "tensorstore"))
