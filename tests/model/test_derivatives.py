"""Derivatives of coefficients against closed forms, finite differences and their own identities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import derivatives
from model.derivatives import EARTH_RADIUS
from model.reference import ReferenceTransform
from transforms.grids import Grid

BAND_LIMIT = 12
GRID = Grid.gaussian(BAND_LIMIT)
LATITUDE = np.deg2rad(GRID.latitude)[None, :, None, None]
LONGITUDE = np.deg2rad(GRID.longitude)[:, None, None, None]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def transform() -> ReferenceTransform:
    return ReferenceTransform(GRID, BAND_LIMIT)


def on_grid(field) -> jax.Array:
    """Nodal (longitude, latitude, 1, 1) of what broadcasts to it."""
    return jnp.asarray(np.broadcast_to(field, (*GRID.shape[::-1], 1, 1)))


def random_scalars(seed: int, band_limit: int = BAND_LIMIT) -> jax.Array:
    values = np.random.default_rng(seed).normal(size=(2, band_limit, band_limit, 1, 2))
    order, degree = np.ogrid[:band_limit, :band_limit]
    values *= ((degree >= order) & (degree > 0))[None, :, :, None, None]
    values[1, 0] = 0
    return jnp.asarray(values)


def test_solid_body_rotation(transform):
    speed, sine = 40.0, np.sin(LATITUDE)
    divergent, rotational = transform.vectors_to_modal(on_grid(speed * np.cos(LATITUDE)), on_grid(0.0))
    omega = speed / EARTH_RADIUS
    vorticity = transform.scalars_to_nodal(derivatives.vorticity(rotational))
    np.testing.assert_allclose(vorticity, on_grid(2 * omega * sine), atol=1e-12 * omega)
    stream = transform.scalars_to_nodal(derivatives.stream_function(rotational))
    np.testing.assert_allclose(stream, on_grid(-omega * EARTH_RADIUS**2 * sine), rtol=1e-12)
    np.testing.assert_allclose(derivatives.divergence(divergent), 0.0, atol=1e-12 * omega)


@pytest.mark.parametrize("radius", [1.0, EARTH_RADIUS])
def test_gradient_of_a_coordinate(transform, radius):
    # x = a cos(latitude) cos(longitude) in metres; its gradient is the tangent part of e_x, without dimension.
    x = on_grid(radius * np.cos(LATITUDE) * np.cos(LONGITUDE))
    modal = transform.scalars_to_modal(x)
    divergent, rotational = derivatives.gradient(modal, radius)
    u, v = transform.vectors_to_nodal(divergent, rotational)
    np.testing.assert_allclose(u, on_grid(-np.sin(LONGITUDE)), atol=1e-13)
    np.testing.assert_allclose(v, on_grid(-np.sin(LATITUDE) * np.cos(LONGITUDE)), atol=1e-13)
    laplacian = transform.scalars_to_nodal(derivatives.laplacian(modal, radius))
    np.testing.assert_allclose(laplacian, -2 / radius**2 * x, atol=1e-13 / radius)
    potential = transform.scalars_to_nodal(derivatives.velocity_potential(divergent, radius))
    np.testing.assert_allclose(potential, x, atol=1e-13 * radius)


def test_rossby_haurwitz_wave(transform):
    # Williamson et al. (1992, J. Comput. Phys. 102, 211), case 6.
    omega, k, r = 7.848e-6, 7.848e-6, 4
    sine, cosine, a = np.sin(LATITUDE), np.cos(LATITUDE), EARTH_RADIUS
    wave = np.cos(r * LONGITUDE)
    u = a * omega * cosine + a * k * cosine ** (r - 1) * (r * sine**2 - cosine**2) * wave
    v = -a * k * r * cosine ** (r - 1) * sine * np.sin(r * LONGITUDE)
    stream = -(a**2) * omega * sine + a**2 * k * cosine**r * sine * wave
    vorticity = 2 * omega * sine - k * sine * cosine**r * (r**2 + 3 * r + 2) * wave
    divergent, rotational = transform.vectors_to_modal(on_grid(u), on_grid(v))
    got = transform.scalars_to_nodal(derivatives.vorticity(rotational))
    np.testing.assert_allclose(got, on_grid(vorticity), atol=1e-12 * omega)
    got = transform.scalars_to_nodal(derivatives.stream_function(rotational))
    np.testing.assert_allclose(got, on_grid(stream), atol=1e-12 * a**2 * omega)
    np.testing.assert_allclose(derivatives.divergence(divergent), 0.0, atol=1e-12 * omega)


def test_agrees_with_finite_differences():
    band_limit, radius = 6, 2.0
    grid = Grid.gaussian(300)
    transform = ReferenceTransform(grid, band_limit)
    latitude, longitude = np.deg2rad(grid.latitude)[None, :], np.deg2rad(grid.longitude)

    def east(field):
        step = longitude[1] - longitude[0]
        return (np.roll(field, -1, 0) - np.roll(field, 1, 0)) / (2 * step * radius * np.cos(latitude))

    def north(field):
        return np.gradient(field, latitude[0], axis=1) / radius

    def nodal(modal):
        return np.asarray(transform.scalars_to_nodal(modal)[:, :, 0, 0])

    def assert_close(got, expected):
        inner = np.s_[:, 30:-30]  # Where the meridians are not yet crowded.
        np.testing.assert_allclose(got[inner], expected[inner], atol=2e-3 * np.abs(expected).max())

    scalars, divergent, rotational = (random_scalars(seed, band_limit) for seed in range(3))
    u, v = (np.asarray(w[:, :, 0, 0]) for w in transform.vectors_to_nodal(divergent, rotational))
    cosine = np.cos(latitude)
    assert_close(nodal(derivatives.divergence(divergent, radius)), east(u) + north(v * cosine) / cosine)
    assert_close(nodal(derivatives.vorticity(rotational, radius)), east(v) - north(u * cosine) / cosine)
    slope = transform.vectors_to_nodal(*derivatives.gradient(scalars, radius))
    assert_close(np.asarray(slope[0][:, :, 0, 0]), east(nodal(scalars)))
    assert_close(np.asarray(slope[1][:, :, 0, 0]), north(nodal(scalars)))
    chi, psi = derivatives.velocity_potential(divergent, radius), derivatives.stream_function(rotational, radius)
    assert_close(u, east(nodal(chi)) - north(nodal(psi)))
    assert_close(v, north(nodal(chi)) + east(nodal(psi)))


@pytest.mark.parametrize("radius", [1.0, EARTH_RADIUS])
def test_identities(radius):
    scalars = random_scalars(3)
    divergent, rotational = derivatives.gradient(scalars, radius)
    laplacian = derivatives.laplacian(scalars, radius)
    np.testing.assert_allclose(derivatives.divergence(divergent, radius), laplacian, rtol=1e-13)
    assert not derivatives.vorticity(rotational, radius).any()
    np.testing.assert_allclose(derivatives.inverse_laplacian(laplacian, radius), scalars, rtol=1e-13)
    np.testing.assert_allclose(derivatives.velocity_potential(divergent, radius), scalars, rtol=1e-13)
    vorticity = derivatives.vorticity(scalars, radius)
    stream = derivatives.stream_function(scalars, radius)
    np.testing.assert_allclose(derivatives.inverse_laplacian(vorticity, radius), stream, rtol=1e-13)


def test_the_mean_has_no_derivative_and_no_inverse():
    constant = jnp.zeros((2, 4, 4, 1, 1)).at[0, 0, 0].set(5.0)
    for name in set(derivatives.__all__) - {"EARTH_RADIUS"}:
        for result in jax.tree.leaves(getattr(derivatives, name)(constant)):
            assert not result.any(), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keeps_the_precision_of_the_coefficients(dtype):
    scalars = random_scalars(4)
    narrow = derivatives.inverse_laplacian(derivatives.laplacian(scalars.astype(dtype)))
    assert narrow.dtype == dtype
    error = jnp.linalg.norm((narrow - scalars).ravel()) / jnp.linalg.norm(scalars.ravel())
    assert error < 3 * jnp.finfo(dtype).eps


def test_nodal_values_are_refused():
    with pytest.raises(ValueError, match=r"modal: got shape \(24, 12, 1, 3\), expected \(part, m, l, batch, channel\)"):
        derivatives.laplacian(jnp.zeros((24, 12, 1, 3)))
