"""Derivatives on the sphere, exact, by multiplying modal coefficients.

Modal arrays have l as their third axis, (part, m, l, batch, channel), and spherical harmonics are eigenfunctions of the
Laplacian, so every derivative here is one factor per degree. With a the radius, the conventions are those of
`model.harmonics`: ``(u, v) = sum (E grad Y + B k x grad Y) / sqrt(l (l + 1))`` with grad on the unit sphere, divergent
coefficients E and rotational coefficients B. A wind of velocity potential chi and stream function psi is

    (u, v) = grad chi + k x grad psi,    E = sqrt(l (l + 1)) chi / a,    B = sqrt(l (l + 1)) psi / a,
    divergence = laplacian chi = -sqrt(l (l + 1)) E / a,    vorticity = laplacian psi = -sqrt(l (l + 1)) B / a.

Where the wind is in m s-1 and the radius in m, divergence and vorticity are in s-1, potentials in m2 s-1. The radius is
the Earth's unless it is given; 1.0 stands for the unit sphere. Factors are computed in float64, the result has the
dtype of the coefficients.

Example:
    The rotational coefficients of the wind whose vorticity is `zeta`:

    >>> import jax.numpy as jnp
    >>> zeta = jnp.ones((2, 4, 4, 1, 1))
    >>> rotational, _ = gradient(inverse_laplacian(zeta))
    >>> bool(jnp.allclose(vorticity(rotational)[:, :, 1:], zeta[:, :, 1:]))
    True
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "EARTH_RADIUS",
    "divergence",
    "gradient",
    "inverse_laplacian",
    "laplacian",
    "stream_function",
    "velocity_potential",
    "vorticity",
]

EARTH_RADIUS = 6.371e6
"""m."""


def laplacian(scalars: jax.Array, radius: float = EARTH_RADIUS) -> jax.Array:
    """Return the Laplacian of scalars, ``-l (l + 1) f / a**2``; modal (part, m, l, batch, channel) both."""
    return _scaled(scalars, 2, -1.0 / radius**2)


def inverse_laplacian(scalars: jax.Array, radius: float = EARTH_RADIUS) -> jax.Array:
    """Return the scalars of zero mean whose Laplacian these are, ``-a**2 f / (l (l + 1))`` and 0 at degree 0.

    The mean of the argument, which no Laplacian has, is ignored. Both modal (part, m, l, batch, channel).
    """
    return _scaled(scalars, -2, -(radius**2))


def gradient(scalars: jax.Array, radius: float = EARTH_RADIUS) -> tuple[jax.Array, jax.Array]:
    """Return the gradient of scalars as a tangent vector.

    Args:
        scalars: modal (part, m, l, batch, channel).
        radius: m.

    Returns:
        (divergent, rotational), each modal (part, m, l, batch, channel): ``sqrt(l (l + 1)) f / a`` and zeros.
    """
    return _scaled(scalars, 1, 1.0 / radius), jnp.zeros_like(scalars)


def divergence(divergent: jax.Array, radius: float = EARTH_RADIUS) -> jax.Array:
    """Return the divergence, ``-sqrt(l (l + 1)) E / a``, modal (part, m, l, batch, channel) both."""
    return _scaled(divergent, 1, -1.0 / radius)


def vorticity(rotational: jax.Array, radius: float = EARTH_RADIUS) -> jax.Array:
    """Return the vertical vorticity, ``k . curl (u, v) = -sqrt(l (l + 1)) B / a``.

    Positive where the wind turns anticlockwise seen from above. Modal (part, m, l, batch, channel) both.
    """
    return _scaled(rotational, 1, -1.0 / radius)


def velocity_potential(divergent: jax.Array, radius: float = EARTH_RADIUS) -> jax.Array:
    """Return chi of zero mean in ``(u, v) = grad chi + ...``, ``a E / sqrt(l (l + 1))`` and 0 at degree 0.

    Modal (part, m, l, batch, channel) both.
    """
    return _scaled(divergent, -1, radius)


def stream_function(rotational: jax.Array, radius: float = EARTH_RADIUS) -> jax.Array:
    """Return psi of zero mean in ``(u, v) = k x grad psi + ...``, ``a B / sqrt(l (l + 1))`` and 0 at degree 0.

    Modal (part, m, l, batch, channel) both.
    """
    return _scaled(rotational, -1, radius)


def _scaled(modal: jax.Array, power: int, factor: float) -> jax.Array:
    """Return ``factor * sqrt(l (l + 1))**power`` times the coefficients, and 0 at degree 0."""
    if modal.ndim != 5:
        raise ValueError(
            f"modal: got shape {modal.shape}, expected (part, m, l, batch, channel). Give coefficients, not nodal values"
        )
    degree = np.arange(modal.shape[2], dtype=np.float64)
    root = np.sqrt(np.maximum(degree * (degree + 1.0), 1.0))
    factors = factor * np.where(degree > 0, root**power, 0.0)
    return modal * jnp.asarray(factors, modal.dtype)[:, None, None]
