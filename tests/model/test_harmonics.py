"""Transforms of scalars and vectors: round trips, Parseval, orientation, and what a grid determines."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from model.harmonics import Transform, band_limit_of
from transforms.grids import Grid

GRIDS = {
    "gauss": Grid.gaussian(20),
    "gauss-fine": Grid.gaussian(30),
    "equiangular": Grid.equiangular(32, 64, poles=False),
    "equiangular-poles": Grid.equiangular(33, 64, poles=True),
    "square": Grid.equiangular(40, 40, poles=False),
    "full-band": Grid.equiangular(20, 40, poles=False),
    "full-band-poles": Grid.equiangular(21, 40, poles=True),
}
BAND_LIMIT = 20


def random_modal(seed: int, channels: int, *, vector: bool = False, band_limit: int = BAND_LIMIT):
    """Random coefficients (part, m, l, batch, channel) with zeros where there is no harmonic."""
    values = np.random.default_rng(seed).normal(size=(2, band_limit, band_limit, 2, channels))
    m, degree = np.meshgrid(np.arange(band_limit), np.arange(band_limit), indexing="ij")
    values[:, degree < m] = 0
    values[1, 0] = 0
    if vector:
        values[:, :, 0] = 0
    return jnp.asarray(values, jnp.float32)


def relative(error, reference) -> float:
    return float(jnp.linalg.norm(jnp.ravel(error)) / jnp.linalg.norm(jnp.ravel(reference)))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_round_trip(grid):
    transform = Transform(grid, BAND_LIMIT)
    modal = random_modal(0, 3)
    assert relative(transform.scalars_to_modal(transform.scalars_to_nodal(modal)) - modal, modal) < 1e-6
    divergent, rotational = random_modal(1, 3, vector=True), random_modal(2, 3, vector=True)
    back = transform.vectors_to_modal(*transform.vectors_to_nodal(divergent, rotational))
    assert relative(back[0] - divergent, divergent) < 1e-6
    assert relative(back[1] - rotational, rotational) < 1e-6


def test_parseval():
    grid = GRIDS["gauss-fine"]
    transform = Transform(grid, BAND_LIMIT)
    weights = np.polynomial.legendre.leggauss(30)[1] / 2
    modal, other = random_modal(3, 2, vector=True), random_modal(4, 2, vector=True)
    scalars = transform.scalars_to_nodal(modal)
    u, v = transform.vectors_to_nodal(modal, other)
    mean = lambda field: jnp.einsum("njbc,j->bc", field, weights) / 60  # noqa: E731
    np.testing.assert_allclose(mean(scalars**2), jnp.sum(modal**2, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(mean(u**2 + v**2), jnp.sum(modal**2 + other**2, (0, 1, 2)), rtol=1e-5)


def test_orientation_of_rotation_and_divergence():
    grid = GRIDS["equiangular-poles"]
    transform = Transform(grid, BAND_LIMIT)
    latitude, longitude = np.deg2rad(grid.latitude)[None, :], np.deg2rad(grid.longitude)[:, None]
    # The Earth's rotation is eastward everywhere; its vorticity 2 sin(latitude) gives l = 1, m = 0 alone.
    u = jnp.asarray(np.cos(latitude) + 0 * longitude, jnp.float32)[..., None, None]
    divergent, rotational = transform.vectors_to_modal(u, 0 * u)
    expected = np.zeros(rotational.shape)
    expected[0, 0, 1] = -np.sqrt(2 / 3)
    np.testing.assert_allclose(rotational, expected, atol=2e-6)
    np.testing.assert_allclose(divergent, 0, atol=2e-6)
    # The gradient of cos(latitude) cos(longitude), the x coordinate, is the projection of e_x.
    eastward = jnp.asarray(-np.sin(longitude) + 0 * latitude, jnp.float32)[..., None, None]
    northward = jnp.asarray(-np.sin(latitude) * np.cos(longitude), jnp.float32)[..., None, None]
    divergent, rotational = transform.vectors_to_modal(eastward, northward)
    assert float(divergent[0, 1, 1, 0, 0]) == pytest.approx(np.sqrt(2 / 3), abs=2e-6)
    np.testing.assert_allclose(rotational, 0, atol=2e-6)
    np.testing.assert_allclose(jnp.delete(divergent[0, :, :, 0, 0].ravel(), BAND_LIMIT + 1), 0, atol=2e-6)


def test_vorticity_of_a_wave_by_finite_differences():
    # A fine grid, so that central differences are a fair oracle for the sign and size of the stream function.
    grid = Grid.gaussian(200)
    transform = Transform(grid, 8)
    modal = random_modal(5, 1, vector=True, band_limit=8)
    u, v = (np.asarray(field[:, :, 0, 0], np.float64) for field in transform.vectors_to_nodal(0 * modal, modal))
    latitude, longitude = np.deg2rad(grid.latitude), np.deg2rad(grid.longitude)
    spacing = longitude[1] - longitude[0]
    dv = (np.roll(v, -1, 0) - np.roll(v, 1, 0)) / (2 * spacing)
    vorticity = (dv - np.gradient(u * np.cos(latitude), latitude, axis=1)) / np.cos(latitude)
    degree = np.arange(8)
    # B are coefficients of stream function times sqrt(l (l + 1)); vorticity is its Laplacian.
    scaled = -modal * jnp.asarray(np.sqrt(degree * (degree + 1.0)), jnp.float32)[None, None, :, None, None]
    expected = np.asarray(transform.scalars_to_nodal(scaled)[:, :, 0, 0])
    inner = slice(20, -20)
    np.testing.assert_allclose(vorticity[:, inner], expected[:, inner], atol=0.02 * np.abs(expected).max())


def test_analysis_of_a_constant_on_every_grid():
    for grid in GRIDS.values():
        modal = Transform(grid, BAND_LIMIT).scalars_to_modal(jnp.full((*grid.shape[::-1], 1, 1), 3.0))
        assert float(modal[0, 0, 0, 0, 0]) == pytest.approx(3.0, rel=1e-5)
        assert float(jnp.abs(modal).sum() - modal[0, 0, 0, 0, 0]) < 1e-3


@pytest.mark.parametrize(("name", "limit"), [("full-band", 20), ("full-band-poles", 20), ("gauss", 20), ("square", 20)])
def test_band_limit_of_grids(name, limit):
    assert band_limit_of(GRIDS[name]) == limit


def test_band_limit_above_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"got 21, but .* at most 20"):
        Transform(GRIDS["full-band"], 21)
