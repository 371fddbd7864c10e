"""Layers on the sphere that commute with rotations.

Features are real scalars and real tangent vectors. A modal feature array has the axes (part, m, l, batch, channel) of
`model.harmonics`, its channels being S scalars, then the divergent and then the rotational coefficients of V vectors:
S + 2 V in all. Nodal features are three arrays (longitude, latitude, batch, channel): scalars, u and v.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.harmonics import Table, Transform

__all__ = [
    "Features",
    "PointwiseNonlinearity",
    "ResidualBlock",
    "SpectralNorm",
    "ZonalFilter",
    "to_modal",
    "to_nodal",
    "truncate",
    "zero_pad",
]

_EPSILON = 1e-6


class Features(NamedTuple):
    """How many scalar and tangent-vector features an array holds."""

    scalars: int
    vectors: int

    @property
    def channels(self) -> int:
        """Channels of a modal array: scalars, divergent and rotational coefficients."""
        return self.scalars + 2 * self.vectors


def to_nodal(transform: Transform, modal: jax.Array, scalars: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Evaluate modal features on the transform's grid.

    Args:
        modal: (part, m, l, batch, scalars + 2 * vectors).
        scalars: how many of the channels are scalars.

    Returns:
        (scalars, u, v), each (longitude, latitude, batch, channel).
    """
    vectors = (modal.shape[-1] - scalars) // 2
    divergent = modal[..., scalars : scalars + vectors]
    rotational = modal[..., scalars + vectors :]
    return (transform.scalars_to_nodal(modal[..., :scalars]), *transform.vectors_to_nodal(divergent, rotational))


def to_modal(transform: Transform, scalars: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Analyse nodal features; the inverse of `to_nodal` for band-limited ones."""
    parts = [transform.scalars_to_modal(scalars), *transform.vectors_to_modal(u, v)]
    return jnp.concatenate(parts, axis=-1)


def truncate(modal: jax.Array, band_limit: int) -> jax.Array:
    """Spectral pooling: keep degrees below `band_limit`."""
    return modal[:, :band_limit, :band_limit]


def zero_pad(modal: jax.Array, band_limit: int) -> jax.Array:
    """Spectral unpooling: append zero coefficients up to `band_limit`."""
    extra = band_limit - modal.shape[1]
    return jnp.pad(modal, ((0, 0), (0, extra), (0, extra), (0, 0), (0, 0)))


class ZonalFilter(nnx.Module):
    """Convolution with zonal filters: one real matrix on the stacked channels for every degree.

    Mixing scalars, divergent and rotational coefficients by a real matrix that depends on the degree alone is the most
    general real rotation-equivariant linear map between scalar and tangent-vector fields: it contains the spin-0 and
    spin-1 filters of Esteves et al. (2023, section 3) and the conjugate-linear terms. With `knots`, matrices are given
    at that many degrees and interpolated linearly between them, which makes the filters local in space.
    """

    def __init__(
        self,
        band_limit: int,
        inputs: Features,
        outputs: Features,
        *,
        scale: float = 1.0,
        knots: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Initialise with equal matrices at all degrees, of variance ``scale**2 / inputs.channels``."""
        if knots is not None and not 2 <= knots <= band_limit:
            raise ValueError(
                f"knots: got {knots}, expected 2 to the band limit {band_limit}, or None for one per degree"
            )
        shape = (inputs.channels, outputs.channels)
        matrix = jax.random.normal(rngs.params(), shape) * (scale / math.sqrt(inputs.channels))
        self.out_scalars = outputs.scalars
        self.weight = nnx.Param(jnp.broadcast_to(matrix, (band_limit if knots is None else knots, *shape)))
        self.interpolation = nnx.data(None)
        if knots is not None:
            position = np.linspace(0.0, knots - 1.0, band_limit)
            hat = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)[None, :]))
            self.interpolation = Table(jnp.asarray(hat, jnp.float32))

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Filter (part, m, l, batch, in) to (part, m, l, batch, out)."""
        weight = self.weight[...]
        if self.interpolation is not None:
            weight = jnp.einsum("lk,kio->lio", self.interpolation[...], weight)
        # Vectors have no degree 0; a value there would be a hidden scalar.
        weight = weight.at[0, :, self.out_scalars :].set(0.0)
        return jnp.einsum("pmlbi,lio->pmlbo", modal, weight)


class SpectralNorm(nnx.Module):
    """Divide each sample by its root mean square, scalars and vectors apart, then scale each channel.

    By Parseval the mean square over the sphere is the sum of squared coefficients, so no transform is needed.
    """

    def __init__(self, scalars: int, vectors: int) -> None:
        self.scalars = scalars
        self.gain = nnx.Param(jnp.ones(scalars + vectors))

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Normalise (part, m, l, batch, scalars + 2 * vectors)."""
        scalars, vectors = modal[..., : self.scalars], modal[..., self.scalars :]
        gain = self.gain[...]
        vector_gain = jnp.concatenate([gain[self.scalars :]] * 2)
        return jnp.concatenate([_unit(scalars) * gain[: self.scalars], _unit(vectors, 2.0) * vector_gain], axis=-1)


def _unit(modal: jax.Array, components: float = 1.0) -> jax.Array:
    channels = max(modal.shape[-1], 1) / components
    mean_square = jnp.sum(modal**2, axis=(0, 1, 2, 4), keepdims=True) / channels
    return modal * jax.lax.rsqrt(mean_square + _EPSILON)


class PointwiseNonlinearity(nnx.Module):
    """Pointwise nonlinearity on nodal features.

    Scalars take part in the phase collapse ``s <- W1 s + W2 |x| + b`` (Esteves et al. 2023, eq. 8; Guth et al. 2021),
    x being all scalars and vectors, or pass ``gelu(W1 s + W2 |v| + b)``. Vectors keep their direction and are scaled by
    a sigmoid gate of the new scalars.
    """

    def __init__(self, scalars: int, vectors: int, *, kind: str, rngs: nnx.Rngs) -> None:
        if kind not in ("phase_collapse", "gelu"):
            raise ValueError(f"nonlinearity: got {kind!r}, expected 'phase_collapse' or 'gelu'")
        self.kind = kind
        moduli = scalars + vectors if kind == "phase_collapse" else vectors
        self.mix = nnx.Linear(scalars + moduli, scalars, rngs=rngs)
        self.gate = nnx.Linear(scalars, vectors, rngs=rngs)

    def __call__(self, scalars: jax.Array, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map nodal (scalars, u, v), each (longitude, latitude, batch, channel), to arrays of the same shapes."""
        # The square root is smooth at zero, and so is the length of the vector there.
        length = jnp.sqrt(u**2 + v**2 + _EPSILON)
        if self.kind == "phase_collapse":
            scalars = self.mix(jnp.concatenate([scalars, jnp.abs(scalars), length], axis=-1))
        else:
            scalars = jax.nn.gelu(self.mix(jnp.concatenate([scalars, length], axis=-1)))
        gate = jax.nn.sigmoid(self.gate(scalars))
        return scalars, u * gate, v * gate


class ResidualBlock(nnx.Module):
    """Norm, filter, nonlinearity on the hidden grid, filter, added to the input: all between coefficients."""

    def __init__(
        self,
        transform: Transform,
        scalars: int,
        vectors: int,
        *,
        nonlinearity: str,
        knots: int | None,
        normalise: bool,
        rngs: nnx.Rngs,
    ) -> None:
        features = Features(scalars, vectors)
        self.scalars = scalars
        self.transform = transform
        self.norm = SpectralNorm(scalars, vectors) if normalise else nnx.data(None)
        self.filter_in = ZonalFilter(transform.band_limit, features, features, knots=knots, rngs=rngs)
        self.nonlinearity = PointwiseNonlinearity(scalars, vectors, kind=nonlinearity, rngs=rngs)
        # A small residual branch keeps the variance through many blocks and the first rollouts finite.
        self.filter_out = ZonalFilter(transform.band_limit, features, features, scale=0.3, knots=knots, rngs=rngs)

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Map (part, m, l, batch, scalars + 2 * vectors) to the same shape."""
        hidden = modal if self.norm is None else self.norm(modal)
        nodal = to_nodal(self.transform, self.filter_in(hidden), self.scalars)
        return modal + self.filter_out(to_modal(self.transform, *self.nonlinearity(*nodal)))
