"""Noise and the fair CRPS: against plain oracles, for any sharing of the work, and through an update."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from model.crps import fair_crps
from model.forecaster import Channels, Forecaster, Normalisation
from model.network import Level, NetworkConfig
from model.noise import Noise, draw_normals
from model.random_fields import RandomFields, gaussian_spectrum
from model.sharding import STATES, make_mesh
from model.training import Batch, Trainer, learning_rate_schedule, loss_weights, replicated, rollout_loss
from model.verification import ForecastErrors, weighted_loss
from transforms.grids import Grid

GRID = Grid.equiangular(8, 16, poles=False)
WEIGHTS = loss_weights(GRID.latitude_weights(), np.array([1.0, 1.0, 2.0]), np.array([2.0, 1.0]))
OPTIONS = {"beta2": 0.99, "weight_decay": 0.01, "clip_norm": 1.0, "ema_decay": 0.9}


def forecaster(mesh: Mesh | None = None) -> Forecaster:
    made = Forecaster(
        NetworkConfig((Level(6, 4, 3, 1),)),
        GRID,
        Channels((2,), (0,), (1,)),
        Normalisation(np.zeros(3), np.ones(3), np.full(3, 0.5)),
        np.zeros((0, *GRID.shape)),
        forcings=1,
        noise=Noise(GRID, 2, 2000.0, mesh),
        mesh=mesh,
        rngs=nnx.Rngs(0),
    )
    # The decoder starts at zero, which would hide the noise.
    decoder = made.network.decoder.filter
    decoder.weight[...] = jnp.asarray(np.random.default_rng(1).normal(size=decoder.weight.shape), jnp.float32)
    return made


@pytest.fixture(scope="module")
def model() -> Forecaster:
    return forecaster()


def batch(rows: int = 2, steps: int = 2) -> Batch:
    rng = np.random.default_rng(2)
    return Batch(
        jnp.asarray(rng.normal(size=(rows, steps + 1, 3, *GRID.shape)), jnp.float32),
        jnp.asarray(rng.normal(size=(rows, steps, 1, *GRID.shape)), jnp.float32),
    )


def test_fair_crps_is_the_sum_over_all_pairs():
    members, truth = np.random.default_rng(0).normal(size=(2, 5, 3)), np.random.default_rng(1).normal(size=(2, 3))
    expected = np.abs(members - truth[:, None]).mean(axis=1)
    for m in range(5):
        for n in range(5):
            expected -= np.abs(members[:, m] - members[:, n]) / (2 * 5 * 4)
    np.testing.assert_allclose(fair_crps(jnp.asarray(members - truth[:, None])), expected, rtol=1e-5, atol=1e-6)


def test_fair_crps_does_not_depend_on_the_number_of_members_on_average():
    draws = np.random.default_rng(0).normal(size=(200_000, 4))
    # A normal distribution and a truth at its mean: CRPS (sqrt 2 - 1) / sqrt pi.
    for members in (2, 3, 4):
        got = float(jnp.mean(fair_crps(jnp.asarray(draws[:, :members]))))
        assert got == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi), abs=5e-3)


def test_noise_is_the_random_field_of_its_numbers():
    noise, fields = Noise(GRID, 2, 2000.0), RandomFields(GRID, gaussian_spectrum(8, 2000.0))
    assert noise.normals == fields.normals
    normals = np.random.default_rng(0).standard_normal((3, 2, noise.normals))
    got = noise(jnp.asarray(normals, jnp.float32))
    np.testing.assert_allclose(got, np.stack([fields.scalars(each) for each in normals]), atol=1e-5)
    many = nnx.jit(lambda noise: noise(draw_normals(0, 1, (500, 2, noise.normals))))(noise)
    np.testing.assert_allclose(np.std(many, axis=(0, 1)), 1.0, atol=0.1)


def main() -> None:
    """Compare in a process of its own: the number of host devices is fixed when JAX starts."""
    given, got = batch(4, 1), []
    for mesh in (None, make_mesh(jax.devices()[:4], sphere=2)):
        made = forecaster(mesh)
        params = jax.tree.map(np.asarray, nnx.state(made, nnx.Param))
        nnx.update(made, replicated(nnx.state(made), mesh))
        weights = replicated(WEIGHTS._replace(lead=None), mesh)
        shared = Trainer(made, weights, learning_rate_schedule(1e-2, 10, 0.0), **OPTIONS, members=2, mesh=mesh)
        placed = given
        if mesh is not None:
            placed = jax.device_put(given, NamedSharding(mesh, STATES))
        _, metrics = shared.update(shared.init(params), placed)
        got.append([float(metrics[name]) for name in ("loss", "gradient_norm")])
    np.testing.assert_allclose(got[1], got[0], rtol=1e-4)


@pytest.mark.slow
def test_noise_of_an_update_is_the_same_on_any_devices(on_eight_devices):
    on_eight_devices(__file__)


def test_numbers_are_those_of_seed_and_update():
    draws = [np.asarray(draw_normals(seed, update, (3, 2))) for seed, update in ((0, 0), (0, 1), (1, 0))]
    assert len({draw.tobytes() for draw in draws}) == 3
    np.testing.assert_array_equal(jax.jit(lambda update: draw_normals(0, update, (3, 2)))(1), draws[1])


def test_loss_is_the_fair_crps_of_forecasts_one_by_one(model):
    given, normals = batch(), draw_normals(0, 0, (2, 3, 2, 2, model.noise.normals))
    loss = nnx.jit(lambda model, normals: rollout_loss(model, given, WEIGHTS, normals))

    def forecast(model: Forecaster, normals: jax.Array) -> jax.Array:
        noise = model.noise(normals.reshape(-1, *normals.shape[2:])).reshape(2, 2, 2, *GRID.shape)
        return model.rollout(given.states[:, :1], jnp.concatenate([given.forcings, noise], axis=2))

    states = [np.asarray(nnx.jit(forecast)(model, normals[:, member]), np.float64) for member in range(3)]
    truth = np.asarray(given.states[:, 1:], np.float64)
    scores = np.mean([np.abs(state - truth) for state in states], axis=0)
    for one in states:
        for other in states:
            scores -= np.abs(one - other) / 12
    weights = np.asarray(WEIGHTS.channel)[:, None, None] * np.asarray(WEIGHTS.latitude)[:, None]
    expected = np.mean(scores / 0.5 * weights * np.asarray(WEIGHTS.lead)[:, None, None, None])
    assert float(loss(model, normals)) == pytest.approx(expected, rel=1e-4)
    # Of equal members the differences vanish and the absolute error is left.
    equal = jnp.repeat(normals[:, :1], 2, axis=1)
    weights = weights * np.asarray(WEIGHTS.lead)[:, None, None, None]
    assert float(loss(model, equal)) == pytest.approx(np.mean(np.abs(states[0] - truth) / 0.5 * weights), rel=1e-4)


def trainer(model: Forecaster, **options) -> Trainer:
    return Trainer(model, WEIGHTS, learning_rate_schedule(1e-2, 10, 0.0), **OPTIONS, members=2, **options)


@pytest.mark.slow
def test_an_update_is_finite_draws_anew_and_does_not_depend_on_parts(model):
    given, params = batch(), jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    whole, parts = trainer(model), trainer(model, accumulate=2)
    _, first = whole.update(whole.init(params), given)
    assert np.isfinite(float(first["gradient_norm"]))
    assert float(first["gradient_norm"]) > 0
    _, in_parts = parts.update(parts.init(params), Batch(*(leaf[:, None] for leaf in given)))
    np.testing.assert_allclose(float(in_parts["loss"]), float(first["loss"]), rtol=1e-5)
    np.testing.assert_allclose(float(in_parts["gradient_norm"]), float(first["gradient_norm"]), rtol=1e-4)
    # The same parameters and windows at another update have other noise.
    _, other = whole.update(whole.init(params)._replace(update=jnp.asarray(7, jnp.int32)), given)
    assert float(other["loss"]) != float(first["loss"])


def test_validation_is_the_fair_crps_and_the_error_of_the_mean(model):
    given = batch()
    errors = ForecastErrors(model, WEIGHTS.latitude, members=32, seed=5)
    arguments = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat), given
    scores = errors.crps(*arguments)
    assert scores.shape == errors(*arguments).shape == (2, 3)
    np.testing.assert_array_equal(errors.crps(*arguments), scores)
    got = weighted_loss(scores, np.full(3, 0.5), WEIGHTS, 1)
    normals = draw_normals(0, 0, (2, 32, 2, 2, model.noise.normals))
    expected = nnx.jit(lambda model: rollout_loss(model, given, WEIGHTS, normals))(model)
    # Two large samples of the same distribution.
    assert got == pytest.approx(float(expected), rel=0.05)


def test_members_need_noise():
    plain = Forecaster(
        NetworkConfig((Level(4, 2, 0, 1),)),
        GRID,
        Channels((0,), (), ()),
        Normalisation(np.zeros(1), np.ones(1), np.ones(1)),
        np.zeros((0, *GRID.shape)),
        forcings=0,
        rngs=nnx.Rngs(0),
    )
    with pytest.raises(ValueError, match="members: got 2 of a model without noise"):
        trainer(plain)


if __name__ == "__main__":
    main()
