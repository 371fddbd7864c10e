"""The loader gives the same batches however many processes and devices share them, within its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from model.sharding import make_mesh
from model.training import Batch
from pipeline.states.layout import StateLayout
from pipeline.states.reading import StateReader
from pipeline.stores.reading import open_store
from pipeline.training.loader import Loader, Memory, Share, share_of
from pipeline.training.windows import WindowSource, window_starts
from transforms.errors import InputError

STEP = np.timedelta64(6, "h")
GAPS = np.concatenate([np.arange(30), np.arange(50, 75), np.arange(90, 100)])
TIMES = np.datetime64("2018-09-14T18", "ns") + GAPS * STEP
LAYOUT = StateLayout(("temperature", "10m_u_component_of_wind", "10m_v_component_of_wind"), (500, 850))
NLAT, NLON = 8, 16


def make_store(path: Path, times_per_chunk: int = 1) -> Path:
    """Every value tells its time, channel and place: time in units of 1, channel of 1/8, place within 1/8."""
    shape = (len(TIMES), 2, NLAT, NLON)
    place_ = np.arange(NLAT * NLON).reshape(NLAT, NLON) / (8.0 * NLAT * NLON)
    value = (GAPS[:, None, None, None] + np.arange(4)[:, None, None] / 8.0 + place_).astype("f4")
    surface = ("time", "latitude", "longitude")
    fields = {
        "temperature": (("time", "level", *surface[1:]), value[:, :2]),
        "10m_u_component_of_wind": (surface, value[:, 2]),
        "10m_v_component_of_wind": (surface, value[:, 3]),
    }
    encoding = {
        n: {"chunks": (times_per_chunk, *v[1].shape[1:]), "shards": (15, *v[1].shape[1:])} for n, v in fields.items()
    }
    axes = {"time": TIMES, "level": [500, 850], "latitude": np.arange(NLAT), "longitude": np.arange(NLON)}
    xr.Dataset(fields, axes).to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    assert shape[1:] == fields["temperature"][1].shape[1:]
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("loader") / "training.zarr")


def forcing(times: np.ndarray) -> np.ndarray:
    hours = ((times - TIMES[0]) / STEP).astype("f4")
    return hours[:, None, None, None] + np.arange(2, dtype="f4")[:, None, None] / 4 + np.zeros((NLAT, NLON), "f4")


def source(store: Path, steps: int = 2, input_steps: int = 2) -> WindowSource:
    valid = np.ones(len(TIMES), bool)
    valid[10] = False
    starts = window_starts(TIMES, valid, input_steps + steps, STEP, None)
    reader = StateReader(open_store(store, "store"), LAYOUT, "store")
    return WindowSource(reader, TIMES, starts, input_steps=input_steps, steps=steps, forcing=forcing)


def take(loader: Loader, count: int) -> list[Batch]:
    return [Batch(*map(np.asarray, next(loader))) for _ in range(count)]


def assert_same(one: Batch, two: Batch) -> None:
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_batch_is_the_windows_of_its_step_and_crosses_no_gap(store: Path):
    windows = source(store)
    with Loader(windows, global_batch=4, seed=3, memory_mb=10) as loader:
        order = [loader.windows_of(step) for step in range(30)]
        got = take(loader, 30)
    for numbers, batch in zip(order, got, strict=True):
        assert_same(batch, windows.read(numbers))
        times = np.floor(batch.states[:, :, 0, 0, 0])
        assert (np.diff(times, axis=1) == 1).all()
        assert not (times == 10).any()
        np.testing.assert_array_equal(batch.forcings[:, :, 0, 0, 0], times[:, 1:3])
    with Loader(windows, global_batch=4, seed=3, memory_mb=10, workers=1) as again:
        assert_same(take(again, 3)[2], got[2])
    with Loader(windows, global_batch=4, seed=4, memory_mb=10) as other:
        assert not np.array_equal(other.windows_of(0), order[0])


def test_every_epoch_has_every_window_once_in_another_order(store: Path):
    windows = source(store)
    with Loader(windows, global_batch=len(windows), seed=1) as loader:
        one, two = loader.windows_of(0), loader.windows_of(1)
    assert sorted(one) == sorted(two) == list(range(len(windows)))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_all_processes_make_the_batch(store: Path, monkeypatch, processes: int, accumulate: int):
    """Rows and latitudes as processes would hold them: each a pair of rows, two of them sharing spheres if four."""
    windows, batch = source(store), 8
    rows, split = batch // accumulate, 2 if processes == 4 else 1
    data = processes // split
    with Loader(windows, global_batch=batch, accumulate=accumulate, seed=5) as loader:
        expected = take(loader, 3)
    lead = (slice(None),) * (accumulate > 1)
    whole = [Batch(*(np.full_like(part, np.nan) for part in batch)) for batch in expected]
    for process in range(processes):
        row, south = process // split * (rows // data), process % split * (NLAT // split)
        share = Share(np.arange(row, row + rows // data), slice(south, south + NLAT // split), (rows, NLAT))
        monkeypatch.setattr("pipeline.training.loader.share_of", lambda *_, share=share: share)
        with Loader(windows, global_batch=batch, accumulate=accumulate, seed=5) as loader:
            assert loader.memory.batch_bytes == sum(part.nbytes for part in expected[0]) // processes
            for target, got in zip(whole, take(loader, 3), strict=True):
                for to, part in zip(target, got, strict=True):
                    to[(*lead, share.rows, ..., share.latitudes, slice(None))] = part
    for got, batch in zip(whole, expected, strict=True):
        assert_same(got, batch)


def test_state_is_plain_and_goes_on_bit_for_bit(store: Path, monkeypatch):
    windows = source(store)
    with Loader(windows, global_batch=4, seed=1) as loader:
        assert loader.get_state()["step"] == 0
        take(loader, 5)
        state = json.loads(json.dumps(loader.get_state()))
        following = take(loader, 6)
        loader.set_state(state)  # Also from a later position, with batches on their way.
        assert_same(take(loader, 1)[0], following[0])
    share = Share(np.array([2, 3]), slice(0, NLAT), (4, NLAT))
    for part in (None, share):
        if part:
            monkeypatch.setattr("pipeline.training.loader.share_of", lambda *_: share)
        with Loader(windows, global_batch=4, seed=1, workers=1) as again:
            again.set_state(state)
            for got, batch in zip(take(again, 6), following, strict=True):
                assert_same(got, batch if part is None else Batch(*(values[2:] for values in batch)))
    with (
        Loader(source(store, steps=3), global_batch=4, seed=1) as other,
        pytest.raises(InputError, match=r"loader state: windows is \d+, expected \d+"),
    ):
        other.set_state(state)


def test_without_threads_batches_are_the_same(store: Path):
    """Little memory reads nothing ahead."""
    windows = source(store)
    with Loader(windows, global_batch=1, seed=1) as loader:
        expected = take(loader, 4)
    scarce = 3 * loader.memory.batch_bytes + loader.memory.scratch_bytes
    with Loader(windows, global_batch=1, seed=1, memory_mb=scarce / 1e6) as loader:
        assert loader.memory.workers == loader.memory.ahead == loader.memory.cache_bytes == 0
        take(loader, 2)
        loader.set_state({**loader.get_state(), "step": 1})
        for got, batch in zip(take(loader, 3), expected[1:], strict=True):
            assert_same(got, batch)


def test_waiting_is_counted_and_only_waiting(store: Path):
    windows = source(store)
    with Loader(windows, global_batch=2) as loader:
        loader.prefetch()
        for _ in range(10):
            time.sleep(0.05)
            next(loader)
        assert loader.wait_seconds < 0.25
        slow = loader._source.read
        loader._source.read = lambda *arguments: time.sleep(0.2) or slow(*arguments)
        before = loader.wait_seconds
        take(loader, 14)
        assert loader.wait_seconds > before + 0.2


def test_a_read_that_fails_is_the_consumers_error(store: Path):
    windows = source(store)
    with Loader(windows, global_batch=2, workers=1) as loader:

        def fail(*arguments):
            raise OSError("gone")

        loader._source.read = fail
        with pytest.raises(OSError, match="gone"):
            next(loader)


def test_sizes_that_do_not_fit_are_named(store: Path):
    windows = source(store)
    with pytest.raises(InputError, match=r"periods.train: no window"):
        Loader(source(store, steps=40), global_batch=2)
    with pytest.raises(InputError, match=r"training.batch_size: got 3, expected a multiple of 2"):
        Loader(windows, global_batch=3, accumulate=2)
    with pytest.raises(
        InputError, match=r"loader_memory_mb: got 1, but a process holds 3 batches of 20.5 MB .* Set it to 99 or"
    ):
        Loader(windows, global_batch=2000, memory_mb=1)


def test_memory_adds_up():
    for total in (10, 20, 40, 100, 1000):
        for on_host in (True, False):
            plan = Memory.plan(total, 2, 3, 4, on_host=on_host)
            used = plan.batches * plan.batch_bytes + max(1, plan.workers) * plan.scratch_bytes
            assert used + 2 * plan.cache_bytes in (total, total - 1)
            assert plan.batches == plan.ahead + (3 if on_host else 2)
    assert Memory.plan(1000, 2, 3, 4, on_host=True).ahead == 16
    with pytest.raises(InputError, match="Set it to"):
        Memory.plan(8, 2, 3, 4, on_host=True)


@pytest.mark.parametrize("times_per_chunk", [1, 5])
def test_latitudes_and_chunks_of_several_times(tmp_path: Path, times_per_chunk: int):
    windows = source(make_store(tmp_path / "store.zarr", times_per_chunk))
    whole = windows.read([3, 17, 5])
    for latitudes in (slice(0, 4), slice(3, 8)):
        part = windows.read([3, 17, 5], latitudes)
        assert_same(part, Batch(*(values[..., latitudes, :] for values in whole)))
    assert_same(Batch(*(values[1] for values in whole)), windows[17])
    assert windows._reader.times_touched(4) == {1: 4, 5: 10}[times_per_chunk]


def test_host_memory_is_bounded(tmp_path: Path):
    """A process that reads a store of 210 MB with 100 MB grows by no more than those, and a quarter for the heap."""
    script = [sys.executable, __file__, "memory", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-2000:]


def test_batches_on_a_mesh_are_those_of_one_device():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, __file__, "mesh"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def on_meshes() -> None:
    """Compare batches of every split of eight devices; and shares of processes of two and four devices."""
    import tempfile

    store = make_store(Path(tempfile.mkdtemp()) / "training.zarr")
    windows, devices = source(store), jax.devices()
    assert len(devices) == 8
    for accumulate in (1, 2):
        with Loader(windows, global_batch=16, accumulate=accumulate, seed=2) as loader:
            expected = take(loader, 3)
        for sphere in (1, 2, 8):
            mesh = make_mesh(devices, sphere)
            with Loader(windows, global_batch=16, accumulate=accumulate, mesh=mesh, seed=2) as loader:
                batches = [next(loader) for _ in range(3)]
            for got, batch in zip(batches, expected, strict=True):
                assert_same(got, batch)
                local = got.states.sharding.shard_shape(got.states.shape)[accumulate > 1 :]
                assert local == (16 // accumulate // (8 // sphere), 4, 4, NLAT // sphere, NLON)
    for sphere in (1, 2, 8):
        mesh = make_mesh(devices, sphere)
        for size in (2, 4):
            shares = [share_of(mesh, 8, NLAT, devices[first : first + size]) for first in range(0, 8, size)]
            held = sum(len(s.rows) * (s.latitudes.stop - s.latitudes.start) for s in shares)
            assert held == 8 * NLAT, (sphere, size, shares)  # Nothing is read twice.
    # Devices of a process that are not neighbours.
    share = share_of(make_mesh(devices, 1), 16, NLAT, [devices[1], devices[6]])
    assert share.rows.tolist() == [2, 3, 12, 13]
    assert share.within(slice(12, 14), slice(0, NLAT)) == (slice(2, 4), slice(0, NLAT))
    with pytest.raises(InputError, match="got 12, expected a multiple of 8 for 8 devices"):
        Loader(windows, global_batch=12, mesh=make_mesh(devices, 1))


def within_memory(folder: Path) -> None:
    """Read more than the bound at random, and compare the growth of the process's peak with the bound."""
    times = np.datetime64("2018-01-01", "ns") + np.arange(400) * STEP
    layout, store = StateLayout(("2m_temperature",), ()), folder / "large.zarr"
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 256, 512), np.float32)
    fields = {"2m_temperature": (("time", "latitude", "longitude"), values)}
    encoding = {"2m_temperature": {"chunks": (1, 256, 512), "shards": (40, 256, 512), "compressors": None}}
    axes = {"time": times, "latitude": np.arange(256), "longitude": np.arange(512) / 2}
    xr.Dataset(fields, axes).to_zarr(store, zarr_format=3, consolidated=False, encoding=encoding)
    jax.block_until_ready(jax.numpy.ones(3) + 1)
    starts = window_starts(times, np.ones(400, bool), 3, STEP, None)
    reader = StateReader(open_store(store, "store"), layout, "store")

    def no_forcing(times: np.ndarray) -> np.ndarray:
        return np.zeros((len(times), 1, 256, 512), np.float32)

    windows = WindowSource(reader, times, starts, input_steps=1, steps=2, forcing=no_forcing)
    del values, fields
    with Loader(windows, global_batch=1, memory_mb=40) as loader:
        next(loader)
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
    before = _status("VmRSS")
    with Loader(windows, global_batch=2, memory_mb=100) as loader:
        for _ in range(120):
            next(loader)
    grown = (_status("VmHWM") - before) / 1e6
    assert grown < 125, (grown, loader.memory)


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    on_meshes() if sys.argv[1] == "mesh" else within_memory(Path(sys.argv[2]))
