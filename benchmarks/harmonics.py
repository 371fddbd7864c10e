"""Spherical transforms and the residual block beside other packages, with their accuracy and the cost of their tables.

An n x n network has the band limit L = n / 2. Every package transforms 32 real scalars and 32 real vectors forward and
back at that band limit, on its own best grid, here L Gauss-Legendre rows of 2 L points. All run in this process on two
threads, in turns; a figure is the median over the turns, in CPU time of all threads and in wall time. A ratio of at
most the bar passes.

    python benchmarks/harmonics.py
    python benchmarks/harmonics.py --only transforms --sizes 64,128 --repeats 9

Packages that are not installed are left out: pip install torch torch_harmonics s2fft ducc0 dinosaur.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from common import main, row
from flax import nnx
from peers import BLOCKS, CHANNELS, PEERS, THREADS, Missing, fields, round_trip_error

from model.harmonics import Transform
from model.layers import ResidualBlock, to_modal
from transforms.grids import Grid

KINDS = {"scalars": "scalars", "vectors": "vectors", "both": "scalars + vectors"}
SIZES = {"transforms": (64, 128, 256), "accuracy": (64, 128, 256, 720), "tables": (256, 720), "block": (64,)}
BATCH = 4
MATRIX = 2048

SPEED_BARS = {  # least ratio of CPU time, theirs over ours
    ("torch-harmonics", "both"): {64: 4.0, 128: 4.0, 256: 3.5},
    ("s2fft", "both"): {64: 2.5, 128: 2.5, 256: 2.5},
    ("ducc0", "both"): {64: 1.5, 128: 1.5, 256: 1.5},
    ("dinosaur", "scalars"): {64: 1.1, 128: 1.1, 256: 1.1},
}
BLOCK_BARS = {("torch-harmonics", 64): 4.0}
MATRIX_SHARE_BAR = {256: 0.25}
ACCURACY_BARS = {
    "float32": {64: 3e-7, 128: 3e-7, 256: 3e-7, 720: 1e-6},
    "float64": dict.fromkeys(SIZES["accuracy"], 1e-13),
}
BUILD_BARS = {256: 1.5, 720: 30.0}

Timings = dict[Hashable, tuple[float, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", choices=list(SIZES), action="append", help="a section; may be repeated; all by default"
    )
    parser.add_argument("--sizes", type=_sizes, metavar="N,N", help="values of n instead of each section's own")
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="turns of each measurement (default 15)")
    parser.add_argument("--compiled", action="store_true", help="also measure torch-harmonics through torch.compile")


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the chosen sections."""
    _two_threads()
    sections = {
        "transforms": lambda n: transform_rows(n, arguments.repeats, arguments.compiled),
        "accuracy": accuracy_rows,
        "tables": table_rows,
        "block": lambda n: block_rows(n, arguments.repeats, arguments.compiled),
    }
    rows = []
    for name, section in sections.items():
        if arguments.only and name not in arguments.only:
            continue
        for n in arguments.sizes or SIZES[name]:
            rows += section(n)
    return rows


def _two_threads() -> None:
    """Hold every package to `THREADS` threads that sleep when they wait; before any of them starts its threads."""
    # Threads that spin after a parallel region would be charged for it, or charge it to the next function measured.
    os.environ.update(OMP_NUM_THREADS=str(THREADS), OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", KMP_BLOCKTIME="0")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def transform_rows(n: int, repeats: int, compiled: bool) -> list[dict]:
    """Time forward + inverse transforms of scalars, of vectors, and of both, and a large matrix product beside them."""
    band_limit = n // 2
    functions = {("ours", kind): pair for kind, pair in _our_pairs(band_limit).items()}
    for name, peer in _built(PEERS, compiled, band_limit):
        functions.update({(name, kind): pair for kind, pair in peer.pairs.items()})
    matrix = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    product = jax.jit(jnp.dot)
    functions["matrix product"] = lambda: jax.block_until_ready(product(matrix, matrix))
    timings = interleaved(functions, repeats)
    rows = []
    for unit, clock in (("CPU ms", 0), ("wall ms", 1)):
        for key in functions:
            name, kind = key if isinstance(key, tuple) else (key, None)
            if name in ("ours", "matrix product"):
                continue
            bar = SPEED_BARS.get(key, {}).get(n) if unit == "CPU ms" else None
            ours, theirs = timings["ours", kind][clock], timings[key][clock]
            rows.append(row(f"n={n} {KINDS[kind]}, {name}", ours, unit, theirs, bar and 1 / bar))
    rate = 2 * MATRIX**3 / timings["matrix product"][0]
    at_full_rate = transform_flops(band_limit, band_limit, CHANNELS) / rate
    ours = timings["ours", "both"][0]
    name = f"n={n} scalars + vectors, {at_full_rate / ours:.0%} of {rate / 1e6:.0f} GFLOP per CPU s in matrix products"
    bar = MATRIX_SHARE_BAR.get(n)
    return [*rows, row(name, ours, "CPU ms", at_full_rate, bar and 1 / bar)]


def transform_flops(band_limit: int, rows: int, channels: int) -> int:
    """Return the floating-point operations that forward + inverse Legendre transforms need, without the Fourier ones.

    Degrees of even and odd ``l - m`` are even and odd in latitude, so that with the rows folded upon each other every
    coefficient of order m meets rows / 2 values, by a multiplication and an addition. Of the ``band_limit - m`` degrees
    of order m a scalar has 2 parts (cosine and sine): ``2 * 2 * rows / 2 = 2 rows`` operations for each degree, order
    and channel. A vector has 2 x 2 parts (divergent and rotational), each of which meets two tables, the derivative
    along the meridian and the one along the parallel: ``4 * 2 * 2 * rows / 2 = 8 rows``.
    """
    degrees_and_orders = band_limit * (band_limit + 1) // 2
    directions = 2
    return directions * (2 + 8) * rows * degrees_and_orders * channels


def _our_pairs(band_limit: int) -> dict[str, Callable[[], object]]:
    grid = Grid.gaussian(band_limit, 2 * band_limit)
    nodal = fields(band_limit, np.sin(np.deg2rad(grid.latitude)), np.deg2rad(grid.longitude))
    # (channel, latitude, longitude) to (longitude, latitude, batch, channel).
    scalars, u, v = (jnp.asarray(x.transpose(2, 1, 0)[:, :, None, :], jnp.float32) for x in nodal)
    graph, state = nnx.split(Transform(grid, band_limit))
    arguments = {"scalars": (scalars,), "vectors": (u, v), "both": (scalars, u, v)}

    def pair(kind: str) -> Callable[[], object]:
        function = jax.jit(lambda state, nodal: _ROUND_TRIPS[kind](nnx.merge(graph, state), *nodal))
        round_trip_error("ours", function(state, arguments[kind]), arguments[kind])
        return lambda: jax.block_until_ready(function(state, arguments[kind]))

    return {kind: pair(kind) for kind in KINDS}


def _scalars_and_back(transform: Transform, scalars: jax.Array) -> tuple[jax.Array]:
    return (transform.scalars_to_nodal(transform.scalars_to_modal(scalars)),)


def _vectors_and_back(transform: Transform, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    return transform.vectors_to_nodal(*transform.vectors_to_modal(u, v))


_ROUND_TRIPS = {
    "scalars": _scalars_and_back,
    "vectors": _vectors_and_back,
    "both": lambda transform, scalars, u, v: (
        *_scalars_and_back(transform, scalars),
        *_vectors_and_back(transform, u, v),
    ),
}


def _built(factories: Mapping[str, Callable], compiled: bool, *arguments: int) -> list[tuple[str, object]]:
    """Return (name, peer) of those that can be built, telling the form of each and what is missing."""
    peers = []
    for name, factory in factories.items():
        if name.endswith("compiled") and not compiled:
            continue
        try:
            peer = factory(*arguments)
        except Missing as missing:
            print(f"left out: {missing}", flush=True)
            continue
        print(f"L={arguments[0]} {peer.label}: round trip error {peer.error:.1e}", flush=True)
        peers.append((name, peer))
    return peers


def interleaved(functions: Mapping[Hashable, Callable[[], object]], repeats: int, sample: float = 0.05) -> Timings:
    """Return (CPU ms, wall ms) per call of each function, medians over `repeats` turns in random order.

    A function is called as often in one turn as fills `sample` seconds.
    """
    calls = {}
    for key, function in functions.items():
        function()
        start = time.perf_counter()
        function()
        calls[key] = max(1, math.ceil(sample / (time.perf_counter() - start)))
    seconds = {key: [] for key in functions}
    order = list(functions)
    shuffle = random.Random(1).shuffle
    for _ in range(repeats):
        shuffle(order)
        for key in order:
            # Let the threads of the one before go to sleep.
            time.sleep(0.005)
            function = functions[key]
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(calls[key]):
                function()
            seconds[key].append(((time.process_time() - cpu) / calls[key], (time.perf_counter() - wall) / calls[key]))
    return {key: tuple(1e3 * np.median(values, axis=0)) for key, values in seconds.items()}


def accuracy_rows(n: int) -> list[dict]:
    """Round trips of random coefficients, the worse of scalars and vectors, in both precisions."""
    rows = []
    for dtype, bars in ACCURACY_BARS.items():
        with jax.enable_x64(dtype == "float64"):
            try:
                error = _round_trip(n // 2, jnp.dtype(dtype))
            except TypeError as refused:
                print(f"left out: n={n} round trip in {dtype}: {refused}", flush=True)
                continue
        peer = bars.get(n)
        rows.append(row(f"n={n} round trip, {dtype}", error, "relative L2", peer, peer and 1.0))
    return rows


def _round_trip(band_limit: int, dtype: jnp.dtype) -> float:
    grid = Grid.gaussian(band_limit, 2 * band_limit)
    keywords = {} if dtype == jnp.float32 else {"dtype": dtype}
    graph, state = nnx.split(Transform(grid, band_limit, **keywords))

    @jax.jit
    def errors(state, noise):
        transform = nnx.merge(graph, state)
        # The coefficients of noise are random and as large at all degrees.
        modal = transform.scalars_to_modal(noise[0]), *transform.vectors_to_modal(*noise[1:])
        nodal = transform.scalars_to_nodal(modal[0]), *transform.vectors_to_nodal(*modal[1:])
        again = transform.scalars_to_modal(nodal[0]), *transform.vectors_to_modal(*nodal[1:])
        scalars, *vectors = [(jnp.sum((x - y) ** 2), jnp.sum(y**2)) for x, y in zip(again, modal, strict=True)]
        return [
            jnp.sqrt(sum(part[0] for part in parts) / sum(part[1] for part in parts)) for parts in ([scalars], vectors)
        ]

    noise = jax.random.normal(jax.random.key(0), (3, 2 * band_limit, band_limit, 1, 4), dtype)
    return max(float(error) for error in errors(state, noise))


_BUILD = """
import sys, time
import jax
from flax import nnx
from model.harmonics import Transform
from transforms.grids import Grid
band_limit = int(sys.argv[1])
jax.block_until_ready(jax.numpy.zeros(1) + 1)
grid = Grid.gaussian(band_limit, 2 * band_limit)
start = time.perf_counter()
tables = jax.tree.leaves(nnx.state(Transform(grid, band_limit)))
jax.block_until_ready(tables)
print(time.perf_counter() - start, sum(table.nbytes for table in tables))
"""


def table_rows(n: int) -> list[dict]:
    """Time the building of a transform in a new process, without and with its tables on disk, and count their bytes."""
    band_limit = n // 2
    cold, size = _build(band_limit, "")
    with tempfile.TemporaryDirectory() as cache:
        _build(band_limit, cache)
        warm, _ = _build(band_limit, cache)
    # L * L * H / 2 for scalars and L * L * H for vectors, H = L; forward and inverse share them.
    allowed = 4 * 3 * band_limit**3 // 2
    peer = BUILD_BARS.get(n)
    return [
        row(f"n={n} tables, built", cold, "s wall", peer, peer and 1.0),
        row(f"n={n} tables, read from the cache", warm, "s wall", cold),
        row(f"n={n} tables and all other constants", size / 1e6, "MB", allowed / 1e6, 1.0),
    ]


def _build(band_limit: int, cache: str) -> tuple[float, int]:
    command = [sys.executable, "-c", _BUILD, str(band_limit)]
    environment = {**os.environ, "SPHERECAST_CACHE": cache}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    seconds, size = result.stdout.split()
    return float(seconds), int(size)


def block_rows(n: int, repeats: int, compiled: bool) -> list[dict]:
    """Time a residual block forward and backward, and one transform pair of the same batch without gradients."""
    band_limit = n // 2
    functions = {("ours", name): function for name, function in _our_block(band_limit).items()}
    for name, peer in _built(BLOCKS, compiled, band_limit, BATCH):
        functions.update({(name, kind): function for kind, function in peer.pairs.items()})
    timings = interleaved(functions, repeats)
    rows = []
    for unit, clock in (("CPU ms", 0), ("wall ms", 1)):
        for name, kind in functions:
            if kind == "block" and name != "ours":
                bar = BLOCK_BARS.get((name, n)) if unit == "CPU ms" else None
                ours, theirs = timings["ours", "block"][clock], timings[name, "block"][clock]
                rows.append(row(f"n={n} block, {name}", ours, unit, theirs, bar and 1 / bar))
    for name in dict.fromkeys(name for name, _ in functions):
        block, pair = timings[name, "block"][0], timings[name, "both"][0]
        rows.append(row(f"n={n} block over its transform pair, {name}", block, "CPU ms", pair))
    return rows


def _our_block(band_limit: int) -> dict[str, Callable[[], object]]:
    grid = Grid.gaussian(band_limit, 2 * band_limit)
    transform = Transform(grid, band_limit)
    block = ResidualBlock(
        transform,
        CHANNELS,
        CHANNELS,
        nonlinearity="phase_collapse",
        knots=None,
        normalisation="sample",
        rngs=nnx.Rngs(0),
    )
    nodal = jax.random.normal(jax.random.key(0), (3, 2 * band_limit, band_limit, BATCH, CHANNELS))
    graph, parameters, constants = nnx.split(block, nnx.Param, ...)
    transform_graph, transform_state = nnx.split(transform)
    modal = jax.jit(lambda nodal: to_modal(transform, *nodal))(nodal)

    @jax.jit
    def step(parameters, constants, modal, cotangent):
        def loss(parameters, modal):
            return jnp.vdot(cotangent, nnx.merge(graph, parameters, constants)(modal))

        return jax.grad(loss, (0, 1))(parameters, modal)

    @jax.jit
    def pair(state, nodal):
        return _ROUND_TRIPS["both"](nnx.merge(transform_graph, state), *nodal)

    return {
        "block": lambda: jax.block_until_ready(step(parameters, constants, modal, modal)),
        "both": lambda: jax.block_until_ready(pair(transform_state, nodal)),
    }


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, ("numpy", "jax", "torch", "torch-harmonics", "s2fft", "ducc0", "dinosaur"))
