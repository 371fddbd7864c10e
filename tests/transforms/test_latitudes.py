"""Families of latitudes: every one makes grids of the whole sphere that fields can be brought to."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.grids import Grid
from transforms.latitudes import FAMILIES
from transforms.regridding import Regridder


@pytest.mark.parametrize("nlat", [16, 17])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_covers_the_sphere(family, nlat):
    grid = Grid.of(family, nlat, 32)
    assert grid.shape == (nlat, 32)
    assert not grid.has_poles
    np.testing.assert_allclose(
        Regridder(Grid.equiangular(33, 64, poles=True), grid)(np.ones((33, 64))), 1.0, rtol=1e-12
    )
    if FAMILIES[family].poles:
        assert Grid.of(family, nlat, 32, poles=True).has_poles
    else:
        with pytest.raises(InputError, match=f"poles: the family {family} has no rows there; set poles to false"):
            Grid.of(family, nlat, 32, poles=True)


def test_a_family_that_is_not_known_is_named():
    with pytest.raises(InputError, match="family: 'hexagonal' is not known; known are equiangular, gaussian"):
        Grid.of("hexagonal", 16, 32)
