"""Regridders by name, and the spectral one: exact within band limits, vectors, missing values, reproducible."""

from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from model.harmonics import Transform
from model.quadrature import band_limits
from pipeline.regridding.methods import METHODS, regridder
from transforms.errors import InputError
from transforms.grids import Grid

GRIDS = {
    "poles": Grid.equiangular(19, 36, poles=True),
    "no poles": Grid.equiangular(16, 32, poles=False),
    "gaussian": Grid.gaussian(20),
    "square": Grid.equiangular(24, 24, poles=True),
    "odd": Grid.equiangular(15, 31, poles=False),
    "shifted": Grid(Grid.equiangular(16, 32, poles=False).latitude, 5.0 + np.arange(32) * 11.25),
}
PAIRS = [
    pytest.param(GRIDS[a], GRIDS[b], id=f"{a} to {b}")
    for a, b in itertools.pairwise([*GRIDS, "poles", "gaussian", "odd"])
]


def limit(*grids: Grid) -> int:
    return min(band_limits(grid).full for grid in grids)


def random_modal(count: int, band_limit: int, seed: int = 0) -> np.ndarray:
    """Coefficients (part, m, l, 1, field) of degrees from 1, the order 0 without sines."""
    modal = np.random.default_rng(seed).normal(size=(2, band_limit, band_limit, 1, count))
    part, order, degree = np.ogrid[:2, :band_limit, :band_limit]
    return modal * ((degree >= np.maximum(order, 1)) & ((part == 0) | (order > 0)))[..., None, None]


def on_grid(grid: Grid, *modal: np.ndarray) -> list[np.ndarray]:
    """Evaluate scalars or, of two arrays, vectors, in float64; each (field, latitude, longitude)."""
    with jax.enable_x64(True):
        transform = Transform(grid, modal[0].shape[1], dtype=np.float64)
        nodal = transform.vectors_to_nodal(*modal) if len(modal) == 2 else [transform.scalars_to_nodal(*modal)]
        return [np.asarray(field)[..., 0, :].transpose(2, 1, 0) for field in nodal]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_fields_within_both_band_limits_are_exact(source, target):
    modal = [random_modal(2, limit(source, target), seed) for seed in (0, 1)]
    spectral = regridder(source, target, "spectral")
    for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 1e-5)):
        (given,), (expected,) = on_grid(source, modal[0]), on_grid(target, modal[0])
        result = spectral(given.astype(dtype))
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, atol=tolerance * np.abs(expected).max())
        given, expected = on_grid(source, *modal), on_grid(target, *modal)
        for got, want in zip(spectral.wind(*(field.astype(dtype) for field in given)), expected, strict=True):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, want, atol=tolerance * np.abs(expected).max())


def test_degrees_the_target_cannot_hold_are_dropped():
    source, target = GRIDS["gaussian"], Grid.equiangular(9, 16, poles=True)
    keep = limit(source, target)
    modal = random_modal(3, limit(source))
    (given,), (expected,) = on_grid(source, modal), on_grid(target, modal[:, :keep, :keep])
    np.testing.assert_allclose(regridder(source, target, "spectral")(given), expected, atol=1e-11)


@pytest.mark.parametrize("source", ["no poles", "poles"])
def test_spectral_wind_at_the_pole_is_one_vector(source):
    source, target = GRIDS[source], Grid.equiangular(37, 72, poles=True)
    u, v = regridder(source, target, "spectral").wind(*np.random.default_rng(2).normal(size=(2, *source.shape)))
    longitude = np.deg2rad(target.longitude)
    for end, sin_lat in ((0, -1.0), (-1, 1.0)):
        x = -u[end] * np.sin(longitude) - v[end] * sin_lat * np.cos(longitude)
        y = u[end] * np.cos(longitude) - v[end] * sin_lat * np.sin(longitude)
        np.testing.assert_allclose(x, x[0], atol=1e-10)
        np.testing.assert_allclose(y, y[0], atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_company_threads_and_pickling_do_not_change_a_bit(method):
    source, target = Grid.equiangular(33, 64, poles=True), GRIDS["no poles"]
    field = np.random.default_rng(3).normal(size=(19, 2, *source.shape)).astype(np.float32)
    made = regridder(source, target, method)
    assert (made.source, made.target, made.method) == (source, target, method)
    whole, wind = made(field), made.wind(field[:, 0], field[:, 1])
    copy = pickle.loads(pickle.dumps(made))
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(np.stack(list(pool.map(copy, field))), whole)
    np.testing.assert_array_equal(np.stack([made.wind(*pair) for pair in field]).swapaxes(0, 1), wind)
    assert made(field[:0]).shape == (0, 2, *target.shape)


def test_spectral_refuses_what_it_cannot_do():
    spectral = regridder(GRIDS["poles"], GRIDS["no poles"], "spectral")
    field = np.zeros((40, 3, *GRIDS["poles"].shape), np.float32)
    field[21, 1, 4, 7] = np.nan
    with pytest.raises(InputError, match=r"field: missing .* slice \(21, 1\).*conservative"):
        spectral(field)
    with pytest.raises(InputError, match=r"u and v: missing .* slice \(21, 1\)"):
        spectral.wind(np.zeros_like(field), field)
    with pytest.raises(InputError, match=r"\(\.\.\., 19, 36\).*got \(36, 19\)"):
        spectral(np.zeros((36, 19)))
    with pytest.raises(InputError, match=r"'cubic'.*spectral"):
        regridder(GRIDS["poles"], GRIDS["odd"], "cubic")
