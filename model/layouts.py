"""The turn between fields as all else lays them out and the nodal layout of the network and its transforms."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

__all__ = ["columns", "from_nodal", "to_nodal"]

_Array = TypeVar("_Array", np.ndarray, jax.Array)


def to_nodal(fields: _Array) -> _Array:
    """Return (longitude, latitude, batch, channel) from (batch, channel, latitude, longitude)."""
    return fields.transpose(3, 2, 0, 1)


def from_nodal(nodal: _Array) -> _Array:
    """Return (batch, channel, latitude, longitude) from (longitude, latitude, batch, channel)."""
    return nodal.transpose(2, 3, 1, 0)


def columns(fields: np.ndarray, width: int, dtype: npt.DTypeLike) -> jax.Array:
    """Return fields (column, latitude, longitude) as (longitude, latitude, 1, width), the rest of the columns zero.

    Programs for one number of columns are compiled once, and serve any number of fields up to it.
    """
    padded = np.zeros((width, *fields.shape[1:]), dtype)
    padded[: len(fields)] = fields
    return jnp.asarray(to_nodal(padded[np.newaxis]))
