"""Isotropic Gaussian random fields on the sphere, scalars and tangent vectors, with a given power spectrum.

A scalar is ``f = sum_lm sqrt(P_l / (2 l + 1)) z_lm Y_lm`` with independent standard normal z and real orthonormal harmonics
(`model.harmonics`): by the addition theorem its variance is ``sum_l P_l`` at every point of the sphere. A tangent vector
has coefficients of the same kind for its rotational and its divergent part (stream function and velocity potential times
sqrt(l (l + 1))), so that each of its components has half of that variance at every point, the poles included, and turns
with the coordinates as a vector must.

Reference: Marinucci & Peccati (2011), Random Fields on the Sphere, Cambridge University Press, chapters 5 and 12.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from model.harmonics import Transform
from model.layouts import from_nodal
from transforms.grids import Grid

__all__ = ["RandomFields", "gaussian_spectrum", "modes", "power_law_spectrum", "resolved_degrees", "significant"]

EARTH_RADIUS_KM = 6371.0
_NEGLIGIBLE = 1e-7
"""Share of the power that the smallest scales may lack."""


def resolved_degrees(grid: Grid) -> int:
    """Return the band limit up to which fields on a grid are told apart."""
    nlat, nlon = grid.shape
    return min(nlat - (1 if grid.has_poles else 0), nlon // 2)


def gaussian_spectrum(degrees: int, length_km: float, lowest: int = 1) -> np.ndarray:
    """Return the power by degree, sum one, of fields whose correlation falls as exp(-d**2 / (2 length**2)), nearly.

    ``P_l ~ (2 l + 1) exp(-l (l + 1) (length / radius)**2 / 2)``, the kernel of diffusion on the sphere.

    Args:
        degrees: band limit. lowest: degree below which there is no power.

    Returns:
        Shape (degrees,).
    """
    ell = np.arange(degrees, dtype=np.float64)
    exponent = -0.5 * ell * (ell + 1) * (length_km / EARTH_RADIUS_KM) ** 2
    # Relative to the lowest degree, or all would underflow for lengths beyond the sphere.
    return _normalised((2 * ell + 1) * np.exp(np.minimum(exponent - exponent[min(lowest, degrees - 1)], 0.0)), lowest)


def power_law_spectrum(degrees: int, slope: float, lowest: int = 1) -> np.ndarray:
    """Return the power by degree, sum one, proportional to ``l**slope`` from the degree `lowest` on; shape (degrees,)."""
    ell = np.maximum(np.arange(degrees, dtype=np.float64), 1.0)
    return _normalised((ell / lowest) ** slope, lowest)


def significant(power: np.ndarray) -> np.ndarray:
    """Return power by degree, float64, without its negligible end."""
    rest = np.cumsum(power[::-1])[::-1]
    degrees = int(np.flatnonzero(rest > _NEGLIGIBLE * rest[0])[-1]) + 1
    return np.asarray(power[:degrees], np.float64)


def modes(degrees: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return part, order and degree of the coefficients of a field, in the order of its normal numbers.

    Those of a lower degree come first; within a degree order 0, then cosine and sine of each order.
    """
    ell = np.repeat(np.arange(degrees), 2 * np.arange(degrees) + 1)
    place = np.arange(degrees**2) - ell**2
    return np.where(place > 0, 1 - place % 2, 0), (place + 1) // 2, ell


class RandomFields:
    """Fields of one grid and spectrum.

    Attributes:
        grid, power: as given; of the power the negligible end is left out.
        normals: standard normal numbers that a field takes. Those of a lower band limit come first, so that a finer
            grid adds scales and keeps the others.

    Example:
        >>> fields = RandomFields(Grid.gaussian(12), gaussian_spectrum(12, 2000.0))
        >>> normals = np.random.default_rng(0).standard_normal((3, fields.normals))
        >>> fields.scalars(normals).shape
        (3, 12, 24)
    """

    def __init__(self, grid: Grid, power: np.ndarray) -> None:
        """Build the transform.

        Args:
            power: mean square by degree, (degree,), at most as many as `resolved_degrees`.
        """
        self.grid, self.power = grid, significant(power)
        degrees = self.power.size
        self.normals = degrees**2
        self._transform = Transform(grid, degrees)
        self._modes = modes(degrees)
        self._scale = np.sqrt(self.power / (2 * np.arange(degrees) + 1))[self._modes[2]]

    def scalars(self, normals: np.ndarray) -> np.ndarray:
        """Return scalar fields, float32, (channel, latitude, longitude), from (channel, normals)."""
        nodal = self._transform.scalars_to_nodal(self._modal(normals))
        return from_nodal(np.asarray(nodal))[0]

    def vectors(
        self, rotational: np.ndarray, divergent: np.ndarray, divergent_share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return eastward and northward components, float32, each (channel, latitude, longitude).

        The mean square of each component is half the sum of the power.

        Args:
            rotational, divergent: (channel, normals).
            divergent_share: of the power that is divergent, 0 to 1; the rest is rotational.
        """
        parts = np.sqrt(divergent_share) * divergent, np.sqrt(1.0 - divergent_share) * rotational
        fields = self._transform.vectors_to_nodal(*map(self._modal, parts))
        u, v = (from_nodal(np.asarray(field))[0] for field in fields)
        return u, v

    def _modal(self, normals: np.ndarray) -> jnp.ndarray:
        """(part, m, l, batch = 1, channel)."""
        degrees = self.power.size
        modal = np.zeros((2, degrees, degrees, 1, len(normals)), np.float32)
        modal[(*self._modes, 0)] = (normals * self._scale).T
        return jnp.asarray(modal)


def _normalised(power: np.ndarray, lowest: int) -> np.ndarray:
    if not 1 <= lowest < power.size:
        raise ValueError(f"lowest: got degree {lowest}, expected 1 to {power.size - 1}, the highest degree")
    power[:lowest] = 0.0
    return power / power.sum()
