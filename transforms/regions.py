"""Regions that scores are averaged over, as weights on the grid.

The names and boxes are those of WeatherBench 2. Any name with ``_land`` appended means the land within that region, each
point counting with its land fraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transforms.errors import InputError
from transforms.grids import COORDINATE_TOLERANCE, Grid

__all__ = ["LAND_SUFFIX", "REGIONS", "region_weights"]

Box = tuple[tuple[float, float], tuple[tuple[float, float], ...]]

_EVERYWHERE = ((0.0, 360.0),)
LAND_SUFFIX = "_land"

# Latitudes and longitudes from .. to, ends included; a region is the union of its boxes.
REGIONS: dict[str, tuple[Box, ...]] = {
    "global": (((-90, 90), _EVERYWHERE),),
    "tropics": (((-20, 20), _EVERYWHERE),),
    "extra-tropics": (((-90, -20), _EVERYWHERE), ((20, 90), _EVERYWHERE)),
    "northern-hemisphere": (((20, 90), _EVERYWHERE),),
    "southern-hemisphere": (((-90, -20), _EVERYWHERE),),
    "europe": (((35, 75), ((347.5, 360.0), (0.0, 42.5))),),
    "north-america": (((25, 60), ((240.0, 285.0),)),),
    "north-atlantic": (((25, 65), ((290.0, 350.0),)),),
    "north-pacific": (((25, 60), ((145.0, 230.0),)),),
    "east-asia": (((25, 60), ((102.5, 150.0),)),),
    "ausnz": (((-45, -12.5), ((120.0, 175.0),)),),
    "arctic": (((60, 90), _EVERYWHERE),),
    "antarctic": (((-90, -60), _EVERYWHERE),),
}


def region_weights(names: Sequence[str], grid: Grid, land_sea_mask: np.ndarray | None = None) -> np.ndarray:
    """Return the weight of each grid point in each region, float64, shape (region, latitude, longitude).

    The area weight of the row on the whole grid, times membership (0 or 1), times the land fraction for ``_land``.

    Args:
        land_sea_mask: land fraction, shape (latitude, longitude); needed for ``_land`` regions only.

    Raises:
        InputError: an unknown region, a land region without a mask, or a region without any grid point.
    """
    area = np.broadcast_to(grid.latitude_weights()[:, np.newaxis], grid.shape)
    weights = np.zeros((len(names), *grid.shape))
    for i, name in enumerate(names):
        base = name.removesuffix(LAND_SUFFIX)
        if base not in REGIONS:
            raise InputError(
                f"region {name!r}: not known; known are {', '.join(REGIONS)}, each also with {LAND_SUFFIX} appended."
            )
        for latitudes, longitudes in REGIONS[base]:
            rows = _within(grid.latitude, *latitudes)
            columns = np.any([_within(grid.longitude, *span) for span in longitudes], axis=0)
            weights[i][np.ix_(rows, columns)] = area[np.ix_(rows, columns)]
        if name != base:
            if land_sea_mask is None:
                raise InputError(
                    f"region {name!r}: needs land_sea_mask, which the truth lacks. Add it to data.statics, or leave the "
                    "region out."
                )
            weights[i] *= np.nan_to_num(land_sea_mask)
        if not (weights[i] > 0).any():
            raise InputError(f"region {name!r}: holds no point of the grid ({grid}). Leave it out.")
    return weights


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low - COORDINATE_TOLERANCE) & (values <= high + COORDINATE_TOLERANCE)
