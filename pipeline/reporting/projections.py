"""Map projections of the sphere onto the plane, coastlines drawn in them, and fields sampled onto their pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import numpy as np
from scipy import ndimage

from transforms.grids import Grid

__all__ = ["EqualEarth", "Orthographic", "Projection", "coastline_lines", "coastlines", "sample", "svg_path"]


class Projection(Protocol):
    """A map of longitude and latitude in degrees onto x (east) and y (north); out of sight is NaN.

    Attributes:
        extent: largest x and y.
    """

    @property
    def extent(self) -> tuple[float, float]: ...

    def __hash__(self) -> int: ...

    def forward(self, longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y, shape of the arguments."""
        ...

    def inverse(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return longitude and latitude, shape of the arguments."""
        ...


@dataclass(frozen=True)
class EqualEarth:
    """Equal Earth: area-true, with Greenwich in the middle (Savric, Patterson & Jenny 2018, IJGIS 33, 454-465)."""

    _COEFFICIENTS = (1.340264, -0.081106, 0.000893, 0.003796)

    @property
    def extent(self) -> tuple[float, float]:
        half_width, _ = self._plane(np.array(np.pi), np.array(0.0))
        _, half_height = self._plane(np.array(0.0), np.array(np.pi / 3))
        return float(half_width), float(half_height)

    def forward(self, longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta = np.arcsin(np.sqrt(3) / 2 * np.sin(np.deg2rad(latitude)))
        longitude = np.asarray(longitude)
        # Both sides of the date line are themselves, so that a coast that ends on it is not joined across the map.
        within = np.where(np.abs(longitude) <= 180, longitude, (longitude + 180) % 360 - 180)
        return self._plane(np.deg2rad(within), theta)

    def inverse(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a1, a2, a3, a4 = self._COEFFICIENTS
        theta = np.asarray(y, dtype=np.float64) / a1
        for _ in range(8):  # Newton's method; five steps reach float64 precision everywhere.
            square = theta**2
            height = theta * (a1 + a2 * square + square**3 * (a3 + a4 * square))
            slope = a1 + 3 * a2 * square + square**3 * (7 * a3 + 9 * a4 * square)
            theta = theta - (height - y) / slope
        unit, _ = self._plane(np.ones_like(theta), theta)
        longitude = np.rad2deg(x / unit)
        sine = 2 / np.sqrt(3) * np.sin(theta)
        outside = (np.abs(longitude) > 180) | (np.abs(sine) > 1)
        latitude = np.rad2deg(np.arcsin(np.clip(sine, -1, 1)))
        return np.where(outside, np.nan, longitude), np.where(outside, np.nan, latitude)

    def _plane(self, longitude: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a1, a2, a3, a4 = self._COEFFICIENTS
        square = theta**2
        slope = a1 + 3 * a2 * square + square**3 * (7 * a3 + 9 * a4 * square)
        x = 2 * np.sqrt(3) * longitude * np.cos(theta) / (3 * slope)
        return x, theta * (a1 + a2 * square + square**3 * (a3 + a4 * square))


@dataclass(frozen=True)
class Orthographic:
    """The globe seen from far above a point.

    Attributes:
        longitude, latitude: the point in the middle, degrees.
    """

    longitude: float
    latitude: float

    @property
    def extent(self) -> tuple[float, float]:
        return 1.0, 1.0

    def forward(self, longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi, phi0 = np.deg2rad(latitude), np.deg2rad(self.latitude)
        turn = np.deg2rad(np.asarray(longitude) - self.longitude)
        x = np.cos(phi) * np.sin(turn)
        y = np.cos(phi0) * np.sin(phi) - np.sin(phi0) * np.cos(phi) * np.cos(turn)
        hidden = np.sin(phi0) * np.sin(phi) + np.cos(phi0) * np.cos(phi) * np.cos(turn) < 0
        return np.where(hidden, np.nan, x), np.where(hidden, np.nan, y)

    def inverse(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        square = np.asarray(x) ** 2 + np.asarray(y) ** 2
        towards = np.sqrt(np.where(square > 1, np.nan, 1 - square))
        phi0 = np.deg2rad(self.latitude)
        sine = np.clip(towards * np.sin(phi0) + y * np.cos(phi0), -1, 1)
        turn = np.arctan2(x, towards * np.cos(phi0) - y * np.sin(phi0))
        return self.longitude + np.rad2deg(turn), np.rad2deg(np.arcsin(sine))


def coastlines() -> list[np.ndarray]:
    """Return the world's coastlines at 1:110 million (Natural Earth): degrees, each of shape (point, lon-lat)."""
    return [np.cumsum(np.reshape(line, (-1, 2)), axis=0) / 10.0 for line in coastline_lines()]


def coastline_lines() -> list[list[int]]:
    """Return the coastlines as they are stored: longitude and latitude in turn, tenths of degrees, each a step from the last."""
    text = (resources.files("pipeline.reporting") / "assets" / "coastlines.json").read_text(encoding="utf-8")
    return json.loads(text)["lines"]


def svg_path(lines: list[np.ndarray], projection: Projection, width: int) -> str:
    """Return lines in degrees, each of shape (point, lon-lat), as the data of an SVG path on a picture `width` wide."""
    half_width, half_height = projection.extent
    scale = width / (2 * half_width)
    parts = []
    for line in lines:
        x, y = projection.forward(line[:, 0], line[:, 1])
        pixels = np.stack([(x + half_width) * scale, (half_height - y) * scale], axis=-1)
        breaks = np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180) + 1
        for piece in np.split(pixels, breaks):
            visible = np.isfinite(piece).all(axis=1)
            parts += [
                "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in run)
                for run in np.split(piece, np.flatnonzero(np.diff(visible)) + 1)
                if len(run) > 1 and np.isfinite(run[0]).all()
            ]
    return "".join(parts)


def sample(field: np.ndarray, grid: Grid, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return a scalar field at any points of the sphere, NaN where the point is.

    Cubic between grid points, across the poles too; linear where values are missing, so that a gap does not spread.

    Args:
        field: shape (latitude, longitude).
        grid: its grid.
        longitude, latitude: degrees, any shape.
    """
    nlat, nlon = grid.shape
    ghost = min(8, nlat // 2)  # Far enough for the spline to forget the edge.
    across = np.roll(field, nlon // 2, axis=1)
    south, north = (
        (across[1 : ghost + 1], across[-ghost - 1 : -1]) if grid.has_poles else (across[:ghost], across[-ghost:])
    )
    rows = np.concatenate([south[::-1], field, north[::-1]])
    south_latitude, north_latitude = (
        (grid.latitude[1 : ghost + 1], grid.latitude[-ghost - 1 : -1])
        if grid.has_poles
        else (grid.latitude[:ghost], grid.latitude[-ghost:])
    )
    row_latitude = np.concatenate([-180 - south_latitude[::-1], grid.latitude, 180 - north_latitude[::-1]])
    row = np.interp(latitude, row_latitude, np.arange(nlat + 2 * ghost))
    column = ((longitude - grid.longitude[0]) % 360) / 360 * nlon
    wrapped = np.pad(rows, ((0, 0), (ghost, ghost)), mode="wrap")
    outside = np.isnan(longitude) | np.isnan(latitude)
    order = 3 if np.isfinite(field).all() else 1
    points = [np.where(outside, 0, row), np.where(outside, 0, column + ghost)]
    values = ndimage.map_coordinates(wrapped, points, order=order, mode="nearest")
    return np.where(outside, np.nan, values)
