"""Regridding by truncation in harmonic space, scalars as scalars and winds as vectors."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import jax
import numpy as np

from model.harmonics import Transform
from model.layouts import columns, from_nodal
from model.quadrature import band_limits
from transforms.errors import InputError
from transforms.grids import Grid

__all__ = ["SpectralRegridder"]

_COLUMNS = 16
"""Slices transformed together. One number, so that programs are compiled once, and a multiple of the vector registers'
width, so that a slice's place among the others does not change the order of its sums."""

_WHOLE_TO = 256
"""Source band limit up to which all degrees are analysed, also those that are dropped. Tables grow with its cube: 1 GB at
512."""


class SpectralRegridder:
    """A map of fields from one grid to another that keeps the degrees both determine (docs/grids.md).

    Exact for fields of degrees below both grids' full band limits. Higher degrees are dropped: exactly up to a source band
    limit of 256; above that, those that the source's quadrature cannot tell from kept ones (the highest) leave a trace.
    Work is done on the CPU; float32 stays float32, all else is float64.

    Attributes:
        source, target: grids of the fields given and returned.
        method: ``spectral``.
        band_limit: degrees 0 .. band_limit - 1 are kept.

    Raises:
        InputError: a grid has no usable quadrature; see `model.quadrature.quadrature`.
    """

    method = "spectral"

    def __init__(self, source: Grid, target: Grid) -> None:
        self.source, self.target = source, target
        limits = band_limits(source)
        self.band_limit = min(limits.full, band_limits(target).full)
        self._analysed = limits.full if limits.full <= _WHOLE_TO else self.band_limit
        self._transforms: dict[str, tuple[Transform, Transform]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple:
        return SpectralRegridder, (self.source, self.target)

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Regrid scalar fields.

        Args:
            field: shape (..., latitude, longitude) on the source grid, complete.

        Returns:
            Shape (..., latitude, longitude) on the target grid.

        Raises:
            InputError: the last two axes are not those of the source grid, or values are missing.
        """

        def regrid(source: Transform, target: Transform, nodal: jax.Array) -> tuple[jax.Array]:
            return (target.scalars_to_nodal(self._truncated(source.scalars_to_modal(nodal))),)

        return self._apply(regrid, {"field": field})[0]

    def wind(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Regrid a tangent vector field through its divergent and rotational coefficients.

        Args:
            u: eastward component, shape (..., latitude, longitude) on the source grid, complete.
            v: northward component, same shape.

        Returns:
            Eastward and northward components on the target grid.

        Raises:
            InputError: as in a call.
        """

        def regrid(source: Transform, target: Transform, u: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            return target.vectors_to_nodal(*map(self._truncated, source.vectors_to_modal(u, v)))

        eastward, northward = self._apply(regrid, {"u": u, "v": v})
        return eastward, northward

    def _truncated(self, modal: jax.Array) -> jax.Array:
        return modal[:, : self.band_limit, : self.band_limit]

    def _apply(
        self, regrid: Callable[..., tuple[jax.Array, ...]], fields: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, ...]:
        arrays = [np.asarray(field) for field in fields.values()]
        for name, array in zip(fields, arrays, strict=True):
            if array.shape[-2:] != self.source.shape or array.shape != arrays[0].shape:
                raise InputError(
                    f"{name}: expected shape (..., {self.source.shape[0]}, {self.source.shape[1]}) for a source grid of "
                    f"{self.source}, and one shape for all components; got {array.shape}."
                )
        dtype = np.dtype(np.float32 if all(array.dtype == np.float32 for array in arrays) else np.float64)
        leading = arrays[0].shape[:-2]
        count = int(np.prod(leading))
        flat = [array.reshape(count, *self.source.shape) for array in arrays]
        results = np.empty((len(flat), count, *self.target.shape), dtype)
        with jax.enable_x64(dtype == np.float64), jax.default_device(jax.devices("cpu")[0]):
            transforms = self._pair(dtype)
            for start in range(0, count, _COLUMNS):
                chosen = slice(start, min(start + _COLUMNS, count))
                blocks = regrid(*transforms, *(columns(array[chosen], _COLUMNS, dtype) for array in flat))
                for result, block in zip(results, blocks, strict=True):
                    result[chosen] = from_nodal(np.asarray(block))[0, : chosen.stop - start]
                # One missing value reaches every coefficient of some order, and with it all latitudes.
                broken = np.flatnonzero(~np.isfinite(results[:, chosen]).all(axis=(0, 2, 3)))
                if broken.size:
                    index = tuple(int(i) for i in np.unravel_index(start + broken[0], leading)) if leading else ()
                    raise InputError(
                        f"{' and '.join(fields)}: missing or infinite values in slice {index}; spectral regridding "
                        "needs complete fields. Use the method conservative, or leave the variable out."
                    )
        return tuple(result.reshape(*leading, *self.target.shape) for result in results)

    def _pair(self, dtype: np.dtype) -> tuple[Transform, Transform]:
        """Return the transforms of the source and the target grid, built when first needed."""
        with self._lock:
            if dtype.name not in self._transforms:
                self._transforms[dtype.name] = (
                    Transform(self.source, self._analysed, dtype=dtype),
                    Transform(self.target, self.band_limit, dtype=dtype),
                )
            return self._transforms[dtype.name]
