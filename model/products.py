"""Constant matrices of the transforms, and products with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

__all__ = ["Table", "constant", "product"]


class Table(nnx.Variable):
    """A constant array that is passed to compiled programs as an argument and is neither trained nor saved."""


def constant(array: np.ndarray, dtype: jnp.dtype) -> Table:
    """Return an array, rounded to `dtype`, as a constant."""
    return Table(jnp.asarray(array, dtype=dtype))


def product(spec: str, table: jax.Array, columns: jax.Array) -> jax.Array:
    """Contract a table with columns, in full precision and accumulating in float32 or better; the result has the table's dtype."""
    accumulator = jnp.promote_types(table.dtype, jnp.float32)
    result = jnp.einsum(spec, table, columns, precision=jax.lax.Precision.HIGHEST, preferred_element_type=accumulator)
    return result.astype(table.dtype)
