"""Noise of forecasts by a network that takes some.

What a call of the network is given depends on the seed, the initial time, the number of the member, the step and the
field, and on nothing else: any subset of initial times and members, in batches and blocks of any size, gets the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from pipeline.forecasting.perturbations import normals_of
from pipeline.training.checkpoints import ForecasterSpec
from transforms.timeaxis import time_text

__all__ = ["ForecastNoise"]


class ForecastNoise:
    """The noise of one forecaster."""

    def __init__(self, spec: ForecasterSpec, seed: int) -> None:
        """Prepare.

        Raises:
            ValueError: the network takes no noise.
        """
        noise = spec.noise()
        if noise is None:
            raise ValueError("model.noise: got 0 of a forecaster that is to be given noise, expected 1 or more")
        self._seed, self._count, self._normals = seed, noise.fields, noise.normals
        self._shape = (noise.fields, *spec.grid.shape)
        self._make = nnx.cached_partial(nnx.jit(lambda noise, normals: noise(normals)), noise)

    def of(self, time: np.datetime64, number: int, steps: Sequence[int]) -> np.ndarray:
        """Return what the calls of a member are given, float32, (step, field, latitude, longitude).

        Args:
            time: initial time.
            number: of the member.
            steps: whose states the calls give, from 1.
        """
        fields = np.empty((len(steps), *self._shape), np.float32)
        for row, step in enumerate(steps):
            normals = [
                normals_of([self._seed, time_text(time), number, "noise", int(step), field], self._normals)
                for field in range(self._count)
            ]
            # One step a call: products of other shapes may round otherwise.
            fields[row] = self._make(jnp.asarray([normals], jnp.float32))[0]
        return fields
