"""Spectral interpolation against polynomials on the sphere."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.grids import Grid
from transforms.spectral import SpectralInterpolation

SOURCE = Grid.gaussian(16, 32)
TARGETS = [
    Grid.equiangular(17, 32, poles=True),
    Grid.equiangular(12, 20, poles=False),
    Grid.gaussian(16, 32),
    Grid.equiangular(45, 90, poles=True),
]


def _cartesian(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    return (
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude) + 0 * longitude,
    )


def _polynomial(grid: Grid) -> np.ndarray:
    """Degree 15, the most that 16 Gaussian latitudes resolve."""
    x, y, z = _cartesian(grid)
    return 1.0 + x - 2 * y * z + 3 * x**5 * y**4 * z**6 - (x - y) ** 14 + z**15


def _tilted_rotation(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The wind of a solid rotation about the axis (1, 2, 3)."""
    x, y, z = _cartesian(grid)
    east = np.stack([2 * z - 3 * y, 3 * x - z, y - 2 * x])
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    u = -east[0] * np.sin(longitude) + east[1] * np.cos(longitude)
    v = -np.sin(latitude) * (east[0] * np.cos(longitude) + east[1] * np.sin(longitude)) + np.cos(latitude) * east[2]
    return u, v


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_polynomials_are_exact(target):
    got = SpectralInterpolation(SOURCE, target)(_polynomial(SOURCE))
    np.testing.assert_allclose(got, _polynomial(target), atol=1e-10)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_winds_are_exact_at_the_poles_too(target):
    got = SpectralInterpolation(SOURCE, target).wind(*_tilted_rotation(SOURCE))
    for left, right in zip(got, _tilted_rotation(target), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-12)


def test_leading_axes_and_precision_are_kept():
    fields = np.stack([_polynomial(SOURCE), 2 * _polynomial(SOURCE)]).astype(np.float32)
    got = SpectralInterpolation(SOURCE, TARGETS[0])(fields)
    assert got.dtype == np.float32
    assert got.shape == (2, 17, 32)
    np.testing.assert_allclose(got[1], 2 * got[0], rtol=1e-4, atol=1e-4)


def test_fewer_degrees_filter_the_rest():
    _, _, z = _cartesian(SOURCE)
    degree_two = 1.5 * z**2 - 0.5
    np.testing.assert_allclose(SpectralInterpolation(SOURCE, SOURCE, degrees=2)(degree_two), 0, atol=1e-12)
    np.testing.assert_allclose(SpectralInterpolation(SOURCE, SOURCE, degrees=3)(degree_two), degree_two, atol=1e-12)


def test_other_sources_are_refused():
    with pytest.raises(InputError, match="expected a Gaussian grid"):
        SpectralInterpolation(TARGETS[0], SOURCE)
    with pytest.raises(InputError, match="degrees: expected 1 to 16"):
        SpectralInterpolation(SOURCE, TARGETS[0], degrees=17)
