"""The ways to bring fields to another grid, by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regridding import METHODS as _LOCAL_METHODS
from transforms.regridding import Regridder

__all__ = ["METHODS", "FieldRegridder", "regridder"]

METHODS = (*_LOCAL_METHODS, "spectral")


class FieldRegridder(Protocol):
    """What all regridders have in common. They can be pickled and called from several threads."""

    @property
    def source(self) -> Grid: ...

    @property
    def target(self) -> Grid: ...

    @property
    def method(self) -> str: ...

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Regrid scalar fields (..., latitude, longitude)."""

    def wind(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Regrid a tangent vector field, each component (..., latitude, longitude)."""


def regridder(source: Grid, target: Grid, method: str, *, threads: int | None = None) -> FieldRegridder:
    """Return a map of fields from one grid to another.

    Args:
        source, target: grids of the fields given and returned.
        method: ``conservative``, ``bilinear`` or ``nearest``, see `transforms.regridding.Regridder`, or ``spectral``,
            see `pipeline.regridding.spectral.SpectralRegridder`, which takes complete fields only.
        threads: number of threads, the CPUs this process may use by default; ``spectral`` leaves it to JAX.

    Raises:
        InputError: the method is unknown, or a grid is unfit for it.
    """
    if method not in METHODS:
        raise InputError(f"method: {method!r} is unknown; expected one of {', '.join(METHODS)}.")
    if method == "spectral":
        # JAX takes a second to import, which no other method needs.
        from pipeline.regridding.spectral import SpectralRegridder

        return SpectralRegridder(source, target)
    return Regridder(source, target, method, threads=threads)
