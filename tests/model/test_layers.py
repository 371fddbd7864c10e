"""Layers commute with rotations and keep the variance."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from model.harmonics import Transform
from model.layers import (
    Features,
    PointwiseNonlinearity,
    ResidualBlock,
    SpectralNorm,
    ZonalFilter,
    to_modal,
    to_nodal,
    truncate,
    zero_pad,
)
from transforms.grids import Grid

spec = importlib.util.spec_from_file_location("rotations", Path(__file__).with_name("rotations.py"))
rotations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rotations)

BAND_LIMIT, SCALARS, VECTORS = 10, 3, 2
FEATURES = Features(SCALARS, VECTORS)


def random_features(
    seed: int, band_limit: int = BAND_LIMIT, batch: int = 2, scalars: int = SCALARS, vectors: int = VECTORS
):
    """Random modal features of a red spectrum, (part, m, l, batch, channel)."""
    values = np.random.default_rng(seed).normal(size=(2, band_limit, band_limit, batch, scalars + 2 * vectors))
    m, degree = np.meshgrid(np.arange(band_limit), np.arange(band_limit), indexing="ij")
    values *= (1.0 / (1 + degree) ** 1.5)[None, :, :, None, None]
    values[:, degree < m] = 0
    values[1, 0] = 0
    values[:, :, 0, :, scalars:] = 0
    return jnp.asarray(values, jnp.float32)


def equivariance_error(layer, seed: int) -> float:
    """Relative difference between rotating before and after `layer`."""
    rotation = Rotation.random(random_state=seed)
    features = random_features(seed)
    after = rotations.rotate(layer(features), SCALARS, rotation)
    before = layer(rotations.rotate(features, SCALARS, rotation))
    return float(jnp.linalg.norm((after - before).ravel()) / jnp.linalg.norm(after.ravel()))


def test_the_oracle_rotates():
    features = random_features(0)
    rotation = Rotation.random(random_state=1)
    turned = rotations.rotate(features, SCALARS, rotation)
    # A rotation keeps the power of every degree, and its inverse brings the field back.
    np.testing.assert_allclose(jnp.sum(turned**2, (0, 1)), jnp.sum(features**2, (0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rotations.rotate(turned, SCALARS, rotation.inv()), features, atol=1e-5)
    assert float(jnp.abs(turned - features).max()) > 0.1


@pytest.mark.parametrize("knots", [None, 4])
@pytest.mark.parametrize("seed", [1, 2])
def test_filters_commute_with_rotations(knots, seed):
    layer = ZonalFilter(BAND_LIMIT, FEATURES, FEATURES, knots=knots, rngs=nnx.Rngs(seed))
    layer.weight[...] = layer.weight[...] + jnp.asarray(np.random.default_rng(seed).normal(size=layer.weight.shape))
    assert equivariance_error(layer, seed) < 1e-5


def test_norm_commutes_with_rotations_and_gives_unit_variance():
    layer = SpectralNorm(SCALARS, VECTORS)
    assert equivariance_error(layer, 3) < 1e-5
    normalised = layer(1000 * random_features(4))
    power = jnp.sum(normalised**2, (0, 1, 2))
    np.testing.assert_allclose(jnp.mean(power[:, :SCALARS], -1), 1, rtol=1e-4)
    np.testing.assert_allclose(jnp.sum(power[:, SCALARS:], -1) / VECTORS, 1, rtol=1e-4)


def test_pooling_is_a_projection():
    features = random_features(5)
    pooled = truncate(features, 6)
    assert pooled.shape[1:3] == (6, 6)
    np.testing.assert_array_equal(zero_pad(pooled, BAND_LIMIT)[:, :6, :6], pooled)
    assert not zero_pad(pooled, BAND_LIMIT)[:, 6:].any()
    assert equivariance_error(lambda modal: truncate(modal, 6), 5) < 1e-5


@pytest.mark.parametrize("kind", ["phase_collapse", "gelu"])
def test_block_commutes_with_rotations_on_a_dealiased_grid(kind):
    transform = Transform(Grid.gaussian(16), BAND_LIMIT)
    block = ResidualBlock(transform, SCALARS, VECTORS, nonlinearity=kind, knots=None, rngs=nnx.Rngs(0))
    assert max(equivariance_error(block, seed) for seed in (1, 2, 3)) < 1e-2


def test_nonlinearity_turns_with_the_vectors():
    # Turning all tangent vectors by one angle in their planes must turn the output vectors by that angle alone.
    layer = PointwiseNonlinearity(SCALARS, VECTORS, kind="phase_collapse", rngs=nnx.Rngs(0))
    rng = np.random.default_rng(6)
    scalars = jnp.asarray(rng.normal(size=(4, 3, 1, SCALARS)))
    u, v = (jnp.asarray(rng.normal(size=(4, 3, 1, VECTORS))) for _ in range(2))
    cosine, sine = np.cos(0.7), np.sin(0.7)
    plain, turned = layer(scalars, u, v), layer(scalars, cosine * u - sine * v, sine * u + cosine * v)
    np.testing.assert_allclose(turned[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(turned[1], cosine * plain[1] - sine * plain[2], atol=1e-6)
    np.testing.assert_allclose(turned[2], sine * plain[1] + cosine * plain[2], atol=1e-6)


def test_nonlinearity_has_a_finite_gradient_at_rest():
    layer = PointwiseNonlinearity(SCALARS, VECTORS, kind="phase_collapse", rngs=nnx.Rngs(0))
    zero = jnp.zeros((2, 2, 1, VECTORS))
    gradient = nnx.grad(lambda layer: sum(jnp.sum(x) for x in layer(jnp.zeros((2, 2, 1, SCALARS)), zero, zero)))(layer)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in nnx.to_flat_state(gradient).leaves)


def test_variance_is_kept_through_many_blocks():
    scalars, vectors = 16, 8
    transform = Transform(Grid.gaussian(BAND_LIMIT), BAND_LIMIT)
    features = SpectralNorm(scalars, vectors)(random_features(7, scalars=scalars, vectors=vectors))
    power = [float(jnp.sum(features**2))]
    for seed in range(20):
        block = ResidualBlock(
            transform, scalars, vectors, nonlinearity="phase_collapse", knots=None, rngs=nnx.Rngs(seed)
        )
        features = block(features)
        power.append(float(jnp.sum(features**2)))
    growth = power[-1] / power[0]
    assert 1 / 4 < growth < 4, growth


def test_nodal_and_modal_are_inverse():
    transform = Transform(Grid.gaussian(BAND_LIMIT), BAND_LIMIT)
    features = random_features(8)
    np.testing.assert_allclose(to_modal(transform, *to_nodal(transform, features, SCALARS)), features, atol=2e-6)


@pytest.mark.parametrize("knots", [1, BAND_LIMIT + 1])
def test_knots_outside_the_band_limit_are_refused(knots):
    with pytest.raises(ValueError, match=f"knots: got {knots}, expected 2 to the band limit 10"):
        ZonalFilter(BAND_LIMIT, FEATURES, FEATURES, knots=knots, rngs=nnx.Rngs(0))


def test_unknown_nonlinearity_is_refused():
    with pytest.raises(ValueError, match="got 'relu'"):
        PointwiseNonlinearity(2, 2, kind="relu", rngs=nnx.Rngs(0))
