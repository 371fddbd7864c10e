"""Regions: areas in closed form, boxes across the prime meridian, land fractions and messages."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regions import REGIONS, region_weights

GRID = Grid.equiangular(181, 360, poles=True)


def test_global_weights_are_the_area():
    weights = region_weights(["global"], GRID)[0]
    np.testing.assert_allclose(weights.mean(), 1.0)
    np.testing.assert_allclose(weights[:, 5], GRID.latitude_weights())


@pytest.mark.parametrize("name", REGIONS)
def test_area_of_every_region(name):
    # On a grid of 1 degree a box of points reaches half a step beyond its labels.
    expected = 0.0
    for (south, north), longitudes in REGIONS[name]:
        lat = np.clip([np.ceil(south) - 0.5, np.floor(north) + 0.5], -90, 90)
        points = sum(len(np.arange(np.ceil(west), min(np.floor(east), 359) + 1)) for west, east in longitudes)
        expected += (np.sin(np.deg2rad(lat[1])) - np.sin(np.deg2rad(lat[0]))) / 2 * points / 360
    share = region_weights([name], GRID)[0].sum() / region_weights(["global"], GRID)[0].sum()
    assert share == pytest.approx(expected, rel=1e-12)


def test_europe_crosses_the_prime_meridian():
    columns = region_weights(["europe"], GRID)[0].any(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(columns), np.r_[0:43, 348:360])


def test_coordinates_in_single_precision_keep_their_region():
    grid = Grid(GRID.latitude * (1 - 1e-6), GRID.longitude)
    np.testing.assert_array_equal(region_weights(["tropics"], grid) > 0, region_weights(["tropics"], GRID) > 0)


def test_land_counts_with_its_fraction():
    fraction = np.random.default_rng(0).random(GRID.shape)
    land, whole = region_weights(["tropics_land", "tropics"], GRID, fraction)
    np.testing.assert_allclose(land, whole * fraction)


def test_errors_name_the_region():
    with pytest.raises(InputError, match="region 'atlantis': not known; known are global, tropics"):
        region_weights(["atlantis"], GRID)
    with pytest.raises(InputError, match="region 'global_land': needs land_sea_mask"):
        region_weights(["global_land"], GRID)
    with pytest.raises(InputError, match="region 'tropics': holds no point"):
        region_weights(["tropics"], Grid.equiangular(2, 4, poles=False))
