"""The training loader: batches of windows on the devices that need them, the same for any number of them.

The global batch of step k is a function of the seed and k alone: windows are numbered, every epoch shuffles the numbers
anew, and batches are cut from the endless sequence. A process reads the rows of the batch, and the latitudes, that its
own devices hold. Grain's threads read ahead on the host, and one batch ahead lies on the devices.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.sharding import DATA_AXIS, SPHERE_AXIS, STATES, present, shards_of
from model.training import Batch
from pipeline.training.windows import WindowSource
from transforms.errors import InputError

__all__ = ["Loader", "Memory", "Share", "share_of"]

logger = logging.getLogger(__name__)

_MOST_AHEAD = 4
"""Batches that each worker may be ahead, where memory allows: enough to smooth over a slow read."""


@dataclass(frozen=True)
class Share:
    """What a process holds of (batch, ..., latitude, longitude).

    Attributes:
        rows: positions in the batch axis, ascending.
        latitudes: the range of latitudes, that of all its devices together.
        whole: number of rows and latitudes of the whole.
    """

    rows: np.ndarray
    latitudes: slice
    whole: tuple[int, int]

    def within(self, rows: slice, latitudes: slice) -> tuple[slice, slice]:
        """Return where a device's part, given by its bounds in the whole, lies in this share."""
        first = int(np.searchsorted(self.rows, rows.start))
        south = latitudes.start - self.latitudes.start
        return (
            slice(first, first + rows.stop - rows.start),
            slice(south, south + latitudes.stop - latitudes.start),
        )


def share_of(mesh: Mesh | None, rows: int, latitudes: int, devices: Iterable[jax.Device] | None = None) -> Share:
    """Return what `devices`, by default this process's, hold of so many rows and latitudes.

    Raises:
        ValueError: none of the devices is in the mesh.
    """
    whole = (rows, latitudes)
    if mesh is None:
        return Share(np.arange(rows), slice(0, latitudes), whole)
    sharding = NamedSharding(mesh, present(mesh, PartitionSpec(DATA_AXIS, SPHERE_AXIS)))
    devices = sharding.addressable_devices if devices is None else devices
    held = sharding.devices_indices_map(whole)
    parts = [_bounds(held[device], whole) for device in devices if device in held]
    if not parts:
        raise ValueError("mesh: none of its devices belongs to this process")
    mine = sorted({row for part, _ in parts for row in range(part.start, part.stop)})
    south, north = min(part.start for _, part in parts), max(part.stop for _, part in parts)
    return Share(np.array(mine), slice(south, north), whole)


@dataclass(frozen=True)
class Memory:
    """How a loader shares out its host memory: ``2 * cache + batches * batch_bytes + max(workers, 1) * scratch_bytes``.

    The cache counts twice: chunks that come and go leave holes in the heap, measured at up to 0.9 of what is kept.

    Attributes:
        batch_bytes: this process's part of one batch.
        batches: held at once: read ahead, one handed over, one in transfer and, where devices are the host, one in use.
        scratch_bytes: of one worker while it reads.
        workers: threads that read; 0 reads on the thread that places batches, nothing ahead of it.
        ahead: batches that the workers are ahead.
        cache_bytes: for decoded chunks: half of what is left.
    """

    batch_bytes: int
    batches: int
    scratch_bytes: int
    workers: int
    ahead: int
    cache_bytes: int

    @classmethod
    def plan(cls, total: int, batch_bytes: int, scratch_bytes: int, workers: int, *, on_host: bool) -> Memory:
        """Return the plan that reads furthest ahead with at most half of `total` bytes, or what fits at all.

        Raises:
            InputError: reading nothing ahead takes more than `total`.
        """
        fixed = 3 if on_host else 2
        for count in range(workers, 0, -1):
            for ahead in range(_MOST_AHEAD * count, count - 1, -1):
                used = (ahead + fixed) * batch_bytes + count * scratch_bytes
                if used <= total // 2:
                    return cls(batch_bytes, ahead + fixed, scratch_bytes, count, ahead, (total - used) // 2)
        used = fixed * batch_bytes + scratch_bytes
        if used > total:
            raise InputError(
                f"execution.loader_memory_mb: got {total / 1e6:.0f}, but a process holds {fixed} batches of "
                f"{batch_bytes / 1e6:.1f} MB and reads with {scratch_bytes / 1e6:.1f} MB. Set it to "
                f"{-(-used // 1_000_000)} or more, or use a smaller training.batch_size or more processes."
            )
        for ahead in (1, 0):
            more = used + ahead * batch_bytes
            if more <= total:
                return cls(batch_bytes, ahead + fixed, scratch_bytes, ahead, ahead, (total - more) // 2)
        raise AssertionError("the loop above returns at 0")


class Loader(Iterator[Batch]):
    """An endless iterator over the shuffled batches of a training, on the devices.

    Attributes:
        share: what this process reads of every batch.
        memory: how it uses its memory.
        wait_seconds: time that the consumer has waited in `next`, in all.
    """

    def __init__(
        self,
        source: WindowSource,
        *,
        global_batch: int,
        accumulate: int = 1,
        mesh: Mesh | None = None,
        seed: int = 0,
        workers: int = 2,
        memory_mb: float = 1024,
    ) -> None:
        """Plan memory; nothing is read before the first `next` or `prefetch`.

        Args:
            source: the windows; its own cache is not used.
            global_batch: windows a batch, over all processes.
            accumulate: parts of a batch: 1 gives (batch, ...), more give (accumulate, batch / accumulate, ...).
            mesh: how batches are split; None leaves them whole on the default device.
            workers: threads that read.
            memory_mb: bound on the host memory of cache, buffers and what reading takes.

        Raises:
            InputError: no window, sizes that do not divide, or too little memory.
        """
        if len(source) == 0:
            raise InputError(
                "periods.train: no window of consecutive valid times is long enough for the rollout. Extend the "
                "period, or use fewer training.stages steps."
            )
        if global_batch % accumulate:
            raise InputError(
                f"training.batch_size: got {global_batch}, expected a multiple of {accumulate} (accumulate)."
            )
        rows, latitudes = global_batch // accumulate, source.shapes.states[-2]
        _check_split(mesh, rows, accumulate, latitudes)
        self.share = share_of(mesh, rows, latitudes)
        windows = accumulate * len(self.share.rows)
        part = (self.share.latitudes.stop - self.share.latitudes.start) / latitudes
        batch_bytes = round(4 * windows * sum(prod(shape) for shape in source.shapes) * part)
        platform = mesh.devices.flat[0].platform if mesh is not None else jax.default_backend()
        self.memory = Memory.plan(
            round(memory_mb * 1e6), batch_bytes, source.scratch_bytes(windows), workers, on_host=platform == "cpu"
        )
        logger.debug("loader: %s, %s", self.share, self.memory)
        self._source = source.with_cache(self.memory.cache_bytes)
        self._mesh, self._accumulate = mesh, accumulate
        self._identity = {"windows": len(source), "global_batch": global_batch, "seed": seed}
        # As good as endless; grain's own endless length overflows in batches of one.
        order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(2**60 // len(source))
        self._order = order.batch(global_batch, batch_fn=np.array)
        reading = grain.ReadOptions(num_threads=self.memory.workers, prefetch_buffer_size=self.memory.ahead)
        self._host = iter(self._order.map(self._read).to_iter_dataset(reading))
        # One thread waits for the host's batches and places them; one placed batch ahead is what a device has room for.
        self._placer = ThreadPoolExecutor(1, thread_name_prefix="loader-place")
        self._next: Future[Batch] | None = None
        self._step = 0
        self.wait_seconds = 0.0

    def __next__(self) -> Batch:
        began = time.perf_counter()
        self.prefetch()
        assert self._next is not None
        batch = self._next.result()
        self._next = None
        self._step += 1
        self.wait_seconds += time.perf_counter() - began
        self.prefetch()
        return batch

    def prefetch(self) -> None:
        """Begin to read the next batches, where that has not begun: while a program is compiled, say."""
        if self._next is None:
            self._next = self._placer.submit(self._produce)

    def windows_of(self, step: int) -> np.ndarray:
        """Return the windows of the global batch of a step (from 0), in their order, shape (batch,)."""
        return self._order[step]

    def get_state(self) -> dict[str, Any]:
        """Return the position, plain JSON, the same in every process and for any number of them."""
        return {"step": self._step, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at.

        Raises:
            InputError: the state is another loader's: other windows, another batch or seed.
        """
        for name, expected in self._identity.items():
            if state.get(name) != expected:
                raise InputError(
                    f"loader state: {name} is {state.get(name)}, expected {expected}. The training data or the batch "
                    "have changed since the checkpoint; start the training anew or restore them."
                )
        if self._next is not None and not self._next.cancel():
            self._next.exception()  # Waits for its end.
        self._next = None
        self._step = int(state["step"])
        grain.experimental.set_next_index(self._host, self._step)

    def close(self) -> None:
        """End the threads."""
        self._placer.shutdown(wait=True, cancel_futures=True)
        self._host.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, windows: np.ndarray) -> Batch:
        """Return this process's part of the batch."""
        rows = windows.reshape(self._accumulate, -1)[:, self.share.rows]
        batch = self._source.read(rows.ravel(), self.share.latitudes)
        if self._accumulate == 1:
            return batch
        return Batch(*(values.reshape(*rows.shape, *values.shape[1:]) for values in batch))

    def _produce(self) -> Batch:
        batch = _place(Batch(*next(self._host)), self._mesh, self.share)
        # A transfer under way is waiting, too: it must end before the consumer is given the batch.
        return jax.block_until_ready(batch)


def _place(batch: Batch, mesh: Mesh | None, share: Share) -> Batch:
    """Return the global arrays of which this process has `share`; an axis ``accumulate`` may lead."""
    if mesh is None:
        return jax.device_put(batch)

    def split(values: Any) -> jax.Array:
        lead = values.ndim - 5
        spec = PartitionSpec(*[None] * lead, *present(mesh, STATES))
        shape = list(values.shape)
        shape[lead], shape[-2] = share.whole

        def part(index: Any) -> np.ndarray:
            rows, latitudes = share.within(*_bounds((index[lead], index[-2]), share.whole))
            return values[(slice(None),) * lead + (rows, ..., latitudes, slice(None))]

        return jax.make_array_from_callback(tuple(shape), NamedSharding(mesh, spec), part)

    return Batch(*map(split, batch))


def _bounds(index: tuple[slice, ...], sizes: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(*part.indices(size)[:2]) for part, size in zip(index, sizes, strict=True))


def _check_split(mesh: Mesh | None, rows: int, accumulate: int, latitudes: int) -> None:
    data = 1 if mesh is None else mesh.shape.get(DATA_AXIS, 1)
    if rows % data:
        raise InputError(
            f"training.batch_size: got {rows * accumulate}, expected a multiple of {data * accumulate} for {data} devices "
            f"that share a batch and {accumulate} parts (accumulate)."
        )
    if latitudes % shards_of(mesh):
        raise InputError(
            f"training.sphere: got {shards_of(mesh)} for {latitudes} latitudes, expected a divisor. Choose another number "
            "of devices that share a sphere, or another grid."
        )
