"""Statistics: closed forms, naive oracles, and independence of how time is cut into blocks."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.grids import Grid
from transforms.statistics import FieldStatistics, Moments

GRID = Grid.equiangular(8, 16, poles=False)
STEP = np.timedelta64(6, "h")


def series(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * STEP
    values = np.random.default_rng(seed).normal(5e4, 5e3, (count, 2, *GRID.shape)).astype(np.float32)
    return times, values


def gather(times: np.ndarray, values: np.ndarray, cuts: list[int], step: np.timedelta64 = STEP) -> FieldStatistics:
    statistics = FieldStatistics(GRID, step)
    for block in np.split(np.arange(len(times)), cuts):
        statistics.add(times[block], values[block])
    return statistics


def naive(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = np.broadcast_to(GRID.latitude_weights()[:, None], values.shape)
    mean = np.sum(weights * values, axis=(0, 2, 3)) / np.sum(weights, axis=(0, 2, 3))
    square = np.square(values - mean[:, None, None])
    return mean, np.sqrt(np.sum(weights * square, axis=(0, 2, 3)) / np.sum(weights, axis=(0, 2, 3)))


def test_matches_the_definition():
    times, values = series(30)
    result = gather(times, values, []).result()
    expected = [*naive(values.astype(float)), *naive(np.diff(values.astype(float), axis=0))]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize("cuts", [[1], [7, 8, 20], list(range(1, 30))])
def test_does_not_depend_on_blocks(cuts):
    times, values = series(30)
    whole, cut = gather(times, values, []), gather(times, values, cuts)
    np.testing.assert_allclose(cut.result(), whole.result(), rtol=1e-12)
    assert (cut.samples, cut.tendency_samples) == (30, 29)


def test_std_of_a_zonal_harmonic():
    # sin(latitude) has area mean 0 and mean square 1/3; cell averaging on 180 rows changes it by 1e-4.
    grid = Grid.equiangular(180, 8, poles=False)
    moments = Moments(grid.latitude_weights())
    moments.add(np.broadcast_to(np.sin(np.deg2rad(grid.latitude))[:, None], (1, 1, *grid.shape)))
    mean, std = moments.result()
    assert abs(mean[0]) < 1e-14
    assert std[0] == pytest.approx(np.sqrt(1 / 3), rel=1e-4)


def test_linear_growth_has_a_constant_tendency():
    times, _ = series(12)
    values = np.broadcast_to(np.arange(12.0)[:, None, None, None] * 0.5, (12, 1, *GRID.shape))
    result = gather(times, values, [5]).result()[:, 0]
    np.testing.assert_allclose(result[2:], [0.5, 0.0], atol=1e-14)


def test_pairs_do_not_cross_a_gap():
    times, values = series(20)
    keep = np.r_[0:8, 9:20]
    statistics = gather(times[keep], values[keep], [3, 9])
    assert statistics.tendency_samples == 17
    difference = np.diff(values.astype(float), axis=0)
    np.testing.assert_allclose(statistics.result()[2:], naive(np.delete(difference, [7, 8], axis=0)), rtol=1e-12)


def test_a_step_of_several_intervals():
    times, values = series(20)
    statistics = gather(times, values, [2, 9], step=3 * STEP)
    assert statistics.tendency_samples == 17
    np.testing.assert_allclose(statistics.result()[2:], naive(values[3:].astype(float) - values[:-3]), rtol=1e-12)


def test_a_single_time_has_no_tendency():
    times, values = series(1)
    result = gather(times, values, []).result()
    assert np.isfinite(result[:2]).all()
    assert np.isnan(result[2:]).all()


def test_missing_values_carry_no_weight():
    times, values = series(10)
    holed = values.copy()
    holed[:, 0, 2:5, 3:7] = np.nan
    holed[4:6, 1] = np.nan
    cut = gather(times, holed, [5])
    weights = np.broadcast_to(GRID.latitude_weights()[:, None], holed[:, 0].shape)
    present = np.isfinite(holed[:, 0])
    expected = np.sum(np.where(present, weights * holed[:, 0], 0.0)) / np.sum(weights * present)
    assert cut.result()[0, 0] == pytest.approx(expected, rel=1e-12)
    assert cut.result()[0, 1] == pytest.approx(naive(values[[0, 1, 2, 3, 6, 7, 8, 9]].astype(float))[0][1], rel=1e-12)


def test_stable_where_the_mean_dwarfs_the_spread():
    times, _ = series(50)
    values = 1e8 + np.random.default_rng(1).normal(0, 1, (50, 1, *GRID.shape))
    result = gather(times, values, list(range(5, 50, 5))).result()
    assert result[1, 0] == pytest.approx(naive(values - 1e8)[1][0], rel=1e-9)
