"""Pressure-level interpolation against atmospheres with closed-form solutions."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.vertical import (
    GAS_CONSTANT,
    GRAVITY,
    LAPSE_RATE,
    HybridLevels,
    between_pressure_levels,
    interpolate,
    mean_sea_level_pressure,
    temperature_and_geopotential,
)

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
DENSE = np.linspace(0.01, 0.99, 197)
LEVELS = [10, 50, 250, 500, 850, 925, 1000, 1050]
EXPONENT = GAS_CONSTANT * LAPSE_RATE / GRAVITY
SEA_LEVEL, SEA_TEMPERATURE = 101_300.0, 288.0


def _lapse_atmosphere(height: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return temperature (sigma, latitude, longitude), surface pressure and geopotential over ground at `height` (m)."""
    surface = SEA_LEVEL * (1 - LAPSE_RATE * height / SEA_TEMPERATURE) ** (1 / EXPONENT)
    temperature = SEA_TEMPERATURE * (sigma[:, None, None] * surface / SEA_LEVEL) ** EXPONENT
    return temperature, surface, GRAVITY * height


HEIGHT = np.array([[0.0, 300.0, 1500.0], [3000.0, 5000.0, -20.0]])


def test_isothermal_atmosphere_is_exact_inside_the_column():
    surface = np.array([[100_000.0, 60_000.0]])
    ground = np.array([[0.0, 4.0e4]])
    temperature = np.full((SIGMA.size, 1, 2), 250.0)
    levels = [10, 50, 300, 500]
    got, geopotential = temperature_and_geopotential(temperature, surface, ground, SIGMA, levels)
    np.testing.assert_allclose(got, 250.0)
    # From the lowest level to the ground the standard lapse rate replaces the isothermal layer.
    skin = 250.0 * SIGMA[-1] ** -EXPONENT
    lowest = ground + GAS_CONSTANT * (skin - 250.0) / EXPONENT
    pressure = 100.0 * np.array(levels)[:, None, None]
    expected = lowest + GAS_CONSTANT * 250.0 * np.log(SIGMA[-1] * surface / pressure)
    np.testing.assert_allclose(geopotential, expected, rtol=1e-9)


def test_constant_lapse_rate_is_recovered_above_and_below_the_ground():
    temperature, surface, ground = _lapse_atmosphere(HEIGHT, DENSE)
    got, geopotential = temperature_and_geopotential(temperature, surface, ground, DENSE, LEVELS[1:])
    pressure = 100.0 * np.array(LEVELS[1:])[:, None, None]
    expected = SEA_TEMPERATURE * (pressure / SEA_LEVEL) ** EXPONENT
    height = (SEA_TEMPERATURE - expected) / LAPSE_RATE
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=2e-4)
    np.testing.assert_allclose(geopotential, np.broadcast_to(GRAVITY * height, got.shape), atol=4.0)
    underground = np.broadcast_to(pressure, got.shape) > surface
    assert underground.sum() > 5
    np.testing.assert_allclose(got[underground], np.broadcast_to(expected, got.shape)[underground], rtol=1e-9)


def test_coarse_levels_stay_close_to_the_closed_form():
    temperature, surface, ground = _lapse_atmosphere(HEIGHT, SIGMA)
    _, geopotential = temperature_and_geopotential(temperature, surface, ground, SIGMA, [500])
    expected = GRAVITY * SEA_TEMPERATURE / LAPSE_RATE * (1 - (50_000 / SEA_LEVEL) ** EXPONENT)
    np.testing.assert_allclose(geopotential, np.full_like(geopotential, expected), atol=60.0)


def test_geopotential_and_temperature_are_continuous_across_layers_and_ground():
    temperature, surface, ground = _lapse_atmosphere(np.array([[1500.0]]), SIGMA)
    temperature += np.array([3, -2, 5, 0, -4, 2, 1, -3.0])[:, None, None]
    for sigma in (*SIGMA, 1.0):
        level = sigma * surface[0, 0] / 100.0
        pair = [level * (1 - 1e-7), level * (1 + 1e-7)]
        for values in temperature_and_geopotential(temperature, surface, ground, SIGMA, pair):
            np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=0.1)


def test_thickness_is_the_hydrostatic_integral_of_temperature():
    rng = np.random.default_rng(0)
    temperature, surface, ground = _lapse_atmosphere(np.array([[800.0, 0.0]]), SIGMA)
    temperature = temperature + rng.normal(0, 5, temperature.shape)
    levels = np.geomspace(20, 1040, 4001)
    got, geopotential = temperature_and_geopotential(temperature, surface, ground, SIGMA, levels)
    step = np.diff(np.log(levels))[:, None, None]
    thickness = GAS_CONSTANT * 0.5 * (got[1:] + got[:-1]) * step
    np.testing.assert_allclose(geopotential[:-1] - geopotential[1:], thickness, rtol=2e-3)
    np.testing.assert_allclose(geopotential[0] - geopotential[-1], thickness.sum(axis=0), rtol=1e-5)


def test_temperature_is_constant_above_the_top():
    temperature, surface, ground = _lapse_atmosphere(np.array([[0.0]]), SIGMA)
    got, geopotential = temperature_and_geopotential(temperature, surface, ground, SIGMA, [1, 10, 20])
    np.testing.assert_allclose(got, temperature[0, 0, 0])
    np.testing.assert_allclose(geopotential[0] - geopotential[1], GAS_CONSTANT * temperature[0] * np.log(10), rtol=1e-9)


def test_interpolation_is_linear_in_log_pressure_and_constant_beyond_the_ends():
    surface = np.array([[101_000.0, 55_000.0]])
    logarithm = np.log(SIGMA)[:, None, None] + np.log(surface)
    got = interpolate(3.0 - 2.0 * logarithm, surface, SIGMA, LEVELS)
    target = np.clip(np.log(100.0 * np.array(LEVELS))[:, None, None], logarithm[:1], logarithm[-1:])
    np.testing.assert_allclose(got, 3.0 - 2.0 * target, rtol=1e-12)


def test_sigma_levels_are_hybrid_levels_without_a():
    temperature, surface, ground = _lapse_atmosphere(HEIGHT, SIGMA)
    temperature = temperature + np.random.default_rng(1).normal(0, 5, temperature.shape)
    hybrid = HybridLevels(np.zeros(SIGMA.size), SIGMA)
    for function in (
        lambda column: temperature_and_geopotential(temperature, surface, ground, column, LEVELS),
        lambda column: interpolate(temperature, surface, column, LEVELS),
        lambda column: mean_sea_level_pressure(temperature, surface, ground, column),
    ):
        np.testing.assert_array_equal(function(hybrid), function(SIGMA))


def _hybrid(count: int = 120) -> HybridLevels:
    """Pressure aloft, sigma below, as forecast models have it."""
    eta = np.linspace(0.01, 1.0, count)
    return HybridLevels(a=5e4 * eta * (1 - eta), b=eta**2)


def test_hybrid_levels_give_fields_of_pressure_exactly_at_any_surface_pressure():
    column = _hybrid()
    surface = np.array([[101_000.0, 55_000.0, 78_000.0]])
    pressure = column.a[:, None, None] + column.b[:, None, None] * surface
    got = interpolate(3.0 - 2.0 * np.log(pressure), surface, column, LEVELS)
    target = np.clip(100.0 * np.array(LEVELS)[:, None, None], pressure[:1], pressure[-1:])
    np.testing.assert_allclose(got, 3.0 - 2.0 * np.log(target), rtol=1e-12)


def test_hybrid_levels_recover_the_constant_lapse_rate_above_and_below_the_ground():
    column = _hybrid()
    surface = SEA_LEVEL * (1 - LAPSE_RATE * HEIGHT / SEA_TEMPERATURE) ** (1 / EXPONENT)
    pressure = column.a[:, None, None] + column.b[:, None, None] * surface
    temperature = SEA_TEMPERATURE * (pressure / SEA_LEVEL) ** EXPONENT
    got, geopotential = temperature_and_geopotential(temperature, surface, GRAVITY * HEIGHT, column, LEVELS[1:])
    expected = SEA_TEMPERATURE * (100.0 * np.array(LEVELS[1:])[:, None, None] / SEA_LEVEL) ** EXPONENT
    height = (SEA_TEMPERATURE - expected) / LAPSE_RATE
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=2e-4)
    np.testing.assert_allclose(geopotential, np.broadcast_to(GRAVITY * height, got.shape), atol=8.0)
    sea_level = mean_sea_level_pressure(temperature, surface, GRAVITY * HEIGHT, column)
    np.testing.assert_allclose(sea_level, SEA_LEVEL, rtol=1e-9)


def test_hybrid_levels_work_inside_jit():
    import jax
    import jax.numpy as jnp

    column, surface = _hybrid(), np.array([[101_000.0, 55_000.0]], np.float32)
    field = np.random.default_rng(2).normal(size=(120, 1, 2)).astype(np.float32)
    run = jax.jit(lambda f, p: interpolate(f, p, column, LEVELS))
    expected = interpolate(field, surface, column, LEVELS)
    np.testing.assert_allclose(run(jnp.asarray(field), jnp.asarray(surface)), expected, atol=1e-4)


def test_between_pressure_levels_is_linear_in_log_pressure_and_copies():
    source, levels = [1000, 200, 500, 850], [850, 300, 925, 1000, 200]
    slope = np.random.default_rng(3).normal(size=(2, 1, 3, 4))
    field = 5.0 + slope * np.log(source)[:, None, None]
    got = between_pressure_levels(field, source, levels)
    np.testing.assert_allclose(got, 5.0 + slope * np.log(levels)[:, None, None], rtol=1e-13)
    np.testing.assert_array_equal(got[:, [0, 3, 4]], field[:, [3, 0, 1]])
    assert between_pressure_levels(field.astype(np.float32), source, levels).dtype == np.float32
    field[0, 2] = np.nan  # 500 hPa
    missing = np.isnan(between_pressure_levels(field, source, levels)).all(axis=(-2, -1))
    np.testing.assert_array_equal(missing, [[False, True, False, False, False], [False] * 5])


def test_leading_axes_are_kept():
    temperature, surface, ground = _lapse_atmosphere(HEIGHT, SIGMA)
    many = np.stack([temperature, temperature + 1.0])
    surfaces = np.stack([surface, surface])
    got, geopotential = temperature_and_geopotential(many, surfaces, ground, SIGMA, LEVELS)
    assert got.shape == geopotential.shape == (2, len(LEVELS), *HEIGHT.shape)
    one, _ = temperature_and_geopotential(temperature, surface, ground, SIGMA, LEVELS)
    np.testing.assert_array_equal(got[0], one)


def test_sea_level_pressure_of_the_standard_lapse_rate():
    temperature, surface, ground = _lapse_atmosphere(HEIGHT, SIGMA)
    np.testing.assert_allclose(mean_sea_level_pressure(temperature, surface, ground, SIGMA), SEA_LEVEL, rtol=1e-9)


def test_sea_level_is_kept_below_the_warm_limit_and_cold_plateaus_are_warmed():
    surface, ground = np.array([[70_000.0]]), np.array([[3.0e4]])
    results = []
    for skin in (285.0, 300.0, 240.0):
        temperature = np.full((SIGMA.size, 1, 1), skin * SIGMA[-1] ** EXPONENT)
        results.append(mean_sea_level_pressure(temperature, surface, ground, SIGMA)[0, 0])
    # 285 K: temperature rises to 290.5 K at sea level; 300 K: isothermal at the mean with 290.5 K.
    lapse = 5.5 / 3.0e4
    expected = 70_000.0 * (290.5 / 285.0) ** (1 / (GAS_CONSTANT * lapse))
    assert results[0] == pytest.approx(expected, rel=1e-6)
    assert results[1] == pytest.approx(70_000.0 * np.exp(3.0e4 / (GAS_CONSTANT * 295.25)), rel=1e-6)
    cold = 247.5 + LAPSE_RATE / GRAVITY * 3.0e4
    assert results[2] == pytest.approx(70_000.0 * (cold / 247.5) ** (1 / EXPONENT), rel=1e-6)


def test_jax_arrays_give_the_same_inside_jit():
    import jax
    import jax.numpy as jnp

    temperature, surface, ground = (x.astype(np.float32) for x in _lapse_atmosphere(HEIGHT, SIGMA))
    run = jax.jit(lambda t, p, z: temperature_and_geopotential(t, p, z, SIGMA, LEVELS))
    got = run(jnp.asarray(temperature), jnp.asarray(surface), jnp.asarray(ground))
    expected = temperature_and_geopotential(temperature, surface, ground, SIGMA, LEVELS)
    for left, right in zip(got, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=0.5)


def test_unusable_levels_are_refused():
    temperature, surface, _ = _lapse_atmosphere(HEIGHT, SIGMA)
    with pytest.raises(InputError, match="sigma: expected"):
        interpolate(temperature, surface, SIGMA[::-1], [500])
    with pytest.raises(InputError, match="levels: expected"):
        interpolate(temperature, surface, SIGMA, [-500])
    with pytest.raises(InputError, match=r"level 100 hPa is outside the source's range, 200 to 1000"):
        between_pressure_levels(np.zeros((2, 1, 1)), [1000, 200], [500, 100])
    with pytest.raises(InputError, match="level: expected different"):
        between_pressure_levels(np.zeros((2, 1, 1)), [500, 500], [500])
    with pytest.raises(InputError, match="increasing pressures"):
        HybridLevels(np.zeros(3), np.array([1.0, 0.5, 0.1]))
    with pytest.raises(InputError, match="at least two levels"):
        HybridLevels(np.zeros(3), np.array([0.5]))
