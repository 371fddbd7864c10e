"""Spin-weighted Legendre tables against closed forms, scipy, ducc0, many-digit arithmetic, and their own identities."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from model.legendre import legendre_table, spin_table, vector_tables

LATITUDE = np.array([-90.0, -63.0, -10.0, 0.0, 33.0, 80.0, 90.0])


def gauss(count):
    """Latitudes in degrees and weights of sum 1. A Newton step in the angle mends what arcsin loses near the poles."""
    latitude = np.rad2deg(np.arcsin(scipy.special.roots_legendre(count)[0]))
    value = legendre_table(count + 1, latitude, [0])[0, count]
    slope = vector_tables(count + 1, latitude, [0])[0][0, count] * np.sqrt(count * (count + 1))
    latitude = latitude - np.rad2deg(value / slope)
    slope = vector_tables(count + 1, latitude, [0])[0][0, count]
    return latitude, (2 * count + 1) / (count * (count + 1) * slope**2)


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (1, 1), (5, 3), (40, 0), (40, 39), (300, 200)])
def test_agrees_with_scipy(degree, order):
    table = legendre_table(degree + 1, LATITUDE, [order])
    colatitude = np.deg2rad(90 - LATITUDE)
    expected = scipy.special.sph_harm_y(degree, order, colatitude, 0.0).real * (-1) ** order * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(table[0, degree], expected, atol=2e-12)


def test_closed_forms_of_spins_one_and_two():
    x, y = np.sin(np.deg2rad(LATITUDE)), np.cos(np.deg2rad(LATITUDE))
    # The harmonics of Goldberg et al. at longitude 0, times sqrt(4 pi).
    closed = {
        (1, 1, 1): -np.sqrt(3 / 4) * (1 - x),
        (1, 1, 0): np.sqrt(3 / 2) * y,
        (1, 1, -1): -np.sqrt(3 / 4) * (1 + x),
        (-2, 2, 2): np.sqrt(5 / 16) * (1 + x) ** 2,
        (-2, 2, 1): np.sqrt(5 / 4) * y * (1 + x),
        (-2, 2, 0): np.sqrt(15 / 8) * y**2,
        (-2, 2, -1): np.sqrt(5 / 4) * y * (1 - x),
        (-2, 2, -2): np.sqrt(5 / 16) * (1 - x) ** 2,
        (2, 2, 2): np.sqrt(5 / 16) * (1 - x) ** 2,
    }
    for (spin, degree, order), expected in closed.items():
        table = spin_table(3, LATITUDE, spin, [order])
        np.testing.assert_allclose(table[0, degree], (-1) ** order * expected, atol=1e-15)


@pytest.mark.parametrize("spin", [0, 1, 2])
def test_agrees_with_ducc0(spin):
    ducc0 = pytest.importorskip("ducc0")
    lmax, nlat, nlon = 40, 41, 84
    latitude = 90 - np.rad2deg(ducc0.misc.GL_thetas(nlat))
    for order in (0, 1, 2, 3, 17, 40):
        north, south = (spin_table(lmax + 1, latitude, spin, [m])[0] for m in (order, -order))
        for degree in {max(order, spin), max(order, spin, 23), lmax}:
            coefficients = np.zeros((1 if spin == 0 else 2, (lmax + 1) * (lmax + 2) // 2), complex)
            coefficients[0, order * (2 * lmax + 1 - order) // 2 + degree] = np.sqrt(4 * np.pi)
            maps = ducc0.sht.synthesis_2d(
                alm=coefficients, spin=spin, lmax=lmax, ntheta=nlat, nphi=nlon, geometry="GL", nthreads=1
            )
            field = maps[0] + 1j * (maps[1] if spin else 0)
            # A real coefficient a of a gradient stands for -a and -a (-1)**m at spin s > 0, orders m and -m.
            series = np.fft.fft(field, axis=1) / nlon * (-1) ** order * (-1 if spin else 1)
            np.testing.assert_allclose(series[:, order], north[degree], atol=2e-13)
            np.testing.assert_allclose(series[:, -order], (-1) ** order * south[degree], atol=2e-13)


@pytest.mark.parametrize("spin", [0, 1, -2])
@pytest.mark.parametrize("order", [0, 1, 30, 700])
def test_keeps_its_digits_at_high_degree(spin, order):
    mpmath = pytest.importorskip("mpmath")
    latitude, band_limit = np.array([89.95, 31.7, -0.1, -85.0]), 1441
    table = spin_table(band_limit, latitude, spin, [order])[0]
    first, least = max(order, abs(spin)), min(order, abs(spin))
    with mpmath.workdps(40):
        for column, value in enumerate(latitude):
            half = (90 - mpmath.mpf(float(value))) * mpmath.pi / 360
            f = mpmath.sqrt((2 * first + 1) * mpmath.binomial(2 * first, first + least))
            f *= mpmath.cos(half) ** abs(order - spin) * mpmath.sin(half) ** abs(order + spin)
            f *= (-1) ** (order + spin) if spin < -order else 1
            before = alpha = 0
            for degree in range(first, band_limit):
                assert abs(float(f) - table[degree, column]) < 3e-13
                n = degree + 1
                following = mpmath.sqrt(mpmath.mpf((n**2 - order**2) * (n**2 - spin**2)) / (4 * n**2 - 1)) / n
                sine = mpmath.cos(2 * half) + (mpmath.mpf(order * spin) / (degree * n) if degree else 0)
                f, before, alpha = (sine * f - alpha * before) / following, f, following


@pytest.mark.parametrize("spin", [0, 1, -1, 2, -3])
def test_is_zero_below_its_first_degree_and_nothing_else_is(spin):
    orders = np.arange(-10, 11)
    table = spin_table(9, LATITUDE, spin, orders)
    inside = np.arange(9) >= np.maximum(np.abs(orders), abs(spin))[:, None]
    assert not table[~inside].any()
    assert table[inside].any(axis=1).all()


@pytest.mark.parametrize("spin", [0, 1, -1, 2, -5])
def test_poles_see_one_order_exactly(spin):
    orders, degree = np.arange(-9, 10), np.arange(10)
    table = spin_table(10, np.array([-90.0, 90.0]), spin, orders)
    # At a pole a function of spin s has the phase of one order alone, whatever the degree.
    expected = np.where(degree >= abs(spin), np.sqrt(2 * degree + 1), 0)
    np.testing.assert_allclose(table[orders == -spin, :, 1], [expected], rtol=1e-14)
    np.testing.assert_allclose(table[orders == spin, :, 0], [expected * (-1.0) ** (degree + spin)], rtol=1e-14)
    assert not table[orders != -spin, :, 1].any()
    assert not table[orders != spin, :, 0].any()


@pytest.mark.parametrize("spin", [0, 1, 2, 3])
def test_symmetries(spin):
    latitude, orders = np.array([1e-9, 4.0, 44.0, 71.0, 89.999]), np.arange(-12, 13)
    degree, m = np.arange(12), orders[:, None, None]
    table = spin_table(12, latitude, spin, orders)
    opposite = spin_table(12, latitude, -spin, orders)
    np.testing.assert_allclose(table[::-1], (-1.0) ** (m + spin) * opposite, atol=1e-14)
    # Bit for bit, so that a transform can fold the hemispheres.
    np.testing.assert_array_equal(spin_table(12, -latitude, spin, orders), (-1.0) ** (degree[:, None] + m) * opposite)


@pytest.mark.parametrize("spin", [0, 1, -1, 2])
@pytest.mark.parametrize(("degrees", "orders"), [(24, range(-23, 24)), (721, (0, 1, 400, -719)), (1441, (-2, 100))])
def test_is_orthonormal(degrees, orders, spin):
    latitude, weights = gauss(degrees)
    for order in orders:
        rows = spin_table(degrees, latitude, spin, [order])[0, max(abs(order), abs(spin)) :]
        np.testing.assert_allclose((rows * weights) @ rows.T, np.eye(len(rows)), atol=1e-13)


@pytest.mark.parametrize("spin", [0, -1, 2])
def test_neither_under_nor_overflows_near_the_poles(spin):
    # cos(latitude)**m underflows for most orders here; the functions of degree 1440 do not.
    latitude = np.array([-90.0, -89.99, -70.0, 0.0, 85.0, 89.9, 89.99999])
    total = 0.0
    for start in range(-1440, 1441, 131):
        table = spin_table(1441, latitude, spin, range(start, min(start + 131, 1441)))
        assert np.isfinite(table).all()
        assert (np.abs(table) <= np.sqrt(2 * np.arange(1441)[:, None] + 1) * (1 + 1e-12)).all()
        total = total + (table[:, [2, 800, 1440]] ** 2).sum(axis=0)
    # The addition theorem: one degree's functions form a unitary matrix.
    np.testing.assert_allclose(total, np.broadcast_to([[5], [1601], [2881]], total.shape), rtol=1e-12)


def test_blocks_of_orders_equal_all_at_once():
    latitude = np.linspace(-90, 90, 31)
    whole = legendre_table(150, latitude)
    slope, quotient = vector_tables(150, latitude)
    spin = spin_table(150, latitude, 2)
    for orders in (range(40), range(40, 140), [149, 3, 150, 7, 3], []):
        kept = [m for m in orders if m < 150]
        for table, block in zip(
            (whole, slope, quotient, spin),
            (
                legendre_table(150, latitude, orders),
                *vector_tables(150, latitude, orders),
                spin_table(150, latitude, 2, orders),
            ),
            strict=True,
        ):
            assert block.shape == (len(orders), 150, 31)
            assert not block[[i for i, m in enumerate(orders) if m >= 150]].any()
            np.testing.assert_array_equal(block[[i for i, m in enumerate(orders) if m < 150]], table[kept])


def test_slope_and_quotient_are_derivative_and_quotient():
    band_limit, latitude, step = 12, np.linspace(-80.0, 80.0, 9), 1e-4
    slope, quotient = vector_tables(band_limit, latitude)
    degree, order = np.arange(band_limit)[:, None], np.arange(band_limit)[:, None, None]
    norm = np.sqrt(np.maximum(degree * (degree + 1), 1))
    difference = legendre_table(band_limit, latitude + step) - legendre_table(band_limit, latitude - step)
    np.testing.assert_allclose(slope, difference / (2 * np.deg2rad(step)) / norm, atol=1e-6)
    expected = order * legendre_table(band_limit, latitude) / np.cos(np.deg2rad(latitude)) / norm
    np.testing.assert_allclose(quotient, expected, atol=2e-14)


def test_slope_and_quotient_are_spins_plus_and_minus_one():
    slope, quotient = vector_tables(40, LATITUDE)
    np.testing.assert_allclose(slope + quotient, spin_table(40, LATITUDE, 1), atol=1e-14)
    np.testing.assert_allclose(quotient - slope, spin_table(40, LATITUDE, -1), atol=1e-14)


def test_slope_and_quotient_at_the_poles():
    slope, quotient = vector_tables(8, np.array([-90.0, 90.0]))
    # Only order 1 is seen at a pole: the wind there is one vector.
    expected = 0.5 * np.sqrt(2 * np.arange(1, 8) + 1)
    np.testing.assert_allclose(np.abs(slope[1, 1:]), np.stack([expected] * 2, axis=1), rtol=1e-14)
    np.testing.assert_allclose(np.abs(quotient[1, 1:]), np.stack([expected] * 2, axis=1), rtol=1e-14)
    assert not np.delete(slope, 1, axis=0).any()
    assert not np.delete(quotient, 1, axis=0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, LATITUDE, 0), "band_limit: expected at least 1, got 0"),
        ((4, [[0.0]], 0), "latitude: expected shape"),
        ((4, [90.1], 0), "latitude: expected shape"),
        ((4, [np.nan], 0), "latitude: expected shape"),
        ((4, LATITUDE, 0.5), "spin: expected an integer, got 0.5"),
        ((4, LATITUDE, 0, [0.5]), "orders: expected a sequence of integers"),
        ((4, LATITUDE, 0, 3), "orders: expected a sequence of integers"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        spin_table(*arguments)


def test_refuses_negative_orders_without_spin():
    with pytest.raises(ValueError, match="orders: expected m >= 0"):
        legendre_table(4, LATITUDE, [-1])
    with pytest.raises(ValueError, match="orders: expected m >= 0"):
        vector_tables(4, LATITUDE, [-1])
