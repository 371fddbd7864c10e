"""Evaluating fields of a Gaussian grid anywhere on the sphere, exact for what the grid resolves.

A field is analysed into spherical harmonics by Gauss-Legendre quadrature and the harmonics are evaluated at the new
points, poles included. Winds go through their three Cartesian components, which unlike u and v are smooth at the poles
and need just one degree more than the stream function and velocity potential.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from transforms.errors import InputError
from transforms.grids import Grid

__all__ = ["SpectralInterpolation"]

Array = Any


class SpectralInterpolation:
    """Interpolation from a Gaussian grid to another grid, by spherical harmonics of degree below `degrees`.

    Args:
        source: Gaussian grid.
        target: any iso-latitude grid.
        degrees: number of degrees kept; by default all that the source resolves.

    Raises:
        InputError: `source` is not Gaussian, or does not resolve so many degrees.

    Arrays may be NumPy's or JAX's; the result is of the same kind and of its own precision.
    """

    def __init__(self, source: Grid, target: Grid, degrees: int | None = None) -> None:
        nlat, nlon = source.shape
        if not source.matches(Grid.gaussian(nlat, nlon)):
            raise InputError(f"source: expected a Gaussian grid, got {source}.")
        resolved = min(nlat, nlon // 2)
        self.degrees = resolved if degrees is None else degrees
        if not 1 <= self.degrees <= resolved:
            raise InputError(f"degrees: expected 1 to {resolved} on {source}, got {degrees}.")
        self.source, self.target = source, target

    def __call__(self, field: Array) -> Array:
        """Return `field`, (..., latitude, longitude) of the source, on the target."""
        xp = field.__array_namespace__()
        analysis, rows, synthesis = (xp.asarray(table, dtype=field.dtype) for table in self._tables)
        waves = xp.einsum("...gi,cmi->...cmg", field, analysis)
        return xp.einsum("...cmt,cmj->...tj", xp.einsum("...cmg,mtg->...cmt", waves, rows), synthesis)

    def wind(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Return the wind (u, v), each (..., latitude, longitude), on the target.

        At a pole every column holds the same vector, in the basis of its own longitude.
        """
        xp = u.__array_namespace__()
        (sin_lat, cos_lat, sin_lon, cos_lon), after = (
            [xp.asarray(values, dtype=u.dtype) for values in _trigonometry(grid)] for grid in (self.source, self.target)
        )
        x = -u * sin_lon - v * sin_lat * cos_lon
        y = u * cos_lon - v * sin_lat * sin_lon
        x, y, z = self(xp.stack([x, y, v * cos_lat]))
        sin_lat, cos_lat, sin_lon, cos_lon = after
        return y * cos_lon - x * sin_lon, z * cos_lat - sin_lat * (x * cos_lon + y * sin_lon)

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fourier analysis (part, m, longitude), rows (m, target, source latitude), synthesis (part, m, longitude)."""
        count = self.degrees
        orders = np.arange(count)
        sines, weights = np.polynomial.legendre.leggauss(self.source.latitude.size)
        old, new = (_legendre(count, values) for values in (sines, np.sin(np.deg2rad(self.target.latitude))))
        rows = np.einsum("lmt,lmg->mtg", new, old * weights)
        nlon = self.source.longitude.size
        angles = orders[:, None] * np.deg2rad(self.source.longitude)
        analysis = np.stack([np.cos(angles), np.sin(angles)]) * np.where(orders == 0, 1.0, 2.0)[:, None] / nlon
        angles = orders[:, None] * np.deg2rad(self.target.longitude)
        return analysis, rows, np.stack([np.cos(angles), np.sin(angles)])


def _legendre(count: int, sines: np.ndarray) -> np.ndarray:
    """Return the normalised Legendre functions of degree and order below `count`: (degree, order, point).

    Upward in degree from P_mm, by sin(latitude) P_l = e_(l+1) P_(l+1) + e_l P_(l-1); each squared integrates to 1.
    """
    degrees = np.arange(count, dtype=np.float64)
    orders = degrees[:, None]
    cosines = np.sqrt(1.0 - sines**2)
    result = np.zeros((count, count, sines.size))
    diagonal = np.full(sines.size, np.sqrt(0.5))
    for degree in range(count):
        if degree > 0:
            diagonal = np.sqrt((2 * degree + 1) / (2 * degree)) * cosines * diagonal
            lower = orders[:degree]
            step = np.sqrt((degree**2 - lower**2) / (4.0 * degree**2 - 1.0))
            result[degree, :degree] = sines * result[degree - 1, :degree]
            if degree > 1:
                back = np.sqrt(np.maximum((degree - 1) ** 2 - lower**2, 0.0) / (4.0 * (degree - 1) ** 2 - 1.0))
                result[degree, :degree] -= back * result[degree - 2, :degree]
            result[degree, :degree] /= step
        result[degree, degree] = diagonal
    return result


def _trigonometry(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    return np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude)
