"""Random fields have the spectrum they were given, the same variance everywhere, and winds that are vectors."""

from __future__ import annotations

import numpy as np
import pytest

from model.harmonics import Transform
from model.random_fields import EARTH_RADIUS_KM, RandomFields, gaussian_spectrum, power_law_spectrum, resolved_degrees
from transforms.grids import Grid

GRIDS = {
    "with poles": Grid.equiangular(17, 32, poles=True),
    "without poles": Grid.equiangular(16, 32, poles=False),
    "Gaussian": Grid.gaussian(16),
}
MEMBERS = 3000


def normals(fields: RandomFields, seed: int = 0, count: int = MEMBERS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, fields.normals))


def by_degree(modal: np.ndarray) -> np.ndarray:
    """Mean over members of the power by degree; modal (part, m, l, batch, channel)."""
    return np.mean(np.sum(np.square(np.asarray(modal, np.float64)), axis=(0, 1)), axis=(1, 2))


def nodal(fields: np.ndarray) -> np.ndarray:
    return fields.transpose(2, 1, 0)[:, :, None]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("make", [lambda n: gaussian_spectrum(n, 1500.0), lambda n: power_law_spectrum(n, -1.5, 3)])
def test_the_spectrum_of_scalars_is_recovered(grid, make):
    fields = RandomFields(grid, make(resolved_degrees(grid)))
    transform = Transform(grid, fields.power.size)
    power = by_degree(transform.scalars_to_modal(nodal(fields.scalars(normals(fields)))))
    # The power of a degree is a chi-square of 2 l + 1 for each member; five standard deviations.
    error = 5 * np.sqrt(2 / (MEMBERS * (2 * np.arange(power.size) + 1)))
    there = fields.power > 0
    assert (np.abs(power[there] / fields.power[there] - 1) < error[there]).all()
    assert (power[~there] < 1e-10).all()
    assert there.sum() > 5


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_winds_have_the_spectrum_and_the_share_of_divergence(grid, share):
    fields = RandomFields(grid, power_law_spectrum(resolved_degrees(grid), -1.0))
    u, v = fields.vectors(normals(fields, 1), normals(fields, 2), share)
    parts = Transform(grid, fields.power.size).vectors_to_modal(nodal(u), nodal(v))
    divergent, rotational = map(by_degree, parts)
    error = 5 * np.sqrt(2 / (MEMBERS * (2 * np.arange(fields.power.size) + 1)))
    np.testing.assert_array_less(np.abs(divergent - share * fields.power), error * fields.power + 1e-10)
    np.testing.assert_array_less(np.abs(rotational - (1 - share) * fields.power), error * fields.power + 1e-10)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_variance_is_the_same_everywhere(grid):
    fields = RandomFields(grid, gaussian_spectrum(resolved_degrees(grid), 1200.0))
    scalar = fields.scalars(normals(fields))
    u, v = fields.vectors(normals(fields, 1), normals(fields, 2), 0.3)
    # Points of a row are correlated, so a row is judged as a single point would be.
    error = 5 * np.sqrt(2 / MEMBERS)
    for field, expected in ((scalar, 1.0), (u, 0.5), (v, 0.5)):
        assert np.abs(np.mean(np.square(field), axis=(0, 2)) / expected - 1).max() < error
        assert np.abs(np.mean(np.square(field), axis=(0, 1)) / expected - 1).max() < error
    # Components at a point know nothing of each other, whichever way north is.
    assert np.abs(np.mean(u * v, axis=(0, 2))).max() < 0.5 * error
    if grid.has_poles:
        # At a pole a vector is one vector, seen from every longitude.
        turn = np.deg2rad(grid.longitude)
        x, y = u[:, -1] * -np.sin(turn) - v[:, -1] * np.cos(turn), u[:, -1] * np.cos(turn) - v[:, -1] * np.sin(turn)
        assert np.ptp(x, axis=1).max() < 1e-4
        assert np.ptp(y, axis=1).max() < 1e-4
        assert np.ptp(scalar[:, -1], axis=1).max() < 1e-4


def test_correlation_falls_with_distance_as_said():
    grid, length = Grid.gaussian(48), 1000.0
    fields = RandomFields(grid, gaussian_spectrum(48, length))
    assert fields.power.size < 47  # What is negligible is left out.
    for distance in (500.0, 1000.0, 2000.0):
        legendre = np.polynomial.legendre.legval(np.cos(distance / EARTH_RADIUS_KM), fields.power)
        assert legendre == pytest.approx(np.exp(-0.5 * (distance / length) ** 2), abs=0.02)


def test_a_finer_grid_adds_scales_and_keeps_the_others():
    coarse, fine = (RandomFields(Grid.gaussian(n), np.where(np.arange(n) > 0, 1.0, 0.0)) for n in (8, 16))
    numbers = normals(fine, count=2)
    transform = Transform(fine.grid, 16)
    long = np.asarray(transform.scalars_to_modal(nodal(fine.scalars(numbers))))[:, :8, :8]
    short = np.asarray(Transform(coarse.grid, 8).scalars_to_modal(nodal(coarse.scalars(numbers[:, :64]))))
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_spectra_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="lowest: got degree 8, expected 1 to 7"):
        gaussian_spectrum(8, 500.0, 8)
    assert gaussian_spectrum(8, 1e6, 2) == pytest.approx([0, 0, 1, 0, 0, 0, 0, 0])
