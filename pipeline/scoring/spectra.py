"""Power, kinetic-energy and cross spectra of fields by degree of spherical harmonics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.harmonics import Transform
from model.layouts import columns
from model.quadrature import band_limits
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.spectra import cross_spectrum

__all__ = ["PairSpectra", "SphericalSpectra"]

_COLUMNS = 16
"""Fields analysed together; one number, so that programs are compiled once and neighbours change nothing."""

_Modal = Sequence[jax.Array]
_Pair = tuple[np.ndarray, np.ndarray]


class PairSpectra(NamedTuple):
    """Powers of forecast and truth and their cross spectrum, each (..., degree), see `transforms.spectra`."""

    forecast: np.ndarray
    truth: np.ndarray
    cross: np.ndarray


class SphericalSpectra:
    """Spectra of fields on one grid.

    Fields are (..., latitude, longitude), south to north, and spectra (..., degree), float64, in the fields' units
    squared. Summed over degrees the power is the mean square over the sphere, for a field of degrees below the band
    limit; power of higher degrees appears among the highest that are kept. One missing value makes all degrees NaN.

    Attributes:
        grid: of the fields.
        band_limit: degrees are 0 .. band_limit - 1; by default all that the grid determines (docs/grids.md).

    Raises:
        InputError: the grid has no usable quadrature, or does not determine so many degrees.

    Example:
        >>> spectra = SphericalSpectra(Grid.gaussian(8))
        >>> spectra.power(np.ones((3, 8, 16))).shape
        (3, 8)
    """

    def __init__(self, grid: Grid, band_limit: int | None = None) -> None:
        most = band_limits(grid).full
        self.grid = grid
        self.band_limit = most if band_limit is None else band_limit
        if not 1 <= self.band_limit <= most:
            raise InputError(f"band_limit: expected 1 to {most} on {grid}, got {band_limit}.")

    def __reduce__(self) -> tuple:
        return SphericalSpectra, (self.grid, self.band_limit)

    def power(self, field: np.ndarray) -> np.ndarray:
        """Return the power spectrum of a scalar field."""
        return self._products(self._scalars, {"field": field}, [(0, 0)])[0]

    def pair(self, forecast: np.ndarray, truth: np.ndarray) -> PairSpectra:
        """Return the powers and the cross spectrum of a scalar field's forecast and truth."""
        fields = {"forecast": forecast, "truth": truth}
        return PairSpectra(*self._products(self._scalars, fields, [(0, 0), (1, 1), (0, 1)]))

    def kinetic_energy(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the spectra of rotational and divergent kinetic energy per mass (Boer & Shepherd 1983, JAS 40, 164).

        Together they sum to the mean of (u^2 + v^2) / 2 over the sphere, in m^2 s^-2; degree 0 has none.
        """
        divergent, rotational = self._products(self._vectors, {"u": u, "v": v}, [(0, 0), (1, 1)])
        return 0.5 * rotational, 0.5 * divergent

    def kinetic_energy_pair(self, forecast: _Pair, truth: _Pair) -> tuple[PairSpectra, PairSpectra]:
        """Return the rotational and the divergent spectra, as in `kinetic_energy`, of winds (u, v)."""
        names = ("forecast u", "forecast v", "truth u", "truth v")
        fields = dict(zip(names, (*forecast, *truth), strict=True))
        products = self._products(self._vectors, fields, [(1, 1), (3, 3), (1, 3), (0, 0), (2, 2), (0, 2)])
        rotational, divergent = ([0.5 * spectrum for spectrum in part] for part in (products[:3], products[3:]))
        return PairSpectra(*rotational), PairSpectra(*divergent)

    @cached_property
    def _transform(self) -> Transform:
        return Transform(self.grid, self.band_limit, dtype=jnp.float64)

    def _scalars(self, *nodal: jax.Array) -> _Modal:
        return [self._transform.scalars_to_modal(field) for field in nodal]

    def _vectors(self, *nodal: jax.Array) -> _Modal:
        """Return divergent and rotational coefficients of each wind."""
        winds = zip(nodal[::2], nodal[1::2], strict=True)
        return [part for u, v in winds for part in self._transform.vectors_to_modal(u, v)]

    def _products(
        self, analyse: Callable[..., _Modal], fields: dict[str, np.ndarray], chosen: Sequence[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Return the cross spectra of the chosen pairs of the coefficients that `analyse` makes of the fields."""
        arrays = [np.asarray(field) for field in fields.values()]
        leading = np.broadcast_shapes(*(array.shape[:-2] for array in arrays))
        for name, array in zip(fields, arrays, strict=True):
            if array.shape[-2:] != self.grid.shape:
                raise InputError(
                    f"{name}: expected the axes (..., latitude, longitude) of {self.grid}; got {array.shape}."
                )
        flat = [np.broadcast_to(a, (*leading, *self.grid.shape)).reshape(-1, *self.grid.shape) for a in arrays]
        count = flat[0].shape[0]
        spectra = [np.empty((count, self.band_limit)) for _ in chosen]
        # float32 would bury the small scales of a field with a large mean, such as geopotential, in its rounding.
        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            for start in range(0, count, _COLUMNS):
                block = slice(start, min(start + _COLUMNS, count))
                nodal = (columns(array[block], _COLUMNS, np.float64) for array in flat)
                modal = [np.asarray(part) for part in analyse(*nodal)]
                for spectrum, (i, j) in zip(spectra, chosen, strict=True):
                    spectrum[block] = cross_spectrum(modal[i], modal[j])[0, : block.stop - start]
        missing = np.any([~np.isfinite(array).all(axis=(1, 2)) for array in flat], axis=0)
        for spectrum in spectra:
            spectrum[missing] = np.nan
        return [spectrum.reshape(*leading, self.band_limit) for spectrum in spectra]
