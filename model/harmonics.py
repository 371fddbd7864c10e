"""Real spherical-harmonic transforms of scalars and tangent vectors.

A nodal array has the axes (longitude, latitude, batch, channel). A modal array has the axes (part, m, l, batch, channel),
part 0 holding the cosine and part 1 the sine coefficients of real orthonormal harmonics, so that the mean square of a
field over the sphere is the sum of its squared coefficients.

A tangent vector (u, v), u eastward and v northward, has divergent coefficients E and rotational coefficients B:
``(u, v) = sum (E grad Y + B k x grad Y) / sqrt(l (l + 1))`` on the unit sphere, k pointing outward. Its spin +1 and -1
combinations each need one table, so a vector costs as much as two scalars. The layout lets both the Fourier and the
Legendre step be plain (batched) matrix products without transposition.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.legendre import legendre_table, vector_tables
from transforms.grids import Grid

__all__ = ["Table", "Transform", "band_limit_of"]


class Table(nnx.Variable):
    """A constant array that is passed to compiled programs as an argument and is neither trained nor saved."""


def band_limit_of(grid: Grid) -> int:
    """Return the largest band limit L whose degrees 0 .. L - 1 the grid determines, for scalars and vectors.

    H latitudes determine H degrees, and one fewer when two of them are poles, where all orders but one vanish; N
    longitudes determine orders below N / 2.
    """
    nlat, nlon = grid.shape
    return min(nlat - int(grid.has_poles), (nlon + 1) // 2)


class Transform(nnx.Module):
    """The transform pair between one grid and one band limit.

    On a Gauss-Legendre grid of at least `band_limit` rows the analysis is the exact quadrature. On any other grid it is,
    order by order, the area-weighted least-squares fit, which is exact for band-limited fields up to
    `band_limit_of(grid)`, about twice the band limit that quadrature reaches on equiangular grids.

    Example:
        >>> transform = Transform(Grid.gaussian(12), band_limit=12)
        >>> nodal = transform.scalars_to_nodal(jnp.zeros((2, 12, 12, 1, 3)))
        >>> nodal.shape
        (24, 12, 1, 3)
    """

    def __init__(self, grid: Grid, band_limit: int) -> None:
        """Build the tables.

        Raises:
            ValueError: the grid does not determine that many degrees.
        """
        limit = band_limit_of(grid)
        if band_limit > limit:
            raise ValueError(f"band_limit: got {band_limit}, but {grid} determines at most {limit}")
        self.band_limit = band_limit
        nlon = grid.longitude.size
        orders = np.arange(band_limit)
        angle = np.deg2rad(grid.longitude)[:, None] * orders[None, :]
        amplitude = np.where(orders > 0, np.sqrt(2.0), 1.0)
        fourier = np.concatenate([amplitude * np.cos(angle), amplitude * np.sin(angle)], axis=1)
        slope, quotient = vector_tables(band_limit, grid.latitude)
        tables = (legendre_table(band_limit, grid.latitude), slope + quotient, slope - quotient)
        self.fourier = Table(_float32(fourier))
        self.synthesis = nnx.List(Table(_float32(table.transpose(0, 2, 1))) for table in tables)
        self.fourier_analysis = Table(_float32(fourier.T / nlon))
        self.analysis = nnx.List(Table(_float32(_analysis(table, grid))) for table in tables)

    def scalars_to_nodal(self, modal: jax.Array) -> jax.Array:
        """Evaluate scalars: modal (part, m, l, batch, channel) to nodal (longitude, latitude, batch, channel)."""
        return self._inverse_fourier(_per_order(self.synthesis[0][...], modal))

    def scalars_to_modal(self, nodal: jax.Array) -> jax.Array:
        """Analyse scalars: nodal (longitude, latitude, batch, channel) to modal (part, m, l, batch, channel)."""
        return _per_order(self.analysis[0][...], self._fourier(nodal))

    def vectors_to_nodal(self, divergent: jax.Array, rotational: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Evaluate tangent vectors.

        Args:
            divergent, rotational: modal (part, m, l, batch, channel).

        Returns:
            (u, v), eastward and northward, each nodal (longitude, latitude, batch, channel).
        """
        plus = _per_order(
            self.synthesis[1][...], jnp.stack([divergent[1] - rotational[0], divergent[0] + rotational[1]])
        )
        minus = _per_order(
            self.synthesis[2][...], jnp.stack([-divergent[1] - rotational[0], divergent[0] - rotational[1]])
        )
        u = 0.5 * jnp.stack([plus[0] + minus[0], minus[1] - plus[1]])
        v = 0.5 * jnp.stack([plus[1] + minus[1], plus[0] - minus[0]])
        return self._inverse_fourier(u), self._inverse_fourier(v)

    def vectors_to_modal(self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Analyse tangent vectors.

        Args:
            u, v: eastward and northward components, nodal (longitude, latitude, batch, channel).

        Returns:
            (divergent, rotational), each modal (part, m, l, batch, channel).
        """
        u, v = self._fourier(u), self._fourier(v)
        plus = _per_order(self.analysis[1][...], jnp.stack([u[0] + v[1], v[0] - u[1]]))
        minus = _per_order(self.analysis[2][...], jnp.stack([u[0] - v[1], v[0] + u[1]]))
        divergent = 0.5 * jnp.stack([plus[1] + minus[1], plus[0] - minus[0]])
        rotational = 0.5 * jnp.stack([-minus[0] - plus[0], plus[1] - minus[1]])
        return divergent, rotational

    def _inverse_fourier(self, coefficients: jax.Array) -> jax.Array:
        part, orders, *rest = coefficients.shape
        return jnp.einsum("nk,kjbc->njbc", self.fourier[...], coefficients.reshape(part * orders, *rest))

    def _fourier(self, nodal: jax.Array) -> jax.Array:
        coefficients = jnp.einsum("kn,njbc->kjbc", self.fourier_analysis[...], nodal)
        return coefficients.reshape(2, self.band_limit, *coefficients.shape[1:])


def _per_order(table: jax.Array, columns: jax.Array) -> jax.Array:
    """Apply the matrix of each order m: table (m, out, in), columns (part, m, in, batch, channel)."""
    part, orders, *rest = columns.shape
    # One batched product over (part, m): two copies of the table are cheaper than transposing the columns.
    both = jnp.broadcast_to(table, (part, *table.shape)).reshape(part * orders, *table.shape[1:])
    result = jnp.einsum("koi,kibc->kobc", both, columns.reshape(part * orders, *rest))
    return result.reshape(part, orders, *result.shape[1:])


def _analysis(table: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the analysis (m, l, latitude) that belongs to a synthesis table (m, l, latitude)."""
    nlat = grid.latitude.size
    sine, weights = np.polynomial.legendre.leggauss(nlat)
    if np.abs(np.sin(np.deg2rad(grid.latitude)) - sine).max() < 1e-12:
        return 0.5 * table * weights
    root = np.sqrt(grid.latitude_weights())
    return np.linalg.pinv(table.transpose(0, 2, 1) * root[:, None], rcond=1e-10) * root


def _float32(table: np.ndarray) -> jax.Array:
    return jnp.asarray(table, dtype=jnp.float32)
