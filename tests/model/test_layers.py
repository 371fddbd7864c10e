"""Layers commute with rotations and reflections, keep the variance, and refuse what does not fit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from model.harmonics import Transform
from model.layers import (
    Decoder,
    Encoder,
    Features,
    PointwiseNonlinearity,
    ResidualBlock,
    SpectralBatchNorm,
    SpectralNorm,
    ZonalFilter,
    to_modal,
    to_nodal,
    truncate,
    zero_pad,
)
from model.nonlinearities import NONLINEARITIES
from transforms.grids import Grid

spec = importlib.util.spec_from_file_location("rotations", Path(__file__).with_name("rotations.py"))
rotations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rotations)

BAND_LIMIT, SCALARS, VECTORS = 10, 3, 2
FEATURES = Features(SCALARS, VECTORS)


def random_features(
    seed: int,
    band_limit: int = BAND_LIMIT,
    batch: int = 2,
    scalars: int = SCALARS,
    vectors: int = VECTORS,
    decay: float = 1.5,
):
    """Random modal features, red unless `decay` is 0, (part, m, l, batch, channel)."""
    values = np.random.default_rng(seed).normal(size=(2, band_limit, band_limit, batch, scalars + 2 * vectors))
    m, degree = np.meshgrid(np.arange(band_limit), np.arange(band_limit), indexing="ij")
    values *= (1.0 / (1 + degree) ** decay)[None, :, :, None, None]
    values[:, degree < m] = 0
    values[1, 0] = 0
    values[:, :, 0, :, scalars:] = 0
    return jnp.asarray(values, jnp.float32)


@pytest.fixture(scope="module")
def gauss() -> Transform:
    return Transform(Grid.gaussian(BAND_LIMIT), BAND_LIMIT)


_apply = jax.jit(lambda graph, state, *arrays: nnx.merge(graph, state)(*arrays), static_argnums=0)


def compiled(layer: nnx.Module):
    return lambda *arrays: _apply(*nnx.split(layer), *arrays)


def randomised(layer: nnx.Module, seed: int) -> nnx.Module:
    """Add random numbers to all parameters, so that filters differ between degrees."""
    rng = np.random.default_rng(seed)
    state = nnx.state(layer, nnx.Param)
    nnx.update(layer, jax.tree.map(lambda leaf: leaf + 0.5 * rng.normal(size=leaf.shape).astype(np.float32), state))
    return layer


def relative_difference(value, reference) -> float:
    return float(jnp.linalg.norm((value - reference).ravel()) / jnp.linalg.norm(reference.ravel()))


def equivariance_error(layer, seed: int, decay: float = 1.5) -> float:
    """Relative difference between rotating before and after `layer`."""
    rotation = Rotation.random(random_state=seed)
    features = random_features(seed, decay=decay)
    after = rotations.rotate(layer(features), SCALARS, rotation)
    return relative_difference(layer(rotations.rotate(features, SCALARS, rotation)), after)


def test_the_oracle_rotates():
    features = random_features(0)
    rotation = Rotation.random(random_state=1)
    turned = rotations.rotate(features, SCALARS, rotation)
    # A rotation keeps the power of every degree, and its inverse brings the field back.
    np.testing.assert_allclose(jnp.sum(turned**2, (0, 1)), jnp.sum(features**2, (0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rotations.rotate(turned, SCALARS, rotation.inv()), features, atol=1e-5)
    assert float(jnp.abs(turned - features).max()) > 0.1


@pytest.mark.parametrize("knots", [None, 4])
@pytest.mark.parametrize("mirror_symmetric", [False, True])
def test_filters_commute_with_rotations(knots, mirror_symmetric):
    layer = ZonalFilter(
        BAND_LIMIT, FEATURES, FEATURES, knots=knots, mirror_symmetric=mirror_symmetric, rngs=nnx.Rngs(0)
    )
    assert equivariance_error(compiled(randomised(layer, 1)), 1) < 1e-5


@pytest.mark.parametrize("layer", [SpectralNorm(SCALARS, VECTORS), SpectralBatchNorm(SCALARS, VECTORS)])
def test_norms_commute_with_rotations(layer):
    assert equivariance_error(compiled(layer), 3) < 1e-5


@pytest.mark.parametrize("mirror_symmetric", [False, True])
@pytest.mark.parametrize("knots", [None, 5])
def test_filter_is_one_matrix_for_every_degree(knots, mirror_symmetric):
    # Seven degrees do not share out evenly over the blocks in which they are multiplied.
    outputs = Features(2, 4)
    layer = ZonalFilter(7, FEATURES, outputs, knots=knots, mirror_symmetric=mirror_symmetric, rngs=nnx.Rngs(0))
    randomised(layer, 2)
    weight = np.zeros((knots or 7, FEATURES.channels, outputs.channels))
    if mirror_symmetric:
        weight[:, : SCALARS + VECTORS, :6] = layer.weight[...]
        weight[:, SCALARS + VECTORS :, 6:] = layer.rotational_weight[...]
    else:
        weight[:] = layer.weight[...]
    if knots:
        positions = np.linspace(0, knots - 1, 7)
        weight = np.stack(
            [[np.interp(positions, np.arange(knots), w) for w in row] for row in weight.transpose(1, 2, 0)]
        )
        weight = weight.transpose(2, 0, 1)
    weight[0, :, 2:] = 0
    features = random_features(3, 7)
    expected = np.einsum("pmlbi,lio->pmlbo", np.asarray(features, np.float64), weight)
    np.testing.assert_allclose(compiled(layer)(features), expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda modal: jnp.sum(jnp.sin(layer(modal)))))(features)
    # Degrees below the order are not coefficients, and filters need not look at them.
    exist = np.tri(7, dtype=bool).T
    expected = np.einsum("pmlbo,lio->pmlbi", np.cos(expected), weight)
    np.testing.assert_allclose(gradient[:, exist], expected[:, exist], atol=1e-4)


def reflect(transform: Transform, modal, axis: str):
    """Reflect features about the equator or about the meridian of longitude 0, by their values on the grid."""
    scalars, u, v = (np.asarray(field) for field in to_nodal(transform, modal, SCALARS))
    if axis == "equator":
        fields = [scalars[:, ::-1], u[:, ::-1], -v[:, ::-1]]
    else:
        eastward = -np.arange(scalars.shape[0])
        fields = [scalars[eastward], -u[eastward], v[eastward]]
    return to_modal(transform, *map(jnp.asarray, fields))


@pytest.mark.parametrize("axis", ["equator", "meridian"])
def test_mirror_symmetric_layers_commute_with_reflections(gauss, axis):
    features = random_features(4)
    mirrored = reflect(gauss, features, axis)
    assert relative_difference(mirrored, features) > 0.1

    def error(layer) -> float:
        layer = compiled(randomised(layer, 5))
        return relative_difference(layer(mirrored), reflect(gauss, layer(features), axis))

    def layers(mirror_symmetric: bool):
        options = {"mirror_symmetric": mirror_symmetric, "rngs": nnx.Rngs(0)}
        yield ZonalFilter(BAND_LIMIT, FEATURES, FEATURES, knots=4, **options)
        # The block's grid has the same symmetry, so aliasing keeps it.
        for kind in ("phase_collapse", "products"):
            yield ResidualBlock(gauss, SCALARS, VECTORS, nonlinearity=kind, scale=1.0, **options)

    assert max(error(layer) for layer in layers(True)) < 1e-5
    assert min(error(layer) for layer in layers(False)) > 0.05


def test_pooling_is_a_projection():
    features = random_features(5)
    pooled = truncate(features, 6)
    assert pooled.shape[1:3] == (6, 6)
    np.testing.assert_array_equal(zero_pad(pooled, BAND_LIMIT)[:, :6, :6], pooled)
    assert not zero_pad(pooled, BAND_LIMIT)[:, 6:].any()
    assert equivariance_error(lambda modal: truncate(modal, 6), 5) < 1e-5


def test_pooling_of_orders_shared_by_devices():
    # Orders d, d + 3, ... lie on device d; one row of the last two devices is padding.
    orders = np.array([d + 3 * i for d in range(3) for i in range(4)])
    natural = random_features(6)
    shared = jnp.where((orders < BAND_LIMIT)[:, None, None, None], natural[:, np.minimum(orders, BAND_LIMIT - 1)], 0.0)
    kept = np.array([d + 3 * i for d in range(3) for i in range(2)])
    pooled = truncate(shared, 5, shards=3)
    expected = jnp.where((kept < 5)[:, None, None, None], natural[:, kept, :5], 0.0)
    np.testing.assert_array_equal(jnp.where((kept < 5)[:, None, None, None], pooled, 0.0), expected)
    padded = zero_pad(pooled, BAND_LIMIT, shards=3)
    assert padded.shape == shared.shape
    np.testing.assert_array_equal(truncate(padded, 5, shards=3), pooled)
    np.testing.assert_array_equal(padded[:, orders == 4], zero_pad(natural[:, 4:5, :5], BAND_LIMIT, shards=1)[:, :1])


@pytest.mark.parametrize("kind", NONLINEARITIES)
def test_block_commutes_with_rotations_on_a_dealiased_grid(kind):
    transform = Transform(Grid.gaussian(16), BAND_LIMIT)
    block = compiled(ResidualBlock(transform, SCALARS, VECTORS, nonlinearity=kind, rngs=nnx.Rngs(0)))
    assert max(equivariance_error(block, seed) for seed in (1, 2, 3)) < 1e-2


def test_phase_collapse_commutes_with_rotations_whatever_the_spectrum():
    transform = Transform(Grid.gaussian(3 * BAND_LIMIT // 2), BAND_LIMIT)
    block = compiled(ResidualBlock(transform, SCALARS, VECTORS, rngs=nnx.Rngs(0)))
    assert max(equivariance_error(block, seed, decay=0.0) for seed in (1, 2, 3)) < 1e-2


@pytest.mark.parametrize("kind", NONLINEARITIES)
def test_nonlinearity_turns_with_the_vectors(kind):
    # Turning all tangent vectors by one angle in their planes must turn the output vectors by that angle alone.
    layer = PointwiseNonlinearity(SCALARS, VECTORS, kind=kind, rngs=nnx.Rngs(0))
    if kind == "magnitude":
        layer.offset[...] = jnp.linspace(-1.5, 0.5, SCALARS + VECTORS)
    layer = compiled(layer)
    rng = np.random.default_rng(6)
    scalars = jnp.asarray(rng.normal(size=(4, 3, 1, SCALARS)), jnp.float32)
    u, v = (jnp.asarray(rng.normal(size=(4, 3, 1, VECTORS)), jnp.float32) for _ in range(2))
    cosine, sine = np.cos(0.7), np.sin(0.7)
    plain, turned = layer(scalars, u, v), layer(scalars, cosine * u - sine * v, sine * u + cosine * v)
    np.testing.assert_allclose(turned[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(turned[1], cosine * plain[1] - sine * plain[2], atol=1e-6)
    np.testing.assert_allclose(turned[2], sine * plain[1] + cosine * plain[2], atol=1e-6)


def test_magnitude_scales_by_what_is_left_of_the_modulus():
    layer = PointwiseNonlinearity(1, 1, kind="magnitude", rngs=nnx.Rngs(0))
    layer.offset[...] = jnp.array([-2.0, 1.0])
    scalars, u, v = (jnp.full((1, 1, 1, 1), x) for x in (-3.0, 1.2, -1.6))
    smoothed, length = np.sqrt(9.25), np.sqrt(4.25)
    expected = -3 * (smoothed - 2) / smoothed, 1.2 * (length + 1) / length, -1.6 * (length + 1) / length
    np.testing.assert_allclose([float(x[0, 0, 0, 0]) for x in layer(scalars, u, v)], expected, rtol=1e-6)
    assert float(layer(scalars / 10, u, v)[0][0, 0, 0, 0]) == 0.0


def test_products_are_of_the_first_half_with_the_second():
    layer = PointwiseNonlinearity(3, 4, kind="products", rngs=nnx.Rngs(0))
    layer.mix.kernel[...] = (
        jnp.zeros_like(layer.mix.kernel[...]).at[-5:].set(jnp.eye(5, 3) + 10.0 * jnp.eye(5, 3, k=-3))
    )
    rng = np.random.default_rng(3)
    s, u, v = (rng.normal(size=(2, 2, 1, count)).astype(np.float32) for count in (3, 4, 4))
    product, dots = s[..., :1] * s[..., 1:2], u[..., :2] * u[..., 2:] + v[..., :2] * v[..., 2:]
    crosses = u[..., :2] * v[..., 2:] - v[..., :2] * u[..., 2:]
    expected = np.concatenate(
        [product + 10 * crosses[..., :1], dots[..., :1] + 10 * crosses[..., 1:], dots[..., 1:]], -1
    )
    small = [jnp.asarray(field) * 1e-2 for field in (s, u, v)]
    np.testing.assert_allclose(layer(*small)[0], 1e-4 * expected, rtol=1e-4, atol=1e-9)


def test_products_and_their_gate_are_bounded():
    layer = randomised(PointwiseNonlinearity(3, 4, kind="products", rngs=nnx.Rngs(0)), 4)
    rng = np.random.default_rng(3)
    s, u, v = (jnp.asarray(rng.normal(size=(2, 2, 1, count)), jnp.float32) for count in (3, 4, 4))
    once, twice = layer(1e4 * s, 1e4 * u, 1e4 * v), layer(2e4 * s, 2e4 * u, 2e4 * v)
    # What is bounded no longer grows, so that far out the layer is one of phase collapse: of the first order.
    for far, farther in zip(once, twice, strict=True):
        np.testing.assert_allclose(farther, 2 * far, rtol=2e-2, atol=2e2)
    assert float(jnp.abs(once[1] / (1e4 * u)).max()) < 5.1


def test_without_a_gate_vectors_pass():
    layer = PointwiseNonlinearity(SCALARS, VECTORS, kind="phase_collapse", gate=False, rngs=nnx.Rngs(0))
    scalars, u, v = jnp.ones((2, 2, 1, SCALARS)), *(jnp.full((2, 2, 1, VECTORS), x) for x in (0.5, -2.0))
    result = layer(scalars, u, v)
    np.testing.assert_array_equal(result[1], u)
    np.testing.assert_array_equal(result[2], v)
    assert float(jnp.abs(result[0] - scalars).max()) > 1e-3


def test_without_a_residual_connection_a_block_is_its_branch(gauss):
    modal = random_features(11)
    with_it, without = (
        ResidualBlock(gauss, SCALARS, VECTORS, residual=residual, rngs=nnx.Rngs(0)) for residual in (True, False)
    )
    np.testing.assert_allclose(modal + without(modal), with_it(modal), atol=1e-6)


@pytest.mark.parametrize("kind", NONLINEARITIES)
def test_nonlinearity_has_a_finite_gradient_at_rest(kind):
    layer = PointwiseNonlinearity(SCALARS, VECTORS, kind=kind, rngs=nnx.Rngs(0))
    zero = jnp.zeros((2, 2, 1, VECTORS))
    gradient = nnx.grad(lambda layer: sum(jnp.sum(x) for x in layer(jnp.zeros((2, 2, 1, SCALARS)), zero, zero)))(layer)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in nnx.to_flat_state(gradient).leaves)


@pytest.mark.parametrize("normalisation", ["sample", "batch", "none"])
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_variance_is_kept_from_the_encoder_through_twenty_blocks(gauss, normalisation, nonlinearity):
    inputs, hidden, blocks = Features(6, 3), Features(16, 8), 20
    # At the start magnitude is the identity and products have a gate of one, where other kinds damp what they pass.
    largest = 2.0 if nonlinearity in ("phase_collapse", "gelu") else 3.0
    modal = random_features(7, batch=4, scalars=inputs.scalars, vectors=inputs.vectors)
    modal = modal / inputs.per_channel(jnp.sqrt(inputs.power(modal)))
    encoder = Encoder(gauss, inputs, hidden, rngs=nnx.Rngs(99))
    modal = compiled(encoder)(*to_nodal(gauss, modal, inputs.scalars))
    for depth in range(blocks + 1):
        power = jnp.mean(hidden.power(modal), axis=0)
        for kind, features in (("scalars", power[: hidden.scalars]), ("vectors", power[hidden.scalars :])):
            assert 0.5 < float(jnp.mean(features)) < largest, (depth, kind)
        block = ResidualBlock(
            gauss,
            *hidden,
            nonlinearity=nonlinearity,
            normalisation=normalisation,
            scale=(2 * blocks) ** -0.5,
            rngs=nnx.Rngs(depth),
        )
        modal = compiled(block)(modal)


def test_nodal_and_modal_are_inverse(gauss):
    features = random_features(8)
    np.testing.assert_allclose(to_modal(gauss, *to_nodal(gauss, features, SCALARS)), features, atol=2e-6)


def test_heads_read_and_write_fields():
    # Encoding what was decoded brings features back where the filters are the identity.
    transform = Transform(Grid.equiangular(12, 24, poles=False), BAND_LIMIT)
    encoder, decoder = (head(transform, FEATURES, FEATURES, rngs=nnx.Rngs(0)) for head in (Encoder, Decoder))
    for head in (encoder, decoder):
        head.filter.weight[...] = jnp.broadcast_to(jnp.eye(FEATURES.channels), head.filter.weight.shape)
    features = random_features(9)
    fields = decoder(features)
    assert [field.shape for field in fields] == [(24, 12, 2, n) for n in (SCALARS, VECTORS, VECTORS)]
    np.testing.assert_allclose(encoder(*fields), features, atol=5e-6)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ((3, 1, 2), "channels of u: got 1, expected 2. Components of vectors enter as u and v"),
        ((7, 0, 0), "channels of scalars: got 7, expected 3; u: got 0, expected 2; v: got 0, expected 2"),
    ],
)
def test_wrong_fields_are_refused(gauss, channels, message):
    encoder = Encoder(gauss, FEATURES, FEATURES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        encoder(*(jnp.zeros((20, 10, 1, count)) for count in channels))


def test_wrong_features_are_refused(gauss):
    modal = jnp.zeros((2, BAND_LIMIT, BAND_LIMIT, 1, 6))
    message = "with 7 channels: 3 scalars, and divergent and rotational coefficients of 2 vectors"
    layers = [
        ZonalFilter(BAND_LIMIT, FEATURES, FEATURES, rngs=nnx.Rngs(0)),
        SpectralNorm(SCALARS, VECTORS),
        SpectralBatchNorm(SCALARS, VECTORS),
        ResidualBlock(gauss, SCALARS, VECTORS, normalisation="none", rngs=nnx.Rngs(0)),
    ]
    for layer in layers:
        with pytest.raises(ValueError, match=message):
            layer(modal)
    with pytest.raises(ValueError, match="with 5 channels: 3 scalars"):
        to_nodal(gauss, modal, SCALARS)
    with pytest.raises(ValueError, match="got 9 degrees, expected the filter's band limit 10"):
        layers[0](jnp.zeros((2, 9, 9, 1, 7)))


@pytest.mark.parametrize("knots", [1, BAND_LIMIT + 1])
def test_knots_outside_the_band_limit_are_refused(knots):
    with pytest.raises(ValueError, match=f"knots: got {knots}, expected 2 to the band limit 10"):
        ZonalFilter(BAND_LIMIT, FEATURES, FEATURES, knots=knots, rngs=nnx.Rngs(0))


def test_unknown_options_are_refused(gauss):
    with pytest.raises(ValueError, match="nonlinearity: got 'relu'"):
        PointwiseNonlinearity(2, 2, kind="relu", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="normalisation: got 'rms', expected one of sample, batch, none"):
        ResidualBlock(gauss, 2, 2, normalisation="rms", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("scalars", "vectors"), [(3, 0), (0, 2)])
@pytest.mark.parametrize("kind", NONLINEARITIES)
def test_blocks_of_one_kind_of_feature(scalars, vectors, kind):
    transform = Transform(Grid.gaussian(8), 6)
    block = ResidualBlock(transform, scalars, vectors, nonlinearity=kind, rngs=nnx.Rngs(0))
    modal = random_features(9, 6, scalars=scalars, vectors=vectors)
    result = nnx.jit(lambda block, modal: block(modal))(block, modal)
    assert result.shape == modal.shape
    assert bool(jnp.isfinite(result).all())
    assert float(jnp.abs(result - modal).max()) > 1e-3
