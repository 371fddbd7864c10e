"""One optimiser update: loss of a rollout, gradient, AdamW with warm-up and cosine, moving average of parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.crps import fair_crps
from model.forecaster import Forecaster
from model.noise import draw_normals, members_forcings
from model.sharding import DATA_AXIS, STATES, WHOLE, platform_of, present

__all__ = [
    "Batch",
    "LossWeights",
    "Origin",
    "TrainState",
    "Trainer",
    "abstract_batch",
    "compiler_options",
    "learning_rate_schedule",
    "loss_weights",
    "replicated",
    "rollout_loss",
]


class Batch(NamedTuple):
    """Windows of states; with gradient accumulation an axis of the parts of a batch goes before.

    Attributes:
        states: physical units, (batch, input_steps + steps, channel, latitude, longitude), ascending in time: those that
            are given, then those that are predicted, consecutive or, of direct forecasts, a lead time later.
        forcings: normalised, (batch, steps, forcing, latitude, longitude), for the start of every model step or for the
            lead time.
    """

    states: jax.Array
    forcings: jax.Array


class LossWeights(NamedTuple):
    """Weights of the loss, each with mean one.

    Attributes:
        latitude: relative area of each row, (latitude,).
        channel: (predicted channel,).
        lead: of each step of the rollout, (step,); None for equal weights.
    """

    latitude: jax.Array
    channel: jax.Array
    lead: jax.Array | None = None


class TrainState(NamedTuple):
    """Everything an update changes: a pytree that a checkpoint can hold.

    Attributes:
        params: parameters of the network.
        opt_state: state of the optimiser, new for every stage of the curriculum.
        ema: exponential moving average of `params`, what forecasts use.
        statistics: running averages of batch normalisations; empty without them.
        update: number of updates over all stages, those that were skipped included.
        skipped: updates skipped, since their loss or gradient was not finite.
        skipped_in_row: of those, the ones since the last that was made.
    """

    params: nnx.State
    opt_state: Any
    ema: nnx.State
    statistics: nnx.State
    update: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array


class Origin(NamedTuple):
    """Where a loss that is not finite comes from.

    Attributes:
        states: whether values of the batch's states are not finite, (time, channel).
        forcings: the same of its forcings, (step, forcing).
        forecast: the same of the forecast states, (step, channel).
        error: mean square error in units of the tendency's spread, (step, channel).
    """

    states: np.ndarray
    forcings: np.ndarray
    forecast: np.ndarray
    error: np.ndarray


class _Sample(NamedTuple):
    """A batch and the numbers its noise is made of, (batch, member, step, field, normal); None without noise."""

    batch: Batch
    normals: jax.Array | None


def rollout_loss(model: Forecaster, batch: Batch, weights: LossWeights, normals: jax.Array | None = None) -> jax.Array:
    """Return the mean over steps, area and channels of the squared error in units of the tendency's spread.

    Args:
        normals: of the noise of a network that takes some, (batch, member, step, field, normal). With several members
            the fair CRPS of these takes the place of the squared error.
    """
    area = weights.channel[:, None, None] * weights.latitude[:, None]
    members = 1 if normals is None else normals.shape[1]

    def measure(error: jax.Array) -> jax.Array:
        if members == 1:
            return jnp.mean(error**2 * area)
        return jnp.mean(fair_crps(error.reshape(-1, members, *error.shape[1:])) * area)

    losses = _observe(model, _Sample(batch, normals), measure)
    return jnp.mean(losses if weights.lead is None else losses * weights.lead)


def learning_rate_schedule(peak: float, updates: int, warmup_fraction: float) -> optax.Schedule:
    """Return a linear warm-up to `peak` followed by a cosine to zero at `updates`."""
    warmup = round(updates * warmup_fraction)
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(updates, warmup + 1))


class Trainer:
    """Compiled training and validation steps of one stage of the curriculum.

    Attributes:
        weights: of the loss.
    """

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
        nesterov: bool = False,
        accumulate: int = 1,
        members: int = 1,
        seed: int = 0,
        mesh: Mesh | None = None,
    ) -> None:
        """Prepare the stage.

        Args:
            model: built with `mesh`; to run on it (not to compile for it), its arrays and `weights` must be `replicated`.
            schedule: learning rate by number of updates made in this stage.
            ema_decay: of the moving average; 0 makes it equal to the parameters.
            nesterov: take AdamW's step from where the momentum leads (NAdam: Dozat 2016, Incorporating Nesterov Momentum
                into Adam).
            accumulate: parts of a batch whose gradients are averaged for an update, one after the other.
            members: forecasts of a window by a model with noise; of several the loss is their fair CRPS.
            seed: of the noise, which is a function of it and of the number of the update.
            mesh: devices that share the work; batches are split over them as `model.sharding.STATES` says.

        Raises:
            ValueError: several members of a model without noise.
        """
        if members > 1 and model.noise is None:
            raise ValueError(
                f"members: got {members} of a model without noise, which would all be the same; expected 1"
            )
        model = nnx.merge(*nnx.split(model))
        model.eval()
        split: tuple[Any, ...] = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
        self._graph, self._params, self._statistics, self._constants = split
        model.train()
        self._training_graph = nnx.graphdef(model)
        self.weights, self._schedule, self._ema_decay = weights, schedule, ema_decay
        self._accumulate, self._mesh = accumulate, mesh
        self._members, self._seed = members, seed
        self._noise = None if model.noise is None else (model.noise.fields, model.noise.normals)
        # Gains and biases (one axis) are not decayed: they set scales, they do not fit noise.
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(clip_norm),
            optax.adamw(
                schedule,
                b2=beta2,
                weight_decay=weight_decay,
                nesterov=nesterov,
                mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
            ),
        )
        options = compiler_options(mesh)
        # Without it the compiler may leave parameters split over the devices, and the next call would not fit.
        placed: dict[str, Any] = {} if mesh is None else {"out_shardings": NamedSharding(mesh, WHOLE)}
        self._jitted = jax.jit(self._update_step, donate_argnums=0, compiler_options=options, **placed)
        self._update: Callable = self._jitted
        self._loss = jax.jit(self._validation_loss, compiler_options=options, **placed)

    def init(self, params: nnx.State) -> TrainState:
        """Return the state at the start of training."""
        # Updates donate their buffers, so neither the caller's arrays nor each other's may be shared.
        params, ema = (self._copy(params) for _ in range(2))
        counts = (self._copy(jnp.zeros((), jnp.int32)) for _ in range(3))
        return TrainState(params, self._start(params), ema, self._copy(self._statistics), *counts)

    def restart(self, state: TrainState) -> TrainState:
        """Return `state` with a new optimiser state, as at the start of a later stage."""
        return state._replace(opt_state=self._start(state.params))

    def lower(self, batch: Batch) -> jax.stages.Lowered:
        """Trace and lower the update for a batch of these shapes: arrays, or what `abstract_batch` returns.

        No array is placed, so the mesh may be that of devices that are not here.
        """
        state, constants, weights = self._abstract()
        return self._jitted.lower(state, batch, constants, weights)

    def compile(self, batch: Batch) -> float:
        """Compile the update for batches of these shapes alone; return the seconds it took."""
        began = time.perf_counter()
        self._update = self.lower(batch).compile()
        return time.perf_counter() - began

    def compiled_gradient(self, batch: Batch) -> jax.stages.Compiled:
        """Return the compiled gradient of the loss alone, to ask what it takes."""
        state, constants, weights = self._abstract()

        def gradient(params: nnx.State, statistics: nnx.State, batch: Batch, *others: Any) -> Any:
            return self._gradient(params, statistics, self._sample(batch, 0), *others)

        jitted = jax.jit(gradient, compiler_options=compiler_options(self._mesh))
        return jitted.lower(state.params, state.statistics, batch, constants, weights).compile()

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """Return the state after one update, and scalars that tell of it; `state` is consumed.

        Where loss or gradient are not finite nothing changes but the counts.

        Returns:
            The new state, and ``loss``, ``gradient_norm``, ``learning_rate``, ``skipped`` and ``skipped_in_row``.
        """
        return self._update(state, batch, self._constants, self.weights)

    def loss(self, params: nnx.State, statistics: nnx.State, batch: Batch) -> jax.Array:
        """Return the loss of `params` on a batch, normalised by running averages where the network has them.

        Noise is that of the first update.
        """
        return self._loss(params, statistics, batch, self._constants, self.weights)

    def origin(self, state: TrainState, batch: Batch) -> Origin:
        """Return where the rollout over a batch is not finite; compiles a program of its own."""

        def look(part: _Sample, params: nnx.State, statistics: nnx.State, constants: nnx.State) -> Origin:
            model = nnx.merge(self._training_graph, params, statistics, constants, copy=True)

            def broken(fields: jax.Array) -> Any:
                return ~jnp.isfinite(fields).all(axis=(0, -2, -1))

            found = _observe(model, part, lambda error: (broken(error), jnp.mean(error**2, axis=(0, -2, -1))))
            return Origin(broken(part.batch.states), broken(part.batch.forcings), *found)

        def all_parts(batch: Batch, update: jax.Array, *others: nnx.State) -> Origin:
            sample = self._sample(batch, update)
            if self._accumulate == 1:
                return look(sample, *others)
            parts = jax.lax.map(lambda part: look(part, *others), sample)
            states, forcings, forecast = (leaf.any(axis=0) for leaf in parts[:3])
            return Origin(states, forcings, forecast, parts.error.mean(axis=0))

        placed: dict[str, Any] = {} if self._mesh is None else {"out_shardings": NamedSharding(self._mesh, WHOLE)}
        run = jax.jit(all_parts, compiler_options=compiler_options(self._mesh), **placed)
        return jax.tree.map(np.asarray, run(batch, state.update, state.params, state.statistics, self._constants))

    def _abstract(self) -> tuple[TrainState, nnx.State, LossWeights]:
        """Return shapes, dtypes and places of state, constants and weights."""
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._params)
        count: Any = jax.ShapeDtypeStruct((), jnp.int32)
        state = TrainState(
            params, jax.eval_shape(self._optimizer.init, params), params, self._statistics, count, count, count
        )
        whole = None if self._mesh is None else NamedSharding(self._mesh, WHOLE)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            (state, self._constants, self.weights),
        )

    def _sample(self, batch: Batch, update: jax.Array | int) -> _Sample:
        """Return a batch, or its parts, with the noise of an update.

        It is drawn for all devices' shares and all parts together, so that it depends on neither.
        """
        if self._noise is None:
            return _Sample(batch, None)
        leading, steps = batch.states.shape[:-4], batch.forcings.shape[-4]
        normals = draw_normals(self._seed, update, (math.prod(leading), self._members, steps, *self._noise))
        return _Sample(batch, normals.reshape(*leading, *normals.shape[1:]))

    def _copy(self, tree: Any) -> Any:
        return jax.tree.map(jnp.copy, tree) if self._mesh is None else replicated(tree, self._mesh)

    def _start(self, params: nnx.State) -> Any:
        if self._mesh is None:
            return self._optimizer.init(params)
        return replicated(self._optimizer.init(jax.tree.map(np.asarray, params)), self._mesh)

    def _validation_loss(
        self, params: nnx.State, statistics: nnx.State, batch: Batch, constants: nnx.State, weights: LossWeights
    ) -> jax.Array:
        model = nnx.merge(self._graph, params, statistics, constants)
        # Validation batches have no parts.
        return rollout_loss(model, batch, weights, self._sample(batch, 0).normals)

    def _training_loss(
        self, params: nnx.State, statistics: nnx.State, sample: _Sample, constants: nnx.State, weights: LossWeights
    ) -> tuple[jax.Array, nnx.State]:
        model = nnx.merge(self._training_graph, params, statistics, constants, copy=True)
        loss = rollout_loss(model, sample.batch, weights, sample.normals)
        return loss, nnx.state(model, nnx.BatchStat)

    def _gradient(
        self, params: nnx.State, statistics: nnx.State, sample: _Sample, constants: nnx.State, weights: LossWeights
    ) -> tuple[jax.Array, nnx.State, nnx.State]:
        """Return loss, statistics and gradient of a batch.

        Gradients of every device's share of it are added up once: left to the compiler, each step of a rollout would
        exchange its own. Batch normalisations see the whole batch and leave no other way.
        """
        if self._mesh is None or self._mesh.shape.get(DATA_AXIS, 1) == 1 or jax.tree.leaves(statistics):
            return self._gradient_of_share(params, statistics, sample, constants, weights)

        def share(*arguments: Any) -> tuple[jax.Array, nnx.State, nnx.State]:
            loss, statistics, gradient = self._gradient_of_share(*arguments)
            loss, gradient = jax.lax.pmean((loss, gradient), DATA_AXIS)
            return loss, statistics, gradient

        part = PartitionSpec(*[None] * (self._accumulate > 1), DATA_AXIS)
        return jax.shard_map(
            share,
            mesh=self._mesh,
            in_specs=(WHOLE, WHOLE, part, WHOLE, WHOLE),
            out_specs=WHOLE,
            axis_names={DATA_AXIS},
            check_vma=False,
        )(params, statistics, sample, constants, weights)

    def _gradient_of_share(
        self, params: nnx.State, statistics: nnx.State, sample: _Sample, constants: nnx.State, weights: LossWeights
    ) -> tuple[jax.Array, nnx.State, nnx.State]:
        """Return loss, statistics and gradient of all parts of a batch."""
        differentiated = jax.value_and_grad(self._training_loss, has_aux=True)
        if self._accumulate == 1:
            (loss, statistics), gradient = differentiated(params, statistics, sample, constants, weights)
            return loss, statistics, gradient

        def add(sums: tuple, part: _Sample) -> tuple[tuple, None]:
            total, statistics, gradients = sums
            (loss, statistics), gradient = differentiated(params, statistics, part, constants, weights)
            return (total + loss, statistics, jax.tree.map(jnp.add, gradients, gradient)), None

        zeros = (jnp.zeros(()), statistics, jax.tree.map(jnp.zeros_like, params))
        (loss, statistics, gradient), _ = jax.lax.scan(add, zeros, sample)
        share = 1.0 / self._accumulate
        return loss * share, statistics, jax.tree.map(lambda leaf: leaf * share, gradient)

    def _update_step(
        self, state: TrainState, batch: Batch, constants: nnx.State, weights: LossWeights
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        sample = self._sample(batch, state.update)
        loss, statistics, gradient = self._gradient(state.params, state.statistics, sample, constants, weights)
        change, opt_state = self._optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        # The average starts fast, or the initial parameters would weigh on a short training.
        made = state.update - state.skipped + 1
        decay = jnp.minimum(self._ema_decay, made / (made + 9.0))
        decay = jnp.where(self._ema_decay == 0.0, 0.0, decay)
        ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        params, opt_state, ema, statistics = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), (params, opt_state, ema, statistics), state[:4]
        )
        skipped = state.skipped + ~finite
        in_row = jnp.where(finite, 0, state.skipped_in_row + 1)
        (_, count), *_ = optax.tree.get_all_with_path(state.opt_state, "count")
        metrics = {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": jnp.asarray(self._schedule(count), jnp.float32),
            "skipped": skipped,
            "skipped_in_row": in_row,
        }
        return TrainState(params, opt_state, ema, statistics, state.update + 1, skipped, in_row), metrics


def loss_weights(
    latitude_weights: np.ndarray | jax.Array,
    channel_weights: np.ndarray | jax.Array,
    lead_weights: np.ndarray | None = None,
) -> LossWeights:
    """Return float32 weights, each divided by its mean."""

    def unit_mean(values: np.ndarray | jax.Array) -> jax.Array:
        return jnp.asarray(values / np.mean(values), jnp.float32)

    lead = None if lead_weights is None else unit_mean(lead_weights)
    return LossWeights(unit_mean(latitude_weights), unit_mean(channel_weights), lead)


def abstract_batch(
    mesh: Mesh | None,
    *,
    batch_size: int,
    accumulate: int,
    input_steps: int,
    steps: int,
    channels: int,
    forcings: int,
    shape: tuple[int, int],
) -> Batch:
    """Return shapes, dtypes and places of the batches that a training is given.

    Args:
        batch_size: windows of an update, over all devices and parts.
        shape: latitudes and longitudes.
    """
    parts = (accumulate,) if accumulate > 1 else ()
    sharding = None
    if mesh is not None:
        sharding = NamedSharding(mesh, PartitionSpec(*[None] * len(parts), *present(mesh, STATES)))

    def struct(times: int, fields: int) -> Any:
        axes = (*parts, batch_size // accumulate, times, fields, *shape)
        return jax.ShapeDtypeStruct(axes, jnp.float32, sharding=sharding)

    return Batch(struct(input_steps + steps, channels), struct(steps, forcings))


def replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Return new arrays with the values of `tree`, whole on every device of `mesh`; without one, `tree` itself.

    The values must be the same in every process.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, WHOLE)

    def place(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree)


def compiler_options(mesh: Mesh | None = None) -> dict[str, int] | None:
    """On CPUs, LLVM's expensive passes take 5 to 10 s a program and gain nothing: the time is in matrix products."""
    return {"xla_backend_optimization_level": 1} if platform_of(mesh) == "cpu" else None


def _observe(model: Forecaster, sample: _Sample, measure: Callable[[jax.Array], Any]) -> Any:
    """Return what is measured of the errors of every step, in units of the tendency's spread; (step, ...).

    Errors are (batch, channel, latitude, longitude), members side by side in the batch.
    """
    batch, inputs, scale, members = sample.batch, model.input_steps, model.scale, 1
    history, forcings = batch.states[:, :inputs], batch.forcings
    if sample.normals is not None:
        assert model.noise is not None
        members = sample.normals.shape[1]
        history = jnp.repeat(history, members, axis=0)
        forcings = members_forcings(model.noise, forcings, sample.normals)

    def compare(state: jax.Array, step: jax.Array) -> Any:
        truth = jax.lax.dynamic_index_in_dim(batch.states, inputs + step, axis=1, keepdims=False)
        truth = model.select(truth)
        return measure((state - (truth if members == 1 else jnp.repeat(truth, members, axis=0))) / scale)

    return model.observe(history, forcings, compare)
