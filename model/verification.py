"""Errors of forecasts step by step, by one compiled program for rollouts of any length."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.crps import fair_crps
from model.forecaster import Forecaster
from model.noise import members_forcings
from model.sharding import DATA_AXIS, SPHERE_AXIS, STATES, WHOLE, present
from model.training import Batch, LossWeights, compiler_options

__all__ = ["ForecastErrors", "weighted_loss"]

_FIELDS = PartitionSpec(DATA_AXIS, None, SPHERE_AXIS)
"""(batch, channel, latitude, longitude)."""
_NORMALS = PartitionSpec(DATA_AXIS)
"""(batch, member, step, field, normal)."""


class ForecastErrors:
    """Mean square errors, and fair CRPS, of rollouts or of direct forecasts, (step, predicted channel).

    A forecast of a network with noise is an ensemble; its errors are those of the mean of its members.
    """

    def __init__(
        self,
        model: Forecaster,
        latitude_weights: jax.Array,
        mesh: Mesh | None = None,
        *,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            model: as for `model.training.Trainer`; its parameters are not used.
            latitude_weights: with mean one, (latitude,).
            members: of the forecasts of a network with noise.
            seed: of the noise, which is the same every time.
        """
        self._members, self._seed = members, seed
        self._noise = None if model.noise is None else (model.noise.fields, model.noise.normals)
        model = nnx.merge(*nnx.split(model))
        model.eval()
        split: tuple[Any, ...] = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        self._graph, self._params, self._statistics, self._constants = split
        self._inputs, self._latitude_weights, self._mesh = model.input_steps, latitude_weights, mesh
        placed: dict[str, Any] = (
            {} if mesh is None else {"out_shardings": (self._sharding(STATES), *[self._sharding(WHOLE)] * 2)}
        )
        self._jitted = jax.jit(self._step, compiler_options=compiler_options(mesh), **placed)
        self._compiled: Callable = self._jitted

    def compile(self, *, batch_size: int, channels: int, forcings: int, shape: tuple[int, int]) -> float:
        """Compile for batches of this size alone; return the seconds it took."""
        began = time.perf_counter()

        def struct(axes: tuple[int, ...], spec: PartitionSpec) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(axes, jnp.float32, sharding=self._sharding(spec))

        parameters = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._sharding(WHOLE)),
            (self._params, self._statistics, self._constants, self._latitude_weights),
        )
        history = struct((batch_size * self._members, self._inputs, channels, *shape), STATES)
        forcing, truth = (struct((batch_size, count, *shape), _FIELDS) for count in (forcings, channels))
        normals = None if self._noise is None else struct((batch_size, self._members, 1, *self._noise), _NORMALS)
        self._compiled = self._jitted.lower(*parameters, history, forcing, truth, normals).compile()
        return time.perf_counter() - began

    def __call__(self, params: nnx.State, statistics: nnx.State, batch: Batch) -> np.ndarray:
        """Return mean square errors over area and batch in squares of the channels' units, (step, predicted channel).

        Args:
            batch: on the host, the same in every process, without an axis of parts.
        """
        return self._measure(params, statistics, batch)[0]

    def crps(self, params: nnx.State, statistics: nnx.State, batch: Batch) -> np.ndarray:
        """Return fair CRPS over area and batch in the channels' units, (step, predicted channel); for several members."""
        return self._measure(params, statistics, batch)[1]

    def _measure(self, params: nnx.State, statistics: nnx.State, batch: Batch) -> np.ndarray:
        """(measure, step, predicted channel)."""
        inputs = self._inputs
        history = self._place(np.repeat(batch.states[:, :inputs], self._members, axis=0), STATES)
        errors = []
        for step in range(batch.forcings.shape[1]):
            forcing = self._place(batch.forcings[:, step], _FIELDS)
            truth = self._place(batch.states[:, inputs + step], _FIELDS)
            history, *error = self._compiled(
                params,
                statistics,
                self._constants,
                self._latitude_weights,
                history,
                forcing,
                truth,
                self._normals(len(truth), step),
            )
            if self._mesh is not None:
                jax.block_until_ready(error)
            errors.append(error)
        return np.array([[np.asarray(error) for error in measure] for measure in zip(*errors, strict=True)])

    def _normals(self, batch: int, step: int) -> jax.Array | None:
        """Return the numbers of a step's noise, (batch, member, step = 1, field, normal)."""
        if self._noise is None:
            return None
        generator = np.random.Generator(np.random.Philox(key=[self._seed % 2**64, step]))
        return self._place(generator.standard_normal((batch, self._members, 1, *self._noise)), _NORMALS)

    def _step(
        self,
        params: nnx.State,
        statistics: nnx.State,
        constants: nnx.State,
        latitude_weights: jax.Array,
        history: jax.Array,
        forcing: jax.Array,
        truth: jax.Array,
        normals: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        model = nnx.merge(self._graph, params, statistics, constants)
        if normals is not None:
            assert model.noise is not None
            forcing = members_forcings(model.noise, forcing[:, None], normals)[:, 0]
        state = model.step(history, forcing)
        errors = state.reshape(-1, self._members, *state.shape[1:]) - model.select(truth)[:, None]

        def mean(values: jax.Array) -> jax.Array:
            return jnp.mean(values * latitude_weights[:, None], axis=(0, 2, 3))

        return model.following(history, state), mean(jnp.mean(errors, axis=1) ** 2), mean(fair_crps(errors))

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        return None if self._mesh is None else NamedSharding(self._mesh, present(self._mesh, spec))

    def _place(self, values: np.ndarray | jax.Array, spec: PartitionSpec) -> jax.Array:
        host = np.ascontiguousarray(values, np.float32)
        sharding = self._sharding(spec)
        if sharding is None:
            return jnp.asarray(host)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def weighted_loss(errors: np.ndarray, scale: np.ndarray, weights: LossWeights, power: int = 2) -> float:
    """Return the loss of `model.training.rollout_loss` from mean square errors, (step, predicted channel), or from CRPS.

    Args:
        scale: what they are measured in, `Forecaster.scale`.
        power: of the scale in them; 1 for CRPS.
    """
    errors = errors / np.asarray(scale, np.float64).reshape(-1) ** power * np.asarray(weights.channel, np.float64)
    lead = 1.0 if weights.lead is None else np.asarray(weights.lead, np.float64)
    return float(np.mean(np.mean(errors, axis=1) * lead))
