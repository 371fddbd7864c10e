"""Associated Legendre tables against closed forms, scipy and orthonormality."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from model.legendre import legendre_table, vector_tables

LATITUDE = np.array([-90.0, -63.0, -10.0, 0.0, 33.0, 80.0, 90.0])


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (1, 1), (5, 3), (40, 0), (40, 39), (300, 200)])
def test_agrees_with_scipy(degree, order):
    table = legendre_table(degree + 1, LATITUDE)
    colatitude = np.deg2rad(90 - LATITUDE)
    expected = scipy.special.sph_harm_y(degree, order, colatitude, 0.0).real * (-1) ** order * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(table[order, degree], expected, atol=2e-12)


def test_is_zero_below_the_diagonal():
    table = legendre_table(9, LATITUDE)
    m, degree = np.meshgrid(np.arange(9), np.arange(9), indexing="ij")
    assert not table[degree < m].any()


def test_is_orthonormal_at_high_degree():
    # cos(latitude)**m underflows for most orders here; the functions themselves do not.
    sine, weights = np.polynomial.legendre.leggauss(721)
    table = legendre_table(721, np.rad2deg(np.arcsin(sine)))
    for order in (0, 1, 100, 400, 719):
        rows = table[order, order:]
        np.testing.assert_allclose(0.5 * (rows * weights) @ rows.T, np.eye(721 - order), atol=2e-11)


def test_vector_tables_are_orthonormal():
    sine, weights = np.polynomial.legendre.leggauss(24)
    for table in vector_tables(24, np.rad2deg(np.arcsin(sine))):
        for order in (0, 1, 2, 11, 23):
            rows = table[order, max(order, 1) :]
            np.testing.assert_allclose(0.5 * (rows * weights) @ rows.T, np.eye(len(rows)), atol=1e-12)


def test_vector_tables_are_derivative_and_quotient():
    band_limit, latitude, step = 12, np.linspace(-80.0, 80.0, 9), 1e-4
    plus, minus = vector_tables(band_limit, latitude)
    degree = np.arange(band_limit)[None, :, None]
    norm = np.sqrt(np.maximum(degree * (degree + 1), 1))
    difference = legendre_table(band_limit, latitude + step) - legendre_table(band_limit, latitude - step)
    derivative = difference / (2 * np.deg2rad(step)) / norm
    order = np.arange(band_limit)[:, None, None]
    quotient = order * legendre_table(band_limit, latitude) / np.cos(np.deg2rad(latitude)) / norm
    np.testing.assert_allclose(0.5 * (plus + minus), derivative, atol=1e-6)
    np.testing.assert_allclose(0.5 * (plus - minus), quotient, atol=1e-11)


def test_vector_tables_are_finite_at_the_poles():
    plus, minus = vector_tables(8, np.array([-90.0, 90.0]))
    derivative, quotient = 0.5 * (plus + minus), 0.5 * (plus - minus)
    # Only order 1 is seen at a pole: the wind there is one vector.
    assert np.abs(derivative[1, 1:]).min() > 0.1
    assert np.abs(np.delete(derivative, 1, axis=0)).max() < 1e-12
    assert np.abs(np.delete(quotient, 1, axis=0)).max() < 1e-12
