"""Direct forecasts and diagnosed fields: what the network is given, what it predicts, and in which units."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.forecaster import Channels, Forecaster, Normalisation, Roles
from model.network import Level, NetworkConfig
from model.training import Batch, loss_weights, rollout_loss
from model.verification import ForecastErrors
from transforms.grids import Grid

GRID = Grid.equiangular(8, 16, poles=False)
CONFIG = NetworkConfig((Level(6, 4, 2, 1),))
CHANNELS = Channels(scalars=(0, 3), eastward=(1,), northward=(2,))
MEAN, STD, CHANGE = (np.array(values) for values in ([5.0, 0.0, 0.0, 1.0], [2.0, 3.0, 3.0, 4.0], [0.5, 1.0, 1.0, 0.2]))


def forecaster(roles: Roles, forcings: int = 2) -> Forecaster:
    constants = Normalisation(MEAN, STD, np.where(np.isin(np.arange(4), roles.whole), STD, CHANGE))
    statics = np.zeros((0, *GRID.shape))
    model = Forecaster(CONFIG, GRID, CHANNELS, constants, statics, forcings=forcings, roles=roles, rngs=nnx.Rngs(0))
    # The decoder starts at zero, which would hide what it is given.
    decoder = model.network.decoder.filter
    decoder.weight[...] = jnp.asarray(np.random.default_rng(1).normal(size=decoder.weight.shape), jnp.float32)
    return model


def states(seed: int, *leading: int) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*leading, *GRID.shape)), jnp.float32)


def call(model: Forecaster, method: str, *arguments):
    return nnx.jit(lambda model, *arguments: getattr(model, method)(*arguments))(model, *arguments)


def test_a_direct_forecast_is_one_call_from_the_same_states_for_every_lead():
    model = forecaster(Roles((0, 3), (0, 1, 2), (0, 1, 2), direct=True))
    history, forcings = states(2, 2, 1, 4), states(3, 2, 3, 2)
    forecast = call(model, "rollout", history, forcings)
    assert forecast.shape == (2, 3, 3, *GRID.shape)
    for lead in range(3):
        alone = call(model, "step", history, forcings[:, lead])
        np.testing.assert_allclose(forecast[:, lead], alone, atol=1e-5)
    output = call(model, "normalised_output", history, forcings[:, 0])
    column = (slice(None), None, None)
    np.testing.assert_allclose(forecast[:, 0], MEAN[:3][column] + STD[:3][column] * output, atol=1e-5)


def test_a_channel_that_is_not_given_changes_nothing():
    model = forecaster(Roles((0, 1, 2), (0, 1, 2, 3), whole=(3,)))
    history, forcing = states(2, 1, 1, 4), states(3, 1, 2)
    other = history.at[:, :, 3].add(7.0)
    np.testing.assert_array_equal(call(model, "step", history, forcing), call(model, "step", other, forcing))
    changed = call(model, "step", history.at[:, :, 0].add(1.0), forcing)
    assert float(jnp.abs(changed - call(model, "step", history, forcing))[:, 3].max()) > 1e-3


def test_an_iterated_forecast_diagnoses_values_and_adds_changes():
    model = forecaster(Roles((0, 1, 2), (0, 1, 2, 3), whole=(3,)))
    history, forcings = states(2, 1, 1, 4), states(3, 1, 2, 2)
    forecast = call(model, "rollout", history, forcings)
    output = call(model, "normalised_output", history, forcings[:, 0])
    column = (slice(None), None, None)
    expected = history[:, 0, :3] + CHANGE[:3][column] * output[:, :3]
    np.testing.assert_allclose(forecast[:, 0, :3], expected, atol=1e-5)
    np.testing.assert_allclose(forecast[:, 0, 3], MEAN[3] + STD[3] * output[:, 3], atol=1e-5)
    again = call(model, "step", forecast[:, :1], forcings[:, 1])
    np.testing.assert_allclose(forecast[:, 1], again, atol=1e-4)


def test_loss_and_errors_of_direct_forecasts_are_of_what_is_predicted():
    model = forecaster(Roles((0, 1, 2, 3), (3,), (3,), direct=True))
    truth, forcings = states(4, 2, 2, 4), states(5, 2, 1, 2)
    area, channel = np.linspace(0.5, 1.5, GRID.shape[0]), np.ones(1)
    weights = loss_weights(area, channel)
    batch = Batch(truth, forcings)
    error = (call(model, "rollout", truth[:, :1], forcings)[:, 0] - truth[:, 1, 3:]) / STD[3]
    expected = float(jnp.mean(error**2 * weights.latitude[:, None]))
    loss = nnx.jit(lambda model, batch: rollout_loss(model, batch, weights))(model, batch)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    model.eval()
    squares = ForecastErrors(model, weights.latitude)(
        nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat), batch
    )
    assert squares.shape == (1, 1)
    np.testing.assert_allclose(squares[0, 0] / STD[3] ** 2, expected, rtol=1e-5)


def test_roles_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"predicted: got channels \(0, 1, 2\), expected all 4 of a state"):
        forecaster(Roles((0, 1, 2, 3), (0, 1, 2)))
    with pytest.raises(ValueError, match=r"channels \(1, 2\): components of a vector, of which one is chosen"):
        forecaster(Roles((0, 1), (0,), (0,), direct=True))
