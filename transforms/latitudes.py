"""Families of latitudes, by name: what the rows of a grid may be.

The configuration offers the names in `FAMILIES`, so every command reads this table: it brings NumPy only when a grid is
built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """A way to place latitudes, symmetric about the equator.

    Attributes:
        rows: makes the given number of them, degrees north, ascending, shape (latitude,), float64; none lies on a pole.
        poles: the same with rows on both poles; None where the family has no such rows.
    """

    rows: Callable[[int], np.ndarray]
    poles: Callable[[int], np.ndarray] | None = None


def _centres(nlat: int) -> np.ndarray:
    import numpy as np

    return -90.0 + 180.0 / nlat * (np.arange(nlat) + 0.5)


def _pole_to_pole(nlat: int) -> np.ndarray:
    import numpy as np

    return np.linspace(-90.0, 90.0, nlat)


def _gauss_legendre(nlat: int) -> np.ndarray:
    import numpy as np

    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0]))


FAMILIES: dict[str, Family] = {
    "equiangular": Family(_centres, _pole_to_pole),
    "gaussian": Family(_gauss_legendre),
}
"""Families by name: centres of equal bands or a step from pole to pole, and the Gauss-Legendre latitudes."""
