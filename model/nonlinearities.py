"""What scalars pass at every point of the grid, by name.

The configuration offers the names in `NONLINEARITIES`, so every command reads this table: it brings JAX only when one is
applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax

__all__ = ["NONLINEARITIES", "Nonlinearity"]


@dataclass(frozen=True)
class Nonlinearity:
    """``s <- bend(W1 s + W2 |x| + b)`` of scalars s, or ``x <- bend(|x| + b) x / |x|`` of scalars and vectors x.

    Attributes:
        collapses: whether x of the first form is all scalars and vectors; else it is vectors alone.
        scales: the second form, with an offset for every channel.
        multiplies: whether x of the first form has, beside all scalars and vectors, products of pairs of them; vectors are then
            multiplied by ``1 + W3 s + b3`` where others have a sigmoid. Products and ``W3 s + b3`` are bounded.
        bend: of the sum, at every point and in every channel.
    """

    collapses: bool = False
    multiplies: bool = False
    scales: bool = False
    bend: Callable[[jax.Array], jax.Array] = lambda scalars: scalars


def _gelu(scalars: jax.Array) -> jax.Array:
    import jax

    return jax.nn.gelu(scalars)


def _relu(moduli: jax.Array) -> jax.Array:
    import jax

    return jax.nn.relu(moduli)


NONLINEARITIES: dict[str, Nonlinearity] = {
    # Esteves et al. 2023, eq. 8; Guth et al. 2021.
    "phase_collapse": Nonlinearity(collapses=True),
    # Phase collapse with products of pairs, as advection is one: the wind on the gradient of what it carries.
    "products": Nonlinearity(collapses=True, multiplies=True),
    "gelu": Nonlinearity(bend=_gelu),
    # Worrall et al. 2017, Harmonic Networks.
    "magnitude": Nonlinearity(scales=True, bend=_relu),
}
"""Nonlinearities by name, for `model.blocks.PointwiseNonlinearity`."""
