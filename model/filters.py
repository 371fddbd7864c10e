"""Operations on modal features: zonal filters, spectral pooling and unpooling.

Features are real scalars and real tangent vectors. A modal feature array has the axes (part, m, l, batch, channel) of
`model.harmonics`, its channels being S scalars, then the divergent and then the rotational coefficients of V vectors:
S + 2 V in all. Where orders are split over devices, the m axis is device-major, as `model.harmonics.Transform` leaves it,
and everything here stays on its device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from model.products import Table
from model.sharding import MODAL, WHOLE, on_shards, shards_of

__all__ = ["Features", "ZonalFilter", "truncate", "zero_pad"]

_BLOCKS, _SMALLEST_BLOCK = 4, 6
"""Blocks of degrees in which a filter is applied, and fewest degrees in one. Four of them skip 3/8 of the rows of a square
array, orders above the degree; more would hardly skip more, and each costs time to compile."""


class Features(NamedTuple):
    """How many scalar and tangent-vector features an array holds."""

    scalars: int
    vectors: int

    @property
    def channels(self) -> int:
        """Channels of a modal array: scalars, divergent and rotational coefficients."""
        return self.scalars + 2 * self.vectors

    def check(self, modal: jax.Array) -> None:
        """Raise ValueError unless a modal array has these features."""
        if modal.ndim != 5 or modal.shape[-1] != self.channels:
            raise ValueError(
                f"modal: got shape {modal.shape}, expected (part, m, l, batch, channel) with {self.channels} channels: "
                f"{self.scalars} scalars, and divergent and rotational coefficients of {self.vectors} vectors"
            )

    def power(self, modal: jax.Array) -> jax.Array:
        """Return mean squares over the sphere by Parseval: of scalars and of the length of vectors, (batch, feature)."""
        power = jnp.sum(modal**2, axis=(0, 1, 2))
        scalars, divergent, rotational = jnp.split(power, (self.scalars, sum(self)), axis=-1)
        return jnp.concatenate([scalars, divergent + rotational], axis=-1)

    def per_channel(self, values: jax.Array) -> jax.Array:
        """Repeat one value for every feature, (..., feature), for the channels of a modal array, (..., channel)."""
        return jnp.concatenate([values, values[..., self.scalars :]], axis=-1)


def truncate(modal: jax.Array, band_limit: int, *, shards: int = 1) -> jax.Array:
    """Spectral pooling: keep degrees below `band_limit`, and of every shard's orders as many as they need."""
    part, orders, _, batch, channels = modal.shape
    rows = -(-band_limit // shards)
    local = modal[:, :, :band_limit].reshape(part, shards, orders // shards, band_limit, batch, channels)
    return local[:, :, :rows].reshape(part, shards * rows, band_limit, batch, channels)


def zero_pad(modal: jax.Array, band_limit: int, *, shards: int = 1) -> jax.Array:
    """Spectral unpooling: append zero coefficients up to `band_limit`, the inverse of `truncate`."""
    part, orders, degrees, batch, channels = modal.shape
    rows = -(-band_limit // shards)
    local = modal.reshape(part, shards, orders // shards, degrees, batch, channels)
    missing = ((0, 0), (0, 0), (0, rows - orders // shards), (0, band_limit - degrees), (0, 0), (0, 0))
    return jnp.pad(local, missing).reshape(part, shards * rows, band_limit, batch, channels)


class ZonalFilter(nnx.Module):
    """Convolution with zonal filters: one real matrix on the stacked channels for every degree.

    Mixing scalars, divergent and rotational coefficients by a real matrix that depends on the degree alone is the most
    general real rotation-equivariant linear map between scalar and tangent-vector fields: it contains the spin-0 and
    spin-1 filters of Esteves et al. (2023, section 3) and the conjugate-linear terms. With `knots`, matrices are given
    at that many degrees and interpolated linearly between them, which makes the filters local in space.

    A filter that is `mirror_symmetric` commutes with reflections too. They keep scalars and divergent coefficients and
    negate rotational ones (those of a stream function, a pseudo-scalar), so the two kinds do not mix: the filter has one
    matrix for scalars and divergent coefficients and another for rotational ones. The atmosphere of a rotating planet has
    no such symmetry, because a reflection reverses the Coriolis force: pressure makes wind turn one way.

    Attributes:
        weight: (l or knot, in, out); without the rotational channels where `mirror_symmetric`.
        rotational_weight: None, or (l or knot, in vectors, out vectors) where `mirror_symmetric`.
    """

    def __init__(
        self,
        band_limit: int,
        inputs: Features,
        outputs: Features,
        *,
        scale: float = 1.0,
        knots: int | None = None,
        mirror_symmetric: bool = False,
        dtype: Any = jnp.float32,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Initialise with equal matrices at all degrees, of variance ``scale**2 / incoming channels``.

        Args:
            dtype: of the products, which accumulate in float32; weights are float32.
            mesh: that of the transforms around the filter.
        """
        if knots is not None and not 2 <= knots <= band_limit:
            raise ValueError(
                f"knots: got {knots}, expected 2 to the band limit {band_limit}, or None for one per degree"
            )
        self.band_limit, self.inputs, self.outputs = band_limit, inputs, outputs
        self.dtype, self.mesh = jnp.dtype(dtype), mesh

        def weight(incoming: int, outgoing: int) -> nnx.Param:
            deviation = scale / math.sqrt(max(incoming, 1))
            matrix = jax.random.normal(rngs.params(), (incoming, outgoing)) * deviation
            return nnx.Param(jnp.broadcast_to(matrix, (knots or band_limit, incoming, outgoing)))

        if mirror_symmetric:
            self.weight = weight(sum(inputs), sum(outputs))
            self.rotational_weight: nnx.Param | None = weight(inputs.vectors, outputs.vectors)
        else:
            self.weight = weight(inputs.channels, outputs.channels)
            self.rotational_weight = nnx.data(None)
        self.interpolation = nnx.data(None)
        if knots is not None:
            position = np.linspace(0.0, knots - 1.0, band_limit)
            hat = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)[None, :]))
            self.interpolation = Table(jnp.asarray(hat, jnp.float32))

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Filter (part, m, l, batch, in) to (part, m, l, batch, out), in `dtype`.

        Raises:
            ValueError: other channels or degrees than the filter was built for.
        """
        self.inputs.check(modal)
        if modal.shape[2] != self.band_limit:
            raise ValueError(f"modal: got {modal.shape[2]} degrees, expected the filter's band limit {self.band_limit}")
        weight, scalars = self._per_degree(self.weight), self.outputs.scalars
        if self.rotational_weight is None:
            return self._apply(modal, weight, scalars)
        mirrored = sum(self.inputs)
        rotational = self._per_degree(self.rotational_weight)
        parts = [self._apply(modal[..., :mirrored], weight, scalars), self._apply(modal[..., mirrored:], rotational, 0)]
        return jnp.concatenate(parts, axis=-1)

    def _per_degree(self, weight: nnx.Param) -> jax.Array:
        if self.interpolation is None:
            return weight[...]
        return jnp.einsum("lk,kio->lio", self.interpolation[...], weight[...], precision=jax.lax.Precision.HIGHEST)

    def _apply(self, modal: jax.Array, weight: jax.Array, scalars: int) -> jax.Array:
        multiply: Callable = partial(_multiply, scalars=scalars, shards=shards_of(self.mesh))
        multiply = on_shards(multiply, self.mesh, (MODAL, WHOLE), MODAL)
        return multiply(modal.astype(self.dtype), weight.astype(self.dtype))


def _multiply(modal: jax.Array, weight: jax.Array, *, scalars: int, shards: int) -> jax.Array:
    """Apply the matrix of each degree (l, in, out) to one shard's coefficients (part, m, l, batch, in).

    Degrees go in blocks, and of each block only the orders that it has. Of degree 0 only the first `scalars` channels are
    kept: vectors have none, and a value there would be a hidden scalar.
    """
    band_limit, orders = modal.shape[2], modal.shape[1]
    width = max(-(-band_limit // _BLOCKS), _SMALLEST_BLOCK)
    edges = tuple(range(width, band_limit, width))
    blocks = zip(jnp.split(modal, edges, axis=2), jnp.split(weight, edges), (*edges, band_limit), strict=True)
    products = []
    for block, matrices, stop in blocks:
        rows = -(-stop // shards)
        missing = ((0, 0), (0, orders - rows), (0, 0), (0, 0), (0, 0))
        products.append(jnp.pad(_multiply_block(block[:, :rows], matrices), missing))
    # Not by zeros in the weights, which would be a copy of all of them, held through every step of a rollout.
    exists = np.ones((*products[0].shape[2:3], 1, weight.shape[-1]), products[0].dtype)
    exists[0, :, scalars:] = 0
    products[0] = products[0] * exists
    return jnp.concatenate(products, axis=2)


def _multiply_block(modal: jax.Array, weight: jax.Array) -> jax.Array:
    part, orders, degrees, batch, channels = modal.shape
    # With the degree in front and all else in rows these are plain matrix products, which backends have fast code for.
    rows = modal.transpose(2, 0, 1, 3, 4).reshape(degrees, part * orders * batch, channels)
    product = jnp.matmul(rows, weight, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    product = product.astype(modal.dtype).reshape(degrees, part, orders, batch, weight.shape[-1])
    return product.transpose(1, 2, 0, 3, 4)
