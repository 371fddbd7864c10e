"""The transforms of scalars and vectors. Every test runs on the fast transform and on the plain reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.harmonics import Transform
from model.quadrature import quadrature
from model.reference import ReferenceTransform
from transforms.grids import Grid

IMPLEMENTATIONS = {"fast": Transform, "reference": ReferenceTransform}
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
METHODS = ("scalars_to_nodal", "scalars_to_modal", "vectors_to_nodal", "vectors_to_modal")


def shifted(grid: Grid, steps: float) -> Grid:
    return Grid(grid.latitude, grid.longitude + steps * 360.0 / grid.longitude.size)


def without_poles(nlat: int, nlon: int) -> Grid:
    """An equiangular grid that has lost its poles: neither Gaussian nor of equal bands."""
    grid = Grid.equiangular(nlat + 2, nlon, poles=True)
    return Grid(grid.latitude[1:-1], grid.longitude)


GRIDS = {
    "Gauss": (Grid.gaussian(16), 16),
    "Gauss, odd": (Grid.gaussian(17), 17),
    "Gauss, finer": (Grid.gaussian(22), 15),
    "Gauss, 27 longitudes": (Grid.gaussian(13, 27), 13),
    "Gauss, 34 longitudes": (Grid.gaussian(16, 34), 11),
    "Gauss from half a step": (shifted(Grid.gaussian(12), 0.5), 12),
    "Gauss from an offset": (shifted(Grid.gaussian(12), 0.3), 12),
    # The fast transform cuts orders into blocks from L = 64 on.
    "Gauss, three blocks": (Grid.gaussian(97), 97),
    "n x 2n": (Grid.equiangular(16, 32, poles=False), 16),
    "n x 2n, odd": (Grid.equiangular(15, 30, poles=False), 15),
    "n x 2n from half a step": (shifted(Grid.equiangular(16, 32, poles=False), 0.5), 13),
    "n x 2n, quadrature": (Grid.equiangular(28, 56, poles=False), 14),
    "n x 2n, two blocks": (Grid.equiangular(66, 132, poles=False), 65),
    "n x n": (Grid.equiangular(24, 24, poles=False), 12),
    "n x n, odd": (Grid.equiangular(25, 25, poles=False), 13),
    "poles": (Grid.equiangular(17, 32, poles=True), 16),
    "poles, even": (Grid.equiangular(16, 30, poles=True), 15),
    "poles, quadrature": (Grid.equiangular(25, 48, poles=True), 13),
    "poles, n x n": (Grid.equiangular(24, 24, poles=True), 12),
    "other latitudes": (without_poles(15, 32), 15),
    "other latitudes, quadrature": (shifted(without_poles(16, 32), 0.7), 8),
}
CASES = [
    *((name, "auto", "float64") for name in GRIDS),
    *((name, "full", "float64") for name in ("Gauss, odd", "n x 2n, quadrature", "poles, quadrature")),
    *(
        (name, "auto", "float32")
        for name in ("Gauss", "Gauss, odd", "n x 2n, odd", "n x n", "poles", "other latitudes")
    ),
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    """(name of a grid, analysis, dtype); 64-bit types are on where they are asked for."""
    with jax.enable_x64(request.param[-1] == "float64"):
        yield request.param


@cache
def compiled(implementation: str, name: str, analysis: str = "auto", dtype: str = "float32") -> SimpleNamespace:
    """The four methods of a transform, each compiled once for all tests that give it the same shapes."""
    transform = IMPLEMENTATIONS[implementation](*GRIDS[name], analysis=analysis, dtype=jnp.dtype(dtype))
    return SimpleNamespace(**{method: jax.jit(getattr(transform, method)) for method in METHODS})


def random_nodal(seed: int, grid: Grid, batch: int = 2, channels: int = 3, dtype="float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*grid.shape[::-1], batch, channels)), dtype)


def exists(band_limit: int, *, vector: bool = False) -> np.ndarray:
    """Where there is a harmonic: (part, m, l, 1, 1)."""
    part, order, degree = np.ogrid[:2, :band_limit, :band_limit]
    there = (degree >= order) & (degree >= int(vector)) & ((part == 0) | (order > 0))
    return there[..., None, None]


def random_modal(
    seed: int, band_limit: int, batch: int = 2, channels: int = 3, dtype="float32", *, vector: bool = False
) -> jax.Array:
    values = np.random.default_rng(seed).normal(size=(2, band_limit, band_limit, batch, channels))
    return jnp.asarray(values * exists(band_limit, vector=vector), dtype)


def arguments(method: str, name: str, seed: int = 0, **keywords) -> tuple[jax.Array, ...]:
    """Random arguments of a method on a grid of `GRIDS`; nodal ones are not band-limited."""
    grid, band_limit = GRIDS[name]
    vector = method.startswith("vectors")
    seeds = range(seed, seed + 1 + int(vector))
    if method.endswith("to_modal"):
        return tuple(random_nodal(k, grid, **keywords) for k in seeds)
    return tuple(random_modal(k, band_limit, **keywords, vector=vector) for k in seeds)


def relative(got, expected) -> float:
    """Relative error in L2 over all arrays, in float64."""
    got, expected = (
        np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(x)]) for x in (got, expected)
    )
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def inner(x, y) -> float:
    return sum(
        float(np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64)))
        for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    )


@every_implementation
def test_round_trips(implementation, case):
    name, _, dtype = case
    transform, (_, band_limit) = compiled(implementation, *case), GRIDS[name]
    scalars, divergent, rotational = (random_modal(k, band_limit, dtype=dtype, vector=k > 0) for k in range(3))
    back = transform.scalars_to_modal(transform.scalars_to_nodal(scalars))
    tolerance = {"float32": 3e-7, "float64": 3e-14}[dtype]
    assert back.dtype == dtype
    assert relative(back, scalars) < tolerance
    back = transform.vectors_to_modal(*transform.vectors_to_nodal(divergent, rotational))
    assert relative(back, (divergent, rotational)) < tolerance


@pytest.mark.parametrize("method", METHODS)
def test_fast_equals_reference(case, method):
    name, _, dtype = case
    # Nodal arguments are not band-limited: what lies beyond the band limit is projected or fitted alike.
    inputs = arguments(method, name, dtype=dtype)
    got, expected = (getattr(compiled(which, *case), method)(*inputs) for which in IMPLEMENTATIONS)
    assert relative(got, expected) < {"float32": 1e-6, "float64": 1e-13}[dtype]


@pytest.mark.parametrize("name", ["Gauss", "Gauss, 27 longitudes", "Gauss from half a step", "Gauss from an offset"])
@pytest.mark.parametrize("fourier", ["fft", "folded", "matmul"])
def test_every_fourier_method_equals_the_reference(fourier, name):
    if fourier == "folded" and name in ("Gauss, 27 longitudes", "Gauss from an offset"):
        with pytest.raises(ValueError, match="fourier: 'folded' needs a multiple of 4 longitudes"):
            Transform(*GRIDS[name], fourier=fourier)
        return
    fast, reference = Transform(*GRIDS[name], fourier=fourier), compiled("reference", name)
    for method in METHODS:
        inputs = arguments(method, name)
        assert relative(jax.jit(getattr(fast, method))(*inputs), getattr(reference, method)(*inputs)) < 1e-6, method


@every_implementation
def test_given_weights_are_used(implementation):
    grid, band_limit = GRIDS["poles, quadrature"]
    weights = 7.0 * quadrature(grid).weights
    function = IMPLEMENTATIONS[implementation](grid, band_limit, weights=weights).scalars_to_modal
    inputs = arguments("scalars_to_modal", "poles, quadrature")
    expected = compiled(implementation, "poles, quadrature").scalars_to_modal(*inputs)
    assert relative(jax.jit(function)(*inputs), expected) < 1e-6


@every_implementation
def test_coordinates_rounded_to_float32_cost_no_digits(implementation):
    exact, band_limit = GRIDS["Gauss, 34 longitudes"]
    rounded = Grid(*(axis.astype(np.float32) for axis in (exact.latitude, exact.longitude)))
    with jax.enable_x64(True):
        expected = compiled(implementation, "Gauss, 34 longitudes", "auto", "float64")
        transform = IMPLEMENTATIONS[implementation](rounded, band_limit, dtype=jnp.float64)
        for method in METHODS:
            inputs = arguments(method, "Gauss, 34 longitudes", dtype="float64")
            assert relative(jax.jit(getattr(transform, method))(*inputs), getattr(expected, method)(*inputs)) < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize(("implementation", "tolerance"), [("fast", 3e-7), ("reference", 6e-7)])
def test_keeps_its_digits_at_n_256(implementation, tolerance):
    band_limit = 128
    transform = IMPLEMENTATIONS[implementation](Grid.gaussian(band_limit), band_limit, dtype=jnp.float32)
    there_and_back = jax.jit(lambda x: transform.scalars_to_modal(transform.scalars_to_nodal(x)))
    scalars, divergent, rotational = (random_modal(k, band_limit, 1, 1, vector=k > 0) for k in range(3))
    assert relative(there_and_back(scalars), scalars) < tolerance
    there_and_back = jax.jit(lambda *x: transform.vectors_to_modal(*transform.vectors_to_nodal(*x)))
    assert relative(there_and_back(divergent, rotational), (divergent, rotational)) < tolerance


def test_bfloat16_keeps_two_digits():
    narrow = Transform(*GRIDS["Gauss"], dtype=jnp.bfloat16)
    for method in METHODS:
        inputs = arguments(method, "Gauss")
        got = jax.jit(getattr(narrow, method))(*(x.astype(jnp.bfloat16) for x in inputs))
        assert jax.tree.leaves(got)[0].dtype == jnp.bfloat16
        assert relative(got, getattr(compiled("reference", "Gauss"), method)(*inputs)) < 1e-2, method


@every_implementation
@pytest.mark.parametrize("name", ["Gauss, finer", "Gauss from an offset"])
def test_parseval(implementation, name):
    (grid, band_limit), transform = GRIDS[name], compiled(implementation, name)
    weights = quadrature(grid).weights
    mean = lambda field: jnp.einsum("njbc,j->bc", field, weights) / grid.longitude.size  # noqa: E731
    scalars, divergent, rotational = (random_modal(k, band_limit, vector=k > 0) for k in range(3))
    u, v = transform.vectors_to_nodal(divergent, rotational)
    power = jnp.sum(scalars**2, (0, 1, 2)), jnp.sum(divergent**2 + rotational**2, (0, 1, 2))
    np.testing.assert_allclose(mean(transform.scalars_to_nodal(scalars) ** 2), power[0], rtol=2e-6)
    np.testing.assert_allclose(mean(u**2 + v**2), power[1], rtol=2e-6)


@every_implementation
def test_orientation_of_rotation_and_divergence(implementation):
    (grid, _), transform = GRIDS["poles"], compiled(implementation, "poles")
    latitude, longitude = np.deg2rad(grid.latitude)[None, :], np.deg2rad(grid.longitude)[:, None]

    def analysed(u, v):
        fields = (np.broadcast_to(w[..., None, None], (*grid.shape[::-1], 2, 3)) for w in (u, v))
        return transform.vectors_to_modal(*(jnp.asarray(field, jnp.float32) for field in fields))

    # The Earth's rotation is eastward everywhere; its vorticity 2 sin(latitude) gives l = 1, m = 0 alone.
    divergent, rotational = analysed(np.cos(latitude), 0 * latitude)
    expected = np.zeros(rotational.shape)
    expected[0, 0, 1] = -np.sqrt(2 / 3)
    np.testing.assert_allclose(rotational, expected, atol=2e-6)
    np.testing.assert_allclose(divergent, 0, atol=2e-6)
    # The gradient of cos(latitude) cos(longitude), the x coordinate, is the projection of e_x.
    divergent, rotational = analysed(-np.sin(longitude), -np.sin(latitude) * np.cos(longitude))
    expected[0, 0, 1], expected[0, 1, 1] = 0.0, np.sqrt(2 / 3)
    np.testing.assert_allclose(divergent, expected, atol=2e-6)
    np.testing.assert_allclose(rotational, 0, atol=2e-6)


@every_implementation
def test_vorticity_of_a_wave_by_finite_differences(implementation):
    # A fine grid, so that central differences are a fair oracle for the sign and size of the stream function.
    grid = Grid.gaussian(200)
    transform = IMPLEMENTATIONS[implementation](grid, 8)
    modal = random_modal(5, 8, 1, 1, vector=True)
    winds = jax.jit(transform.vectors_to_nodal)(0 * modal, modal)
    u, v = (np.asarray(field[:, :, 0, 0], np.float64) for field in winds)
    latitude, longitude = np.deg2rad(grid.latitude), np.deg2rad(grid.longitude)
    spacing = longitude[1] - longitude[0]
    dv = (np.roll(v, -1, 0) - np.roll(v, 1, 0)) / (2 * spacing)
    vorticity = (dv - np.gradient(u * np.cos(latitude), latitude, axis=1)) / np.cos(latitude)
    degree = np.arange(8)
    # B are coefficients of stream function times sqrt(l (l + 1)); vorticity is its Laplacian.
    scaled = -modal * jnp.asarray(np.sqrt(degree * (degree + 1.0)), jnp.float32)[:, None, None]
    expected = np.asarray(jax.jit(transform.scalars_to_nodal)(scaled)[:, :, 0, 0])
    middle = slice(20, -20)
    np.testing.assert_allclose(vorticity[:, middle], expected[:, middle], atol=0.02 * np.abs(expected).max())


@every_implementation
def test_a_constant_is_degree_zero(implementation, case):
    name, _, dtype = case
    grid, band_limit = GRIDS[name]
    modal = compiled(implementation, *case).scalars_to_modal(jnp.full((*grid.shape[::-1], 2, 3), 3.0, dtype))
    expected = np.zeros((2, band_limit, band_limit, 2, 3))
    expected[0, 0, 0] = 3.0
    np.testing.assert_allclose(modal, expected, atol={"float32": 3e-6, "float64": 1e-13}[dtype])


@every_implementation
@pytest.mark.parametrize("name", ["Gauss, odd", "poles", "Gauss, three blocks"])
def test_harmonics_that_do_not_exist_stay_out(implementation, name):
    (_, band_limit), transform = GRIDS[name], compiled(implementation, name)
    generator = np.random.default_rng(0)
    everywhere = [jnp.asarray(generator.normal(size=(2, band_limit, band_limit, 2, 3)), jnp.float32) for _ in range(2)]
    for kind in ("scalars", "vectors"):
        there = exists(band_limit, vector=kind == "vectors")
        evaluate, inputs = getattr(transform, f"{kind}_to_nodal"), everywhere[: 1 + (kind == "vectors")]
        assert relative(evaluate(*inputs), evaluate(*(x * there for x in inputs))) < 1e-6
        modal = getattr(transform, f"{kind}_to_modal")(*arguments(f"{kind}_to_modal", name))
        for part in jax.tree.leaves(modal):
            np.testing.assert_allclose(part * ~there, 0.0, atol=1e-6)


@every_implementation
@pytest.mark.parametrize("name", ["Gauss, odd", "other latitudes"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients(implementation, name, method):
    function, oracle = (getattr(compiled(which, name), method) for which in (implementation, "reference"))
    inputs, tangents = (arguments(method, name, seed) for seed in (0, 10))
    generator = np.random.default_rng(20)
    cotangents = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), function(*inputs))
    pull_back = lambda f: jax.jit(lambda x, y: jax.vjp(f, *x)[1](y))(inputs, cotangents)  # noqa: E731
    gradients, expected = pull_back(function), pull_back(oracle)
    assert relative(gradients, expected) < 1e-6
    # A linear map: the derivative along t is A t, and <A t, y> = <t, A^T y>.
    along = function(*tangents)
    _, derivative = jax.jit(lambda x, t: jax.jvp(function, x, t))(inputs, tangents)
    assert relative(derivative, along) < 1e-6
    scale = np.sqrt(inner(along, along) * inner(cotangents, cotangents))
    assert abs(inner(along, cotangents) - inner(tangents, gradients)) < 1e-6 * scale


@pytest.fixture
def losses() -> dict[str, Callable[[jax.Array], jax.Array]]:
    """A nonlinear function of coefficients through three of the methods of each implementation."""

    def loss_of(implementation: str) -> Callable[[jax.Array], jax.Array]:
        transform = compiled(implementation, "Gauss")

        def loss(modal: jax.Array) -> jax.Array:
            u, v = transform.vectors_to_nodal(modal, -2.0 * modal)
            field = jnp.tanh(transform.scalars_to_nodal(modal)) * u + v**2
            return jnp.sum(transform.scalars_to_modal(field) ** 2)

        return loss

    return {implementation: loss_of(implementation) for implementation in IMPLEMENTATIONS}


def reverse_over_rematerialised_scan(loss, modal):
    step = jax.checkpoint(lambda modal, _: (modal + 1e-3 * jnp.tanh(loss(modal)) * modal, None))
    return jax.grad(lambda modal: loss(jax.lax.scan(step, modal, length=2)[0]))(modal)


def forward_over_reverse(loss, modal):
    return jax.jvp(jax.grad(loss), (modal,), (modal[..., ::-1],))[1]


def reverse_over_reverse(loss, modal):
    return jax.grad(lambda modal: jnp.sum(jax.grad(loss)(modal) ** 2))(modal)


def vectorised_reverse(loss, modal):
    return jax.vmap(jax.grad(loss))(jnp.stack([modal, 0.5 * modal]))


@pytest.mark.parametrize(
    "derivative",
    [
        reverse_over_rematerialised_scan,
        forward_over_reverse,
        reverse_over_reverse,
        pytest.param(
            vectorised_reverse,
            marks=pytest.mark.xfail(strict=True, raises=NotImplementedError, reason="linear_call cannot be batched"),
        ),
    ],
)
def test_derivatives_combine(losses, derivative):
    modal = arguments("scalars_to_nodal", "Gauss")[0]
    got, expected = (jax.jit(lambda modal, loss=loss: derivative(loss, modal))(modal) for loss in losses.values())
    assert relative(got, expected) < 1e-5


@every_implementation
@pytest.mark.parametrize("method", METHODS)
def test_columns_do_not_mix(implementation, method):
    name = "Gauss, odd"
    function, inputs = getattr(compiled(implementation, name), method), arguments(method, name)
    together = jax.tree.leaves(function(*inputs))
    sample, channel = 1, 2
    column = np.s_[..., sample : sample + 1, channel : channel + 1]
    alone = jax.tree.leaves(function(*(x[column] for x in inputs)))
    assert relative([x[column] for x in together], alone) < 1e-6


@every_implementation
@pytest.mark.parametrize("method", METHODS)
def test_no_channels_give_no_channels(implementation, method):
    # A network without winds transforms no vectors.
    name = "Gauss, odd"
    function, inputs = getattr(compiled(implementation, name), method), arguments(method, name)
    nothing = function(*(x[..., :0] for x in inputs))
    assert [x.shape for x in jax.tree.leaves(nothing)] == [
        (*x.shape[:-1], 0) for x in jax.tree.leaves(function(*inputs))
    ]


@every_implementation
@pytest.mark.parametrize("method", METHODS)
def test_vectorises(implementation, method):
    name = "n x 2n, odd"
    function = getattr(compiled(implementation, name), method)
    both = [arguments(method, name, seed) for seed in (0, 10)]
    stacked = jax.vmap(function)(*(jnp.stack(pair) for pair in zip(*both, strict=True)))
    for index, inputs in enumerate(both):
        assert relative(jax.tree.map(lambda x, i=index: x[i], stacked), function(*inputs)) < 1e-6


def test_runs_without_compilation():
    inputs = arguments("vectors_to_modal", "Gauss")
    got = Transform(*GRIDS["Gauss"]).vectors_to_modal(*inputs)
    assert relative(got, compiled("fast", "Gauss").vectors_to_modal(*inputs)) < 1e-6


def test_tables_are_arguments_of_compiled_programs():
    graph, state = nnx.split(Transform(*GRIDS["Gauss"]))
    modal = arguments("scalars_to_nodal", "Gauss")[0]
    got = jax.jit(lambda state, modal: nnx.merge(graph, state).scalars_to_nodal(modal))(state, modal)
    assert relative(got, compiled("fast", "Gauss").scalars_to_nodal(modal)) < 1e-6
    assert not nnx.filter_state(state, nnx.Param)


def test_attributes():
    grid, band_limit = GRIDS["poles, quadrature"]
    for implementation in IMPLEMENTATIONS.values():
        transform = implementation(grid, band_limit)
        assert (transform.band_limit, transform.grid, transform.dtype) == (band_limit, grid, jnp.float32)
        assert transform.analysis == "quadrature"
        assert implementation(grid, band_limit + 1).analysis == "full"
    fast = Transform(grid, band_limit)
    assert fast.shards == 1
    np.testing.assert_array_equal(fast.orders, np.arange(band_limit))


@every_implementation
@pytest.mark.parametrize(
    ("name", "limit"), [("Gauss", 16), ("n x 2n", 16), ("poles", 16), ("poles, even", 15), ("n x n, odd", 13)]
)
def test_a_band_limit_above_the_grid_is_refused(implementation, name, limit):
    grid, _ = GRIDS[name]
    build = IMPLEMENTATIONS[implementation]
    build(grid, limit)
    for analysis in ("auto", "full", "quadrature"):
        with pytest.raises(ValueError, match=rf"band_limit: got {limit + 1}, .*\b{limit}\b"):
            build(grid, limit + 1, analysis=analysis)


@every_implementation
@pytest.mark.parametrize(("name", "limit"), [("n x 2n", 8), ("n x 2n, odd", 8), ("poles", 9), ("other latitudes", 8)])
def test_quadrature_is_refused_beyond_its_degree(implementation, name, limit):
    grid, _ = GRIDS[name]
    build = IMPLEMENTATIONS[implementation]
    build(grid, limit, analysis="quadrature")
    with pytest.raises(ValueError, match=rf"band_limit: got {limit + 1}, (?=.*quadrature).*\b{limit}\b"):
        build(grid, limit + 1, analysis="quadrature")


@every_implementation
@pytest.mark.parametrize("keyword", ["analysis", "dtype"])
def test_unknown_options_are_refused(implementation, keyword):
    value = {"analysis": "exact", "dtype": jnp.float64}[keyword]
    with pytest.raises(ValueError, match=f"{keyword}: got"):
        IMPLEMENTATIONS[implementation](*GRIDS["Gauss"], **{keyword: value})


@every_implementation
@pytest.mark.parametrize("method", METHODS)
def test_arrays_of_other_shapes_are_refused(implementation, method):
    function, inputs = getattr(compiled(implementation, "Gauss"), method), arguments(method, "Gauss")
    swapped = [x.swapaxes(0, 1) for x in inputs]
    smaller = [x[:, 1:] for x in inputs]
    flat = [x[..., 0] for x in inputs]
    for wrong in (swapped, smaller, flat):
        with pytest.raises(ValueError, match=rf"{re.escape(str(wrong[0].shape))}.*expected"):
            function(*wrong)
    if len(inputs) == 2:
        names = "u.*v" if method == "vectors_to_modal" else "divergent.*rotational"
        with pytest.raises(ValueError, match=rf"{names}.*expected"):
            function(inputs[0], inputs[1][..., :2])
