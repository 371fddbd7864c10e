"""The fair continuous ranked probability score of an ensemble.

Reference: Ferro (2014), Fair scores for ensemble forecasts, Quarterly Journal of the Royal Meteorological Society 140,
1917-1923, equation for the CRPS.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["fair_crps"]


def fair_crps(errors: jax.Array) -> jax.Array:
    """Return ``mean_m |e_m| - sum_mn |e_m - e_n| / (2 M (M - 1))`` of the errors of M members.

    The truth cancels in the differences, so that errors are all that is needed. The expected value over ensembles that a
    forecaster may give is least for one whose members are drawn as the truth is, for any M.

    Args:
        errors: (batch, member, ...); of one member the absolute error is returned.

    Returns:
        (batch, ...).
    """
    members = errors.shape[1]
    skill = jnp.mean(jnp.abs(errors), axis=1)
    # Every pair of members whose numbers differ by so much, cyclically: nothing of the size of all pairs is held.
    apart = [jnp.mean(jnp.abs(errors - jnp.roll(errors, shift, axis=1)), axis=1) for shift in range(1, members)]
    return skill - sum(apart, jnp.zeros_like(skill)) / (2 * max(members - 1, 1))
