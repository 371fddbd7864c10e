"""Spectral normalisations: root mean squares over the sphere by Parseval, so that no transform is needed.

The mean square of a scalar over the sphere is the sum of its squared coefficients; that of a vector's length is the sum
over its divergent and rotational ones. The layout of modal features is that of `model.filters`. Sums are in float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.filters import Features

__all__ = ["NORMALISATIONS", "SpectralBatchNorm", "SpectralNorm"]

NORMALISATIONS = ("sample", "batch", "none")
"""`SpectralNorm`, `SpectralBatchNorm`, or none."""

_EPSILON = 1e-6


class SpectralNorm(nnx.Module):
    """Divide each sample by its root mean square, scalars and vectors apart, then scale each channel.

    The same in training and in use, and samples do not see each other.
    """

    def __init__(self, scalars: int, vectors: int) -> None:
        self.features = Features(scalars, vectors)
        self.gain = nnx.Param(jnp.ones(scalars + vectors))

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Normalise (part, m, l, batch, scalars + 2 * vectors)."""
        self.features.check(modal)
        power = self.features.power(modal)
        scalars, vectors = jnp.split(power, (self.features.scalars,), axis=-1)
        inverse = [
            jnp.broadcast_to(jax.lax.rsqrt(jnp.mean(part, axis=-1, keepdims=True) + _EPSILON), part.shape)
            for part in (scalars, vectors)
            if part.size
        ]
        # One factor per sample and channel: a single pass over the coefficients, fused into what follows.
        return modal * self.features.per_channel(jnp.concatenate(inverse, axis=-1) * self.gain[...])


class SpectralBatchNorm(nnx.Module):
    """Spectral batch normalisation (Esteves et al. 2023): every channel to unit variance over the batch.

    A scalar's mean over batch and sphere (its coefficient of degree 0) is subtracted and a learned one added; vectors have
    no mean. Variances are over batch and sphere, those of vectors of their length, and a learned gain follows.

    In training mode the statistics are the batch's, and running averages of them are kept as `flax.nnx.BatchStat`; after
    ``eval()`` of this module, or of one that holds it, the running averages are used and kept as they are. They start as
    the first batch's and reach back over about a tenth of all updates, at most over ``1 / (1 - momentum)``.

    Attributes:
        gain, bias: parameters, (scalars + vectors,) and (scalars,).
        mean, variance: running averages, (scalars,) and (scalars + vectors,).
        updates: how many batches they have seen.
    """

    def __init__(
        self, scalars: int, vectors: int, *, momentum: float = 0.99, use_running_average: bool = False
    ) -> None:
        self.features, self.momentum, self.use_running_average = (
            Features(scalars, vectors),
            momentum,
            use_running_average,
        )
        self.gain = nnx.Param(jnp.ones(scalars + vectors))
        self.bias = nnx.Param(jnp.zeros(scalars))
        self.mean = nnx.BatchStat(jnp.zeros(scalars))
        self.variance = nnx.BatchStat(jnp.ones(scalars + vectors))
        self.updates = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, modal: jax.Array) -> jax.Array:
        """Normalise (part, m, l, batch, scalars + 2 * vectors)."""
        self.features.check(modal)
        # One at the constant function, which every layout of m has first.
        constant = np.zeros((*modal.shape[:3], 1, 1), np.float32)
        constant[0, 0, 0] = 1.0
        if self.use_running_average:
            mean, variance = self.mean[...], self.variance[...]
            centred = modal - constant * self._pad_vectors(mean)
        else:
            mean = jnp.mean(jnp.sum(constant * modal, axis=(0, 1, 2)), axis=0)[: self.features.scalars]
            centred = modal - constant * self._pad_vectors(mean)
            variance = jnp.mean(self.features.power(centred), axis=0)
            self._remember(mean, variance)
        factor = jax.lax.rsqrt(variance + _EPSILON) * self.gain[...]
        return centred * self.features.per_channel(factor) + constant * self._pad_vectors(self.bias[...])

    def _remember(self, mean: jax.Array, variance: jax.Array) -> None:
        decay = jnp.minimum(self.momentum, self.updates[...] / (self.updates[...] + 9.0))
        for running, value in ((self.mean, mean), (self.variance, variance)):
            running[...] = jax.lax.stop_gradient(decay * running[...] + (1.0 - decay) * value)
        self.updates[...] = self.updates[...] + 1.0

    def _pad_vectors(self, scalars: jax.Array) -> jax.Array:
        return jnp.pad(scalars, (0, 2 * self.features.vectors))
