"""Noise as an input of the network: smooth random fields, new for every member of an ensemble and every step.

A network that is given noise beside its forcings and trained by the CRPS of several forecasts draws from what may follow a
state (Lang et al. 2024, AIFS-CRPS: Ensemble forecasting using a model trained with a loss function based on the Continuous
Ranked Probability Score, arXiv:2412.15832; Alet et al. 2025, Skillful joint probabilistic weather forecasting from
marginals, arXiv:2506.10772).

Normal numbers, few for each field, say what the noise is; the fields are made of them where they are needed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from model.harmonics import Transform
from model.layouts import from_nodal
from model.random_fields import gaussian_spectrum, modes, resolved_degrees, significant
from transforms.grids import Grid

__all__ = ["Noise", "draw_normals", "members_forcings"]


class Noise(nnx.Module):
    """Isotropic Gaussian random fields of mean 0 and variance 1 at every point, from standard normal numbers.

    Attributes:
        fields: number of fields that a call of the network is given.
        normals: numbers that a field takes, in the order of `model.random_fields.modes`.

    Example:
        >>> noise = Noise(Grid.gaussian(12), fields=2, length_km=2000.0)
        >>> noise(jnp.zeros((3, 2, noise.normals))).shape
        (3, 2, 12, 24)
    """

    def __init__(self, grid: Grid, fields: int, length_km: float, mesh: Mesh | None = None) -> None:
        """Build the transform.

        Args:
            length_km: of the correlation, which falls as exp(-d**2 / (2 length**2)).
            mesh: devices to share the work.
        """
        power = significant(gaussian_spectrum(resolved_degrees(grid), length_km))
        self.fields, self.normals = fields, power.size**2
        # A tuple, so that the module's static part can be compared and hashed.
        self._spread = tuple(np.sqrt(power / (2 * np.arange(power.size) + 1)).tolist())
        self._transform = Transform(grid, power.size, mesh=mesh)

    def __call__(self, normals: jax.Array) -> jax.Array:
        """Return fields, float32, (batch, field, latitude, longitude), from (batch, field, normal)."""
        degrees, orders = len(self._spread), self._transform.orders
        part, order, ell = modes(degrees)
        index, spread = np.zeros((2, orders.size, degrees), int), np.zeros((2, orders.size, degrees), np.float32)
        # Orders lie as the devices that share a sphere hold them.
        row = np.argsort(orders)[order]
        index[part, row, ell], spread[part, row, ell] = np.arange(self.normals), np.array(self._spread)[ell]
        modal = jnp.moveaxis(normals[..., index] * spread, (0, 1), (3, 4))
        return from_nodal(self._transform.scalars_to_nodal(modal))


def draw_normals(seed: int, update: jax.Array | int, shape: tuple[int, ...]) -> jax.Array:
    """Return standard normal numbers, float32: a function of seed, update and shape, whatever devices hold them."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), update)
    return jax.random.normal(key, shape, jnp.float32)


def members_forcings(noise: Noise, forcings: jax.Array, normals: jax.Array) -> jax.Array:
    """Return the forcings of an ensemble, its members side by side in the batch, with the noise as the last of them.

    Args:
        forcings: (batch, step, forcing, latitude, longitude).
        normals: (batch, member, step, field, normal).

    Returns:
        (batch * member, step, forcing + field, latitude, longitude).
    """
    fields = noise(normals.reshape(-1, *normals.shape[3:]))
    fields = fields.reshape(-1, normals.shape[2], *fields.shape[1:]).astype(forcings.dtype)
    return jnp.concatenate([jnp.repeat(forcings, normals.shape[1], axis=0), fields], axis=2)
