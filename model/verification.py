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

from model.forecaster import Forecaster
from model.sharding import DATA_AXIS, SPHERE_AXIS, STATES, WHOLE, present
from model.training import Batch, LossWeights, compiler_options

__all__ = ["ForecastErrors", "weighted_loss"]

_FIELDS = PartitionSpec(DATA_AXIS, None, SPHERE_AXIS)
"""(batch, channel, latitude, longitude)."""


class ForecastErrors:
    """Mean square errors of rollouts, or of direct forecasts, (step, predicted channel)."""

    def __init__(self, model: Forecaster, latitude_weights: jax.Array, mesh: Mesh | None = None) -> None:
        """Prepare.

        Args:
            model: as for `model.training.Trainer`; its parameters are not used.
            latitude_weights: with mean one, (latitude,).
        """
        model = nnx.merge(*nnx.split(model))
        model.eval()
        split: tuple[Any, ...] = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        self._graph, self._params, self._statistics, self._constants = split
        self._inputs, self._latitude_weights, self._mesh = model.input_steps, latitude_weights, mesh
        placed: dict[str, Any] = (
            {} if mesh is None else {"out_shardings": (self._sharding(STATES), self._sharding(WHOLE))}
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
        history = struct((batch_size, self._inputs, channels, *shape), STATES)
        forcing, truth = (struct((batch_size, count, *shape), _FIELDS) for count in (forcings, channels))
        self._compiled = self._jitted.lower(*parameters, history, forcing, truth).compile()
        return time.perf_counter() - began

    def __call__(self, params: nnx.State, statistics: nnx.State, batch: Batch) -> np.ndarray:
        """Return mean square errors over area and batch in squares of the channels' units, (step, predicted channel).

        Args:
            batch: on the host, the same in every process, without an axis of parts.
        """
        inputs = self._inputs
        history = self._place(batch.states[:, :inputs], STATES)
        errors = []
        for step in range(batch.forcings.shape[1]):
            forcing = self._place(batch.forcings[:, step], _FIELDS)
            truth = self._place(batch.states[:, inputs + step], _FIELDS)
            history, error = self._compiled(
                params, statistics, self._constants, self._latitude_weights, history, forcing, truth
            )
            if self._mesh is not None:
                jax.block_until_ready(error)
            errors.append(error)
        return np.array([np.asarray(error) for error in errors])

    def _step(
        self,
        params: nnx.State,
        statistics: nnx.State,
        constants: nnx.State,
        latitude_weights: jax.Array,
        history: jax.Array,
        forcing: jax.Array,
        truth: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(self._graph, params, statistics, constants)
        state = model.step(history, forcing)
        error = jnp.mean((state - model.select(truth)) ** 2 * latitude_weights[:, None], axis=(0, 2, 3))
        return model.following(history, state), error

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        return None if self._mesh is None else NamedSharding(self._mesh, present(self._mesh, spec))

    def _place(self, values: np.ndarray | jax.Array, spec: PartitionSpec) -> jax.Array:
        host = np.ascontiguousarray(values, np.float32)
        sharding = self._sharding(spec)
        if sharding is None:
            return jnp.asarray(host)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def weighted_loss(errors: np.ndarray, scale: np.ndarray, weights: LossWeights) -> float:
    """Return the loss of `model.training.rollout_loss` from mean square errors, (step, predicted channel).

    Args:
        scale: what they are measured in, `Forecaster.scale`.
    """
    errors = errors / np.asarray(scale, np.float64).reshape(-1) ** 2 * np.asarray(weights.channel, np.float64)
    lead = 1.0 if weights.lead is None else np.asarray(weights.lead, np.float64)
    return float(np.mean(np.mean(errors, axis=1) * lead))
