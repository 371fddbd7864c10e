"""Rossby-Haurwitz waves: balance, phase speed and vorticity against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.grids import Grid
from transforms.variables import VARIABLES
from transforms.waves import (
    EARTH_RADIUS,
    ROTATION,
    ZONAL_ANGULAR_VELOCITY,
    rossby_haurwitz,
    wave_components,
)

LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
FINE = Grid.equiangular(360, 720, poles=False)
START = np.datetime64("2001-01-01T06:00", "ns")


def _hours(*hours: float) -> np.ndarray:
    return START + np.array([round(hour * 3600) for hour in hours]) * np.timedelta64(1, "s")


@pytest.fixture(scope="module")
def fine() -> dict[str, np.ndarray]:
    fields = rossby_haurwitz(_hours(0), FINE, [500, 510], seed=3)
    return {name: values.astype(np.float64) for name, values in fields.items()}


def _east(field: np.ndarray) -> np.ndarray:
    step = np.deg2rad(360 / FINE.longitude.size)
    return (np.roll(field, -1, axis=-1) - np.roll(field, 1, axis=-1)) / (2 * step)


def _north(field: np.ndarray) -> np.ndarray:
    return np.gradient(field, np.deg2rad(FINE.latitude), axis=-2)


def _divergence_and_vorticity(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosine = np.cos(np.deg2rad(FINE.latitude))[:, None]
    divergence = (_east(u) + _north(v * cosine)) / (EARTH_RADIUS * cosine)
    vorticity = (_east(v) - _north(u * cosine)) / (EARTH_RADIUS * cosine)
    return divergence, vorticity


def _stream_function(grid: Grid, time: np.datetime64, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return psi and its Laplacian at 500 hPa, from scipy's Legendre functions."""
    from scipy.special import assoc_legendre_p

    sine = np.sin(np.deg2rad(grid.latitude))[:, None]
    psi = -(EARTH_RADIUS**2) * ZONAL_ANGULAR_VELOCITY * sine + np.zeros(grid.shape)
    laplacian = -2 / EARTH_RADIUS**2 * psi
    seconds = (time - np.datetime64("2000-01-01", "ns")) / np.timedelta64(1, "s")
    for wave in wave_components(seed):
        legendre = (-1) ** wave.order * assoc_legendre_p(wave.degree, wave.order, sine, norm=True)[0]
        angle = wave.order * (np.deg2rad(grid.longitude) - wave.angular_velocity * seconds) + wave.phase
        harmonic = wave.amplitude * legendre * np.cos(angle)
        psi = psi + harmonic
        laplacian = laplacian - wave.degree * (wave.degree + 1) / EARTH_RADIUS**2 * harmonic
    return psi, laplacian


def test_winds_are_non_divergent_and_have_the_vorticity_of_the_stream_function(fine):
    divergence, vorticity = _divergence_and_vorticity(
        fine["u_component_of_wind"][0, 0], fine["v_component_of_wind"][0, 0]
    )
    _, expected = _stream_function(FINE, START, seed=3)
    inside = slice(4, -4)  # One-sided differences at the first and last row are of first order.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(divergence[inside], 0, atol=2e-3 * scale)
    np.testing.assert_allclose(vorticity[inside], expected[inside], atol=2e-3 * scale)


def test_geopotential_obeys_the_linear_balance_equation(fine):
    geopotential = fine["geopotential"][0, 0]
    cosine = np.cos(np.deg2rad(FINE.latitude))[:, None]
    coriolis = 2 * ROTATION * np.sin(np.deg2rad(FINE.latitude))[:, None]
    psi, _ = _stream_function(FINE, START, seed=3)
    gradients = [(_east(field) / cosine / EARTH_RADIUS, _north(field) / EARTH_RADIUS) for field in (geopotential, psi)]
    (phi_east, phi_north), (psi_east, psi_north) = gradients
    left, _ = _divergence_and_vorticity(phi_east, phi_north)
    right, _ = _divergence_and_vorticity(coriolis * psi_east, coriolis * psi_north)
    inside = slice(40, -40)  # Second differences amplify the rounding of float32 where meridians meet.
    np.testing.assert_allclose(left[inside], right[inside], atol=5e-3 * np.abs(right).max())


def test_temperature_is_hydrostatic(fine):
    upper, lower = fine["geopotential"][0]
    thickness = (upper - lower) / (287.05 * np.log(510 / 500))
    np.testing.assert_allclose(thickness, fine["temperature"][0].mean(axis=0), rtol=2e-4)


def test_vertical_velocity_is_adiabatic():
    """d ln(theta)/dt following the horizontal wind equals minus omega times d ln(theta)/dp."""
    half, level = 900.0, 500
    fields = rossby_haurwitz(START + np.array([-half, 0, half]).astype("timedelta64[s]"), FINE, [499, level, 501])
    temperature = fields["temperature"].astype(np.float64)
    theta = temperature * (1000.0 / np.array([499.0, 500.0, 501.0]))[:, None, None] ** (2 / 7)
    u, v = (fields[f"{name}_component_of_wind"][1, 1].astype(np.float64) for name in "uv")
    cosine = np.cos(np.deg2rad(FINE.latitude))[:, None]
    tendency = (temperature[2, 1] - temperature[0, 1]) / (2 * half)
    advection = (u * _east(temperature[1, 1]) / cosine + v * _north(temperature[1, 1])) / EARTH_RADIUS
    # The stability is that of the standard atmosphere, so its horizontal variation is left out on both sides.
    stability = -((theta[1, 2] - theta[1, 0]) / 200.0 / theta[1, 1] * temperature[1, 1]).mean()
    inside = slice(8, -8)
    expected = ((tendency + advection) / stability)[inside]
    got = fields["vertical_velocity"][1, 1][inside].astype(np.float64)
    np.testing.assert_allclose(got, expected, atol=0.03 * np.abs(expected).max())


def test_waves_travel_with_their_own_angular_velocity():
    """The zonal Fourier phase of each order at 500 hPa turns by order times c."""
    hours = 18.0
    fields = rossby_haurwitz(_hours(0, hours), FINE, [500], seed=1)
    meridional = fields["v_component_of_wind"][:, 0].astype(np.float64)
    modes = np.fft.rfft(meridional, axis=-1)
    for wave in wave_components(1):
        degree, order = wave.degree, wave.order
        start, end = modes[..., order]
        strong = np.abs(start) > 0.3 * np.abs(start).max()
        speed = ZONAL_ANGULAR_VELOCITY - 2 * (ROTATION + ZONAL_ANGULAR_VELOCITY) / (degree * (degree + 1))
        turned = np.angle(start / end * np.exp(-1j * order * speed * hours * 3600))
        np.testing.assert_allclose(turned[strong], 0, atol=1e-3)


def test_every_variable_lies_within_its_range_and_persistence_is_a_bad_forecast():
    grid = Grid.equiangular(17, 32, poles=True)
    fields = rossby_haurwitz(START + np.arange(120) * np.timedelta64(6, "h"), grid, LEVELS)
    for name, values in fields.items():
        variable = VARIABLES[name]
        assert values.dtype == np.float32
        assert variable.minimum <= values.min() <= values.max() <= variable.maximum, name
        assert values.std() > 0, name
    assert fields["total_precipitation_6hr"].min() > 0
    height = fields["geopotential"][:, LEVELS.index(500)]
    anomaly = height - height.mean(axis=0)
    assert np.mean((height[12:] - height[:-12]) ** 2) > np.mean(anomaly**2)


def test_winds_at_the_poles_are_one_vector():
    grid = Grid.equiangular(9, 16, poles=True)
    fields = rossby_haurwitz(_hours(0), grid, [500])
    longitude = np.deg2rad(grid.longitude)
    u, v = fields["u_component_of_wind"][0, 0, -1], fields["v_component_of_wind"][0, 0, -1]
    x = -u * np.sin(longitude) - v * np.cos(longitude)
    y = u * np.cos(longitude) - v * np.sin(longitude)
    assert np.hypot(u, v).max() > 1
    np.testing.assert_allclose(x, x[0], atol=1e-4)
    np.testing.assert_allclose(y, y[0], atol=1e-4)


def test_same_seed_same_waves_and_times_do_not_depend_on_their_neighbours():
    grid = Grid.equiangular(8, 16, poles=False)
    times = _hours(0, 6, 12)
    whole, again, other = (rossby_haurwitz(times, grid, [850], seed=seed) for seed in (0, 0, 1))
    part = rossby_haurwitz(times[1:2], grid, [850])
    for name, values in whole.items():
        np.testing.assert_array_equal(values, again[name])
        if values.shape[0] == times.size:
            np.testing.assert_array_equal(values[1:2], part[name])
    assert not np.array_equal(whole["geopotential"], other["geopotential"])
