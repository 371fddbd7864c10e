"""The spherical U-Net: encoder from the data grid, residual blocks over band limits, decoder to the data grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from model.harmonics import Transform
from model.layers import Decoder, Encoder, Features, ResidualBlock, ZonalFilter, truncate, zero_pad
from transforms.grids import Grid

__all__ = ["Level", "NetworkConfig", "SphericalUNet"]

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True)
class Level:
    """One resolution: degrees below `band_limit`, channel counts, and residual blocks in each direction."""

    band_limit: int
    scalars: int
    vectors: int
    blocks: int

    @property
    def features(self) -> Features:
        """Its channels."""
        return Features(self.scalars, self.vectors)


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a `SphericalUNet`.

    Attributes:
        levels: from the finest resolution to the coarsest.
        hidden_grid: ``linear`` (Gauss grid of L x 2 L, L the band limit) or ``dealiased`` (3/2 as fine, so that products
            of two features are analysed exactly).
        filter_knots: see `model.layers.ZonalFilter`.
        nonlinearity, vector_gate: see `model.layers.PointwiseNonlinearity`.
        residual: whether blocks add to what enters them.
        normalisation: what residual blocks start with: ``sample``, ``batch`` or ``none``; see `model.normalisation`.
        mirror_symmetric: commute with reflections too; see `model.layers.ZonalFilter`.
        precision: of the residual branches, ``float32`` or ``bfloat16`` (products accumulate in float32). Parameters,
            heads, pooling and what the branches are added to are float32.
    """

    levels: tuple[Level, ...]
    hidden_grid: str = "linear"
    filter_knots: int | None = None
    nonlinearity: str = "phase_collapse"
    vector_gate: bool = True
    residual: bool = True
    normalisation: str = "sample"
    mirror_symmetric: bool = False
    precision: str = "float32"


class SphericalUNet(nnx.Module):
    """Maps scalar and vector fields on one grid to scalar and vector fields on the same grid.

    The map commutes with rotations of the sphere up to the aliasing of the pointwise nonlinearity, and with rotations
    about the polar axis by whole grid steps to rounding. The decoder starts at zero.
    """

    def __init__(
        self,
        config: NetworkConfig,
        grid: Grid,
        *,
        in_scalars: int,
        in_vectors: int,
        out_scalars: int,
        out_vectors: int,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Build the network.

        Args:
            grid: grid of inputs and outputs.
            in_scalars, in_vectors, out_scalars, out_vectors: channel counts.
            mesh: devices to share the work; see `model.harmonics.Transform`. Hidden grids get as many latitudes as its
                devices divide, so results are those of one device where they divide the band limits.

        Raises:
            ValueError: the grid does not determine the finest level's degrees, band limits do not decrease, or an option
                is not known.
        """
        if config.precision not in _DTYPES:
            raise ValueError(f"precision: got {config.precision!r}, expected one of {', '.join(_DTYPES)}")
        limits = [level.band_limit for level in config.levels]
        if limits != sorted(set(limits), reverse=True):
            raise ValueError(f"levels: expected band limits that decrease, got {limits}")
        first = config.levels[0]
        data_transform = Transform(grid, first.band_limit, mesh=mesh)
        self.shards = data_transform.shards

        def linear(level: Level, inputs: Features, outputs: Features, scale: float = 1.0) -> ZonalFilter:
            return ZonalFilter(
                level.band_limit, inputs, outputs, scale=scale, mesh=mesh, **_filter_options(config, level, rngs)
            )

        options = _filter_options(config, first, rngs)
        self.encoder = Encoder(data_transform, Features(in_scalars, in_vectors), first.features, **options)
        outputs = Features(out_scalars, out_vectors)
        self.decoder = Decoder(data_transform, first.features, outputs, scale=0.0, **options)
        hidden = [
            Transform(
                _hidden_grid(level.band_limit, config.hidden_grid, self.shards),
                level.band_limit,
                dtype=_DTYPES[config.precision],
                mesh=mesh,
            )
            for level in config.levels
        ]
        resolutions = list(zip(config.levels, hidden, strict=True))
        self.down = nnx.List(_blocks(config, level, transform, rngs) for level, transform in resolutions)
        self.up = nnx.List(_blocks(config, level, transform, rngs) for level, transform in resolutions[:-1])
        pairs = list(zip(config.levels[:-1], config.levels[1:], strict=True))
        self.pool = nnx.List(linear(coarse, fine.features, coarse.features) for fine, coarse in pairs)
        self.unpool = nnx.List(linear(coarse, coarse.features, fine.features, scale=0.3) for fine, coarse in pairs)

    def __call__(self, scalars: jax.Array, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Apply the network.

        Args:
            scalars: (longitude, latitude, batch, in_scalars).
            u, v: eastward and northward components, (longitude, latitude, batch, in_vectors).

        Returns:
            (scalars, u, v) with out_scalars and out_vectors channels.

        Raises:
            ValueError: channel counts differ from those the network was built for.
        """
        modal = self.encoder(scalars, u, v)
        skips = []
        for index, blocks in enumerate(self.down):
            if index > 0:
                skips.append(modal)
                band_limit = blocks[0].transform.band_limit
                modal = self.pool[index - 1](truncate(modal, band_limit, shards=self.shards))
            for block in blocks:
                modal = block(modal)
        for index in reversed(range(len(self.up))):
            skip = skips[index]
            modal = skip + zero_pad(self.unpool[index](modal), skip.shape[2], shards=self.shards)
            for block in self.up[index]:
                modal = block(modal)
        return self.decoder(modal)


def _filter_options(config: NetworkConfig, level: Level, rngs: nnx.Rngs) -> dict[str, Any]:
    # A level coarser than the knots has one matrix per degree.
    knots = config.filter_knots
    knots = None if knots is None or knots >= level.band_limit else knots
    return {"knots": knots, "mirror_symmetric": config.mirror_symmetric, "rngs": rngs}


def _blocks(config: NetworkConfig, level: Level, transform: Transform, rngs: nnx.Rngs) -> nnx.List:
    # Once up and once down, but once at the coarsest level.
    in_all = 2 * sum(level.blocks for level in config.levels) - config.levels[-1].blocks
    return nnx.List(
        ResidualBlock(
            transform,
            *level.features,
            nonlinearity=config.nonlinearity,
            gate=config.vector_gate,
            residual=config.residual,
            normalisation=config.normalisation,
            # All branches together add no more than the variance that enters the first.
            scale=min(0.3, 1 / math.sqrt(2 * in_all)) if config.residual else 1.0,
            **_filter_options(config, level, rngs),
        )
        for _ in range(level.blocks)
    )


def _hidden_grid(band_limit: int, kind: str, shards: int) -> Grid:
    if kind not in ("linear", "dealiased"):
        raise ValueError(f"hidden_grid: got {kind!r}, expected 'linear' or 'dealiased'")
    nlat = band_limit if kind == "linear" else (3 * band_limit + 1) // 2
    step = math.lcm(2, shards)
    return Grid.gaussian(-(-nlat // step) * step)
