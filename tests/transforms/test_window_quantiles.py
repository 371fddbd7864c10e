"""Quantiles over the window: numpy's where weights are equal, weights as repetitions' limits, and SEEPS' thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.climatology import triangle_weights
from transforms.window_quantiles import dry_fraction, filled, window_quantiles, without_dry

LEVELS = (0.0, 0.1, 0.5, 2 / 3, 1.0)


def noise(years: int = 5, days: int = 365, points: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(years, days, points)).astype(np.float32)


def test_equal_weights_are_numpys_quantiles():
    samples = noise()
    samples[2, 100, 1] = np.nan
    result = window_quantiles(samples, LEVELS, window=1)
    np.testing.assert_allclose(result[:, :365], np.nanquantile(samples.astype(float), LEVELS, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(result[:, 365], result[:, 364])


def test_median_of_a_symmetric_window():
    samples = np.arange(365.0)[np.newaxis, :, np.newaxis]
    result = window_quantiles(samples, [0.0, 0.5, 1.0], window=11)
    np.testing.assert_allclose(result[1, 5:360, 0], np.arange(5, 360), rtol=1e-6)
    # The outermost days carry no weight, and the others little at the ends.
    assert 96 < result[0, 100, 0] < 97
    assert 103 < result[2, 100, 0] < 104


def test_points_do_not_know_each_other(monkeypatch):
    samples = noise(points=9)
    whole = window_quantiles(samples, LEVELS, 61)
    monkeypatch.setattr("transforms.window_quantiles._ELEMENTS", 1)
    np.testing.assert_array_equal(window_quantiles(samples, LEVELS, 61), whole)
    np.testing.assert_array_equal(window_quantiles(samples[..., 3:5], LEVELS, 61), whole[..., 3:5])


def test_nothing_there_is_missing():
    assert np.isnan(window_quantiles(np.full((2, 365, 1), np.nan, np.float32), [0.5], 61)).all()


def test_seeps_splits_what_is_wet():
    rng = np.random.default_rng(1)
    samples = rng.exponential(1e-3, (40, 365, 2)).astype(np.float32)
    is_dry, wet = without_dry(samples, 0.25e-3)
    fraction = dry_fraction(is_dry, np.ones(365, bool), 61)
    np.testing.assert_allclose(fraction, 1 - np.exp(-0.25), atol=0.04)
    # An exponential distribution has no memory: two thirds of what exceeds the dry threshold lies below it + log 3.
    np.testing.assert_allclose(window_quantiles(wet, [2 / 3], 61), 0.25e-3 + 1e-3 * np.log(3), rtol=0.2)


def test_missing_samples_count_as_not_dry():
    samples = np.zeros((1, 365, 1), np.float32)
    samples[0, ::2] = np.nan
    is_dry, _ = without_dry(samples, 1e-4)
    assert dry_fraction(is_dry, np.ones(365, bool), 3)[10, 0] == pytest.approx(2 / 3)


def test_days_without_a_sample_take_day_365():
    samples = noise(years=2)
    samples[0, 10] = samples[1, 364] = samples[1, 20] = samples[:, 30] = np.nan
    axis = np.ones(365, bool)
    axis[30] = False
    result = filled(samples, axis)
    np.testing.assert_array_equal(result[0, 10], samples[0, 364])
    assert np.isnan(result[1, 20]).all()
    assert np.isnan(result[:, 30]).all()


def test_weights_have_mean_1():
    np.testing.assert_allclose(triangle_weights(61).mean(), 1)
    np.testing.assert_allclose(triangle_weights(5) * 2 / 5, [0, 0.5, 1, 0.5, 0])
