"""The update step: loss by hand, schedule, moving average, and learning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.forecaster import Channels, Forecaster, Normalisation
from model.network import Level, NetworkConfig
from model.training import Batch, Trainer, learning_rate_schedule, loss_weights, rollout_loss
from transforms.grids import Grid

GRID = Grid.equiangular(8, 16, poles=False)
WEIGHTS = loss_weights(GRID.latitude_weights(), np.array([1.0, 1.0, 2.0]))
# Compilation takes most of the time of these tests.
QUICK = {"xla_backend_optimization_level": 0}
OPTIONS = {"beta2": 0.99, "weight_decay": 0.01, "clip_norm": 1.0, "ema_decay": 0.9}


def forecaster(normalisation: str = "sample") -> Forecaster:
    return Forecaster(
        NetworkConfig((Level(6, 4, 3, 1),), normalisation=normalisation),
        GRID,
        Channels((2,), (0,), (1,)),
        Normalisation(np.zeros(3), np.ones(3), np.full(3, 0.5)),
        np.zeros((0, *GRID.shape)),
        forcings=0,
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope="module")
def model() -> Forecaster:
    return forecaster()


@pytest.fixture(scope="module")
def batch_normalised() -> Forecaster:
    return forecaster("batch")


def waves(steps: int) -> Batch:
    """Zonal waves that travel east by one point a step."""
    longitude = np.deg2rad(GRID.longitude)
    shape = np.cos(np.deg2rad(GRID.latitude))[:, None]
    first = np.stack([shape * np.sin(2 * longitude + phase) for phase in (0.0, 1.0, 2.0)])
    states = np.stack([np.roll(first, shift, axis=-1) for shift in range(steps + 1)])
    states = np.stack([states, 0.5 * np.roll(states, 3, axis=-1)])
    return Batch(jnp.asarray(states, jnp.float32), jnp.zeros((2, steps, 0, *GRID.shape)))


def test_loss_of_persistence_by_hand(model):
    batch = waves(2)
    states = np.asarray(batch.states, np.float64)
    squares = ((states[:, 1:] - states[:, :1]) / 0.5) ** 2
    latitude = GRID.latitude_weights()
    channel = np.array([0.75, 0.75, 1.5])
    expected = np.mean(squares * channel[:, None, None] * latitude[:, None])
    assert float(rollout_loss(model, batch, WEIGHTS)) == pytest.approx(expected, rel=1e-5)


def test_learning_lowers_the_loss_and_average_follows(model):
    trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 60, 0.05), **OPTIONS)
    state, batch = trainer.init(nnx.state(model, nnx.Param)), waves(1)
    first = float(trainer.loss(state.params, state.statistics, batch))
    for _ in range(60):
        state, metrics = trainer.update(state, batch)
    assert int(state.update) == 60
    assert float(metrics["loss"]) < 0.05 * first
    assert float(trainer.loss(state.ema, state.statistics, batch)) < 0.1 * first


def test_first_update_with_nesterov_momentum_is_the_closed_form(model):
    options = {**OPTIONS, "clip_norm": 1e9, "nesterov": True}
    trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 10, 0.0), **options)
    start, batch = jax.tree.map(np.asarray, nnx.state(model, nnx.Param)), waves(1)
    graph, _, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State) -> jax.Array:
        return rollout_loss(nnx.merge(graph, params, rest), batch, WEIGHTS)

    gradient = jax.jit(jax.grad(loss), compiler_options=QUICK)(start)
    state, _ = trainer.update(trainer.init(start), batch)
    # Dozat (2016), with b = 0.9: the first moment m = (1 - b) g of a gradient g enters as b m / (1 - b**2) + g, and the
    # second, without its bias, is g**2.
    ahead = 0.9 * 0.1 / (1 - 0.9**2) + 1
    for got, old, g in zip(*map(jax.tree.leaves, (state.params, start, gradient)), strict=True):
        clear = np.abs(g) > 1e-5
        decay = 0.01 * old if g.ndim > 1 else 0.0
        expected = old - 1e-2 * (ahead * np.sign(g) + decay)
        np.testing.assert_allclose(np.asarray(got)[clear], expected[clear], atol=5e-5)


def test_average_is_the_recursion(model):
    trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 10, 0.0), **OPTIONS)
    state, batch = trainer.init(nnx.state(model, nnx.Param)), waves(1)
    average = jax.tree.map(np.asarray, state.ema)
    for update in range(1, 4):
        state, _ = trainer.update(state, batch)
        decay = min(0.9, update / (update + 9))
        average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new), average, state.params)
    for got, expected in zip(jax.tree.leaves(state.ema), jax.tree.leaves(average), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_no_average_when_decay_is_zero(model):
    trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 10, 0.0), **{**OPTIONS, "ema_decay": 0.0})
    state, _ = trainer.update(trainer.init(nnx.state(model, nnx.Param)), waves(1))
    for got, expected in zip(jax.tree.leaves(state.ema), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_restart_keeps_parameters_and_forgets_moments(model):
    trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 10, 0.0), **OPTIONS)
    state, _ = trainer.update(trainer.init(nnx.state(model, nnx.Param)), waves(1))
    again = trainer.restart(state)
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(state.params), strict=True)
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(again.opt_state))
    assert int(again.update) == 1


def test_updates_are_reproducible(model):
    def run() -> list[np.ndarray]:
        trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 10, 0.1), **OPTIONS)
        state = trainer.init(nnx.state(model, nnx.Param))
        for _ in range(3):
            state, _ = trainer.update(state, waves(2))
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]

    assert all(np.array_equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_remat_changes_no_gradient(model):
    batch = waves(3)

    def gradient(remat: bool):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params):
            merged = nnx.merge(graph, params, rest)
            merged.remat = remat
            return rollout_loss(merged, batch, WEIGHTS)

        return jax.jit(jax.grad(loss), compiler_options=QUICK)(params)

    for a, b in zip(jax.tree.leaves(gradient(True)), jax.tree.leaves(gradient(False)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_remat_changes_nothing_that_is_observed(steps):
    inputs = 2
    model = Forecaster(
        NetworkConfig((Level(4, 2, 2, 1),)),
        GRID,
        Channels((2,), (0,), (1,)),
        Normalisation(np.zeros(3), np.ones(3), np.full(3, 0.5)),
        np.zeros((0, *GRID.shape)),
        forcings=1,
        input_steps=inputs,
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(0)
    # The decoder starts at zero, and then most gradients are zero.
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype("f4"), params)
    history = waves(inputs - 1).states
    forcings = jnp.asarray(rng.normal(size=(2, steps, 1, *GRID.shape)), jnp.float32)
    # Of every state another sum: what belongs to which step must not be mixed up.
    weights = jnp.asarray(rng.normal(size=(steps, *history.shape[2:])), jnp.float32)

    def observed(remat: bool) -> list[jax.Array]:
        def total(params, history):
            merged = nnx.merge(graph, params, rest)
            merged.remat = remat
            seen = merged.observe(history, forcings, lambda state, step: (state, jnp.mean(state**2 * weights[step])))
            return jnp.sum(seen[1]), seen

        gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), compiler_options=QUICK)
        (_, (states, measured)), gradients = gradient(params, history)
        return [states, measured, *jax.tree.leaves(gradients)]

    kept, recomputed = observed(False), observed(True)
    for got, expected in zip(recomputed, kept, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max()))
    states, measured = kept[:2]
    assert states.shape == (steps, *history[:, 0].shape)
    step = jax.jit(lambda *arguments: nnx.merge(graph, params, rest).step(*arguments), compiler_options=QUICK)
    for number in range(steps):
        state = step(history, forcings[:, number])
        np.testing.assert_allclose(states[number], state, rtol=1e-4, atol=1e-5)
        history = jnp.stack([history[:, 1], state], axis=1)
    np.testing.assert_allclose(
        measured, jnp.mean(states**2 * weights[:, None], axis=(1, 2, 3, 4)), rtol=1e-4, atol=1e-6
    )


def test_schedule():
    schedule = learning_rate_schedule(2e-3, 100, 0.1)
    assert float(schedule(0)) == 0.0
    assert float(schedule(10)) == pytest.approx(2e-3)
    assert float(schedule(55)) == pytest.approx(1e-3, rel=1e-2)
    assert float(schedule(100)) == pytest.approx(0.0, abs=1e-9)
    assert float(learning_rate_schedule(2e-3, 10, 0.0)(0)) == pytest.approx(2e-3)


def test_batch_statistics_follow_the_updates(batch_normalised):
    model = batch_normalised
    trainer = Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 60, 0.05), **OPTIONS)
    state, batch = trainer.init(nnx.state(model, nnx.Param)), waves(2)
    untrained = jax.tree.map(np.asarray, state.statistics)
    shapes = jax.tree.map(jnp.shape, state.statistics)
    first = float(trainer.loss(state.params, state.statistics, batch))
    for _ in range(60):
        state, metrics = trainer.update(state, batch)
    assert jax.tree.map(jnp.shape, state.statistics) == shapes
    norm = state.statistics["network"]["down"][0][0]["norm"]
    # One update of the averages for every update, however many steps it has.
    assert float(norm["updates"][...]) == 60
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.statistics))
    # The first activations are the encoder's of scalars and vectors of variance one or less.
    assert 0.01 < float(norm["variance"][...].min()) < float(norm["variance"][...].max()) < 10
    assert float(metrics["loss"]) < 0.1 * first
    assert float(trainer.loss(state.params, state.statistics, batch)) < 0.2 * first
    # Without the averages the parameters are of no use.
    assert float(trainer.loss(state.params, untrained, batch)) > 2 * float(metrics["loss"])
    # The model that the trainer was made from is as it was.
    assert all(
        not np.any(leaf)
        for leaf in jax.tree.leaves(nnx.state(model, nnx.BatchStat)["network"]["down"][0][0]["norm"]["mean"])
    )


@pytest.mark.parametrize("remat", [False, True])
def test_rollout_averages_batch_statistics_over_its_steps(batch_normalised, remat):
    batch, steps = waves(3), 3

    def statistics(model: Forecaster, method: str, *arguments):
        graph, state = nnx.split(model)

        def call(state, *arguments):
            model = nnx.merge(graph, state)
            return getattr(model, method)(*arguments), nnx.state(model, nnx.BatchStat)

        return jax.jit(call, compiler_options=QUICK)(state, *arguments)

    model = nnx.clone(batch_normalised)
    model.remat = remat
    rng = np.random.default_rng(0)
    parameters = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype("f4"), parameters))
    states, gathered = statistics(model, "rollout", batch.states[:, :1], batch.forcings)
    history, single = batch.states[:, :1], []
    for lead in range(steps):
        following, step = statistics(model, "step", history, batch.forcings[:, lead])
        np.testing.assert_allclose(states[:, lead], following, rtol=1e-4, atol=1e-4)
        history = following[:, None]
        single.append(step)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *single)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gathered, mean)
    model.eval()
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.BatchStat))
    _, after = statistics(model, "rollout", batch.states[:, :1], batch.forcings)
    jax.tree.map(np.testing.assert_array_equal, before, after)
