"""The spherical U-Net: encoder from the data grid, residual blocks over band limits, decoder to the data grid."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import nnx

from model.harmonics import Transform
from model.layers import Features, ResidualBlock, ZonalFilter, to_modal, to_nodal, truncate, zero_pad
from transforms.grids import Grid

__all__ = ["Level", "NetworkConfig", "SphericalUNet"]


@dataclass(frozen=True)
class Level:
    """One resolution: degrees below `band_limit`, channel counts, and residual blocks in each direction."""

    band_limit: int
    scalars: int
    vectors: int
    blocks: int


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a `SphericalUNet`.

    Attributes:
        levels: from the finest resolution to the coarsest.
        hidden_grid: ``linear`` (Gauss grid of L x 2 L, L the band limit) or ``dealiased`` (3/2 as fine, so that products
            of two features are analysed exactly).
        filter_knots: see `model.layers.ZonalFilter`.
        nonlinearity: see `model.layers.PointwiseNonlinearity`.
        normalise: whether residual blocks start with a spectral normalisation.
    """

    levels: tuple[Level, ...]
    hidden_grid: str = "linear"
    filter_knots: int | None = None
    nonlinearity: str = "phase_collapse"
    normalise: bool = True


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
        rngs: nnx.Rngs,
    ) -> None:
        """Build the network.

        Args:
            grid: grid of inputs and outputs.
            in_scalars, in_vectors, out_scalars, out_vectors: channel counts.

        Raises:
            ValueError: the grid does not determine the finest level's degrees, or band limits do not decrease.
        """
        limits = [level.band_limit for level in config.levels]
        if limits != sorted(set(limits), reverse=True):
            raise ValueError(f"levels: expected band limits that decrease, got {limits}")
        self.in_scalars, self.in_vectors, self.out_scalars = in_scalars, in_vectors, out_scalars
        first, knots = config.levels[0], config.filter_knots
        self.scalars = [level.scalars for level in config.levels]
        self.data_transform = Transform(grid, first.band_limit)

        def features(level: Level) -> Features:
            return Features(level.scalars, level.vectors)

        def knots_of(level: Level) -> int | None:
            # A level coarser than the knots has one matrix per degree.
            return None if knots is None or knots >= level.band_limit else knots

        def linear(level: Level, inputs: Features, outputs: Features, scale: float = 1.0) -> ZonalFilter:
            return ZonalFilter(level.band_limit, inputs, outputs, scale=scale, knots=knots_of(level), rngs=rngs)

        def blocks(level: Level, transform: Transform) -> nnx.List:
            return nnx.List(
                ResidualBlock(
                    transform,
                    level.scalars,
                    level.vectors,
                    nonlinearity=config.nonlinearity,
                    knots=knots_of(level),
                    normalise=config.normalise,
                    rngs=rngs,
                )
                for _ in range(level.blocks)
            )

        self.encoder = linear(first, Features(in_scalars, in_vectors), features(first))
        self.decoder = linear(first, features(first), Features(out_scalars, out_vectors), scale=0.0)
        hidden = [
            Transform(_hidden_grid(level.band_limit, config.hidden_grid), level.band_limit) for level in config.levels
        ]
        self.down = nnx.List(blocks(level, transform) for level, transform in zip(config.levels, hidden, strict=True))
        finer = list(zip(config.levels[:-1], hidden[:-1], strict=True))
        self.up = nnx.List(blocks(level, transform) for level, transform in finer)
        pairs = list(zip(config.levels[:-1], config.levels[1:], strict=True))
        self.pool = nnx.List(linear(coarse, features(fine), features(coarse)) for fine, coarse in pairs)
        self.unpool = nnx.List(linear(coarse, features(coarse), features(fine), scale=0.3) for fine, coarse in pairs)

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
        got = (scalars.shape[-1], u.shape[-1], v.shape[-1])
        expected = (self.in_scalars, self.in_vectors, self.in_vectors)
        if got != expected:
            raise ValueError(f"channels of (scalars, u, v): got {got}, expected {expected}")
        modal = self.encoder(to_modal(self.data_transform, scalars, u, v))
        skips = []
        for index, blocks in enumerate(self.down):
            if index > 0:
                skips.append(modal)
                band_limit = blocks[0].transform.band_limit
                modal = self.pool[index - 1](truncate(modal, band_limit))
            for block in blocks:
                modal = block(modal)
        for index in reversed(range(len(self.up))):
            skip = skips[index]
            modal = skip + zero_pad(self.unpool[index](modal), skip.shape[1])
            for block in self.up[index]:
                modal = block(modal)
        return to_nodal(self.data_transform, self.decoder(modal), self.out_scalars)


def _hidden_grid(band_limit: int, kind: str) -> Grid:
    if kind not in ("linear", "dealiased"):
        raise ValueError(f"hidden_grid: got {kind!r}, expected 'linear' or 'dealiased'")
    nlat = band_limit if kind == "linear" else (3 * band_limit + 1) // 2
    return Grid.gaussian(nlat + nlat % 2)
