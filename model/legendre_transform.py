"""Sums over latitude and degree: between the waves of every order and modal coefficients.

What is summed where, so that nothing is computed twice or in vain:

- Degrees below the order do not exist. Orders go in blocks, each with the degrees from its lowest order on, which leaves
  little more than the triangle.
- A scalar function of order m and degree l is even or odd about the equator with l + m. Sums and differences of the two
  hemispheres halve the work: one of them meets the even degrees, the other the odd ones.
- The functions of spin -1 are those of spin +1 mirrored at the equator, up to sign, so one table of spin +1 serves both:
  the spin -1 part of a wind enters with its rows reversed. Parity saves no more on vectors.
- Cosine and sine parts and both spins of a wind are columns of one product, so a table is read once.

Evaluation and projection are transposes of each other and share their tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.fourier_transform import Waves
from model.legendre import legendre_table, vector_tables
from model.products import product
from model.quadrature import least_squares

__all__ = ["Block", "BlockTables", "Functions", "LegendreTransform", "blocks_of", "build_tables"]


class Block(NamedTuple):
    """Consecutive orders of a group, and the degrees they have.

    Attributes:
        start, stop: range of the block within one shard's share of the group.
        lowest: first degree of the block's tables, even and no larger than its lowest order.
    """

    start: int
    stop: int
    lowest: int


class Functions(NamedTuple):
    """One table in one or two layouts.

    Attributes:
        by_degree: (order, degree, latitude).
        by_row: (order, latitude, degree), or None where it would be too large. On CPUs a product with a transposed left
            operand takes up to twice the time.
    """

    by_degree: jax.Array
    by_row: jax.Array | None = None

    def over_rows(self, columns: list[jax.Array]) -> list[jax.Array]:
        """Sum columns (order, latitude, batch, channel) over latitude, each to (order, degree, batch, channel)."""
        return self._products("mlj,mj{}->ml{}", self.by_degree, columns)

    def over_degrees(self, columns: list[jax.Array]) -> list[jax.Array]:
        """Sum columns (order, degree, batch, channel) over degree, each to (order, latitude, batch, channel)."""
        if self.by_row is None:
            return self._products("mlj,ml{}->mj{}", self.by_degree, columns)
        return self._products("mjl,ml{}->mj{}", self.by_row, columns)

    def _products(self, spec: str, table: jax.Array, columns: list[jax.Array]) -> list[jax.Array]:
        if self.by_row is not None:
            # Small: putting columns side by side costs more than reading the table for each.
            return [product(spec.format("bc", "bc"), table, column) for column in columns]
        together = product(spec.format("kbc", "kbc"), table, jnp.stack(columns, axis=2))
        return [together[:, :, k] for k in range(len(columns))]


class BlockTables(NamedTuple):
    """Functions of one block.

    Attributes:
        even, odd: scalar functions of degrees lowest, lowest + 2, ... and lowest + 1, lowest + 3, ... on the southern rows.
        spin: functions of spin +1 on all rows.
        sign: (-1)**m, (order, 1, 1, 1).
    """

    even: Functions
    odd: Functions
    spin: Functions
    sign: jax.Array


def blocks_of(orders: np.ndarray, band_limit: int, shards: int = 1) -> tuple[Block, ...]:
    """Return the blocks of one shard's share of a group of orders.

    Args:
        orders: orders of the group, device-major and ascending within a shard. All shards get the same blocks, so that
            they run one program.
    """
    local = orders.reshape(shards, -1)
    count = local.shape[1]
    # Three blocks compute a sixth more than the triangle; with more, assembling them costs what they save.
    edges = np.linspace(0, count, min(max(band_limit // 32, 1), 3, count) + 1).round().astype(int)
    return tuple(
        Block(int(start), int(stop), min(int(local[:, start].min()), band_limit - 1) // 2 * 2)
        for start, stop in itertools.pairwise(edges)
    )


def build_tables(
    band_limit: int, latitude: np.ndarray, orders: np.ndarray, lowest: int, *, fit: np.ndarray | None, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """Return the tables of one block by name, (order, degree, latitude), computed in float64 and rounded once.

    Args:
        latitude: degrees north, ascending and symmetric, (latitude,).
        orders: orders of the block; those of `band_limit` and above get zeros.
        lowest: first degree.
        fit: None for the functions themselves; weights (latitude,) for the analysis that fits them by least squares.
    """
    south = (latitude.size + 1) // 2
    scalar = legendre_table(band_limit, latitude[:south], orders)[:, lowest:]
    slope, quotient = vector_tables(band_limit, latitude, orders)
    even, odd, spin = scalar[:, 0::2], scalar[:, 1::2], (slope + quotient)[:, lowest:]
    if fit is not None:
        # Rows come as sums over both hemispheres, twice the function, but the equator, which is one row, comes once.
        share = np.full(south, 0.5)
        share[-1] = 1.0 if latitude.size % 2 else 0.5
        even, odd = (least_squares(part.swapaxes(1, 2), fit[:south] / share) * share for part in (even, odd))
        spin = least_squares(spin.swapaxes(1, 2), fit)
    if odd.shape[1] < even.shape[1]:
        odd = np.concatenate([odd, np.zeros_like(even[:, :1])], axis=1)
    tables = {"even": even, "odd": odd, "spin": spin, "sign": (1.0 - 2.0 * (orders % 2))[:, None, None, None]}
    return {name: np.ascontiguousarray(table, dtype=dtype) for name, table in tables.items()}


@dataclass(frozen=True)
class LegendreTransform:
    """The transform pair over latitude and degree for given blocks; the tables come with every call.

    Attributes:
        band_limit: degrees 0 .. band_limit - 1.
        nlat: number of latitudes.
        groups: blocks of each group of orders.
    """

    band_limit: int
    nlat: int
    groups: tuple[tuple[Block, ...], ...]

    def project_scalars(self, tables: list[list[BlockTables]], weights: jax.Array, waves: list[Waves]) -> jax.Array:
        """Sum weighted waves over latitude against every function.

        Args:
            tables: of every block of every group.
            weights: factor of every row, symmetric, (latitude,).
            waves: of every group, (order, latitude, batch, channel).

        Returns:
            Modal (part, m, l, batch, channel).
        """
        south = (self.nlat + 1) // 2
        # An equator of its own is added to itself below.
        share = jnp.where(jnp.arange(south) < self.nlat // 2, 1.0, 0.5)
        weights = (weights[:south] * share.astype(weights.dtype))[:, None, None]

        def block(geometry: Block, table: BlockTables, wave: Waves) -> Waves:
            def rows(part: jax.Array, factor: jax.Array) -> jax.Array:
                return weights * (part[:, :south] + factor * part[:, self.nlat - south :][:, ::-1])

            def degrees(even: jax.Array, odd: jax.Array) -> jax.Array:
                both = jnp.stack([even, odd], axis=2)
                both = both.reshape(even.shape[0], 2 * even.shape[1], *even.shape[2:])
                return both[:, : self.band_limit - geometry.lowest]

            even = table.even.over_rows([rows(part, table.sign) for part in wave])
            odd = table.odd.over_rows([rows(part, -table.sign) for part in wave])
            return Waves(*map(degrees, even, odd))

        blocks = self._map(block, tables, self._cut(waves))
        return self._join([[[block[p] for block in group] for group in blocks] for p in range(2)])

    def evaluate_scalars(self, tables: list[list[BlockTables]], weights: jax.Array, modal: jax.Array) -> list[Waves]:
        """Sum functions over degree and weight the rows: modal to waves; the transpose of `project_scalars`."""
        south = (self.nlat + 1) // 2
        weights = weights[:south, None, None]

        def block(geometry: Block, table: BlockTables, parts: Waves) -> Waves:
            def halves(part: jax.Array) -> list[jax.Array]:
                count = table.even.by_degree.shape[1]
                part = jnp.pad(part, ((0, 0), (0, 2 * count - part.shape[1]), (0, 0), (0, 0)))
                pairs = part.reshape(part.shape[0], count, 2, *part.shape[2:])
                return [jnp.squeeze(half, 2) for half in jax.lax.split(pairs, (1, 1), axis=2)]

            def rows(even: jax.Array, odd: jax.Array) -> jax.Array:
                northern = table.sign * weights * (even - odd)
                return jnp.concatenate([weights * (even + odd), northern[:, : self.nlat - south][:, ::-1]], axis=1)

            even, odd = zip(*map(halves, parts), strict=True)
            return Waves(*map(rows, table.even.over_degrees(list(even)), table.odd.over_degrees(list(odd))))

        return self._collect(self._map(block, tables, self._split(modal)))

    def project_vectors(
        self, tables: list[list[BlockTables]], weights: jax.Array, u: list[Waves], v: list[Waves]
    ) -> tuple[jax.Array, jax.Array]:
        """Sum the weighted waves of eastward and northward components against every vector function.

        Returns:
            (divergent, rotational), each modal (part, m, l, batch, channel).
        """
        weights = 0.5 * weights[:, None, None]

        def block(geometry: Block, table: BlockTables, u: Waves, v: Waves) -> tuple[jax.Array, ...]:
            plus = (u.cosine + v.sine, v.cosine - u.sine)
            minus = (u.cosine - v.sine, v.cosine + u.sine)
            # Weights are symmetric, so they may come before the mirroring.
            columns = [weights * part for part in plus] + [(weights * part)[:, ::-1] for part in minus]
            mirror = self._mirror_sign(geometry, table)
            plus0, plus1, minus0, minus1 = table.spin.over_rows(columns)
            minus0, minus1 = mirror * minus0, mirror * minus1
            return plus1 - minus1, plus0 + minus0, minus0 - plus0, plus1 + minus1

        blocks = self._map(block, tables, self._cut(u), self._cut(v))
        parts = [[[block[k] for block in group] for group in blocks] for k in range(4)]
        return self._join(parts[:2]), self._join(parts[2:])

    def evaluate_vectors(
        self, tables: list[list[BlockTables]], weights: jax.Array, divergent: jax.Array, rotational: jax.Array
    ) -> tuple[list[Waves], list[Waves]]:
        """Sum vector functions over degree and weight the rows; the transpose of `project_vectors`."""
        weights = 0.5 * weights[:, None, None]

        def block(geometry: Block, table: BlockTables, divergent: Waves, rotational: Waves) -> tuple[Waves, Waves]:
            mirror = self._mirror_sign(geometry, table)
            columns = [
                divergent.sine - rotational.cosine,
                divergent.cosine + rotational.sine,
                mirror * (divergent.sine + rotational.cosine),
                mirror * (rotational.sine - divergent.cosine),
            ]
            plus0, plus1, minus0, minus1 = table.spin.over_degrees(columns)
            minus0, minus1 = minus0[:, ::-1], minus1[:, ::-1]
            return (
                Waves(weights * (plus0 + minus0), weights * (minus1 - plus1)),
                Waves(weights * (plus1 + minus1), weights * (plus0 - minus0)),
            )

        blocks = self._map(block, tables, self._split(divergent), self._split(rotational))
        eastward, northward = (self._collect([[pair[k] for pair in group] for group in blocks]) for k in range(2))
        return eastward, northward

    def _mirror_sign(self, geometry: Block, table: BlockTables) -> jax.Array:
        """(-1)**(l + m), which spin -1 takes on when mirrored into spin +1; (order, degree, 1, 1)."""
        # Arrays of jnp: a constant of NumPy within a linear_call cannot be differentiated twice under jit.
        degrees = jnp.arange(geometry.lowest, self.band_limit)
        return table.sign * (1.0 - 2.0 * (degrees % 2))[:, None, None].astype(table.sign.dtype)

    def _map(self, function: Callable, tables: list[list[BlockTables]], *waves: list[list[Waves]]) -> list[list]:
        """Apply `function(block, its tables, *its waves)` to every block of every group."""
        return [
            [function(*arguments) for arguments in zip(*group, strict=True)]
            for group in zip(self.groups, tables, *waves, strict=True)
        ]

    def _cut(self, waves: list[Waves]) -> list[list[Waves]]:
        """Cut every group into its blocks of orders."""
        return [
            [
                Waves(*parts)
                for parts in zip(
                    *(jax.lax.split(part, [block.stop - block.start for block in blocks], axis=0) for part in group),
                    strict=True,
                )
            ]
            for blocks, group in zip(self.groups, waves, strict=True)
        ]

    def _collect(self, blocks: list[list[Waves]]) -> list[Waves]:
        """Put the blocks of every group together; the inverse of `_cut`."""
        return [Waves(*(jnp.concatenate(parts) for parts in zip(*group, strict=True))) for group in blocks]

    def _split(self, modal: jax.Array) -> list[list[Waves]]:
        """Cut modal (part, m, l, batch, channel) into blocks (order, degree from the lowest, batch, channel)."""
        count = len(self.groups)
        modal = jnp.pad(modal, ((0, 0), (0, -modal.shape[1] % count), (0, 0), (0, 0), (0, 0)))
        interleaved = modal.reshape(2, modal.shape[1] // count, count, *modal.shape[2:])
        groups = []
        for blocks, group in zip(self.groups, jax.lax.split(interleaved, (1,) * count, axis=2), strict=True):
            orders = group[:, : blocks[-1].stop, 0]
            groups.append(Waves(*(jnp.squeeze(part, 0) for part in jax.lax.split(orders, (1, 1), axis=0))))

        def degrees(block: Block, part: jax.Array) -> jax.Array:
            return jax.lax.split(part, (block.lowest, self.band_limit - block.lowest), axis=1)[1]

        return [
            [Waves(*(degrees(block, part) for part in waves)) for block, waves in zip(blocks, group, strict=True)]
            for blocks, group in zip(self.groups, self._cut(groups), strict=True)
        ]

    def _join(self, parts: list[list[list[jax.Array]]]) -> jax.Array:
        """Assemble blocks, listed by part, group and block, to modal (part, m, l, batch, channel)."""
        orders = sum(blocks[-1].stop for blocks in self.groups)

        def whole(group: list[jax.Array], blocks: tuple[Block, ...]) -> jax.Array:
            padded = [
                jnp.pad(part, ((0, 0), (block.lowest, 0), (0, 0), (0, 0)))
                for part, block in zip(group, blocks, strict=True)
            ]
            missing = self.groups[0][-1].stop - blocks[-1].stop
            return jnp.pad(jnp.concatenate(padded), ((0, missing), (0, 0), (0, 0), (0, 0)))

        def interleaved(groups: list[list[jax.Array]]) -> jax.Array:
            stacked = jnp.stack([whole(*pair) for pair in zip(groups, self.groups, strict=True)], axis=1)
            return stacked.reshape(stacked.shape[0] * stacked.shape[1], *stacked.shape[2:])[:orders]

        return jnp.stack([interleaved(groups) for groups in parts])
