"""Regridding between global latitude-longitude grids: conservative, bilinear and nearest; winds as vectors.

Conservative and bilinear regridding are separable: one sparse matrix for latitude and one for longitude. Blocks of slices
that fit a core's cache are multiplied by them, one thread a block. Every value is a sum over its own few sources in a fixed
order, so that it depends neither on the slices around it nor on the number of threads, and a missing value reaches only the
cells that are made of it.

Definitions are those of WeatherBench 2, except that bilinear interpolation goes round the circle in longitude and across
the pole in latitude unless ``edges="hold"``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from transforms.errors import InputError
from transforms.grids import Grid

__all__ = ["METHODS", "Regridder"]

METHODS = ("conservative", "bilinear", "nearest")

_EDGES = ("wrap", "hold")

_ROUNDING = 1e-9
"""Overlaps and weights smaller than this part of a cell are rounding, not geometry."""

_BLOCK_BYTES = 2**22
"""Of a block of slices, on the larger grid: long enough that threads seldom meet, short enough for a core's cache."""


@dataclass(frozen=True, eq=False)
class Regridder:
    """A map of fields from one grid to another; its weights are built once, in float64.

    Attributes:
        source: grid of the fields given.
        target: grid of the fields returned.
        method: ``conservative``: mean over the target cell, weighted by the area of overlap (first order);
            ``bilinear``: linear in latitude and in longitude; ``nearest``: the closest source point on the sphere.
        edges: of bilinear interpolation. ``wrap``: round the circle, and across the pole, where the mean of the last
            row stands. ``hold``: WeatherBench 2's rule, the last value beyond the first and the last row and column,
            and a missing point counts also where the target lies on its neighbour and its weight is zero.
        threads: number of threads, the CPUs this process may use by default.

    Raises:
        InputError: the method or the rule at the edges is unknown.
    """

    source: Grid
    target: Grid
    method: str = "conservative"
    edges: str = "wrap"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method: {self.method!r} is unknown; expected one of {', '.join(METHODS)}.")
        if self.edges not in _EDGES:
            raise InputError(f"edges: {self.edges!r} is unknown; expected one of {', '.join(_EDGES)}.")

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Regrid scalar fields.

        A slice's result does not depend, to the bit, on the slices given with it, their memory layout or the threads.
        Missing values: a conservative mean is over the valid part of the cell, and missing where there is none; a
        bilinear value is missing where any of the points it is made of is missing.

        Args:
            field: shape (..., latitude, longitude) on the source grid; NaN marks missing values.

        Returns:
            Shape (..., latitude, longitude) on the target grid; float32 stays float32, all else becomes float64.

        Raises:
            InputError: the last two axes are not those of the source grid.
        """
        slices, dtype = self._slices(field)
        result = np.empty((slices.shape[0], *self.target.shape), dtype)

        def fill(chosen: slice) -> None:
            result[chosen] = self._regrid(np.ascontiguousarray(slices[chosen], dtype))

        self._for_blocks(fill, slices.shape[0], dtype.itemsize)
        return result.reshape(*np.shape(field)[:-2], *self.target.shape)

    def wind(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Regrid a tangent vector field through its Cartesian components.

        Eastward and northward turn with the place, quickly so near the poles; Cartesian components do not. The vector
        is regridded as three scalars and projected onto the tangent plane of each target point. At a pole all
        longitudes hold the components of one vector, the mean of the row's.

        Args:
            u: eastward component, shape (..., latitude, longitude) on the source grid.
            v: northward component, same shape.

        Returns:
            Eastward and northward components on the target grid.

        Raises:
            InputError: the last two axes are not those of the source grid, or the components differ in shape.
        """
        if np.shape(u) != np.shape(v):
            raise InputError(f"wind: got components of shapes {np.shape(u)} and {np.shape(v)}; expected the same.")
        (east, dtype), (north, other) = self._slices(u), self._slices(v)
        dtype = np.promote_types(dtype, other)
        results = np.empty((2, east.shape[0], *self.target.shape), dtype)
        trigonometry = _trigonometry(self.target.latitude, self.target.longitude, dtype)

        def fill(chosen: slice) -> None:
            u, v = (np.ascontiguousarray(component[chosen], dtype) for component in (east, north))
            cartesian = self._regrid_vector(u, v)
            if self.target.has_poles:
                self._make_single_valued(cartesian)
            results[:, chosen] = _to_tangent(cartesian, trigonometry)

        self._for_blocks(fill, east.shape[0], 2 * dtype.itemsize)
        return tuple(result.reshape(*np.shape(u)[:-2], *self.target.shape) for result in results)

    def _slices(self, field: np.ndarray) -> tuple[np.ndarray, np.dtype]:
        """Return the fields on one leading axis, and the type to work in."""
        field = np.asarray(field)
        if field.shape[-2:] != self.source.shape:
            raise InputError(
                f"field: expected shape (..., {self.source.shape[0]}, {self.source.shape[1]}) for a source grid of "
                f"{self.source}; got {field.shape}."
            )
        dtype = np.dtype(np.float32 if field.dtype == np.float32 else np.float64)
        return field.reshape(int(np.prod(field.shape[:-2])), *self.source.shape), dtype

    def _for_blocks(self, fill: Callable[[slice], None], count: int, itemsize: int) -> None:
        larger = max(int(np.prod(grid.shape)) for grid in (self.source, self.target))
        span = max(1, _BLOCK_BYTES // (itemsize * larger))
        blocks = [slice(start, min(start + span, count)) for start in range(0, count, span)]
        threads = min(self.threads or _cpus(), len(blocks))
        if threads <= 1:
            for block in blocks:
                fill(block)
            return
        with ThreadPoolExecutor(threads) as pool:
            # Reading the results is what passes an exception on.
            list(pool.map(fill, blocks))

    def _regrid(self, field: np.ndarray) -> np.ndarray:
        """Regrid (slice, latitude, longitude), contiguous."""
        if self.method == "nearest":
            return field.reshape(field.shape[0], -1)[:, self._nearest]
        result = self._mean(field)
        if self.method == "conservative":
            holed = np.isnan(result).any(axis=(-2, -1))
            if holed.any():
                missing = np.isnan(field[holed])
                total = self._mean(np.where(missing, field.dtype.type(0), field[holed]))
                result[holed] = self._over_valid(result[holed], total, missing)
        return result

    def _regrid_vector(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Regrid components (slice, latitude, longitude), contiguous; return (x, y, z) on a new leading axis."""
        if self.method == "nearest":
            row, column = np.divmod(self._nearest, self.source.longitude.size)
            u, v = (component[:, row, column] for component in (u, v))
            sin_lat, cos_lat, sin_lon, cos_lon = _trigonometry(*self._points, u.dtype)
            outward = v * -sin_lat[row, 0]
            x, y = outward * cos_lon[column] - u * sin_lon[column], outward * sin_lon[column] + u * cos_lon[column]
            return np.stack([x, y, v * cos_lat[row, 0]])
        result = self._vector_mean(u, v)
        # The third is made of v alone.
        result[2][np.isnan(result[0])] = np.nan
        if self.method == "conservative":
            holed = np.isnan(result[0]).any(axis=(-2, -1))
            if holed.any():
                missing = np.isnan(u[holed]) | np.isnan(v[holed])
                total = self._vector_mean(*(np.where(missing, u.dtype.type(0), w[holed]) for w in (u, v)))
                result[:, holed] = self._over_valid(result[:, holed], total, missing)
        return result

    def _mean(self, field: np.ndarray) -> np.ndarray:
        """Apply the weights to (slice, latitude, longitude)."""
        matrices = self._matrices(field.shape[0], field.dtype)
        result = self._around(matrices, "one", self._bands(matrices, "one", self._extended(field)))
        if self._crosses_pole and self.target.has_poles:
            result[:, [0, -1]] = _row_mean(field[:, [0, -1]])
        return result

    def _vector_mean(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Apply the weights to the Cartesian components of (u, v), whose factors are part of the matrices."""
        matrices = self._matrices(u.shape[0], u.dtype)
        # Beyond the pole east and north point the other way.
        u_there, v_there = self._extended(u, sign=-1), self._extended(v, sign=-1)
        east = self._bands(matrices, "one", u_there)
        inward, along = self._bands(matrices, "sin", v_there), self._bands(matrices, "cos", v_there)
        x = -self._around(matrices, "cos", inward) - self._around(matrices, "sin", east)
        y = self._around(matrices, "cos", east) - self._around(matrices, "sin", inward)
        result = np.stack([x, y, self._around(matrices, "one", along)])
        if self._crosses_pole and self.target.has_poles:
            sin_lat, _, sin_lon, cos_lon = _trigonometry(*self._points, u.dtype)
            u, v, sin_lat = u[:, [0, -1]], v[:, [0, -1]], sin_lat[[1, -2]]
            result[0][:, [0, -1]] = _row_mean(-v * sin_lat * cos_lon - u * sin_lon)
            result[1][:, [0, -1]] = _row_mean(u * cos_lon - v * sin_lat * sin_lon)
        return result

    def _bands(self, matrices: dict[str, csr_array], factor: str, field: np.ndarray) -> np.ndarray:
        """Go from source to target latitudes; return (longitude, slice and latitude)."""
        bands = matrices[f"latitude {factor}"] @ field.reshape(-1, field.shape[-1])
        # Products run over the rows of their right factor, so longitude has to come first in the next one.
        return np.ascontiguousarray(bands.T)

    def _around(self, matrices: dict[str, csr_array], factor: str, bands: np.ndarray) -> np.ndarray:
        """Go from source to target longitudes; return (slice, latitude, longitude)."""
        return (matrices[f"longitude {factor}"] @ bands).T.reshape(-1, *self.target.shape)

    def _extended(self, field: np.ndarray, sign: int = 1) -> np.ndarray:
        """Add the row beyond either pole where the target needs it."""
        if not self._crosses_pole:
            return field
        return np.concatenate([sign * _opposite(field[:, :1]), field, sign * _opposite(field[:, -1:])], axis=1)

    def _over_valid(self, plain: np.ndarray, total: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return the mean over the valid part of each cell that misses something, and the plain mean elsewhere."""
        valid = self._mean((~missing).astype(total.dtype))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(np.isnan(plain), np.where(valid > 0, total / valid, np.nan), plain)

    def _make_single_valued(self, cartesian: np.ndarray) -> None:
        """Give all longitudes of the pole rows their mean; a conservative one skips missing values."""
        polar = cartesian[..., [0, -1], :]
        missing = np.isnan(polar)
        if self.method != "conservative" or not missing.any():
            cartesian[..., [0, -1], :] = _row_mean(polar)
            return
        with np.errstate(invalid="ignore"):
            total = _row_mean(np.where(missing, polar.dtype.type(0), polar))
            cartesian[..., [0, -1], :] = total / _row_mean((~missing).astype(polar.dtype))

    @cached_property
    def _weights(self) -> tuple[csr_array, csr_array]:
        """Latitude and longitude matrices, (target, source), float64; their rows sum to 1."""
        source, target = self.source, self.target
        if self.method == "conservative":
            return csr_array(_latitude_overlap(source, target)), csr_array(_longitude_overlap(source, target))
        latitude, _ = self._points
        if self.edges == "hold":
            return _linear(latitude, target.latitude), _linear(source.longitude, target.longitude)
        nlon = source.longitude.size
        longitude = source.longitude[0] + np.arange(nlon + 1) * (360.0 / nlon)
        around = _linear(longitude, longitude[0] + (target.longitude - longitude[0]) % 360.0)
        around = csr_array((around.data, around.indices % nlon, around.indptr), shape=(target.longitude.size, nlon))
        weights = _linear(latitude, target.latitude), around
        for matrix in weights:
            matrix.eliminate_zeros()
        return weights

    def _matrices(self, count: int, dtype: np.dtype) -> dict[str, csr_array]:
        """The matrices for `count` slices, alone and times the sine and the cosine of the source coordinate."""
        key = count, dtype.str
        if key not in self._built:
            latitude, longitude = self._weights
            sin_lat, cos_lat, sin_lon, cos_lon = _trigonometry(*self._points, np.dtype(np.float64))
            factors = {
                "latitude": (latitude, {"one": None, "sin": sin_lat[:, 0], "cos": cos_lat[:, 0]}, count),
                "longitude": (longitude, {"one": None, "sin": sin_lon, "cos": cos_lon}, 1),
            }
            self._built[key] = {
                f"{axis} {name}": _repeated(_scaled(matrix, factor), copies).astype(dtype)
                for axis, (matrix, by_name, copies) in factors.items()
                for name, factor in by_name.items()
            }
        return self._built[key]

    @cached_property
    def _built(self) -> dict[tuple[int, str], dict[str, csr_array]]:
        return {}

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        """Source latitudes, with a row beyond either pole where the target needs it, and longitudes."""
        latitude = self.source.latitude
        if self._crosses_pole:
            latitude = np.concatenate([[-180.0 - latitude[0]], latitude, [180.0 - latitude[-1]]])
        return latitude, self.source.longitude

    @cached_property
    def _crosses_pole(self) -> bool:
        beyond = self.target.latitude[-1] > self.source.latitude[-1] + _ROUNDING
        return bool(self.method == "bilinear" and self.edges == "wrap" and beyond)

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


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _linear(points: np.ndarray, at: np.ndarray) -> csr_array:
    """Linear interpolation from ascending `points`, constant beyond them, shape (at, points).

    Between the first and the last point every row has two entries, one of them zero at a point.
    """
    left = np.clip(np.searchsorted(points, at, side="right") - 1, 0, points.size - 2)
    right_share = np.clip((at - points[left]) / (points[left + 1] - points[left]), 0.0, 1.0)
    right_share[right_share < _ROUNDING] = 0.0
    right_share[right_share > 1.0 - _ROUNDING] = 1.0
    beyond = (at < points[0]) | (at > points[-1])
    left = np.where(at < points[0], 0, np.where(beyond, points.size - 1, left))
    shares = np.stack([np.where(beyond, 1.0, 1.0 - right_share), right_share], axis=1)
    columns, kept = np.stack([left, left + 1], axis=1), np.stack([np.ones_like(beyond), ~beyond], axis=1)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return csr_array((shares[kept], columns[kept], starts), shape=(at.size, points.size))


def _repeated(matrix: csr_array, count: int) -> csr_array:
    """Return the block-diagonal matrix of `count` copies."""
    if count == 1:
        return matrix
    rows, columns = matrix.shape
    copies = np.arange(count, dtype=matrix.indices.dtype)[:, None]
    starts = np.concatenate([[0], (matrix.indptr[1:] + matrix.nnz * copies).ravel()])
    indices = (matrix.indices + columns * copies).ravel()
    return csr_array((np.tile(matrix.data, count), indices, starts), shape=(rows * count, columns * count))


def _opposite(row: np.ndarray) -> np.ndarray:
    """The values half a circle away, shape (..., longitude); between two points where there is none."""
    nlon = row.shape[-1]
    if nlon % 2 == 0:
        return np.roll(row, nlon // 2, axis=-1)
    return row.dtype.type(0.5) * (np.roll(row, nlon // 2, axis=-1) + np.roll(row, nlon // 2 + 1, axis=-1))


def _row_mean(rows: np.ndarray) -> np.ndarray:
    """Return means along the last axis, kept; NumPy's order of summation follows the memory layout, so fix that."""
    return np.ascontiguousarray(rows).mean(axis=-1, keepdims=True)


def _scaled(matrix: csr_array, factor: np.ndarray | None) -> csr_array:
    """Multiply every column by its factor; zeros that result stay entries, so that missing values pass."""
    if factor is None:
        return matrix
    return csr_array((matrix.data * factor[matrix.indices], matrix.indices, matrix.indptr), shape=matrix.shape)


def _trigonometry(latitude: np.ndarray, longitude: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """sin and cos of latitude, shape (latitude, 1), and of longitude, shape (longitude,)."""
    latitude, longitude = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    values = (np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude))
    return tuple(value.astype(dtype) for value in values)


def _to_tangent(cartesian: np.ndarray, trigonometry: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the eastward and northward parts of (x, y, z)."""
    (x, y, z), (sin_lat, cos_lat, sin_lon, cos_lon) = cartesian, trigonometry
    return y * cos_lon - x * sin_lon, z * cos_lat - (x * cos_lon + y * sin_lon) * sin_lat
