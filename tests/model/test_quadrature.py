"""Integration rules against closed forms, the degrees they integrate, and the degrees that a grid determines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.special

from model.legendre import legendre_table, vector_tables
from model.quadrature import band_limits, least_squares, quadrature
from transforms import latitudes
from transforms.errors import InputError
from transforms.grids import Grid

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "grids.md"


def rows(sine, nlon: int = 64) -> Grid:
    return Grid(np.rad2deg(np.arcsin(sine)), np.arange(nlon) * (360.0 / nlon))


def lobatto(nlat: int) -> Grid:
    inner = np.polynomial.legendre.Legendre.basis(nlat - 1).deriv().roots()
    return rows(np.concatenate([[-1.0], inner, [1.0]]))


def inner_equiangular(nlat: int, nlon: int = 64) -> Grid:
    """A grid with poles that has lost them."""
    whole = Grid.equiangular(nlat + 2, nlon, poles=True)
    return Grid(whole.latitude[1:-1], whole.longitude)


FAMILIES = {
    "gauss": (lambda nlat: Grid.gaussian(nlat, 64), lambda nlat: 2 * nlat - 1),
    "poles": (lambda nlat: Grid.equiangular(nlat, 64, poles=True), lambda nlat: nlat - 1 + nlat % 2),
    "centres": (lambda nlat: Grid.equiangular(nlat, 64, poles=False), lambda nlat: nlat - 1 + nlat % 2),
    "inner": (inner_equiangular, lambda nlat: nlat - 1 + nlat % 2),
    "lobatto": (lobatto, lambda nlat: 2 * nlat - 3),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def moment(rule, degree: int) -> float:
    return rule.weights @ scipy.special.eval_legendre(degree, np.sin(np.deg2rad(rule.latitude)))


@every_family
@pytest.mark.parametrize("nlat", [4, 5, 8, 9, 31, 64])
def test_integrates_up_to_its_degree_and_no_further(family, nlat):
    make, degree = FAMILIES[family]
    rule = quadrature(make(nlat))
    assert rule.degree == degree(nlat)
    assert rule.weights.sum() == pytest.approx(1.0, abs=1e-15)
    np.testing.assert_array_equal(rule.weights, rule.weights[::-1])
    assert max(abs(moment(rule, k)) for k in range(1, rule.degree + 1)) < 2e-15 * nlat
    assert abs(moment(rule, rule.degree + 1)) > 1e-6


@pytest.mark.parametrize(("poles", "nlat", "degree"), [(True, 2, 1), (True, 3, 3), (False, 2, 1), (False, 3, 3)])
def test_degree_of_the_smallest_rules(poles, nlat, degree):
    assert quadrature(Grid.equiangular(nlat, 4, poles=poles)).degree == degree


def test_small_rules_are_the_known_ones():
    np.testing.assert_allclose(quadrature(Grid.equiangular(3, 4, poles=True)).weights, np.array([1, 4, 1]) / 6)
    np.testing.assert_allclose(quadrature(Grid.equiangular(3, 4, poles=False)).weights, np.array([4, 10, 4]) / 18)
    np.testing.assert_allclose(quadrature(Grid.gaussian(3)).weights, np.array([5, 8, 5]) / 18)


@pytest.mark.parametrize("nlat", [2, 7, 32, 361])
def test_gauss_legendre_agrees_with_numpy_and_scipy(nlat):
    rule = quadrature(Grid.gaussian(nlat, 8))
    np.testing.assert_allclose(rule.weights, np.polynomial.legendre.leggauss(nlat)[1] / 2, atol=1e-15)
    sine, weights = scipy.special.roots_legendre(nlat)
    np.testing.assert_allclose(rule.weights, weights / 2, atol=1e-13)
    np.testing.assert_allclose(np.sin(np.deg2rad(rule.latitude)), sine, atol=1e-15)


@every_family
def test_rules_are_those_that_interpolation_gives(family):
    grid = FAMILIES[family][0](17)
    sine = np.sin(np.deg2rad(grid.latitude))
    weights = np.linalg.solve(np.polynomial.legendre.legvander(sine, 16).T, np.eye(17)[0])
    np.testing.assert_allclose(quadrature(grid).weights, weights, atol=1e-14)


@pytest.mark.parametrize("family", ["gauss", "poles", "centres"])
def test_coordinates_kept_in_float32_are_made_exact(family):
    exact = FAMILIES[family][0](181)
    rounded = quadrature(Grid(exact.latitude.astype(np.float32), exact.longitude.astype(np.float32)))
    expected = quadrature(exact)
    assert rounded.degree == expected.degree
    np.testing.assert_allclose(rounded.weights, expected.weights, atol=1e-15)
    np.testing.assert_allclose(rounded.latitude, exact.latitude, atol=1e-11)


def test_given_weights_are_measured():
    grid = Grid.equiangular(24, 64, poles=False)
    area = quadrature(grid, grid.latitude_weights())
    assert area.degree == 1
    np.testing.assert_allclose(area.weights, grid.latitude_weights() / 24)
    known = quadrature(grid, 7.0 * quadrature(grid).weights)
    assert known.degree == 23
    gauss = Grid.gaussian(90, 180)
    assert quadrature(gauss, np.polynomial.legendre.leggauss(90)[1]).degree == 179


def test_given_weights_are_refused():
    grid = Grid.gaussian(6)
    with pytest.raises(InputError, match=r"weights: got shape \(5,\), expected \(6,\)"):
        quadrature(grid, np.ones(5))
    with pytest.raises(
        InputError, match=r"weights: .* differ between north and south by up to 5, expected .*symmetric"
    ):
        quadrature(grid, np.arange(6.0))
    with pytest.raises(InputError, match=r"weights: got a sum of -6, expected .* positive sum"):
        quadrature(grid, -np.ones(6))
    with pytest.raises(InputError, match=r"weights: got a sum of nan"):
        quadrature(grid, np.full(6, np.nan))


def test_ill_conditioned_latitudes_want_weights():
    grid = rows(np.linspace(-1, 1, 32))
    with pytest.raises(InputError, match=r"latitude: got 32 rows .* condition number 1.3e\+06, expected less than 100"):
        quadrature(grid)
    assert quadrature(grid, grid.latitude_weights()).degree == 1
    assert band_limits(grid, grid.latitude_weights()).quadrature == 1
    assert quadrature(rows(np.linspace(-1, 1, 8))).degree == 7


@pytest.mark.parametrize(
    ("grid", "by_quadrature", "full"),
    [
        (Grid.gaussian(32), 32, 32),
        (Grid.gaussian(32, 32), 16, 16),
        (Grid.gaussian(32, 63), 32, 32),
        (Grid.gaussian(32, 62), 31, 31),
        (Grid.equiangular(32, 64, poles=False), 16, 32),
        (Grid.equiangular(32, 64, poles=True), 16, 31),
        (Grid.equiangular(33, 64, poles=True), 17, 32),
        (Grid.equiangular(40, 40, poles=False), 20, 20),
        (Grid.equiangular(2, 8, poles=True), 1, 1),
        (inner_equiangular(31), 16, 31),
        (lobatto(16), 15, 15),
    ],
    ids=str,
)
def test_band_limits(grid, by_quadrature, full):
    limits = band_limits(grid)
    assert (limits.quadrature, limits.full) == (by_quadrature, full)


@pytest.mark.parametrize("family", latitudes.FAMILIES)
def test_every_family_determines_as_many_degrees_as_it_has_rows(family):
    # The configuration allows networks this many.
    assert band_limits(Grid.of(family, 24, 48)).full == 24


def tables(rule, band_limit: int) -> dict[str, np.ndarray]:
    """Synthesis (m, l, latitude) of scalars and of both spins of vectors."""
    slope, quotient = vector_tables(band_limit, rule.latitude)
    scalar = legendre_table(band_limit, rule.latitude)
    return {"scalar": scalar, "spin +1": slope + quotient, "spin -1": slope - quotient}


def misses(analysis: np.ndarray, table: np.ndarray, first: int) -> float:
    """Largest error of analysis after synthesis over all orders: analysis and table (m, l, latitude)."""
    product = analysis @ table.transpose(0, 2, 1)
    m, degree = np.meshgrid(*map(np.arange, table.shape[:2]), indexing="ij")
    exists = (degree >= m) & (degree >= first)
    return float(np.abs(product - exists[:, :, None] * np.eye(table.shape[1])).max())


@every_family
@pytest.mark.parametrize("nlat", [12, 13])
def test_quadrature_reaches_its_limit_and_no_further(family, nlat):
    rule = quadrature(FAMILIES[family][0](nlat))
    limit = rule.degree // 2 + 1
    for name, table in tables(rule, limit).items():
        assert misses(table * rule.weights, table, int("spin" in name)) < 1e-13, name
    for name, table in tables(rule, limit + 1).items():
        assert misses(table * rule.weights, table, int("spin" in name)) > 1e-3, name


@every_family
@pytest.mark.parametrize("nlat", [12, 13])
def test_least_squares_reaches_its_limit_and_no_further(family, nlat):
    grid = FAMILIES[family][0](nlat)
    rule, area = quadrature(grid), grid.latitude_weights() / nlat
    limit = nlat - int(grid.has_poles)
    for name, table in tables(rule, limit).items():
        assert misses(least_squares(table.transpose(0, 2, 1), area), table, int("spin" in name)) < 1e-12, name
    beyond = tables(rule, limit + 1)
    with pytest.raises(InputError, match="do not tell apart"):
        least_squares(beyond["scalar"].transpose(0, 2, 1), area)
    # Vectors have no degree 0, so rows that are not poles would leave room for one degree more.
    if grid.has_poles:
        for name in ("spin +1", "spin -1"):
            with pytest.raises(InputError, match="do not tell apart"):
                least_squares(beyond[name].transpose(0, 2, 1), area)


@pytest.mark.parametrize("nlon", [15, 16])
def test_longitudes_determine_orders_up_to_the_limit_and_no_further(nlon):
    limit = band_limits(Grid.gaussian(32, nlon)).full
    angle = np.arange(nlon) * (2 * np.pi / nlon)
    for orders, determined in ((limit, True), (limit + 1, False)):
        phase = np.outer(np.arange(orders), angle)
        waves = np.sqrt(2) * np.concatenate(
            [np.cos(phase) / np.sqrt(1 + (phase == 0).all(1))[:, None], np.sin(phase[1:])]
        )
        error = np.abs(waves @ waves.T / nlon - np.eye(2 * orders - 1)).max()
        assert (error < 1e-13) == determined


def test_least_squares_is_quadrature_where_that_is_exact_and_square():
    # With as many rows as functions there is one inverse; on Gauss rows the weighted columns are orthonormal besides.
    grid = Grid.gaussian(16)
    rule = quadrature(grid)
    for name, table in tables(rule, 16).items():
        analysis = least_squares(table.transpose(0, 2, 1), rule.weights)
        np.testing.assert_allclose(analysis, table * rule.weights, atol=1e-13, err_msg=name)
    scalar = legendre_table(16, rule.latitude)[:1].transpose(0, 2, 1)
    np.testing.assert_allclose(least_squares(scalar, np.ones(16)), scalar.transpose(0, 2, 1) * rule.weights, atol=1e-13)


def test_least_squares_minimises_the_weighted_misfit():
    random = np.random.default_rng(0)
    table, weights, values = random.normal(size=(9, 4)), random.uniform(0.1, 1, 9), random.normal(size=9)
    fitted = least_squares(table, weights) @ values
    expected = np.linalg.solve((table.T * weights) @ table, (table.T * weights) @ values)
    np.testing.assert_allclose(fitted, expected, atol=1e-13)


def test_least_squares_keeps_mirror_symmetry():
    grid = Grid.equiangular(20, 64, poles=False)
    table = legendre_table(20, grid.latitude)
    analysis = least_squares(table.transpose(0, 2, 1), grid.latitude_weights())
    m, degree = np.meshgrid(np.arange(20), np.arange(20), indexing="ij")
    np.testing.assert_allclose(analysis[..., ::-1], ((-1.0) ** (m + degree))[..., None] * analysis, atol=1e-13)


def test_least_squares_gives_zero_for_absent_functions():
    table = np.random.default_rng(1).normal(size=(2, 3, 6, 5))
    table[0, :, :, :2] = 0
    table[1, 2] = 0
    analysis = least_squares(table, np.ones(6))
    assert analysis.shape == (2, 3, 5, 6)
    assert not analysis[0, :, :2].any()
    assert not analysis[1, 2].any()
    np.testing.assert_allclose(analysis[0, 1, 2:] @ table[0, 1, :, 2:], np.eye(3), atol=1e-12)


def test_least_squares_refuses_what_it_cannot_fit():
    table = np.random.default_rng(2).normal(size=(3, 6, 5))
    with pytest.raises(InputError, match=r"weights: got shape \(5,\), expected \(6,\)"):
        least_squares(table, np.ones(5))
    with pytest.raises(InputError, match=r"weights: got -1, expected none below zero"):
        least_squares(table, -np.ones(6))
    table[1, :, 4] = table[1, :, 3]
    with pytest.raises(InputError, match=r"table: got 5 functions \(index \(1,\)\) that 6 latitudes do not tell apart"):
        least_squares(table, np.ones(6))
    with pytest.raises(InputError, match="that 4 latitudes do not tell apart"):
        least_squares(table[:, :4], np.ones(4))


def test_the_guide_states_the_limits_of_common_grids():
    pattern = re.compile(r"^\| (\d+) x (\d+) +\| ([\w -]+?) +\| (\d+) +\| (\d+) +\|$", re.MULTILINE)
    stated = pattern.findall(GUIDE.read_text())
    assert len(stated) >= 12
    for nlon, nlat, kind, by_quadrature, full in stated:
        nlat, nlon = int(nlat), int(nlon)
        if kind == "Gauss-Legendre":
            grid = Grid.gaussian(nlat, nlon)
        else:
            grid = Grid.equiangular(nlat, nlon, poles={"with poles": True, "without poles": False}[kind])
        limits = band_limits(grid)
        assert (limits.quadrature, limits.full) == (int(by_quadrature), int(full)), grid
