"""How far the layers are from commuting with rotations, on every hidden grid.

Random coefficients are rotated, exactly, before a layer or after it. Value is the norm of the difference relative to the
norm of the result, over all rotations together; peer is the largest error allowed. Linear layers and norms commute with
rotations but for rounding. A pointwise nonlinearity makes degrees beyond the band limit L, which a grid cannot tell from
lower ones entirely: that aliasing is what the hidden grids differ in. `branch` is the block without the residual
connection, that is, what the block adds to its input.

Inputs have unit variance, as blocks see them. Their spectra: `white`, equal variance at all coefficients, so that most
of the power is at the highest degrees; `red`, standard deviation (1 + l)**-1.5, so that the power of a degree falls as
l**-2. Filters have independent random matrices at all degrees; in the block they are as initialised, equal at all.

    python benchmarks/equivariance.py --markdown
    python benchmarks/equivariance.py --band-limits 64 --rotations 2
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import main, row
from flax import nnx
from scipy.spatial.transform import Rotation

from model.harmonics import Transform
from model.layers import (
    Decoder,
    Encoder,
    Features,
    ResidualBlock,
    SpectralBatchNorm,
    SpectralNorm,
    ZonalFilter,
    to_modal,
    to_nodal,
    truncate,
    zero_pad,
)
from transforms.grids import Grid

LINEAR_BAR = 1e-5
BLOCK_BAR = 1e-2
FEATURES = Features(8, 4)
DATA = Features(3, 1)
BATCH = 2
SPECTRA = {"white": 0.0, "red": 1.5}
DEALIASED = "Gauss 3L/2 x 3L"
HIDDEN_GRIDS: dict[str, Callable[[int], Grid]] = {
    "Gauss L x 2L": lambda limit: Grid.gaussian(limit),
    DEALIASED: lambda limit: Grid.gaussian(3 * limit // 2),
    "Gauss 2L x 4L": lambda limit: Grid.gaussian(2 * limit),
    "equiangular L x 2L": lambda limit: Grid.equiangular(limit, 2 * limit, poles=False),
    "equiangular (L + 1) x 2L, poles": lambda limit: Grid.equiangular(limit + 1, 2 * limit, poles=True),
    "equiangular 2L x 4L": lambda limit: Grid.equiangular(2 * limit, 4 * limit, poles=False),
    "equiangular (2L + 1) x 4L, poles": lambda limit: Grid.equiangular(2 * limit + 1, 4 * limit, poles=True),
}
"""By latitudes x longitudes."""

Layer = Callable[[jax.Array], jax.Array]


def _rotations() -> object:
    path = Path(__file__).resolve().parents[1] / "tests" / "model" / "rotations.py"
    spec = importlib.util.spec_from_file_location("rotations", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rotate = _rotations().rotate


def random_features(features: Features, band_limit: int, decay: float) -> jax.Array:
    """Return coefficients (part, m, l, batch, channel) of a standard deviation in proportion to (1 + l)**-decay."""
    values = np.random.default_rng(0).normal(size=(2, band_limit, band_limit, BATCH, features.channels))
    m, degree = np.meshgrid(np.arange(band_limit), np.arange(band_limit), indexing="ij")
    values *= (np.where(degree < m, 0.0, 1.0) * (1.0 + degree) ** -decay)[None, :, :, None, None]
    values[1, 0] = 0.0
    values[:, :, 0, :, features.scalars :] = 0.0
    # The mean square of a channel is one; of a vector, its two kinds of coefficients have a half each.
    values /= np.sqrt((values**2).sum((0, 1, 2)))
    values[..., features.scalars :] *= np.sqrt(0.5)
    return jnp.asarray(values, jnp.float32)


def linear_layers(band_limit: int) -> Iterator[tuple[str, Features, Features, Layer]]:
    """Yield name, inputs, outputs and layer of all that should commute with rotations but for rounding."""
    rngs = nnx.Rngs(0)

    def randomised(layer: ZonalFilter) -> ZonalFilter:
        weights = nnx.state(layer, nnx.Param)
        nnx.update(layer, jax.tree.map(lambda weight: jax.random.normal(rngs.params(), weight.shape), weights))
        return layer

    for name, options in {"": {}, ", 6 knots": {"knots": 6}, ", mirror-symmetric": {"mirror_symmetric": True}}.items():
        layer = ZonalFilter(band_limit, FEATURES, FEATURES, **options, rngs=rngs)
        yield f"filter{name}", FEATURES, FEATURES, randomised(layer)
    yield "norm of samples", FEATURES, FEATURES, SpectralNorm(*FEATURES)
    batch_norm = SpectralBatchNorm(*FEATURES)
    # A copy inside the compiled function keeps its running averages there.
    yield "norm of batches", FEATURES, FEATURES, lambda modal: nnx.clone(batch_norm)(modal)
    yield "pooling", FEATURES, FEATURES, lambda modal: truncate(modal, band_limit // 2)
    yield "unpooling", FEATURES, FEATURES, lambda modal: zero_pad(modal, 2 * band_limit)
    for poles in (True, False):
        grid = Grid.equiangular(band_limit + poles, 2 * band_limit, poles=poles)
        transform = Transform(grid, band_limit)
        encoder = Encoder(transform, DATA, FEATURES, rngs=rngs)
        decoder = Decoder(transform, FEATURES, DATA, rngs=rngs)
        randomised(encoder.filter)
        randomised(decoder.filter)
        name = f"{grid.shape[0]} x {grid.shape[1]} {'with' if poles else 'without'} poles"
        yield f"input head, {name}", DATA, FEATURES, partial(_encode, encoder)
        yield f"output head, {name}", FEATURES, DATA, partial(_decode, decoder)


def _encode(head: Encoder, modal: jax.Array) -> jax.Array:
    return head(*to_nodal(head.transform, modal, DATA.scalars))


def _decode(head: Decoder, modal: jax.Array) -> jax.Array:
    return to_modal(head.transform, *head(modal))


def block_on(grid: Grid, band_limit: int) -> Layer:
    """Return a residual block with phase collapse and gate whose hidden grid is `grid`."""
    return ResidualBlock(Transform(grid, band_limit), *FEATURES, nonlinearity="phase_collapse", rngs=nnx.Rngs(1))


class Probe:
    """Random features with all their rotations."""

    def __init__(self, features: Features, band_limit: int, decay: float, rotations: list[Rotation]) -> None:
        self.modal = random_features(features, band_limit, decay)
        self.rotations = rotations
        self.rotated = np.stack([rotate(self.modal, features.scalars, rotation) for rotation in rotations])

    def both_ways(self, layer: Layer, outputs: Features) -> tuple[np.ndarray, np.ndarray]:
        """Return a layer's results (rotation, part, m, l, batch, channel), rotated before it and after it."""
        apply = jax.jit(layer)
        plain = apply(self.modal)
        before = np.stack([apply(rotated) for rotated in self.rotated])
        after = np.stack([rotate(plain, outputs.scalars, rotation) for rotation in self.rotations])
        return before, after


def relative(difference: np.ndarray, result: np.ndarray) -> float:
    """Return the norm of a difference relative to that of the result."""
    return float(np.linalg.norm(difference.astype(np.float64)) / np.linalg.norm(result.astype(np.float64)))


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of all band limits and spectra."""
    rows = []
    rotations = [Rotation.random(random_state=seed) for seed in range(arguments.rotations)]
    for limit in arguments.band_limits:
        for spectrum, decay in SPECTRA.items():
            probes = {features: Probe(features, limit, decay, rotations) for features in (FEATURES, DATA)}
            place = f"L={limit} {spectrum}: "
            for name, inputs, outputs, layer in linear_layers(limit):
                before, after = probes[inputs].both_ways(layer, outputs)
                rows.append(row(place + name, relative(before - after, after), "", LINEAR_BAR, 1.0))
            for name, grid in HIDDEN_GRIDS.items():
                before, after = probes[FEATURES].both_ways(block_on(grid(limit), limit), FEATURES)
                bar = (BLOCK_BAR, 1.0) if name == DEALIASED else (None, None)
                rows.append(row(f"{place}block, {name}", relative(before - after, after), "", *bar))
                added = relative(before - after, after - probes[FEATURES].rotated)
                rows.append(row(f"{place}branch, {name}", added, "", None))
    if arguments.markdown:
        print_markdown(rows, arguments.band_limits)
    return rows


def print_markdown(rows: list[dict], band_limits: list[int]) -> None:
    """Print the block's rows as a table, a line for each hidden grid."""
    values = {r["name"]: r["value"] for r in rows}
    columns = [(limit, spectrum) for limit in band_limits for spectrum in SPECTRA]
    print("| hidden grid, latitudes x longitudes | " + " | ".join(f"L = {n}, {name}" for n, name in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for grid in HIDDEN_GRIDS:
        cells = [
            " / ".join(f"{values[f'L={n} {name}: {part}, {grid}']:.1e}" for part in ("block", "branch"))
            for n, name in columns
        ]
        print(f"| {grid} | " + " | ".join(cells) + " |")
    print()


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--band-limits", type=int, nargs="+", default=[16, 32], metavar="L", help="even numbers")
    parser.add_argument("--rotations", type=int, default=4, metavar="N", help="random rotations per row")
    parser.add_argument("--markdown", action="store_true", help="also print the block's rows as a table of Markdown")


if __name__ == "__main__":
    main(measure, __doc__, _options, packages=("numpy", "jax", "flax"))
