"""Tables of spin-weighted associated Legendre functions, in float64 on the host.

The function of spin s, degree l and order m is, with Wigner's d in the convention ``d^1_{1,0}(theta) = -sin(theta) /
sqrt(2)`` and theta = 90 degrees - latitude,

    lambda^s_{l,m} = sqrt(2 l + 1) d^l_{-s,m}(theta) = (-1)**(m + s) sqrt(2 l + 1) d^l_{m,-s}(theta).

It is ``(-1)**m sqrt(4 pi)`` times the spin-weighted harmonic of Goldberg et al. (1967, J. Math. Phys. 8, 2155) at
longitude 0, that is, without the Condon-Shortley phase. Every function is normalised to
``1/2 * integral lambda**2 d sin(latitude) = 1``, so coefficients obey Parseval with unit weights. It vanishes for
l < max(|m|, |s|), and

    lambda^s_{l,-m}(latitude) = (-1)**(m + s) lambda^{-s}_{l,m}(latitude),
    lambda^s_{l,m}(-latitude) = (-1)**(l + m) lambda^{-s}_{l,m}(latitude).

Spin 0 is the associated Legendre function P_l^m, for m >= 0 positive just south of the north pole. Spins +1 and -1 are
``D + Q`` and ``Q - D``, where ``D = dP/dlatitude / sqrt(l (l + 1))`` and ``Q = m P / cos(latitude) / sqrt(l (l + 1))``.

All tables have the axes (order, l, latitude). Asking for blocks of orders one after another gives the same numbers as
asking for all at once, and costs no more. Absolute errors are below 3e-13 up to l = 1440.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["legendre_table", "spin_table", "vector_tables"]

_BIG = 2.0**256
"""A mantissa above this is rescaled; a power of two, so that rescaling is exact."""

_RESCALE_EVERY = 8
"""Steps between rescalings. One step multiplies by less than 2 l, so a mantissa stays far below the largest float64."""

_ROWS = 64
"""Orders that are advanced together: their state stays in the processor's cache."""


def legendre_table(
    band_limit: int, latitude: np.ndarray, orders: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Return the normalised associated Legendre functions, which are the functions of spin 0.

    Args:
        band_limit: degrees 0 .. band_limit - 1.
        latitude: degrees north, shape (latitude,).
        orders: orders m >= 0; 0 .. band_limit - 1 by default. Rows of m >= band_limit are zero.

    Returns:
        Array (order, l, latitude), float64.

    Raises:
        ValueError: an argument is out of range.
    """
    return spin_table(band_limit, latitude, 0, _orders(band_limit, orders, lowest=0))


def vector_tables(
    band_limit: int, latitude: np.ndarray, orders: Sequence[int] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and quotient of the associated Legendre functions P, from which vector harmonics are made.

    ``slope = dP/dlatitude / sqrt(l (l + 1))`` and ``quotient = m P / cos(latitude) / sqrt(l (l + 1))``, latitude in
    radians; both are regular at the poles and zero at degree 0. ``slope + quotient`` and ``slope - quotient`` are each
    orthonormal as P is: they are the functions of spin +1 and, with its sign changed, of spin -1.

    Args:
        band_limit: degrees 0 .. band_limit - 1.
        latitude: degrees north, shape (latitude,).
        orders: orders m >= 0; 0 .. band_limit - 1 by default. Rows of m >= band_limit are zero.

    Returns:
        (slope, quotient), each (order, l, latitude), float64.

    Raises:
        ValueError: an argument is out of range.
    """
    rows = _orders(band_limit, orders, lowest=0)
    north, column, south = _fold(latitude)
    slope = _northern(band_limit, north, 1, rows)
    quotient = _northern(band_limit, north, -1, rows)
    for plus, minus in zip(slope, quotient, strict=True):
        difference = 0.5 * (plus - minus)
        minus += plus
        minus *= 0.5
        plus[...] = difference
    parity = _parity(band_limit, rows)
    return _unfold(slope, column, south, -parity), _unfold(quotient, column, south, parity)


def spin_table(
    band_limit: int, latitude: np.ndarray, spin: int, orders: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Return the spin-weighted functions lambda^s_{l,m} that the module's docstring defines.

    Example:
        >>> latitude = np.array([-90.0, 0.0, 30.0])
        >>> spin_table(3, latitude, spin=2, orders=[2])[0, 2] / np.sqrt(5)  # ((1 - sin(latitude)) / 2)**2
        array([1.    , 0.25  , 0.0625])

    Args:
        band_limit: degrees 0 .. band_limit - 1.
        latitude: degrees north, shape (latitude,).
        spin: s, of either sign.
        orders: orders m, of either sign; 0 .. band_limit - 1 by default. Rows of |m| >= band_limit are zero.

    Returns:
        Array (order, l, latitude), float64.

    Raises:
        ValueError: an argument is out of range.
    """
    if spin != int(spin):
        raise ValueError(f"spin: expected an integer, got {spin}")
    chosen = _orders(band_limit, orders)
    parity = _parity(band_limit, chosen)
    north, column, south = _fold(latitude)
    if spin == 0:
        return _unfold(_northern(band_limit, north, 0, chosen), column, south, parity)
    result = np.empty((chosen.size, band_limit, column.size))
    for rows, sign in ((~south, spin), (south, -spin)):
        used, place = np.unique(column[rows], return_inverse=True)
        result[:, :, rows] = _northern(band_limit, north[used], sign, chosen)[:, :, place]
    return _unfold(result, np.arange(column.size), south, parity)


def _northern(band_limit: int, latitude: np.ndarray, spin: int, orders: np.ndarray) -> np.ndarray:
    """Return the table (order, l, latitude) of one spin at latitudes of the northern hemisphere."""
    table = np.zeros((orders.size, band_limit, latitude.size))
    first = np.maximum(np.abs(orders), abs(spin))
    rows = np.argsort(first, kind="stable")
    rows = rows[first[rows] < band_limit]
    for start in range(0, rows.size, _ROWS):
        _fill(table, rows[start : start + _ROWS], latitude, spin, orders)
    return table


def _fill(table: np.ndarray, rows: np.ndarray, latitude: np.ndarray, spin: int, orders: np.ndarray) -> None:
    """Run the recursion in l for some rows of a table of northern latitudes, sorted by their first degree.

    With ``alpha_l = sqrt((l**2 - m**2) (l**2 - s**2) / (4 l**2 - 1)) / l`` and ``x = sin(latitude)`` the functions obey
    ``alpha_{l+1} f_{l+1} = (x + s m / (l (l + 1))) f_l - alpha_l f_{l-1}``. Near x = 1 that loses l**2 roundings, in x
    first of all, so the differences ``f_{l+1} - f_l`` are advanced instead, with ``1 - x`` and ``1/2 - alpha`` computed
    without cancellation (Reinsch's modification of Clenshaw's recursion, Oliver 1977, J. Inst. Maths Applics 20, 379).

    The first function of a row underflows near the poles although those of higher degree do not, so every (row,
    latitude) carries a binary exponent of its own (Fukushima 2012, Journal of Geodesy 86, 271).
    """
    band_limit = table.shape[1]
    order = orders[rows]
    first = np.maximum(np.abs(order), abs(spin))
    start = first[0]
    bracket, ratio, inverse = _coefficients(start, band_limit, spin, order)
    drop = (2.0 * np.sin(np.deg2rad(0.5 * (90.0 - latitude.astype(np.longdouble)))) ** 2).astype(float)  # 1 - x
    value, exponent = _first_functions(latitude, spin, order)
    scale = np.ldexp(1.0, 256 * exponent)
    delta, buffer = np.zeros_like(value), np.empty_like(value)

    for degree in range(start, band_limit):
        n = np.searchsorted(first, degree, side="right")
        f, difference, work = value[:n], delta[:n], buffer[:n]
        np.multiply(f, scale[:n], out=work)
        table[rows[:n], degree] = work
        k = degree - start
        np.subtract(bracket[:n, k, None], drop, out=work)
        work *= f
        work *= inverse[:n, k, None]
        difference *= ratio[:n, k, None]
        difference += work
        f += difference
        if k % _RESCALE_EVERY == 0:
            large = np.abs(value) > _BIG
            if large.any():
                value[large] /= _BIG
                delta[large] /= _BIG
                exponent[large] += 1
                scale[large] = np.ldexp(1.0, 256 * exponent[large])


def _coefficients(start: int, band_limit: int, spin: int, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return ``1 - alpha_l - alpha_{l+1} + s m / (l (l + 1))``, ``alpha_l / alpha_{l+1}`` and ``1 / alpha_{l+1}``.

    Each is (row, l) for l = start .. band_limit - 1 and means nothing where l is below the row's first degree.
    """
    m, s = order[:, None].astype(float), float(spin)
    degree = np.arange(start, band_limit + 1.0)
    begun = degree > np.maximum(np.abs(m), abs(s))
    safe = np.maximum(degree, 1.0)
    square = (degree - m) * (degree + m) * ((degree - s) * (degree + s)) / (safe**2 * (4.0 * safe**2 - 1.0))
    alpha = np.sqrt(np.where(begun, square, 0.0))
    # 1/2 - alpha = (1 - 4 alpha**2) / (2 + 4 alpha), and the numerator in closed form.
    rest = (safe**2 * (m**2 + s**2 - 0.25) - (m * s) ** 2) / (safe**2 * (safe**2 - 0.25))
    gap = np.where(begun, rest, 1.0) / (2.0 + 4.0 * alpha)
    inverse = 1.0 / np.where(begun, alpha, 1.0)[:, 1:]
    shift = m * s / (safe * (safe + 1.0))[:-1]
    return gap[:, :-1] + gap[:, 1:] + shift, alpha[:, :-1] * inverse, inverse


def _first_functions(latitude: np.ndarray, spin: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the functions of degree max(|m|, |s|) as mantissas within (-_BIG, _BIG) and exponents of _BIG.

    With l and k the larger and the smaller of |m| and |s| they are, up to sign, ``c cos(latitude)**(l - k) (1 -+
    sin(latitude))**k``, minus where m and s have the same sign, with ``c**2 = prod_{i<=l} (2 i + 1) / (2 i) *
    prod_{i<=k} (l - i + 1) / (l + i)``. Logarithms of powers are large, so they are taken in extended precision where
    the machine has it.
    """
    large, small = np.maximum(np.abs(order), abs(spin)), np.minimum(np.abs(order), abs(spin))
    count = np.arange(1, large.max() + 1, dtype=np.longdouble)
    log_square = np.concatenate([[0.0], np.cumsum(np.log1p(0.5 / count))])[large]
    for i in range(1, small.max() + 1):
        log_square += np.where(i <= small, np.log((large - i + 1) / (large + i).astype(np.longdouble)), 0.0)

    half_angle = np.deg2rad(0.5 * (90.0 - latitude.astype(np.longdouble)))
    cosine = np.sin(2.0 * half_angle)
    same_sign = (order * spin > 0)[:, None]
    factor = np.where(same_sign, 2.0 * np.sin(half_angle) ** 2, 2.0 * np.cos(half_angle) ** 2)
    log_value = 0.5 * log_square[:, None] + np.zeros(latitude.size)
    zero = np.zeros(log_value.shape, bool)
    for base, power in ((cosine, (large - small)[:, None]), (factor, small[:, None])):
        zero |= (base == 0.0) & (power > 0)
        log_value += power * np.log(np.where(base == 0.0, 1.0, base))
    log_big = np.log(np.longdouble(_BIG))
    exponent = np.floor(log_value / log_big)
    value = np.where(zero, 0.0, np.exp(log_value - exponent * log_big)).astype(float)
    larger = np.where(np.abs(order) >= abs(spin), order, spin)
    value[(larger < 0) & ((order + spin) % 2 != 0)] *= -1.0
    return value, exponent.astype(int)


def _fold(latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct |latitude|, the place of each latitude among them, and which latitudes are southern."""
    latitude = np.asarray(latitude, dtype=np.float64)
    if latitude.ndim != 1 or not (np.abs(latitude) <= 90.0 + 1e-6).all():
        raise ValueError(f"latitude: expected shape (latitude,), degrees within [-90, 90], got {latitude}")
    north, column = np.unique(np.minimum(np.abs(latitude), 90.0), return_inverse=True)
    return north, column, latitude < 0.0


def _unfold(table: np.ndarray, column: np.ndarray, south: np.ndarray, parity: np.ndarray) -> np.ndarray:
    """Return a table at the latitudes that were folded; southern ones are multiplied by `parity` (order, l)."""
    result = np.empty((*table.shape[:2], column.size))
    for row, northern, sign in zip(result, table, parity, strict=True):
        np.take(northern, column, axis=1, out=row)
        row[:, south] *= sign[:, None]
    return result


def _parity(band_limit: int, orders: np.ndarray) -> np.ndarray:
    """Return (-1)**(l + m), (order, l)."""
    return 1.0 - 2.0 * ((orders[:, None] + np.arange(band_limit)) % 2)


def _orders(band_limit: int, orders: Sequence[int] | np.ndarray | None, lowest: int | None = None) -> np.ndarray:
    if band_limit < 1:
        raise ValueError(f"band_limit: expected at least 1, got {band_limit}")
    result = np.arange(band_limit) if orders is None else np.asarray(orders)
    if result.ndim != 1 or (result.size and result.dtype.kind not in "iu"):
        raise ValueError(f"orders: expected a sequence of integers, got {orders!r}")
    if lowest is not None and (result < lowest).any():
        raise ValueError(f"orders: expected m >= {lowest}, got {orders!r}; functions of negative m: use spin_table")
    return result.astype(int)
