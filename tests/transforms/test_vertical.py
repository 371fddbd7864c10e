"""Pressure-level interpolation against atmospheres with closed-form solutions."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.vertical import (
    GAS_CONSTANT,
    GRAVITY,
    LAPSE_RATE,
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
