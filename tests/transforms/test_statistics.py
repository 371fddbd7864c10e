"""Statistics: closed forms, naive oracles, and independence, to the bit, of how time is cut into blocks."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.grids import Grid
from transforms.statistics import combine, field_statistics, moments, pairs_of, tendencies

GRID = Grid.equiangular(8, 16, poles=False)
WEIGHTS = GRID.latitude_weights()
STEP = np.timedelta64(6, "h")


def series(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * STEP
    values = np.random.default_rng(seed).normal(5e4, 5e3, (count, 2, *GRID.shape)).astype(np.float32)
    return times, values


def gather(times: np.ndarray, values: np.ndarray, cuts: list[int], step: np.timedelta64 = STEP) -> np.ndarray:
    blocks = [(block, values[block]) for block in np.split(np.arange(len(times)), cuts)]
    states = np.concatenate([moments(fields, WEIGHTS) for _, fields in blocks])
    changes = [moments(change, WEIGHTS) for _, change in tendencies(blocks, pairs_of(times, step))]
    return field_statistics(states, np.concatenate([states[:0], *changes]))


def naive(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = np.broadcast_to(WEIGHTS[:, None], values.shape)
    mean = np.sum(weights * values, axis=(0, 2, 3)) / np.sum(weights, axis=(0, 2, 3))
    square = np.square(values - mean[:, None, None])
    return mean, np.sqrt(np.sum(weights * square, axis=(0, 2, 3)) / np.sum(weights, axis=(0, 2, 3)))


def test_matches_the_definition():
    times, values = series(30)
    data = values.astype(float)
    expected = [*naive(data), *naive(np.diff(data, axis=0)), data.min(axis=(0, 2, 3)), data.max(axis=(0, 2, 3))]
    np.testing.assert_allclose(gather(times, values, []), expected, rtol=1e-12)


@pytest.mark.parametrize("cuts", [[1], [7, 8, 20], list(range(1, 30))])
@pytest.mark.parametrize("holes", [False, True])
def test_does_not_depend_on_blocks(cuts, holes):
    times, values = series(30)
    if holes:
        values[3, 0, 2:4, 5] = values[7, 1] = np.nan
    whole = gather(times, values, [])
    np.testing.assert_array_equal(gather(times, values, cuts), whole)
    turned = np.asarray(values.transpose(3, 2, 1, 0), order="C").transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(gather(times, turned, cuts), whole)


def test_does_not_depend_on_order():
    _, values = series(40)
    records = moments(values, WEIGHTS)
    expected, shuffled = combine(records), combine(np.random.default_rng(1).permutation(records))
    for name in expected:
        np.testing.assert_array_equal(shuffled[name], expected[name])


def test_records_do_not_depend_on_company():
    weights = Grid.equiangular(91, 180, poles=True).latitude_weights()
    values = np.random.default_rng(0).normal(5e5, 10, (40, 3, 91, 180)).astype(np.float32)
    alone = np.concatenate([moments(field[np.newaxis], weights) for field in values])
    np.testing.assert_array_equal(moments(values, weights), alone)


def test_std_of_a_zonal_harmonic():
    # sin(latitude) has area mean 0 and mean square 1/3; cell averaging on 180 rows changes it by 1e-4.
    grid = Grid.equiangular(180, 8, poles=False)
    field = np.broadcast_to(np.sin(np.deg2rad(grid.latitude))[:, None], (1, 1, *grid.shape))
    result = combine(moments(field, grid.latitude_weights()))
    assert abs(result["mean"][0]) < 1e-14
    assert result["std"][0] == pytest.approx(np.sqrt(1 / 3), rel=1e-4)


def test_linear_growth_has_a_constant_tendency():
    times, _ = series(12)
    values = np.broadcast_to(np.arange(12.0)[:, None, None, None] * 0.5, (12, 1, *GRID.shape))
    result = gather(times, values, [5])[:, 0]
    np.testing.assert_allclose(result[2:], [0.5, 0.0, 0.0, 5.5], atol=1e-14)


def test_pairs_do_not_cross_a_gap():
    times, values = series(20)
    keep = np.r_[0:8, 9:20]
    assert (pairs_of(times[keep], STEP) >= 0).sum() == 17
    result = gather(times[keep], values[keep], [3, 9])
    difference = np.diff(values.astype(float), axis=0)
    np.testing.assert_allclose(result[2:4], naive(np.delete(difference, [7, 8], axis=0)), rtol=1e-12)


def test_a_step_of_several_intervals():
    times, values = series(20)
    result = gather(times, values, [2, 9], step=3 * STEP)
    np.testing.assert_allclose(result[2:4], naive(values[3:].astype(float) - values[:-3]), rtol=1e-12)


def test_a_single_time_has_no_tendency():
    times, values = series(1)
    result = gather(times, values, [])
    assert np.isfinite(result[[0, 1, 4, 5]]).all()
    assert np.isnan(result[2:4]).all()


def test_missing_values_carry_no_weight():
    times, values = series(10)
    holed = values.copy()
    holed[:, 0, 2:5, 3:7] = np.nan
    holed[4:6, 1] = np.nan
    result = gather(times, holed, [5])
    weights = np.broadcast_to(WEIGHTS[:, None], holed[:, 0].shape)
    present = np.isfinite(holed[:, 0])
    expected = np.sum(np.where(present, weights * holed[:, 0], 0.0)) / np.sum(weights * present)
    assert result[0, 0] == pytest.approx(expected, rel=1e-12)
    assert result[0, 1] == pytest.approx(naive(values[[0, 1, 2, 3, 6, 7, 8, 9]].astype(float))[0][1], rel=1e-12)
    np.testing.assert_array_equal(result[4], np.nanmin(holed, axis=(0, 2, 3)))


def test_stable_where_the_mean_dwarfs_the_spread():
    times, _ = series(50)
    values = 1e8 + np.random.default_rng(1).normal(0, 1, (50, 1, *GRID.shape))
    result = gather(times, values, list(range(5, 50, 5)))
    assert result[1, 0] == pytest.approx(naive(values - 1e8)[1][0], rel=1e-9)
