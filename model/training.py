"""One optimiser update: loss of a rollout, gradient, AdamW with warm-up and cosine, moving average of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from model.forecaster import Forecaster

__all__ = ["Batch", "LossWeights", "TrainState", "Trainer", "learning_rate_schedule", "loss_weights", "rollout_loss"]


class Batch(NamedTuple):
    """Windows of consecutive states.

    Attributes:
        states: physical units, (batch, input_steps + steps, channel, latitude, longitude), ascending in time.
        forcings: normalised, (batch, steps, forcing, latitude, longitude), for the start of every model step.
    """

    states: jax.Array
    forcings: jax.Array


class LossWeights(NamedTuple):
    """Weights of the loss, each with mean one.

    Attributes:
        latitude: relative area of each row, (latitude,).
        channel: (channel,).
    """

    latitude: jax.Array
    channel: jax.Array


class TrainState(NamedTuple):
    """Everything an update changes: a pytree that a checkpoint can hold.

    Attributes:
        params: parameters of the network.
        opt_state: state of the optimiser, new for every stage of the curriculum.
        ema: exponential moving average of `params`, what forecasts use.
        statistics: running averages of batch normalisations; empty without them.
        update: number of updates made over all stages.
    """

    params: nnx.State
    opt_state: Any
    ema: nnx.State
    statistics: nnx.State
    update: jax.Array


def rollout_loss(model: Forecaster, batch: Batch, weights: LossWeights) -> jax.Array:
    """Return the mean over steps, area and channels of the squared error in units of the tendency's spread."""
    inputs = model.input_steps
    history = batch.states[:, :inputs][:, ::-1]
    predicted = model.rollout(history, batch.forcings)
    error = (predicted - batch.states[:, inputs:]) / model.tendency_std[...]
    return jnp.mean(error**2 * weights.channel[:, None, None] * weights.latitude[:, None])


def learning_rate_schedule(peak: float, updates: int, warmup_fraction: float) -> optax.Schedule:
    """Return a linear warm-up to `peak` followed by a cosine to zero at `updates`."""
    warmup = round(updates * warmup_fraction)
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(updates, warmup + 1))


class Trainer:
    """Compiled training and validation steps of one stage of the curriculum."""

    def __init__(
        self,
        model: Forecaster,
        weights: LossWeights,
        schedule: Callable[[jax.Array], jax.Array],
        *,
        beta2: float,
        weight_decay: float,
        clip_norm: float,
        ema_decay: float,
    ) -> None:
        """Prepare the stage.

        Args:
            schedule: learning rate by number of updates made in this stage.
            ema_decay: of the moving average; 0 makes it equal to the parameters.
        """
        model = nnx.merge(*nnx.split(model))
        model.eval()
        self._graph, _, self._statistics, self._constants = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        model.train()
        self._training_graph = nnx.graphdef(model)
        self._weights = weights
        self._ema_decay = ema_decay
        # Gains and biases (one axis) are not decayed: they set scales, they do not fit noise.
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(clip_norm),
            optax.adamw(
                schedule,
                b2=beta2,
                weight_decay=weight_decay,
                mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
            ),
        )
        self._update = jax.jit(self._update_step, donate_argnums=0, compiler_options=_compiler_options())
        self._loss = jax.jit(self._validation_loss, compiler_options=_compiler_options())

    def init(self, params: nnx.State) -> TrainState:
        """Return the state at the start of training."""
        # Updates donate their buffers, so neither the caller's arrays nor each other's may be shared.
        params, ema = (jax.tree.map(jnp.copy, params) for _ in range(2))
        statistics = jax.tree.map(jnp.copy, self._statistics)
        return TrainState(params, self._optimizer.init(params), ema, statistics, jnp.zeros((), jnp.int32))

    def restart(self, state: TrainState) -> TrainState:
        """Return `state` with a new optimiser state, as at the start of a later stage."""
        return state._replace(opt_state=self._optimizer.init(state.params))

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """Return the state after one update, with the loss and the gradient's norm. `state` is consumed."""
        return self._update(state, batch, self._constants, self._weights)

    def loss(self, params: nnx.State, statistics: nnx.State, batch: Batch) -> jax.Array:
        """Return the loss of `params` on a batch, normalised by running averages where the network has them."""
        return self._loss(params, statistics, batch, self._constants, self._weights)

    def _validation_loss(
        self, params: nnx.State, statistics: nnx.State, batch: Batch, constants: nnx.State, weights: LossWeights
    ) -> jax.Array:
        return rollout_loss(nnx.merge(self._graph, params, statistics, constants), batch, weights)

    def _training_loss(
        self, params: nnx.State, statistics: nnx.State, batch: Batch, constants: nnx.State, weights: LossWeights
    ) -> tuple[jax.Array, nnx.State]:
        model = nnx.merge(self._training_graph, params, statistics, constants, copy=True)
        loss = rollout_loss(model, batch, weights)
        return loss, nnx.state(model, nnx.BatchStat)

    def _update_step(
        self, state: TrainState, batch: Batch, constants: nnx.State, weights: LossWeights
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        (loss, statistics), gradient = jax.value_and_grad(self._training_loss, has_aux=True)(
            state.params, state.statistics, batch, constants, weights
        )
        change, opt_state = self._optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        update = state.update + 1
        # The average starts fast, or the initial parameters would weigh on a short training.
        decay = jnp.minimum(self._ema_decay, update / (update + 9.0))
        decay = jnp.where(self._ema_decay == 0.0, 0.0, decay)
        ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(params, opt_state, ema, statistics, update), metrics


def loss_weights(latitude_weights: np.ndarray, channel_weights: np.ndarray) -> LossWeights:
    """Return float32 weights, each divided by its mean."""

    def unit_mean(values: np.ndarray) -> jax.Array:
        return jnp.asarray(values / np.mean(values), jnp.float32)

    return LossWeights(unit_mean(latitude_weights), unit_mean(channel_weights))


def _compiler_options() -> dict[str, int] | None:
    """On CPUs, LLVM's expensive passes take 5 to 10 s a program and gain nothing: the time is in matrix products."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
