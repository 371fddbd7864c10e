"""Regions that scores are averaged over, as weights on the grid.

The names and boxes are those of WeatherBench 2. Any name with ``_land`` appended means the land within that region, each
point counting with its land fraction; with ``_land_gt_0.5`` the points of a larger land fraction, counting in full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from transforms.errors import InputError
from transforms.grids import COORDINATE_TOLERANCE, Grid

__all__ = ["LAND_SUFFIX", "REGIONS", "parse_region", "region_weights"]

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
_ALIASES = {"extra-tropics-mask": "extra-tropics", "land_gt_half": f"global{LAND_SUFFIX}_gt_0.5"}
"""Names by which official results go for the same points."""


def region_weights(names: Sequence[str], grid: Grid, land_sea_mask: np.ndarray | None = None) -> np.ndarray:
    """Return the weight of each grid point in each region, float64, shape (region, latitude, longitude).

    The area weight of the row on the whole grid, times membership (0 or 1), times the land fraction for ``_land``, or
    whether it exceeds the threshold.

    Args:
        land_sea_mask: land fraction, shape (latitude, longitude); needed for ``_land`` regions only.

    Raises:
        InputError: an unknown region, a land region without a mask, or a region without any grid point.
    """
    area = np.broadcast_to(grid.latitude_weights()[:, np.newaxis], grid.shape)
    weights = np.zeros((len(names), *grid.shape))
    for i, name in enumerate(names):
        base, land, threshold = parse_region(name)
        for latitudes, longitudes in REGIONS[base]:
            rows = _within(grid.latitude, *latitudes)
            columns = np.any([_within(grid.longitude, *span) for span in longitudes], axis=0)
            weights[i][np.ix_(rows, columns)] = area[np.ix_(rows, columns)]
        if land:
            if land_sea_mask is None:
                raise InputError(
                    f"region {name!r}: needs land_sea_mask, which the truth lacks. Add it to data.statics, or leave the "
                    "region out."
                )
            fraction = np.nan_to_num(land_sea_mask)
            weights[i] *= fraction if threshold is None else fraction > threshold
        if not (weights[i] > 0).any():
            raise InputError(f"region {name!r}: holds no point of the grid ({grid}). Leave it out.")
    return weights


def parse_region(name: str) -> tuple[str, bool, float | None]:
    """Return the region without land, whether it is land alone, and the threshold of the land fraction if any.

    Raises:
        InputError: an unknown region.
    """
    text = _ALIASES.get(name, name)
    match = re.fullmatch(rf"(.+?)({LAND_SUFFIX})?(?:(?<={LAND_SUFFIX})_gt_(0?\.\d+|0|1))?", text)
    base, land, threshold = match.groups() if match else (text, None, None)
    if base not in REGIONS:
        raise InputError(
            f"region {name!r}: not known; known are {', '.join(REGIONS)}, each also with {LAND_SUFFIX} or "
            f"{LAND_SUFFIX}_gt_0.5 appended."
        )
    return base, land is not None, None if threshold is None else float(threshold)


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low - COORDINATE_TOLERANCE) & (values <= high + COORDINATE_TOLERANCE)
