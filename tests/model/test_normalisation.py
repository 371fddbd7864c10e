"""Spectral norms give unit variance over the sphere, by their own sums and by values on a grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.harmonics import Transform
from model.layers import SpectralBatchNorm, SpectralNorm, to_nodal
from model.quadrature import quadrature
from transforms.grids import Grid

BAND_LIMIT, SCALARS, VECTORS, BATCH = 6, 3, 2, 4


def random_features(seed: int, scalars: int = SCALARS, vectors: int = VECTORS):
    """Random modal features of all powers, scalars with a mean far from zero, (part, m, l, batch, channel)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, BAND_LIMIT, BAND_LIMIT, BATCH, scalars + 2 * vectors))
    values *= rng.uniform(0.1, 10.0, size=values.shape[-2:])
    values[:, np.tri(BAND_LIMIT, k=-1, dtype=bool)] = 0
    values[1, 0] = 0
    values[0, 0, 0, :, :scalars] += 50.0
    values[:, :, 0, :, scalars:] = 0
    return jnp.asarray(values, jnp.float32)


def area_means(modal, scalars: int = SCALARS):
    """Mean of scalars, and mean square of scalars and of the length of vectors, (batch, feature), from a fine grid."""
    grid = Grid.gaussian(2 * BAND_LIMIT)
    weights = quadrature(grid).weights
    weights = weights / weights.sum() / grid.longitude.size
    fields = [np.asarray(field, np.float64) for field in to_nodal(Transform(grid, BAND_LIMIT), modal, scalars)]
    square = np.concatenate([fields[0] ** 2, fields[1] ** 2 + fields[2] ** 2], axis=-1)
    return (np.einsum("xybc,y->bc", field, weights) for field in (fields[0], square))


def test_sample_norm_gives_each_sample_unit_variance():
    _, square = area_means(SpectralNorm(SCALARS, VECTORS)(random_features(0)))
    np.testing.assert_allclose(square[:, :SCALARS].mean(-1), 1, rtol=1e-4)
    np.testing.assert_allclose(square[:, SCALARS:].mean(-1), 1, rtol=1e-4)


def test_sample_norm_does_not_mix_samples():
    layer, modal = SpectralNorm(SCALARS, VECTORS), random_features(1)
    np.testing.assert_array_equal(layer(modal)[..., 1:2, :], layer(modal[..., 1:2, :]))


@pytest.mark.parametrize(("scalars", "vectors"), [(3, 0), (0, 2)])
@pytest.mark.parametrize("kind", [SpectralNorm, SpectralBatchNorm])
def test_features_of_one_kind(kind, scalars, vectors):
    normalised = kind(scalars, vectors)(random_features(2, scalars, vectors))
    assert bool(jnp.isfinite(normalised).all())
    assert float(jnp.sum(normalised**2)) == pytest.approx(BATCH * (scalars + vectors), rel=1e-3)


def test_batch_norm_gives_each_channel_zero_mean_and_unit_variance():
    layer = SpectralBatchNorm(SCALARS, VECTORS)
    mean, square = area_means(layer(random_features(3)))
    np.testing.assert_allclose(mean.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(square.mean(0), 1, rtol=1e-4)
    layer.gain[...] = jnp.arange(1.0, 6.0)
    layer.bias[...] = jnp.array([0.5, -1.0, 2.0])
    mean, square = area_means(layer(random_features(3)))
    np.testing.assert_allclose(mean.mean(0), [0.5, -1.0, 2.0], atol=1e-4)
    variance = square.mean(0) - [0.25, 1.0, 4.0, 0.0, 0.0]
    np.testing.assert_allclose(variance, [1.0, 4.0, 9.0, 16.0, 25.0], rtol=1e-4)


def test_batch_norm_remembers_by_the_stated_recursion():
    layer = SpectralBatchNorm(SCALARS, VECTORS, momentum=0.2)
    shapes = jax.tree.map(jnp.shape, nnx.state(layer))
    expected_mean, expected_variance = 0.0, 0.0
    for update in range(4):
        modal = random_features(10 + update)
        layer(modal)
        mean, square = area_means(modal)
        decay = min(0.2, update / (update + 9))
        variance = square.mean(0) - np.pad(mean.mean(0) ** 2, (0, VECTORS))
        expected_mean = decay * expected_mean + (1 - decay) * mean.mean(0)
        expected_variance = decay * expected_variance + (1 - decay) * variance
    np.testing.assert_allclose(layer.mean[...], expected_mean, rtol=1e-5)
    np.testing.assert_allclose(layer.variance[...], expected_variance, rtol=1e-3)
    assert jax.tree.map(jnp.shape, nnx.state(layer)) == shapes


def test_batch_norm_in_use_keeps_its_averages_and_does_not_mix_samples():
    layer, modal = SpectralBatchNorm(SCALARS, VECTORS), random_features(4)
    trained = layer(modal)
    layer.eval()
    before = jax.tree.map(np.asarray, nnx.state(layer, nnx.BatchStat))
    # The first batch's statistics are the averages.
    np.testing.assert_allclose(layer(modal), trained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(modal[..., 1:2, :]), trained[..., 1:2, :], rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(layer, nnx.BatchStat))
