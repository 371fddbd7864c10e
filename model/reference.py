"""The spherical-harmonic transforms as plain sums over their formulae: slow, and an oracle for `model.harmonics`.

Nodal arrays are (longitude, latitude, batch, channel), modal arrays (part, m, l, batch, channel). Part 0 holds the
coefficients of ``a_m P_l^m(latitude) cos(m longitude)``, part 1 of ``a_m P_l^m(latitude) sin(m longitude)``, with
a_0 = 1 and a_m = sqrt(2) otherwise. P is normalised to ``1/2 * integral P**2 d sin(latitude) = 1``, so that the mean
square of a field over the sphere is the sum of its squared coefficients. Written with c for part 0 and s for part 1,

    field = sum_m a_m cos(m longitude) field_c(m, latitude) + a_m sin(m longitude) field_s(m, latitude).

For scalars f the Fourier coefficients are ``field_c = sum_l P f_c`` and ``field_s = sum_l P f_s``.

A tangent vector is ``(u, v) = sum (E grad Y + B k x grad Y) / sqrt(l (l + 1))`` with divergent coefficients E and
rotational coefficients B, k pointing outward. As d/dlongitude turns the parts (c, s) into m (s, -c), with the slope
``D = dP/dlatitude / sqrt(l (l + 1))`` and the quotient ``Q = m P / cos(latitude) / sqrt(l (l + 1))``, summed over l,

    u_c =  Q E_s - D B_c,    v_c = D E_c + Q B_s,
    u_s = -Q E_c - D B_s,    v_s = D E_s - Q B_c.

So one matrix, [[Q, -D], [-D, Q]], gives both (u_c, -v_s) from (E_s, B_c) and (u_s, v_c) from (-E_c, B_s).

The analysis takes means over longitude against the same cosines and sines, which inverts that step from 2 L - 1
longitudes on. Then, order by order, it either sums over latitude against the same functions with the weights of the
grid's quadrature, or takes the area-weighted least-squares fit, of E and B jointly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from model.legendre import legendre_table, vector_tables
from model.quadrature import choose_analysis, least_squares
from transforms.grids import Grid

__all__ = ["ReferenceTransform"]


class ReferenceTransform:
    """The transform pair between one grid and one band limit, with the methods of `model.harmonics.Transform`.

    Attributes:
        grid: the grid.
        band_limit: L; degrees and orders are 0 .. L - 1.
        analysis: "quadrature" or "full" (least squares); exact up to the band limit of that name in
            `model.quadrature.band_limits`.
        dtype: of the tables and the results; arguments are cast to it.
    """

    def __init__(
        self,
        grid: Grid,
        band_limit: int,
        *,
        analysis: str = "auto",
        weights: np.ndarray | None = None,
        dtype: jnp.dtype | None = None,
    ) -> None:
        """Build the tables.

        Args:
            grid: the grid.
            band_limit: L.
            analysis: as the attribute, or "auto": quadrature where it reaches L, else full.
            weights: quadrature weights of your own, (latitude,); see `model.quadrature.quadrature`.
            dtype: float32, or float64 where `jax.enable_x64` is on; by default the wider of those there are.

        Raises:
            ValueError: the analysis does not reach the band limit on this grid, or an argument is none of those.
            InputError: the grid has no usable quadrature.
        """
        analysis, rule = choose_analysis(grid, band_limit, analysis, weights)
        dtype = jax.dtypes.canonicalize_dtype(float) if dtype is None else jnp.dtype(dtype)
        if dtype != jax.dtypes.canonicalize_dtype(dtype):
            raise ValueError(f"dtype: got {dtype}, expected float32, or turn 64-bit types on with jax.enable_x64(True)")
        self.grid, self.band_limit, self.analysis, self.dtype = grid, band_limit, analysis, dtype

        # Evenly spaced to the last digit, where the grid's coordinates may have been rounded to float32.
        nlon = grid.longitude.size
        longitude = np.deg2rad(grid.longitude[0] + np.arange(nlon) * (360.0 / nlon))
        order = np.arange(band_limit)
        amplitude = np.where(order > 0, np.sqrt(2.0), 1.0)
        angle = longitude[:, None] * order
        # Axes: part, longitude, m.
        self._fourier = jnp.asarray(amplitude * np.stack([np.cos(angle), np.sin(angle)]), dtype)

        synthesis = legendre_table(band_limit, rule.latitude), *vector_tables(band_limit, rule.latitude)
        if analysis == "quadrature":
            inverses = [rule.weights * table for table in synthesis]
        else:
            area = rule.weights if (rule.weights > 0).all() else grid.latitude_weights()
            inverses = _fits(area, *synthesis)
        # Scalar, slope and quotient, each (m, l, latitude).
        self._synthesis = [jnp.asarray(table, dtype) for table in synthesis]
        self._analysis = [jnp.asarray(table, dtype) for table in inverses]

    def scalars_to_nodal(self, modal: jax.Array) -> jax.Array:
        """Evaluate scalars: modal (part, m, l, batch, channel) to nodal (longitude, latitude, batch, channel)."""
        self._check("modal", modal=modal)
        scalar, _, _ = self._synthesis
        return self._over_orders(_over_degrees(scalar, modal))

    def scalars_to_modal(self, nodal: jax.Array) -> jax.Array:
        """Analyse scalars: nodal (longitude, latitude, batch, channel) to modal (part, m, l, batch, channel)."""
        self._check("nodal", nodal=nodal)
        scalar, _, _ = self._analysis
        return _over_latitudes(scalar, self._over_longitudes(nodal))

    def vectors_to_nodal(self, divergent: jax.Array, rotational: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Evaluate tangent vectors: modal (divergent, rotational) to nodal (u, v), eastward and northward."""
        self._check("modal", divergent=divergent, rotational=rotational)
        _, slope, quotient = self._synthesis
        de, qe = _over_degrees(slope, divergent), _over_degrees(quotient, divergent)
        db, qb = _over_degrees(slope, rotational), _over_degrees(quotient, rotational)
        u = jnp.stack([qe[1] - db[0], -qe[0] - db[1]])
        v = jnp.stack([de[0] + qb[1], de[1] - qb[0]])
        return self._over_orders(u), self._over_orders(v)

    def vectors_to_modal(self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Analyse tangent vectors: nodal (u, v), eastward and northward, to modal (divergent, rotational)."""
        self._check("nodal", u=u, v=v)
        _, slope, quotient = self._analysis
        u, v = self._over_longitudes(u), self._over_longitudes(v)
        du, qu = _over_latitudes(slope, u), _over_latitudes(quotient, u)
        dv, qv = _over_latitudes(slope, v), _over_latitudes(quotient, v)
        divergent = jnp.stack([dv[0] - qu[1], qu[0] + dv[1]])
        rotational = jnp.stack([-du[0] - qv[1], qv[0] - du[1]])
        return divergent, rotational

    def _over_orders(self, fourier: jax.Array) -> jax.Array:
        """Sum (part, m, latitude, batch, channel) over part and m to (longitude, latitude, batch, channel)."""
        return _sum("pnm,pmjbc->njbc", self._fourier, fourier)

    def _over_longitudes(self, nodal: jax.Array) -> jax.Array:
        """Average (longitude, latitude, batch, channel) over longitude to (part, m, latitude, batch, channel)."""
        return _sum("pnm,njbc->pmjbc", self._fourier, nodal) / nodal.shape[0]

    def _check(self, kind: str, **arrays: jax.Array) -> None:
        """Raise ValueError unless all arrays are of this kind and of one shape."""
        nlat, nlon = self.grid.shape
        size = self.band_limit
        first, names = {
            "nodal": ((nlon, nlat), "(longitude, latitude, batch, channel)"),
            "modal": ((2, size, size), "(part, m, l, batch, channel)"),
        }[kind]
        shapes = {name: jnp.shape(array) for name, array in arrays.items()}
        if len(set(shapes.values())) > 1 or any(shape[:-2] != first for shape in shapes.values()):
            got = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"got {got}, expected {names}, starting with {first}, the same for both parts of a vector")


def _over_degrees(table: jax.Array, modal: jax.Array) -> jax.Array:
    """Sum (part, m, l, batch, channel) over l to (part, m, latitude, batch, channel)."""
    return _sum("mlj,pmlbc->pmjbc", table, modal)


def _over_latitudes(table: jax.Array, fourier: jax.Array) -> jax.Array:
    """Sum (part, m, latitude, batch, channel) over latitude to (part, m, l, batch, channel)."""
    return _sum("mlj,pmjbc->pmlbc", table, fourier)


def _sum(axes: str, table: jax.Array, columns: jax.Array) -> jax.Array:
    # By default a GPU or TPU would round the factors of a product to fewer digits.
    return jnp.einsum(axes, table, columns.astype(table.dtype), precision="highest")


def _fits(area: np.ndarray, scalar: np.ndarray, slope: np.ndarray, quotient: np.ndarray) -> list[np.ndarray]:
    """Return the analyses (m, l, latitude) by least squares that belong to the three synthesis tables."""
    _, size, nlat = scalar.shape
    p, d, q = (table.transpose(0, 2, 1) for table in (scalar, slope, quotient))
    # Swapping E with B and u with v leaves the matrix as it is, so its inverse has two different blocks only.
    inverse = least_squares(np.block([[q, -d], [-d, q]]), np.concatenate([area, area]))[:, :size]
    return [least_squares(p, area), -inverse[:, :, nlat:], inverse[:, :, :nlat]]
