"""The network and the forecaster: equivariance about the pole, rollout, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.forecaster import Channels, Forecaster, Normalisation
from model.network import Level, NetworkConfig, SphericalUNet
from transforms.grids import Grid

# Compilation takes most of the time of these tests.
QUICK = {"xla_backend_optimization_level": 0}
GRID = Grid.equiangular(16, 32, poles=False)
# Hidden grids of 16 and 8 longitudes: a turn by 4 data points is 2 hidden points and 1 of the coarse level.
CONFIG = NetworkConfig((Level(8, 6, 4, 1), Level(4, 6, 4, 1)))
CHANNELS = Channels(scalars=(0, 3), eastward=(1,), northward=(2,))


def randomised(module: nnx.Module, seed: int) -> nnx.Module:
    """Replace all parameters by random numbers: the decoder starts at zero, which would hide everything."""
    rng = np.random.default_rng(seed)
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32), state))
    return module


def forecaster(*, statics: int = 0, forcings: int = 0, input_steps: int = 1, **options) -> Forecaster:
    normalisation = Normalisation(
        mean=np.array([5.0, 0.0, 0.0, 1.0]),
        std=np.array([2.0, 3.0, 3.0, 1.0]),
        tendency_std=np.array([0.5, 1.0, 1.0, 0.2]),
    )
    fields = np.random.default_rng(0).normal(size=(statics, *GRID.shape))
    model = Forecaster(
        CONFIG,
        GRID,
        CHANNELS,
        normalisation,
        fields,
        forcings=forcings,
        input_steps=input_steps,
        rngs=nnx.Rngs(0),
        **options,
    )
    return randomised(model, 1)


def run(model: Forecaster, method: str, *arguments):
    """Call a method as one compiled program: operation by operation it takes ten times as long."""
    return nnx.jit(lambda model, *arguments: getattr(model, method)(*arguments))(model, *arguments)


def random_states(seed: int, *leading: int) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*leading, 4, *GRID.shape)), jnp.float32)


def test_commutes_with_rotation_about_the_poles():
    model = forecaster()
    history, forcing = random_states(2, 2, 1), jnp.zeros((2, 0, *GRID.shape))
    tendency = run(model, "normalised_output", history, forcing)
    turned = run(model, "normalised_output", jnp.roll(history, 4, axis=-1), forcing)
    difference = jnp.linalg.norm((turned - jnp.roll(tendency, 4, axis=-1)).ravel())
    assert float(difference / jnp.linalg.norm(tendency.ravel())) < 1e-5


def test_statics_and_forcings_tell_longitudes_apart():
    model = forecaster(statics=1, forcings=1)
    history, forcing = random_states(2, 1, 1), random_states(3, 1)[:, :1]
    turned = run(model, "normalised_output", jnp.roll(history, 4, axis=-1), forcing)
    assert float(jnp.abs(turned - jnp.roll(run(model, "normalised_output", history, forcing), 4, axis=-1)).max()) > 1e-2


def test_starts_as_persistence():
    model = Forecaster(
        CONFIG,
        GRID,
        CHANNELS,
        Normalisation(np.zeros(4), np.ones(4), np.ones(4)),
        np.zeros((0, *GRID.shape)),
        forcings=0,
        rngs=nnx.Rngs(0),
    )
    history = random_states(4, 2, 1)
    np.testing.assert_array_equal(run(model, "step", history, jnp.zeros((2, 0, *GRID.shape))), history[:, 0])


@pytest.mark.parametrize("input_steps", [1, 2])
@pytest.mark.parametrize("remat", [True, False])
def test_rollout_is_repeated_steps(input_steps, remat):
    model = forecaster(forcings=1, input_steps=input_steps, remat=remat)
    history, forcings = random_states(5, 2, input_steps), random_states(6, 2, 3)[:, :, :1]
    states = run(model, "rollout", history, forcings)
    assert states.shape == (2, 3, 4, *GRID.shape)
    for lead in range(3):
        following = run(model, "step", history, forcings[:, lead])
        np.testing.assert_allclose(states[:, lead], following, rtol=1e-4, atol=1e-4)
        history = jnp.concatenate([history[:, 1:], following[:, None]], axis=1)


def test_the_network_is_given_the_latest_state_first():
    model = forecaster(input_steps=2)
    history, forcing = random_states(11, 2, 2), jnp.zeros((2, 0, *GRID.shape))
    normalised = np.asarray((history - model.mean[...]) / model.std[...])

    def given(channels: tuple[int, ...]) -> np.ndarray:
        fields = np.concatenate([normalised[:, step][:, list(channels)] for step in (1, 0)], axis=1)
        return fields.transpose(3, 2, 0, 1)

    channels = model.given
    scalars, u, v = model.network(*map(given, (channels.scalars, channels.eastward, channels.northward)))
    got = run(model, "normalised_output", history, forcing)
    order = [*channels.scalars, *channels.eastward, *channels.northward]
    expected = jnp.concatenate([scalars, u, v], axis=-1).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(got[:, jnp.array(order)], expected, rtol=1e-4, atol=1e-5)


def test_samples_do_not_mix():
    model = forecaster()
    history, forcing = random_states(7, 3, 1), jnp.zeros((3, 0, *GRID.shape))
    alone = run(model, "step", history[1:2], forcing[1:2])
    np.testing.assert_allclose(run(model, "step", history, forcing)[1:2], alone, rtol=1e-4, atol=1e-4)


def test_tendency_is_scaled_and_state_normalised():
    # Shifting a scalar by its mean and scaling by its spread must be the same as normalised units.
    model = forecaster()
    history, forcing = random_states(8, 1, 1), jnp.zeros((1, 0, *GRID.shape))
    change = run(model, "step", history, forcing) - history[:, 0]
    expected = run(model, "normalised_output", history, forcing) * jnp.array([0.5, 1.0, 1.0, 0.2])[:, None, None]
    np.testing.assert_allclose(change, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("std", [1.0, 1.0, 2.0, 1.0]), ("tendency_std", [1.0, 2.0, 1.0, 1.0]), ("mean", [0.0, 1.0, 1.0, 0.0])],
)
def test_constants_that_break_equivariance_are_refused(key, value):
    constants = {"mean": np.zeros(4), "std": np.ones(4), "tendency_std": np.ones(4)} | {key: np.array(value)}
    with pytest.raises(ValueError, match=f"{key}: components of a vector must share it"):
        Forecaster(
            CONFIG,
            GRID,
            CHANNELS,
            Normalisation(**constants),
            np.zeros((0, *GRID.shape)),
            forcings=0,
            rngs=nnx.Rngs(0),
        )


def test_wrong_channels_are_refused():
    network = SphericalUNet(CONFIG, GRID, in_scalars=2, in_vectors=1, out_scalars=1, out_vectors=1, rngs=nnx.Rngs(0))
    field = jnp.zeros((32, 16, 1, 2))
    with pytest.raises(
        ValueError,
        match=r"channels of u: got 2, expected 1; v: got 2, expected 1\. Components of vectors enter as u and v",
    ):
        network(field, field, field)


def test_options_change_the_network():
    def parameters(**options) -> int:
        config = NetworkConfig(CONFIG.levels, **options)
        network = SphericalUNet(
            config, GRID, in_scalars=1, in_vectors=1, out_scalars=1, out_vectors=1, rngs=nnx.Rngs(0)
        )
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

    assert parameters(filter_knots=3) < parameters()
    assert parameters(normalisation="none") < parameters() < parameters(normalisation="batch")
    assert parameters(mirror_symmetric=True) < parameters()
    assert parameters(nonlinearity="gelu") < parameters()
    for level, option in (("linear", 8), ("dealiased", 12)):
        network = SphericalUNet(
            NetworkConfig(CONFIG.levels, hidden_grid=level),
            GRID,
            in_scalars=1,
            in_vectors=1,
            out_scalars=1,
            out_vectors=1,
            rngs=nnx.Rngs(0),
        )
        assert network.down[0][0].transform.grid.shape[0] == option


def random_network(config: NetworkConfig) -> SphericalUNet:
    """A network of random parameters from 3 scalars and 2 vectors to as many."""
    counts = {"in_scalars": 3, "in_vectors": 2, "out_scalars": 3, "out_vectors": 2}
    return randomised(SphericalUNet(config, GRID, **counts, rngs=nnx.Rngs(0)), 1)


def random_fields() -> tuple:
    rng = np.random.default_rng(11)
    return tuple(jnp.asarray(rng.normal(size=(*GRID.shape[::-1], 2, n)), jnp.float32) for n in (3, 2, 2))


def relative_difference(values, references) -> float:
    """Of all arrays of two trees together."""
    value, reference = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(x)]) for x in (values, references))
    return float(jnp.linalg.norm(value - reference) / jnp.linalg.norm(reference))


@pytest.mark.parametrize("normalisation", ["sample", "none"])
def test_bfloat16_is_one_percent_off_and_leaves_parameters_in_float32(normalisation):
    levels = (Level(8, 6, 4, 2),)

    def outputs_and_gradient(precision: str):
        network = random_network(NetworkConfig(levels, precision=precision, normalisation=normalisation))
        graph, parameters, rest = nnx.split(network, nnx.Param, ...)

        def loss(parameters, rest, fields):
            outputs = nnx.merge(graph, parameters, rest)(*fields)
            return sum(jnp.mean(field**2) for field in outputs), outputs

        gradient, outputs = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(
            parameters, rest, random_fields()
        )
        return outputs, gradient

    single, half = outputs_and_gradient("float32"), outputs_and_gradient("bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.float32)}
    # A U-Net of two levels is 0.8 % off with one block in each, 1.5 % with four.
    assert 1e-3 < relative_difference(half[0], single[0]) < 2e-2
    assert relative_difference(half[1], single[1]) < 5e-2


def test_mirror_symmetric_network_commutes_with_reflection_about_the_equator():
    def reflect(scalars, u, v):
        return scalars[:, ::-1], u[:, ::-1], -v[:, ::-1]

    fields = random_fields()
    for mirror_symmetric, low, high in ((True, 0.0, 1e-5), (False, 0.05, 10.0)):
        network = random_network(NetworkConfig(CONFIG.levels, mirror_symmetric=mirror_symmetric, filter_knots=3))
        graph, state = nnx.split(network)
        both = jax.jit(lambda state, *fields, graph=graph: nnx.merge(graph, state)(*fields), compiler_options=QUICK)
        error = relative_difference(both(state, *reflect(*fields)), reflect(*both(state, *fields)))
        assert low <= error < high


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision: got 'float16', expected one of float32, bfloat16"):
        random_network(NetworkConfig(CONFIG.levels, precision="float16"))


def test_band_limits_must_decrease():
    with pytest.raises(ValueError, match=r"got \[4, 8\]"):
        SphericalUNet(
            NetworkConfig((Level(4, 2, 2, 1), Level(8, 2, 2, 1))),
            GRID,
            in_scalars=1,
            in_vectors=1,
            out_scalars=1,
            out_vectors=1,
            rngs=nnx.Rngs(0),
        )


def test_works_without_scalar_outputs_and_without_vectors():
    # 10 m winds alone, and temperature alone.
    for scalars, pairs in (((), ((0, 1),)), ((0, 1), ())):
        channels = Channels(scalars, tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))
        model = Forecaster(
            CONFIG,
            GRID,
            channels,
            Normalisation(np.zeros(2), np.ones(2), np.ones(2)),
            np.ones((1, *GRID.shape)),
            forcings=1,
            rngs=nnx.Rngs(0),
        )
        randomised(model, 2)
        history = random_states(9, 1, 1)[:, :, :2]
        following = run(model, "step", history, random_states(10, 1)[:, :1])
        assert bool(jnp.isfinite(following).all())
        assert float(jnp.abs(following - history[:, 0]).max()) > 1e-3
