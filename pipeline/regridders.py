"""The ways to bring fields to another grid, by name."""

from __future__ import annotations

from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regridding import METHODS as _LOCAL
from transforms.regridding import Regridder

__all__ = ["METHODS", "regridder"]

METHODS = (*_LOCAL, "spectral")


def regridder(source: Grid, target: Grid, method: str) -> Regridder:
    """Return a map of fields from one grid to another.

    It has the attributes ``source``, ``target`` and ``method``, is called with a scalar field (..., latitude,
    longitude), and has ``wind(u, v)``. It can be pickled and called from several threads.

    Raises:
        InputError: the method is unknown.
    """
    if method not in METHODS:
        raise InputError(f"method: {method!r} is unknown; expected one of {', '.join(METHODS)}.")
    return Regridder(source, target, method)
