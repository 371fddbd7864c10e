"""Spectra of fields: closed forms, Parseval, a known power law, and what blur and noise do to them."""

from __future__ import annotations

import pickle

import jax
import numpy as np
import pytest

from model.harmonics import Transform
from model.quadrature import band_limits, quadrature
from pipeline.scoring.spectra import SphericalSpectra
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.spectra import coherence, effective_resolution, power_ratio

GRIDS = [Grid.gaussian(16), Grid.equiangular(17, 32, poles=True), Grid.equiangular(16, 32, poles=False)]
POWER_LAW = -3.0


def sphere(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return (latitude, longitude) in radians, each (latitude, longitude)."""
    return tuple(np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij"))


def power_law(limit: int) -> np.ndarray:
    degree = np.arange(limit)
    return np.where(degree > 0, np.maximum(degree, 1.0) ** POWER_LAW, 0.0)


def coefficients(limit: int, count: int, seed: int = 0) -> np.ndarray:
    """Return random coefficients (part, m, l, 1, count) of degrees from 1 on whose power follows the law exactly."""
    random = np.random.default_rng(seed).normal(size=(2, limit, limit, 1, count))
    random[1, 0] = 0.0
    random *= np.tri(limit).T[:, :, np.newaxis, np.newaxis]
    return random * np.sqrt(power_law(limit)[:, np.newaxis, np.newaxis] / (random**2).sum(axis=(0, 1)))


def nodal(grid: Grid, *modal: np.ndarray) -> list[np.ndarray]:
    """Return the scalar of one, or the wind of two sets of coefficients, (count, latitude, longitude)."""
    with jax.enable_x64(True):
        transform = Transform(grid, modal[0].shape[1], dtype=np.float64)
        fields = [transform.scalars_to_nodal(*modal)] if len(modal) == 1 else transform.vectors_to_nodal(*modal)
        return [np.asarray(field)[:, :, 0].transpose(2, 1, 0) for field in fields]


def mean(grid: Grid, field: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,i->...", field, quadrature(grid).weights) / grid.longitude.size


@pytest.fixture(params=GRIDS, ids=["gaussian", "poles", "no poles"])
def grid(request) -> Grid:
    return request.param


def test_harmonics_in_closed_form(grid):
    latitude, longitude = sphere(grid)
    fields = {
        (0, 4.0): np.full(grid.shape, 2.0),
        (1, 1 / 3): np.sin(latitude),
        (3, 8 / 35): np.cos(latitude) ** 3 * np.cos(3 * longitude),
        (2, 1 / 15): np.sin(latitude) * np.cos(latitude) * np.sin(longitude),
    }
    power = SphericalSpectra(grid).power(np.stack(list(fields.values())))
    expected = np.zeros_like(power)
    for row, (degree, square) in enumerate(fields):
        expected[row, degree] = square
    np.testing.assert_allclose(power, expected, atol=1e-12)


def test_winds_in_closed_form(grid):
    latitude, _ = sphere(grid)
    zero, cosine = np.zeros(grid.shape), np.cos(latitude)
    rotational, divergent = SphericalSpectra(grid).kinetic_energy(np.stack([cosine, zero]), np.stack([zero, cosine]))
    expected = np.zeros((2, rotational.shape[-1]))
    expected[0, 1] = 1 / 3  # solid rotation; the second wind is the gradient of sin(latitude)
    np.testing.assert_allclose(rotational, expected, atol=1e-12)
    np.testing.assert_allclose(divergent, expected[::-1], atol=1e-12)


def test_a_power_law_is_recovered(grid):
    spectra = SphericalSpectra(grid)
    (field,) = nodal(grid, coefficients(spectra.band_limit, 20))
    # More fields than are analysed together.
    power = spectra.power(field.reshape(4, 5, *grid.shape))
    assert power.shape == (4, 5, spectra.band_limit)
    np.testing.assert_allclose(
        power[..., 1:], np.broadcast_to(power_law(spectra.band_limit)[1:], power[..., 1:].shape), rtol=1e-9
    )
    slope = np.polyfit(np.log(np.arange(1, spectra.band_limit)), np.log(power.mean(axis=(0, 1))[1:]), 1)[0]
    assert slope == pytest.approx(POWER_LAW, abs=1e-9)


def test_parseval(grid):
    # The mean square is exact where the quadrature is, up to twice the degree of the field.
    limit = band_limits(grid).quadrature
    spectra = SphericalSpectra(grid)
    (field,) = nodal(grid, coefficients(limit, 3))
    for values, tolerance in ((5.4e4 + field, 1e-12), ((5.4e4 + field).astype(np.float32), 1e-6)):
        np.testing.assert_allclose(
            spectra.power(values).sum(axis=-1), mean(grid, values.astype(float) ** 2), rtol=tolerance
        )
    u, v = nodal(grid, coefficients(limit, 3), coefficients(limit, 3, seed=1))
    rotational, divergent = spectra.kinetic_energy(u, v)
    np.testing.assert_allclose((rotational + divergent).sum(axis=-1), mean(grid, (u**2 + v**2) / 2), rtol=1e-12)
    np.testing.assert_allclose(rotational, divergent, rtol=1e-9, atol=1e-15)


def test_blur_and_noise():
    grid = GRIDS[0]
    spectra = SphericalSpectra(grid)
    limit = spectra.band_limit
    truth = coefficients(limit, 40)
    kept = (np.arange(limit) < 9)[:, np.newaxis, np.newaxis]
    blurred = spectra.pair(nodal(grid, np.where(kept, truth, 0.6 * truth))[0], nodal(grid, truth)[0])
    forecast, observed, cross = (spectrum.mean(axis=0) for spectrum in blurred)
    np.testing.assert_allclose(coherence(cross, forecast, observed)[1:], 1.0, rtol=1e-9)
    assert effective_resolution(power_ratio(forecast, observed)) == 9
    # Another field of the same power above degree 5: no blur, no coherence.
    kept = (np.arange(limit) < 6)[:, np.newaxis, np.newaxis]
    noisy = spectra.pair(nodal(grid, np.where(kept, truth, coefficients(limit, 40, seed=1)))[0], nodal(grid, truth)[0])
    forecast, observed, cross = (spectrum.mean(axis=0) for spectrum in noisy)
    assert effective_resolution(power_ratio(forecast, observed)) == limit
    assert effective_resolution(coherence(cross, forecast, observed)) == 6


def test_winds_of_forecast_and_truth():
    grid = GRIDS[1]
    spectra = SphericalSpectra(grid)
    limit = spectra.band_limit
    divergent, rotational = coefficients(limit, 3), coefficients(limit, 3, seed=1)
    truth = nodal(grid, divergent, rotational)
    forecast = nodal(grid, 0.5 * divergent, -rotational)
    pairs = spectra.kinetic_energy_pair(tuple(forecast), tuple(truth))
    for pair, factor in zip(pairs, (-1.0, 0.5), strict=True):
        np.testing.assert_allclose(pair.cross, factor * pair.truth, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(pair.forecast, factor**2 * pair.truth, rtol=1e-9, atol=1e-12)
    for part, pair in zip(spectra.kinetic_energy(*truth), pairs, strict=True):
        np.testing.assert_allclose(pair.truth, part, rtol=1e-12)


def test_a_missing_value_spoils_its_field_alone():
    grid = GRIDS[0]
    field = np.random.default_rng(0).normal(size=(3, *grid.shape))
    spectra = SphericalSpectra(grid, 8)
    whole = spectra.power(field)
    field[1, 4, 4] = np.nan
    power = spectra.power(field)
    assert np.isnan(power[1]).all()
    np.testing.assert_array_equal(power[[0, 2]], whole[[0, 2]])


def test_what_is_refused():
    with pytest.raises(InputError, match="band_limit: expected 1 to 16"):
        SphericalSpectra(GRIDS[0], 17)
    with pytest.raises(InputError, match=r"truth: expected the axes \(\.\.\., latitude, longitude\)"):
        SphericalSpectra(GRIDS[0]).pair(np.zeros((16, 32)), np.zeros((32, 16)))


def test_spectra_travel_between_processes():
    copy = pickle.loads(pickle.dumps(SphericalSpectra(GRIDS[0], 8)))
    assert copy.band_limit == 8
    assert copy.grid.matches(GRIDS[0])
