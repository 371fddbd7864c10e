"""How an iso-latitude grid is integrated, and which degrees it determines.

Two analyses of a field f(sin latitude) are in use. Quadrature sums f against each harmonic with the weights of
`quadrature`; it is exact when products of two harmonics, polynomials of degree 2 (L - 1) in x = sin(latitude), are
integrated exactly. This holds for tangent vectors too: their functions of spin +1 and -1 carry the factor
``(1 - x)**(|m + s| / 2) * (1 + x)**(|m - s| / 2)``, which in a product of two of one order and spin is a polynomial. The
least-squares fit of `least_squares`, order by order, needs only as many rows as there are harmonics, and so reaches
about twice that band limit on an equiangular grid.

Weights are shares of the sphere's area: they sum to one and a weighted sum of zonal means is the mean over the sphere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from transforms.errors import InputError
from transforms.grids import COORDINATE_TOLERANCE, Grid

__all__ = ["BandLimits", "Quadrature", "band_limits", "choose_analysis", "least_squares", "quadrature"]

_MOMENT_TOLERANCE = 1e-12
"""A rule integrates a Legendre polynomial (at most 1 in size) exactly when it errs by less than this."""

_WORST_CONDITION = 100.0
"""Of the equations for interpolatory weights. Useful grids stay below 10; rows evenly spaced in sin(latitude), whose
weights alternate in sign and grow exponentially, exceed the bound from 17 rows on."""


@dataclass(frozen=True, eq=False)
class Quadrature:
    """An integration rule over latitude.

    Attributes:
        weights: share of the sphere's area, shape (latitude,), float64, symmetric about the equator, sum 1.
        degree: largest degree up to which all polynomials in sin(latitude) are integrated exactly. It is odd, since a
            symmetric rule integrates every odd polynomial.
        latitude: degrees north that the weights belong to, shape (latitude,), float64, exactly symmetric. They are the
            grid's to within `COORDINATE_TOLERANCE`, free of the rounding of coordinates kept in float32.
    """

    weights: np.ndarray
    degree: int
    latitude: np.ndarray


@dataclass(frozen=True)
class BandLimits:
    """Largest band limits L, degrees 0 .. L - 1, of scalars and tangent vectors on one grid.

    Attributes:
        quadrature: of the analysis by quadrature.
        full: of the analysis by least squares.
    """

    quadrature: int
    full: int


def quadrature(grid: Grid, weights: np.ndarray | None = None) -> Quadrature:
    """Return the integration rule of a grid's latitudes.

    Gauss-Legendre, Clenshaw-Curtis (equiangular with poles) and Fejer's first rule (equiangular without poles) are
    closed forms. On other latitudes it is the interpolatory rule, with degree at least H - 1 (H even) or H (H odd).

    Args:
        grid: the grid, of H latitudes.
        weights: replace the rule by weights of your own, shape (latitude,), in proportion to area, symmetric about the
            equator, in float64: their degree is the one up to which Legendre moments vanish to 1e-12.

    Raises:
        InputError: the given weights have the wrong shape, are not symmetric, or have no positive sum; or the
            latitudes belong to no known family and their interpolatory rule is ill conditioned.
    """
    nlat = grid.latitude.size
    rule, degree = None, 0
    if grid.is_equiangular:
        latitude = _symmetric(Grid.equiangular(nlat, 2, poles=grid.has_poles).latitude)
        rule = _clenshaw_curtis(nlat) if grid.has_poles else _fejer(nlat)
        # Interpolation through H rows; an odd H lets symmetry integrate one more.
        degree = nlat - 1 + nlat % 2
    elif (gauss := _gauss_legendre(grid.latitude)) is not None:
        latitude, rule = gauss
        degree = 2 * nlat - 1
    else:
        latitude = _symmetric(grid.latitude)
    if weights is not None:
        rule = _given(weights, nlat)
    elif rule is not None:
        return Quadrature(rule, degree, latitude)
    else:
        rule = _interpolatory(latitude, grid.latitude_weights() / nlat)
    return Quadrature(rule, _degree_of(rule, latitude), latitude)


def band_limits(grid: Grid, weights: np.ndarray | None = None) -> BandLimits:
    """Return the largest band limits of both analyses.

    Example:
        >>> band_limits(Grid.equiangular(121, 240, poles=True))
        BandLimits(quadrature=61, full=120)

    Orders m < L need N >= 2 L - 1 longitudes. In latitude, quadrature needs a degree of 2 (L - 1). Least squares needs
    a row where they do not vanish for each of the L - m functions of order m: H rows serve H degrees of order 0, and
    both poles serve order 0 alone, so a grid with poles has H - 2 rows for the L - 1 functions of order 1. For the
    L - 1 zonal vectors, which vanish at the poles, the count with poles is the same; without poles they would leave
    room for one degree more than scalars have.

    Args:
        grid: the grid, of H latitudes and N longitudes.
        weights: as in `quadrature`.

    Raises:
        InputError: as in `quadrature`.
    """
    nlat, nlon = grid.shape
    orders = (nlon + 1) // 2
    rule = quadrature(grid, weights)
    return BandLimits(quadrature=min(rule.degree // 2 + 1, orders), full=min(nlat - int(grid.has_poles), orders))


def choose_analysis(
    grid: Grid, band_limit: int, analysis: str = "auto", weights: np.ndarray | None = None
) -> tuple[str, Quadrature]:
    """Return the analysis, ``quadrature`` or ``full``, by which a grid determines the degrees wanted, and its rule.

    Args:
        grid: the grid.
        band_limit: L, degrees 0 .. L - 1.
        analysis: either name, or ``auto``: quadrature where it is exact, else full.
        weights: as in `quadrature`.

    Raises:
        ValueError: an unknown analysis, or one that does not reach the band limit on this grid.
        InputError: as in `quadrature`.
    """
    rule, limits = quadrature(grid, weights), band_limits(grid, weights)
    if analysis not in ("auto", "quadrature", "full"):
        raise ValueError(f"analysis: got {analysis!r}, expected 'auto', 'quadrature' or 'full'")
    if not 1 <= band_limit <= limits.full:
        raise ValueError(f"band_limit: got {band_limit}, but {grid} determines at most {limits.full}")
    if analysis == "quadrature" and band_limit > limits.quadrature:
        raise ValueError(
            f"band_limit: got {band_limit}, but the quadrature of {grid} is exact for band limits up to "
            f"{limits.quadrature} (polynomials of degree {rule.degree}); use analysis='full', which reaches {limits.full}"
        )
    if analysis == "auto":
        analysis = "quadrature" if band_limit <= limits.quadrature else "full"
    return analysis, rule


def least_squares(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the analysis that fits coefficients to rows by weighted least squares.

    It is the left inverse of the table with the smallest norm from the weighted mean square over rows to the sum of
    squared coefficients, so no other exact analysis amplifies errors less in that norm.

    Args:
        table: synthesis, (..., latitude, degree), float64. A column of zeros stands for a function that does not exist
            (l < m); its coefficient is zero.
        weights: of the squared misfit of each row, shape (latitude,), none negative; usually shares of area.

    Returns:
        Array (..., degree, latitude), float64.

    Raises:
        InputError: shapes disagree, a weight is negative, or the rows do not determine the coefficients.
    """
    table = np.asarray(table, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    nlat, degrees = table.shape[-2:]
    if weights.shape != (nlat,):
        raise InputError(
            f"weights: got shape {weights.shape}, expected {(nlat,)}, one weight for each latitude of the table "
            f"{table.shape}. Give the table as (..., latitude, degree)."
        )
    if not (weights >= 0.0).all():
        raise InputError(f"weights: got {weights.min():.3g}, expected none below zero. Use shares of area.")
    root = np.sqrt(weights)
    analysis = np.zeros((*table.shape[:-2], degrees, nlat))
    for index in np.ndindex(table.shape[:-2]):
        present = table[index].any(axis=0)
        if not present.any():
            continue
        basis, factor = np.linalg.qr(root[:, None] * table[index][:, present])
        pivots = np.abs(np.diagonal(factor))
        if present.sum() > nlat or pivots.min() < 1e-10 * pivots.max():
            raise InputError(
                f"table: got {present.sum()} functions (index {index}) that {nlat} latitudes do not tell apart, "
                "expected independent columns. Lower the band limit to band_limits(grid).full."
            )
        analysis[(*index, present)] = np.linalg.solve(factor, basis.T) * root
    return analysis


def _symmetric(latitude: np.ndarray) -> np.ndarray:
    return 0.5 * (latitude - latitude[::-1])


def _legendre(sine: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the Legendre polynomials P_0, P_1, ... (P(1) = 1) at each sine."""
    current, previous = np.ones_like(sine), np.zeros_like(sine)
    degree = 0
    while True:
        yield current
        current, previous = ((2 * degree + 1) * sine * current - degree * previous) / (degree + 1), current
        degree += 1


def _gauss_legendre(latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return exact Gauss-Legendre latitudes and weights, or None when these latitudes are others.

    Newton's method in the angle, from the given latitudes; weights are (1 - x^2) / (H (P_{H-1} - x P_H))^2.
    """
    nlat = latitude.size
    roots = latitude = _symmetric(latitude)
    for _ in range(4):
        sine, cosine = np.sin(np.deg2rad(roots)), np.cos(np.deg2rad(roots))
        polynomials = _legendre(sine)
        *_, below, last = (next(polynomials) for _ in range(nlat + 1))
        slope = nlat * (below - sine * last)
        with np.errstate(divide="ignore", invalid="ignore"):
            roots = _symmetric(roots - np.rad2deg(cosine * last / slope))
        if not np.abs(roots - latitude).max() < COORDINATE_TOLERANCE:
            return None
    return roots, _normalised((cosine / slope) ** 2)


def _clenshaw_curtis(nlat: int) -> np.ndarray:
    """Return the weights for equiangular latitudes with both poles (Clenshaw & Curtis 1960; Waldvogel 2006, BIT 46)."""
    intervals = nlat - 1
    row = np.arange(nlat)
    harmonic = np.arange(1, intervals // 2 + 1)
    factors = np.where(2 * harmonic == intervals, 1.0, 2.0) / (4.0 * harmonic**2 - 1.0)
    # Whole turns are removed in integers, where they cost no digits.
    cosines = np.cos((2 * np.outer(row, harmonic) % (2 * intervals)) * (np.pi / intervals))
    ends = np.where((row == 0) | (row == intervals), 0.5, 1.0)
    return _normalised(ends * (1.0 - cosines @ factors))


def _fejer(nlat: int) -> np.ndarray:
    """Return the weights for equiangular latitudes without poles (Fejer 1933; Waldvogel 2006, BIT 46)."""
    row = np.arange(nlat)
    harmonic = np.arange(1, nlat // 2 + 1)
    cosines = np.cos((np.outer(2 * row + 1, 2 * harmonic) % (4 * nlat)) * (np.pi / (2 * nlat)))
    return _normalised(1.0 - cosines @ (2.0 / (4.0 * harmonic**2 - 1.0)))


def _interpolatory(latitude: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Return the weights that integrate interpolating polynomials, or refuse them.

    Solved for one hemisphere in even orthonormal Legendre polynomials; the area (sum 1) scales unknowns to order one.
    """
    nlat = latitude.size
    northern = slice(nlat // 2, None)
    pairs = np.where(np.arange(nlat // 2, nlat) * 2 == nlat - 1, 1.0, 2.0)
    scale = np.sqrt(pairs * area[northern])
    polynomials = _legendre(np.sin(np.deg2rad(latitude[northern])))
    even = np.array([next(polynomials) for _ in range(nlat)])[::2]
    matrix = np.sqrt(4.0 * np.arange(scale.size) + 1.0)[:, None] * even * scale
    condition = np.linalg.cond(matrix)
    if not condition < _WORST_CONDITION:
        raise InputError(
            f"latitude: got {nlat} rows that are neither Gaussian nor equiangular and whose interpolatory integration "
            f"rule has condition number {condition:.1e}, expected less than {_WORST_CONDITION:g}. Give weights "
            "(latitude,) of your own, or regrid to a Gaussian or equiangular grid."
        )
    half = np.linalg.solve(matrix, np.eye(scale.size)[0]) * scale / pairs
    return _normalised(np.concatenate([half[::-1][: nlat // 2], half]))


def _given(weights: np.ndarray, nlat: int) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (nlat,):
        raise InputError(f"weights: got shape {weights.shape}, expected {(nlat,)}, one weight for each latitude.")
    if not np.isfinite(weights).all() or not weights.sum() > 0.0:
        raise InputError(
            f"weights: got a sum of {weights.sum():.6g}, expected finite values with a positive sum. Use weights in "
            "proportion to the area of each row."
        )
    difference = np.abs(weights - weights[::-1]).max()
    if difference > 1e-6 * np.abs(weights).max():
        raise InputError(
            f"weights: got values that differ between north and south by up to {difference:.3g}, expected weights "
            "symmetric about the equator. Give the weights of mirrored rows the same value."
        )
    return _normalised(weights)


def _normalised(weights: np.ndarray) -> np.ndarray:
    weights = weights + weights[::-1]
    return weights / weights.sum()


def _degree_of(weights: np.ndarray, latitude: np.ndarray) -> int:
    """Return the degree of exactness of a symmetric rule by its even Legendre moments; H rows reach at most 2 H - 1."""
    polynomials = _legendre(np.sin(np.deg2rad(latitude)))
    next(polynomials)
    for degree in range(2, 2 * latitude.size, 2):
        next(polynomials)
        if abs(weights @ next(polynomials)) > _MOMENT_TOLERANCE:
            return degree - 1
    return 2 * latitude.size - 1
