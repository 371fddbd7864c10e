"""Global latitude-longitude grids: coordinates, cell bounds and area weights.

A `Grid` is defined by its coordinates, never by its shape: 64 x 32 points exist with and without poles, and they are
different grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transforms.errors import InputError
from transforms.latitudes import FAMILIES

__all__ = ["COORDINATE_TOLERANCE", "Grid"]

COORDINATE_TOLERANCE = 1e-3
"""Largest difference, in degrees, between coordinates that are called the same (ERA5 stores keep them in float32)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """An iso-latitude grid of the whole sphere.

    Attributes:
        latitude: degrees north, ascending, shape (latitude,).
        longitude: degrees east, ascending, evenly spaced over the full circle, in [0, 360), shape (longitude,).
    """

    latitude: np.ndarray
    longitude: np.ndarray

    def __post_init__(self) -> None:
        latitude = np.asarray(self.latitude, dtype=np.float64)
        longitude = np.asarray(self.longitude, dtype=np.float64)
        object.__setattr__(self, "latitude", latitude)
        object.__setattr__(self, "longitude", longitude)
        if latitude.ndim != 1 or latitude.size < 2 or not (np.diff(latitude) > 0).all():
            raise InputError(
                f"latitude: expected at least two values in ascending order, got {_summary(latitude)}. "
                "Sort the grid, or give a grid whose rows are circles of latitude."
            )
        if abs(latitude[0]) > 90 + 1e-6 or abs(latitude[-1]) > 90 + 1e-6:
            raise InputError(f"latitude: expected degrees within [-90, 90], got {_summary(latitude)}.")
        if np.abs(latitude + latitude[::-1]).max() > COORDINATE_TOLERANCE:
            raise InputError(
                f"latitude: expected values symmetric about the equator (a global grid), got {_summary(latitude)}. "
                "Regional grids cannot be used."
            )
        gap = 90.0 - latitude[-1]
        if gap > 1.01 * np.diff(latitude).max():
            raise InputError(
                f"latitude: expected a global grid, got {_summary(latitude)}, which leaves {gap:.4g} degrees "
                "uncovered at each pole. Choose a source that reaches the poles."
            )
        step = 360.0 / max(longitude.size, 1)
        if longitude.ndim != 1 or longitude.size < 2 or np.abs(np.diff(longitude) - step).max() > COORDINATE_TOLERANCE:
            raise InputError(
                f"longitude: expected values evenly spaced over 360 degrees, got {_summary(longitude)}. "
                "Choose a global latitude-longitude grid."
            )
        if longitude[0] < -COORDINATE_TOLERANCE or longitude[-1] >= 360:
            raise InputError(f"longitude: expected values within [0, 360), got {_summary(longitude)}.")

    @classmethod
    def of(cls, family: str, nlat: int, nlon: int, *, poles: bool = False) -> Grid:
        """Return the grid of `nlat` latitudes of a family of `transforms.latitudes` and `nlon` longitudes from 0.

        Raises:
            InputError: fewer than 2 x 2 points, an unknown family, or rows asked for at the poles of a family that has
                none there.
        """
        if nlat < 2 or nlon < 2:
            raise InputError(f"grid: expected at least 2 latitudes and 2 longitudes, got {nlat} x {nlon}.")
        if family not in FAMILIES:
            raise InputError(f"family: {family!r} is not known; known are {', '.join(FAMILIES)}.")
        rows = FAMILIES[family].poles if poles else FAMILIES[family].rows
        if rows is None:
            raise InputError(f"poles: the family {family} has no rows there; set poles to false.")
        return cls(rows(nlat), np.arange(nlon) * (360.0 / nlon))

    @classmethod
    def equiangular(cls, nlat: int, nlon: int, *, poles: bool) -> Grid:
        """Return the grid of `nlat` evenly spaced latitudes and `nlon` longitudes from 0.

        With `poles` the rows reach from -90 to 90; without, they sit at the centres of `nlat` equal bands.
        """
        return cls.of("equiangular", nlat, nlon, poles=poles)

    @classmethod
    def gaussian(cls, nlat: int, nlon: int | None = None) -> Grid:
        """Return the grid of the `nlat` Gauss-Legendre latitudes and `nlon` (default `2 * nlat`) longitudes from 0."""
        return cls.of("gaussian", nlat, 2 * nlat if nlon is None else nlon)

    @property
    def shape(self) -> tuple[int, int]:
        """(latitude, longitude)."""
        return self.latitude.size, self.longitude.size

    @property
    def has_poles(self) -> bool:
        """Whether the first and last rows are the poles themselves."""
        return bool(self.latitude[-1] > 90.0 - COORDINATE_TOLERANCE)

    @property
    def is_equiangular(self) -> bool:
        """Whether latitudes are evenly spaced, with both poles or half a step from them."""
        nlat = self.latitude.size
        return any(
            np.abs(self.latitude - Grid.equiangular(nlat, 2, poles=poles).latitude).max() < COORDINATE_TOLERANCE
            for poles in (True, False)
        )

    @property
    def latitude_bounds(self) -> np.ndarray:
        """Cell edges in degrees: midpoints between rows, and the poles at the ends; shape (latitude + 1,)."""
        middle = 0.5 * (self.latitude[1:] + self.latitude[:-1])
        return np.concatenate([[-90.0], middle, [90.0]])

    def latitude_weights(self) -> np.ndarray:
        """Return the area of each row relative to the mean row, shape (latitude,), float64.

        sin(upper edge) - sin(lower edge), divided by its mean, as in WeatherBench 2.
        """
        area = np.diff(np.sin(np.deg2rad(self.latitude_bounds)))
        return area / area.mean()

    def matches(self, other: Grid) -> bool:
        """Whether both grids have the same coordinates to within `COORDINATE_TOLERANCE`."""
        return (
            self.shape == other.shape
            and bool(np.abs(self.latitude - other.latitude).max() < COORDINATE_TOLERANCE)
            and bool(np.abs(self.longitude - other.longitude).max() < COORDINATE_TOLERANCE)
        )

    def __str__(self) -> str:
        nlat, nlon = self.shape
        family = "equiangular" if self.is_equiangular else "Gaussian or other iso-latitude"
        poles = "with" if self.has_poles else "without"
        return f"{nlat} latitudes x {nlon} longitudes, {family}, {poles} poles"


def _summary(values: np.ndarray) -> str:
    flat = np.atleast_1d(values)
    if flat.size <= 4:
        return str(flat.tolist())
    return f"{flat.size} values {flat[0]:.6g}, {flat[1]:.6g} ... {flat[-1]:.6g}"
