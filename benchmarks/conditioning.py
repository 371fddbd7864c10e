"""Which full-bandwidth analysis of an equiangular grid is better conditioned: least squares or the torus extension.

Value is weighted least squares (`model.quadrature.least_squares`), peer the torus extension of McEwen & Wiaux 2011
(IEEE Transactions on Signal Processing 59), both at the largest band limit of the grid. Amplification of one order m is
||analysis|| * ||synthesis||, between coefficients and rows weighted by area, or by one: what an error of the nodal
values, relative to the field, can grow to in the coefficients. For least squares and area it is the condition number
of the synthesis. Vectors stand for their spin +1 function, of which spin -1 is the mirror image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from common import main, row

from model.legendre import legendre_table, vector_tables
from model.quadrature import band_limits, least_squares, quadrature
from transforms.grids import Grid

COLUMNS = 16


@dataclass(frozen=True)
class Order:
    """The synthesis (latitude, l) of one order and its left inverses (l, latitude)."""

    synthesis: np.ndarray
    least_squares: np.ndarray
    torus: np.ndarray
    torus_weights: np.ndarray


def torus_extension(grid: Grid, band_limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices K, (latitude, latitude), with which ``table.T @ K`` is the analysis.

    The rows of order m and spin s continue over the poles to the whole circle of colatitude with the sign
    (-1)**(m + s): as a cosine series when it is even, as a sine series when odd. The series, of degrees below
    `band_limit`, is found from the rows by discrete orthogonality, and the product of two series is integrated against
    sin(colatitude) exactly.

    Args:
        grid: an equiangular grid.
        band_limit: at most the grid's.

    Returns:
        (K of even m + s, K of odd m + s).
    """
    colatitude = np.deg2rad(90.0 - quadrature(grid).latitude)
    once = np.ones(colatitude.size)
    if grid.has_poles:
        once[[0, -1]] = 0.5  # A pole is one point of the circle, every other row two.
    degree = np.arange(band_limit)

    def moment(wave: np.ndarray) -> np.ndarray:
        """1/2 * integral of cos(wave t) sin(t) over [0, pi]."""
        return np.where(wave % 2 == 0, 1.0, 0.0) / np.where(wave % 2 == 0, 1.0 - wave**2, 1.0)

    difference, total = moment(degree[:, None] - degree), moment(degree[:, None] + degree)
    matrices = []
    for wave, gram in ((np.cos, difference + total), (np.sin, difference - total)):
        series = wave(np.outer(degree, colatitude)) * once
        squares = (series * wave(np.outer(degree, colatitude))).sum(1)
        series /= np.where(squares > 0.5, squares, np.inf)[:, None]
        matrices.append(series.T @ (0.5 * gram) @ series)
    return matrices[0], matrices[1]


def amplification(analysis: np.ndarray, synthesis: np.ndarray, weights: np.ndarray) -> float:
    """Return ||analysis|| * ||synthesis|| when the squares of rows count with these weights."""
    root = np.sqrt(weights)
    return np.linalg.norm(analysis / root, 2) * np.linalg.norm(root[:, None] * synthesis, 2)


def orders_of(grid: Grid, spin: int) -> Iterator[Order]:
    """Yield the matrices of every order at the grid's full band limit."""
    band_limit = band_limits(grid).full
    latitude = quadrature(grid).latitude
    table = legendre_table(band_limit, latitude) if spin == 0 else sum(vector_tables(band_limit, latitude))
    fitted = least_squares(table.transpose(0, 2, 1), area_of(grid))
    weights = torus_extension(grid, band_limit)
    for m in range(band_limit):
        rows = table[m, max(m, spin) :]
        kernel = weights[(m + spin) % 2]
        yield Order(rows.T, fitted[m, max(m, spin) :], rows @ kernel, kernel)


def area_of(grid: Grid) -> np.ndarray:
    """Return each row's share of the sphere."""
    return grid.latitude_weights() / grid.shape[0]


def needs_own_table(order: Order, grid: Grid) -> bool:
    """Whether the synthesis, transposed and weighted with cos(latitude), misses the inverse by more than 1e-7."""
    weights = np.cos(np.deg2rad(grid.latitude)) * (0.5 * np.deg2rad(grid.latitude[1] - grid.latitude[0]))
    product = (order.synthesis.T * weights) @ order.synthesis
    return bool(np.linalg.norm(product - np.eye(len(product)), 2) > 1e-7)


def round_trip(orders: list[Order], analyse: Callable[[Order, np.ndarray], np.ndarray]) -> float:
    """Return the relative L2 error of synthesis and analysis in float32, random coefficients at all orders."""
    random = np.random.default_rng(0)
    error = size = 0.0
    for order in orders:
        modal = random.normal(size=(order.synthesis.shape[1], COLUMNS)).astype(np.float32)
        back = analyse(order, order.synthesis.astype(np.float32) @ modal)
        error += float(((back - modal).astype(np.float64) ** 2).sum())
        size += float((modal.astype(np.float64) ** 2).sum())
    return np.sqrt(error / size)


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of every grid, for scalars and vectors."""
    rows = []
    for nlat in arguments.sizes:
        for poles in (True, False):
            grid = Grid.equiangular(nlat, 2 * nlat, poles=poles)
            for kind, spin in (("scalars", 0), ("vectors", 1)):
                name = f"{nlat} rows {'with' if poles else 'without'} poles, {kind}: "
                rows += [{**r, "name": name + r["name"]} for r in compare(grid, spin)]
    return rows


def compare(grid: Grid, spin: int) -> list[dict]:
    """Return the rows of one grid and spin."""
    orders = list(orders_of(grid, spin))
    area, equal = area_of(grid), np.full(grid.shape[0], 1.0 / grid.shape[0])
    fitted, torus, fitted_equal, torus_equal = (
        np.array([amplification(getattr(order, name), order.synthesis, weights) for order in orders])
        for weights in (area, equal)
        for name in ("least_squares", "torus")
    )

    fitted_error = round_trip(orders, lambda order, nodal: order.least_squares.astype(np.float32) @ nodal)
    torus_error = round_trip(orders, lambda order, nodal: order.torus.astype(np.float32) @ nodal)
    shared_error = round_trip(
        orders,
        lambda order, nodal: order.synthesis.T.astype(np.float32) @ (order.torus_weights.astype(np.float32) @ nodal),
    )
    own = sum(needs_own_table(order, grid) for order in orders)
    return [
        row("amplification, worst order", fitted.max(), "", torus.max(), bar=1.01),
        row("amplification, median order", np.median(fitted), "", np.median(torus), bar=1.01),
        row("amplification, worst order, rows unweighted", fitted_equal.max(), "", torus_equal.max()),
        row("round trip in float32", 1e7 * fitted_error, "1e-7", 1e7 * torus_error, bar=1.1),
        row("round trip in float32, torus in two products", 1e7 * fitted_error, "1e-7", 1e7 * shared_error),
        row("orders that the weighted transpose does not invert", own, f"of {len(orders)}", None),
    ]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128], metavar="H", help="numbers of latitudes")


if __name__ == "__main__":
    main(measure, __doc__, _options, packages=("numpy",))
