"""Regridding between global latitude-longitude grids: conservative, bilinear and nearest; winds as vectors.

Conservative and bilinear regridding are separable: one small matrix for latitude and one for longitude, applied to all
slices at once. Definitions are those of WeatherBench 2, except that bilinear interpolation here goes round the circle in
longitude and across the pole in latitude, where WeatherBench 2 holds the last value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transforms.errors import InputError
from transforms.grids import Grid

__all__ = ["METHODS", "Regridder"]

METHODS = ("conservative", "bilinear", "nearest")

_ROUNDING = 1e-9
"""Overlaps and weights smaller than this part of a cell are rounding, not geometry."""


@dataclass(frozen=True, eq=False)
class Regridder:
    """A map of fields from one grid to another; its weights are built once, in float64.

    Attributes:
        source: grid of the fields given.
        target: grid of the fields returned.
        method: ``conservative``: mean over the target cell, weighted by the area of overlap (first order);
            ``bilinear``: linear in latitude and in longitude; ``nearest``: the closest source point on the sphere.

    Raises:
        InputError: the method is unknown.
    """

    source: Grid
    target: Grid
    method: str = "conservative"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method: {self.method!r} is unknown; expected one of {', '.join(METHODS)}.")

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Regrid scalar fields.

        A slice's result does not depend on the slices given with it. Missing values: a conservative mean is over the
        valid part of the cell, and missing where there is none; a bilinear value is missing where any of the points
        it is made of is missing.

        Args:
            field: shape (..., latitude, longitude) on the source grid; NaN marks missing values.

        Returns:
            Shape (..., latitude, longitude) on the target grid; float32 stays float32, all else becomes float64.

        Raises:
            InputError: the last two axes are not those of the source grid.
        """
        field = self._checked(field)
        if self.method == "nearest":
            nlat, nlon = self.source.shape
            return field.reshape(*field.shape[:-2], nlat * nlon)[..., self._nearest]
        result = self._mean(field)
        # A missing value reaches its whole row and column through 0 * NaN, so the result tells which slices have one.
        holed = np.isnan(result).any(axis=(-2, -1))
        if holed.any():
            result[holed] = self._masked_mean(field[holed])
        return result

    def wind(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Regrid a tangent vector field through its Cartesian components.

        Eastward and northward turn with the place, quickly so near the poles; Cartesian components do not. The vector
        is regridded as three scalars and projected onto the tangent plane of each target point.

        Args:
            u: eastward component, shape (..., latitude, longitude) on the source grid.
            v: northward component, same shape.

        Returns:
            Eastward and northward components on the target grid.

        Raises:
            InputError: the last two axes are not those of the source grid.
        """
        u, v = self._checked(u), self._checked(v)
        v = np.where(np.isnan(u), u, v)
        sin_lat, cos_lat, sin_lon, cos_lon = _trigonometry(self.source, u.dtype)
        outward = v * -sin_lat
        cartesian = np.stack([outward * cos_lon - u * sin_lon, outward * sin_lon + u * cos_lon, v * cos_lat])
        x, y, z = self(cartesian)
        sin_lat, cos_lat, sin_lon, cos_lon = _trigonometry(self.target, u.dtype)
        return y * cos_lon - x * sin_lon, z * cos_lat - (x * cos_lon + y * sin_lon) * sin_lat

    def _checked(self, field: np.ndarray) -> np.ndarray:
        field = np.asarray(field)
        if field.shape[-2:] != self.source.shape:
            raise InputError(
                f"field: expected shape (..., {self.source.shape[0]}, {self.source.shape[1]}) for a source grid of "
                f"{self.source}; got {field.shape}."
            )
        # BLAS sums in another order where the memory layout is another, and a layout is not part of the data.
        return np.ascontiguousarray(field, dtype=np.float32 if field.dtype == np.float32 else np.float64)

    @cached_property
    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude (target, source) and longitude (source, target) matrices, float64; latitude rows sum to 1."""
        if self.method == "conservative":
            around = _longitude_overlap(self.source, self.target)
            return _latitude_overlap(self.source, self.target), np.ascontiguousarray(around.T)
        latitude = self.source.latitude
        if self._crosses_pole:
            latitude = np.concatenate([[-180.0 - latitude[0]], latitude, [180.0 - latitude[-1]]])
        nlon = self.source.longitude.size
        longitude = self.source.longitude[0] + np.arange(nlon + 1) * (360.0 / nlon)
        position = longitude[0] + (self.target.longitude - longitude[0]) % 360.0
        around = _linear(longitude, position)
        around[:, 0] += around[:, -1]
        return _linear(latitude, self.target.latitude), np.ascontiguousarray(around[:, :-1].T)

    @cached_property
    def _crosses_pole(self) -> bool:
        return bool(self.target.latitude[-1] > self.source.latitude[-1] + _ROUNDING)

    def _mean(self, field: np.ndarray) -> np.ndarray:
        if self.method == "bilinear" and self._crosses_pole:
            field = np.concatenate([_opposite(field[..., :1, :]), field, _opposite(field[..., -1:, :])], axis=-2)
        latitude, longitude = (weights.astype(field.dtype) for weights in self._weights)
        if latitude.shape[0] <= latitude.shape[1]:
            return (latitude @ field) @ longitude
        return latitude @ (field @ longitude)

    def _masked_mean(self, field: np.ndarray) -> np.ndarray:
        missing = np.isnan(field)
        total = self._mean(np.where(missing, field.dtype.type(0), field))
        valid = self._mean((~missing).astype(np.float64))
        if self.method == "bilinear":
            return np.where(valid > 1.0 - _ROUNDING, total, np.nan).astype(field.dtype)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(valid > _ROUNDING**2, total / valid, np.nan).astype(field.dtype)

    @cached_property
    def _nearest(self) -> np.ndarray:
        """Index of the closest source point into the flattened source grid, shape of the target grid."""
        nlon = self.source.longitude.size
        step = 360.0 / nlon
        # In every row the closest point is the one closest in longitude; half-way, take the western one.
        column = np.ceil((self.target.longitude - self.source.longitude[0]) / step - 0.5 - _ROUNDING).astype(int) % nlon
        separation = np.deg2rad(self.target.longitude - self.source.longitude[column])
        source, target = np.deg2rad(self.source.latitude), np.deg2rad(self.target.latitude)
        cosine = (np.sin(target)[:, None] * np.sin(source))[:, None, :] + (
            np.cos(target)[:, None, None] * np.cos(separation)[:, None] * np.cos(source)
        )
        # Rounding must not decide between equally distant rows, or opposite hemispheres would choose differently.
        row = np.argmax(cosine > cosine.max(axis=-1, keepdims=True) - 1e-14, axis=-1)
        return row * nlon + column


def _latitude_overlap(source: Grid, target: Grid) -> np.ndarray:
    """Shares of the source rows in each target row by area, shape (target, source)."""
    have, want = source.latitude_bounds, target.latitude_bounds
    lower = np.maximum(want[:-1, None], have[:-1])
    upper = np.minimum(want[1:, None], have[1:])
    area = np.sin(np.deg2rad(upper)) - np.sin(np.deg2rad(lower))
    overlap = np.where(upper - lower > _ROUNDING, area, 0.0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def _longitude_overlap(source: Grid, target: Grid) -> np.ndarray:
    """Shares of the source columns in each target column, on the circle, shape (target, source)."""
    have, want = 360.0 / source.longitude.size, 360.0 / target.longitude.size
    apart = np.abs(target.longitude[:, None] - source.longitude) % 360.0
    overlap = np.zeros(apart.shape)
    for distance in (apart, 360.0 - apart):
        length = np.minimum(0.5 * (have + want) - distance, min(have, want))
        overlap += np.where(length > _ROUNDING, length, 0.0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def _linear(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation from ascending `points` to positions within them, shape (at, points)."""
    left = np.clip(np.searchsorted(points, at, side="right") - 1, 0, points.size - 2)
    right_share = np.clip((at - points[left]) / (points[left + 1] - points[left]), 0.0, 1.0)
    right_share[right_share < _ROUNDING] = 0.0
    right_share[right_share > 1.0 - _ROUNDING] = 1.0
    weights = np.zeros((at.size, points.size))
    rows = np.arange(at.size)
    weights[rows, left] = 1.0 - right_share
    weights[rows, left + 1] = right_share
    return weights


def _opposite(row: np.ndarray) -> np.ndarray:
    """The values half a circle away, shape (..., longitude); between two points where there is none."""
    nlon = row.shape[-1]
    if nlon % 2 == 0:
        return np.roll(row, nlon // 2, axis=-1)
    return row.dtype.type(0.5) * (np.roll(row, nlon // 2, axis=-1) + np.roll(row, nlon // 2 + 1, axis=-1))


def _trigonometry(grid: Grid, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """sin and cos of latitude, shape (latitude, 1), and of longitude, shape (longitude,)."""
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    values = (np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude))
    return tuple(value.astype(dtype) for value in values)
