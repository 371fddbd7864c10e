"""Skill and its interval: closed forms, coverage of what it promises, and blocks."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.bootstrap import FEWEST_BLOCKS, block_numbers, interval, paired, skill_score
from transforms.errors import InputError

DAY = np.timedelta64(1, "D")


def sums_of(forecast: np.ndarray, baseline: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return (block, 2) sums of series of scores."""
    both = np.stack([forecast, baseline], axis=1)
    return np.stack([both[blocks == number].sum(axis=0) for number in np.unique(blocks)])


def test_skill_of_half_the_error():
    rng = np.random.default_rng(0)
    error = rng.gamma(2.0, size=(12, 3))
    skill = skill_score(np.stack([0.25 * error, error], axis=1))
    for value in (skill.score, skill.lower, skill.upper):
        np.testing.assert_allclose(value, 0.75, rtol=1e-12)  # However blocks are drawn.
    np.testing.assert_array_equal(skill.significant, 1)


def test_the_interval_covers_the_true_skill_of_dependent_errors():
    """Scores that persist over days: of 95 % intervals over many samples, about 95 % hold the truth (blocks of 5)."""
    rng = np.random.default_rng(1)
    days, samples, truth = 240, 200, 1 - 1.0 / 1.25
    blocks = np.arange(days) // 5
    common = np.empty((samples, days))
    common[:, 0] = rng.normal(size=samples)
    for day in range(1, days):
        common[:, day] = 0.6 * common[:, day - 1] + 0.8 * rng.normal(size=samples)
    own = rng.normal(size=(2, samples, days))
    forecast = 1.0 * np.exp(0.4 * common + 0.2 * own[0])
    baseline = 1.25 * np.exp(0.4 * common + 0.2 * own[1])
    held = significant = 0
    for sample in range(samples):
        skill = skill_score(sums_of(forecast[sample], baseline[sample], blocks), resamples=400)
        held += skill.lower <= truth <= skill.upper
        significant += skill.significant == 1
    assert 0.90 < held / samples < 0.99
    assert significant > 0.95 * samples


def test_equal_forecasts_are_seldom_called_different():
    rng = np.random.default_rng(2)
    scores = np.exp(0.5 * rng.normal(size=(2, 300, 40)))
    called = [
        skill_score(sums_of(a, b, np.arange(40) // 2), resamples=300).significant for a, b in zip(*scores, strict=True)
    ]
    assert np.mean(called) < 0.12


def test_intervals_are_reproducible_and_need_blocks():
    rng = np.random.default_rng(3)
    sums = rng.gamma(2.0, size=(20, 2, 4))
    first, second = (skill_score(sums, resamples=50, seed=seed) for seed in (5, 5))
    np.testing.assert_array_equal(first.lower, second.lower)
    assert ((first.lower < first.score) & (first.score < first.upper)).all()
    few = skill_score(sums[: FEWEST_BLOCKS - 1])
    assert np.isfinite(few.score).all()
    assert np.isnan([few.significant, few.lower, few.upper]).all()


def test_what_either_lacks_enters_neither():
    forecast, baseline = np.array([[1.0, np.nan, 3.0]]), np.array([[2.0, 5.0, np.nan]])
    included = np.array([True, True, False])
    np.testing.assert_array_equal(paired(forecast, baseline, included, skipna=True), [[[1, 0, 0]], [[2, 0, 0]]])
    np.testing.assert_array_equal(paired(forecast, baseline, included, skipna=False), [[[1, np.nan, 0]], [[2, 5, 0]]])


def test_blocks_of_times():
    times = np.datetime64("2020-02-27") + np.arange(0, 10) * DAY
    np.testing.assert_array_equal(block_numbers(times, 3 * DAY, 64), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
    assert block_numbers(times[::-1], 3 * DAY, 64).tolist() == [3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    years = np.datetime64("2000-01-01") + np.arange(4000) * DAY
    assert block_numbers(years, 3 * DAY, 64).max() < 64
    with pytest.raises(InputError, match=r"block_hours: .* expected a positive length"):
        block_numbers(times, 0 * DAY, 64)


def test_interval_of_a_mean_is_that_of_theory():
    """Of independent blocks: mean -+ 1.96 standard errors, whatever the number of forecasts in each block."""
    rng = np.random.default_rng(2)
    blocks, each = 64, 3
    totals = rng.normal(5.0, 1.0, (blocks, 2)) * each
    lower, upper = interval([totals], [np.full((blocks, 1), each)], lambda mean: mean, resamples=4000)
    means = totals / each
    error = 1.96 * means.std(axis=0) / np.sqrt(blocks)
    np.testing.assert_allclose(lower, means.mean(axis=0) - error, atol=0.03)
    np.testing.assert_allclose(upper, means.mean(axis=0) + error, atol=0.03)


def test_interval_of_a_function_of_two_averages():
    ones = np.ones((FEWEST_BLOCKS, 1))
    lower, upper = interval([8.0 * ones, 2.0 * ones], [ones, ones], lambda a, b: np.sqrt(a / b))
    np.testing.assert_allclose([lower, upper], 2.0)  # Blocks alike: however they are drawn.


def test_interval_without_forecasts_or_of_few_blocks_is_missing():
    totals, counts = np.ones((FEWEST_BLOCKS, 2)), np.ones((FEWEST_BLOCKS, 2))
    totals[:, 1] = counts[:, 1] = 0
    totals[0, 1] = counts[0, 1] = 1  # One block has a forecast of the second lead; some draws leave it out.
    ends = interval([totals], [counts], lambda mean: mean)
    np.testing.assert_array_equal(ends, 1.0)
    counts[0, 1] = totals[0, 1] = 0
    assert np.isnan(interval([totals], [counts], lambda mean: mean)[0]).tolist() == [False, True]
    few = np.ones((FEWEST_BLOCKS - 1, 2))
    assert np.isnan(interval([few], [few], lambda mean: mean)).all()
