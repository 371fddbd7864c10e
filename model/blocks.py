"""What meets the grid: the pointwise nonlinearity, the residual block around it, and the heads that read and write fields.

Nodal features are three arrays (longitude, latitude, batch, channel): scalars, and the components u and v of vectors. The
layout of modal features is that of `model.filters`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from model.filters import Features, ZonalFilter
from model.harmonics import Transform
from model.nonlinearities import NONLINEARITIES
from model.normalisation import NORMALISATIONS, SpectralBatchNorm, SpectralNorm
from model.sharding import NODAL, WHOLE, on_shards

__all__ = ["ENCODED", "Decoder", "Encoder", "PointwiseNonlinearity", "ResidualBlock", "to_modal", "to_nodal"]

_SMOOTHING = 0.25
"""Added to squares under the root of a modulus, in units of the features' variance. The kink of a modulus has degrees
without end, which every grid takes for lower ones; rounded off, a block is much closer to commuting with rotations."""

_GATE_BOUND, _PRODUCT_BOUND = 4.0, 8.0
"""Of the kind ``products``, in units of the features' standard deviation and variance: far out, where long forecasts run
away, but not where the atmosphere is. On the T31 benchmark half of them cost 6 % of the RMSE at 3 days."""

ENCODED = "encoded"
"""Name, for a policy of rematerialisation, of the coefficients of a network's inputs: few channels, dear to compute."""


def to_nodal(transform: Transform, modal: jax.Array, scalars: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Evaluate modal features on the transform's grid.

    Args:
        modal: (part, m, l, batch, scalars + 2 * vectors).
        scalars: how many of the channels are scalars.

    Returns:
        (scalars, u, v), each (longitude, latitude, batch, channel).
    """
    features = Features(scalars, (modal.shape[-1] - scalars) // 2)
    features.check(modal)
    scalar, divergent, rotational = jnp.split(modal, (scalars, scalars + features.vectors), axis=-1)
    return (transform.scalars_to_nodal(scalar), *transform.vectors_to_nodal(divergent, rotational))


def to_modal(transform: Transform, scalars: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Analyse nodal features; the inverse of `to_nodal` for band-limited ones."""
    parts = [transform.scalars_to_modal(scalars), *transform.vectors_to_modal(u, v)]
    return jnp.concatenate(parts, axis=-1)


class PointwiseNonlinearity(nnx.Module):
    """Pointwise nonlinearity on nodal features.

    Scalars pass one of `model.nonlinearities`, whose modulus is rounded off at zero: ``|x| = sqrt(x . x + 1 / 4)``. Vectors
    keep their direction and are scaled by a sigmoid gate of the new scalars, or of their lengths where there are no
    scalars; without a gate, as in the paper, they pass as they are.

    Of the kind ``products`` the sum has, beside ``|x|``, products of pairs of scalars, and dot and cross products of pairs of
    vectors; the gate is linear, and like the products bounded (`_bounded`), as a long forecast else runs away. Of the kind ``magnitude`` scalars and vectors keep their sign or direction, and there is no gate.
    """

    def __init__(
        self,
        scalars: int,
        vectors: int,
        *,
        kind: str,
        gate: bool = True,
        mirror_symmetric: bool = False,
        dtype: Any = jnp.float32,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Initialise matrices with variance one over the number of incoming channels, and offsets with zero.

        Args:
            kind: a name of `model.nonlinearities.NONLINEARITIES`.
            gate: scale vectors; not of the kind ``magnitude``.
            mirror_symmetric: leave out what changes sign under reflections: of ``products`` the crosses.
            dtype: of the computation, whose products accumulate in float32; parameters are float32.
            mesh: that of the transforms around the nonlinearity.
        """
        if kind not in NONLINEARITIES:
            raise ValueError(f"nonlinearity: got {kind!r}, expected one of {', '.join(NONLINEARITIES)}")
        self.kind, self.crosses, self.mesh = kind, not mirror_symmetric, mesh
        rule = NONLINEARITIES[kind]
        if rule.scales:
            self.offset = nnx.Param(jnp.zeros(scalars + vectors))
            return
        moduli = scalars + vectors if rule.collapses else vectors
        products = scalars // 2 + (1 + self.crosses) * (vectors // 2) if rule.multiplies else 0
        options = {"dtype": dtype, "precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
        self.mix = nnx.Linear(scalars + moduli + products, scalars, **options, rngs=rngs) if scalars else nnx.data(None)
        # Without scalars the lengths of vectors gate them; without vectors there is nothing to gate.
        gated = gate and vectors
        self.gate = nnx.Linear(scalars or vectors, vectors, **options, rngs=rngs) if gated else nnx.data(None)

    def __call__(self, scalars: jax.Array, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map nodal (scalars, u, v), each (longitude, latitude, batch, channel), to arrays of the same shapes."""
        graph, parameters = nnx.split(self)

        def apply(parameters: nnx.State, *fields: jax.Array) -> tuple[jax.Array, ...]:
            return nnx.merge(graph, parameters)._apply(*fields)

        return on_shards(apply, self.mesh, (WHOLE, NODAL, NODAL, NODAL), NODAL)(parameters, scalars, u, v)

    def _apply(self, scalars: jax.Array, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        length = jnp.sqrt(u**2 + v**2 + _SMOOTHING)
        rule = NONLINEARITIES[self.kind]
        if rule.scales:
            modulus = jnp.concatenate([jnp.sqrt(scalars**2 + _SMOOTHING), length], axis=-1)
            factor = (rule.bend(modulus + self.offset[...]) / modulus).astype(scalars.dtype)
            of_scalars, of_vectors = jnp.split(factor, (scalars.shape[-1],), axis=-1)
            return scalars * of_scalars, u * of_vectors, v * of_vectors
        if self.mix is not None:
            moduli = [jnp.sqrt(scalars**2 + _SMOOTHING), length] if rule.collapses else [length]
            products = self._products(scalars, u, v) if rule.multiplies else []
            scalars = rule.bend(_at_points(self.mix, jnp.concatenate([scalars, *moduli, *products], axis=-1)))
        if self.gate is None:
            return scalars, u, v
        gate = _at_points(self.gate, length if self.mix is None else scalars)
        # A gate multiplies vectors with scalars: without a bound, what grows makes itself grow.
        gate = 1.0 + _bounded(gate, _GATE_BOUND) if rule.multiplies else jax.nn.sigmoid(gate)
        return scalars, u * gate, v * gate

    def _products(self, scalars: jax.Array, u: jax.Array, v: jax.Array) -> list[jax.Array]:
        """Multiply the first half of channels with the second: scalars, and dot and cross of vectors.

        The filter before chooses what meets. Advection is such a product: of a wind, and the gradient of what it carries.
        """
        (s, t), (u1, u2), (v1, v2) = (_halves(field) for field in (scalars, u, v))
        crosses = [u1 * v2 - v1 * u2] if self.crosses else []
        return [_bounded(product, _PRODUCT_BOUND) for product in (s * t, u1 * u2 + v1 * v2, *crosses)]


def _bounded(value: jax.Array, bound: float) -> jax.Array:
    """Return values between -bound and bound, those that are small beside it nearly as they are."""
    return value * jax.lax.rsqrt(1.0 + (value / bound) ** 2)


def _halves(field: jax.Array) -> tuple[jax.Array, jax.Array]:
    half = field.shape[-1] // 2
    return field[..., :half], field[..., half : 2 * half]


def _at_points(layer: nnx.Linear, field: jax.Array) -> jax.Array:
    """Apply a matrix at every point; points are one axis, so that its gradient is a plain matrix product too."""
    rows = field.reshape(math.prod(field.shape[:-1]), field.shape[-1])
    return layer(rows).astype(layer.dtype).reshape(*field.shape[:-1], layer.out_features)


class ResidualBlock(nnx.Module):
    """Norm, filter, nonlinearity on the hidden grid, filter, added to the input: all between coefficients.

    The input is carried and added in float32; the branch computes in the transform's dtype.
    """

    def __init__(
        self,
        transform: Transform,
        scalars: int,
        vectors: int,
        *,
        nonlinearity: str = "phase_collapse",
        gate: bool = True,
        residual: bool = True,
        knots: int | None = None,
        normalisation: str = "sample",
        mirror_symmetric: bool = False,
        scale: float = 0.3,
        rngs: nnx.Rngs,
    ) -> None:
        """Build the block.

        Args:
            transform: between the band limit and the hidden grid.
            scalars, vectors: features of input and output.
            nonlinearity, gate: see `PointwiseNonlinearity`.
            residual: add the input; without it the branch alone goes on.
            knots, mirror_symmetric: see `model.filters.ZonalFilter`, the latter also `PointwiseNonlinearity`.
            normalisation: of the branch's input: ``sample``, ``batch`` or ``none``; see `model.normalisation`.
            scale: of the branch at the start. A small one keeps first rollouts finite, and the variance through many
                blocks, each of which adds about ``scale**2`` of it.
        """
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation: got {normalisation!r}, expected one of {', '.join(NORMALISATIONS)}")
        features = Features(scalars, vectors)
        self.features, self.transform = features, transform
        norms = {"sample": SpectralNorm, "batch": SpectralBatchNorm}
        self.norm = norms[normalisation](scalars, vectors) if normalisation in norms else nnx.data(None)
        options: dict[str, Any] = {"knots": knots, "mirror_symmetric": mirror_symmetric, "rngs": rngs}
        options |= {"dtype": transform.dtype, "mesh": transform.mesh}
        self.filter_in = ZonalFilter(transform.band_limit, features, features, **options)
        self.nonlinearity = PointwiseNonlinearity(
            scalars,
            vectors,
            kind=nonlinearity,
            gate=gate,
            mirror_symmetric=mirror_symmetric,
            dtype=transform.dtype,
            mesh=transform.mesh,
            rngs=rngs,
        )
        self.residual = residual
        self.filter_out = ZonalFilter(transform.band_limit, features, features, scale=scale, **options)

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Map (part, m, l, batch, scalars + 2 * vectors) to the same shape."""
        hidden = modal if self.norm is None else self.norm(modal)
        nodal = to_nodal(self.transform, self.filter_in(hidden), self.features.scalars)
        branch = self.filter_out(to_modal(self.transform, *self.nonlinearity(*nodal)))
        branch = branch.astype(modal.dtype)
        return modal + branch if self.residual else branch


class Encoder(nnx.Module):
    """Input head: fields on a grid to hidden modal features, by the transform of the grid and a filter, in float32."""

    def __init__(self, transform: Transform, inputs: Features, outputs: Features, **options: Any) -> None:
        """Build the head; `options` are those of `model.filters.ZonalFilter`."""
        self.inputs, self.transform = inputs, transform
        self.filter = ZonalFilter(transform.band_limit, inputs, outputs, mesh=transform.mesh, **options)

    def __call__(self, scalars: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        """Encode nodal fields.

        Args:
            scalars: (longitude, latitude, batch, input scalars).
            u, v: eastward and northward components, (longitude, latitude, batch, input vectors).

        Returns:
            (part, m, l, batch, outputs.channels).

        Raises:
            ValueError: channel counts differ from `inputs`.
        """
        got = {"scalars": scalars.shape[-1], "u": u.shape[-1], "v": v.shape[-1]}
        expected = {"scalars": self.inputs.scalars, "u": self.inputs.vectors, "v": self.inputs.vectors}
        wrong = [f"{name}: got {got[name]}, expected {expected[name]}" for name in got if got[name] != expected[name]]
        if wrong:
            raise ValueError(
                f"channels of {'; '.join(wrong)}. Components of vectors enter as u and v, one channel of each a vector, "
                "and never among the scalars"
            )
        return self.filter(checkpoint_name(to_modal(self.transform, scalars, u, v), ENCODED))


class Decoder(nnx.Module):
    """Output head: hidden modal features to fields on a grid, by a filter and the transform of the grid, in float32."""

    def __init__(self, transform: Transform, inputs: Features, outputs: Features, **options: Any) -> None:
        """Build the head; `options` are those of `model.filters.ZonalFilter`."""
        self.outputs, self.transform = outputs, transform
        self.filter = ZonalFilter(transform.band_limit, inputs, outputs, mesh=transform.mesh, **options)

    def __call__(self, modal: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Decode (part, m, l, batch, inputs.channels) to (scalars, u, v), each (longitude, latitude, batch, channel)."""
        return to_nodal(self.transform, self.filter(modal), self.outputs.scalars)
