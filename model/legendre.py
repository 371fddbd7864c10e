"""Tables of associated Legendre functions and of the vector harmonics made from them, in float64 on the host.

Normalisation: the mean over the sphere of ``(sqrt(2) P cos(m lambda))**2`` is one, that is
``1/2 * integral P_l^m(x)**2 dx = 1`` over [-1, 1], so coefficients of a field obey Parseval with unit weights. There is
no Condon-Shortley phase. Every table has the axes (m, l, latitude) and zeros where l < m.
"""

from __future__ import annotations

import numpy as np

__all__ = ["legendre_table", "vector_tables"]

_BIG = 2.0**256
"""A mantissa above this is rescaled; a power of two, so that rescaling is exact."""


def legendre_table(band_limit: int, latitude: np.ndarray, orders: int | None = None) -> np.ndarray:
    """Return normalised associated Legendre functions.

    The recursion in l starts at cos(latitude)**m, which underflows near the poles although functions of higher degree
    do not; so every (m, latitude) carries a binary exponent of its own (Fukushima 2012, Journal of Geodesy 86, does
    the same with another scaling).

    Args:
        band_limit: degrees 0 .. band_limit - 1.
        latitude: degrees north, shape (latitude,).
        orders: number of orders m from 0; `band_limit` by default.

    Returns:
        Array (m, l, latitude), float64.
    """
    orders = band_limit if orders is None else orders
    sine = np.sin(np.deg2rad(latitude))
    cosine = np.cos(np.deg2rad(latitude))
    cosine = np.where(np.abs(cosine) < 1e-15, 0.0, cosine)
    table = np.zeros((orders, band_limit, sine.size))

    # P_m^m = c_m cos(latitude)^m by logarithms; split into a mantissa in [1, _BIG) and an exponent of _BIG.
    m = np.arange(orders)
    factors = np.where(m > 0, (2.0 * m + 1.0) / np.maximum(2.0 * m, 1.0), 1.0)
    log_norm = 0.5 * np.cumsum(np.log(factors))
    dead = (m[:, None] > 0) & (cosine == 0.0)
    log_start = log_norm[:, None] + m[:, None] * np.log(np.where(cosine == 0.0, 1.0, cosine))
    exponent = np.floor(log_start / np.log(_BIG))
    current = np.where(dead, 0.0, np.exp(log_start - exponent * np.log(_BIG)))
    previous = np.zeros_like(current)

    for k in range(band_limit):
        rows = m[m + k < band_limit]
        if rows.size == 0:
            break
        # Exponents below -3 are under the smallest float64 whatever the mantissa.
        scale = np.where(exponent < -3, 0.0, _BIG ** np.clip(exponent, -3, 0))
        table[rows, rows + k] = (current * scale)[rows]
        degree = (m + k + 1.0)[:, None]
        order = m[:, None].astype(float)
        a = np.sqrt((4.0 * degree**2 - 1.0) / (degree**2 - order**2))
        b = np.sqrt(np.maximum((degree - 1.0) ** 2 - order**2, 0.0) / np.maximum(4.0 * (degree - 1.0) ** 2 - 1.0, 1.0))
        current, previous = a * (sine * current - b * previous), current
        large = np.abs(current) > _BIG
        current = np.where(large, current / _BIG, current)
        previous = np.where(large, previous / _BIG, previous)
        exponent = exponent + large
    return table


def vector_tables(band_limit: int, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of the unit vector harmonics, regular at the poles.

    With ``D = dP/dlatitude / sqrt(l (l + 1))`` and ``Q = m P / cos(latitude) / sqrt(l (l + 1))`` they are ``D + Q`` and
    ``D - Q``: up to sign the real spin-weighted functions of spin +1 and -1. Each is orthonormal by itself as the
    scalar functions are. Both follow from neighbouring orders of P, so no division by cos(latitude) is needed.

    Args:
        band_limit: degrees 0 .. band_limit - 1; rows of degree 0 are zero.
        latitude: degrees north, shape (latitude,).

    Returns:
        (D + Q, D - Q), each (m, l, latitude), float64.
    """
    scalar = legendre_table(band_limit, latitude, orders=band_limit + 1)
    m = np.arange(band_limit, dtype=float)[:, None]
    degree = np.arange(band_limit, dtype=float)[None, :]
    inside = (degree >= m) & (degree > 0)
    norm = 1.0 / np.sqrt(np.maximum(degree * (degree + 1.0), 1.0))

    def root(value: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(value, 0.0)) * inside * norm

    below = np.concatenate([-scalar[1:2], scalar[: band_limit - 1]])  # order m - 1; P^-1 = -P^1 without the phase
    above = scalar[1 : band_limit + 1]
    with_lower_degree = np.zeros_like(scalar)
    with_lower_degree[:, 1:] = scalar[:, :-1]
    lower_below = np.concatenate([-with_lower_degree[1:2], with_lower_degree[: band_limit - 1]])
    lower_above = with_lower_degree[1 : band_limit + 1]

    derivative = -0.5 * (
        root((degree + m) * (degree - m + 1))[..., None] * below
        - root((degree - m) * (degree + m + 1))[..., None] * above
    )
    ratio = 0.5 * np.sqrt((2 * degree + 1) / np.maximum(2 * degree - 1, 1.0))
    quotient = (ratio * root((degree + m) * (degree + m - 1)))[..., None] * lower_below + (
        ratio * root((degree - m) * (degree - m - 1))
    )[..., None] * lower_above
    quotient[0] = 0.0
    return derivative + quotient, derivative - quotient
