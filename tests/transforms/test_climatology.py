"""Climatology: closed forms, a naive oracle, blocks of time, and what absent days do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from transforms.climatology import Climatology


def gather(times: pd.DatetimeIndex, values: np.ndarray, cuts: int = 1, **options) -> tuple[np.ndarray, np.ndarray]:
    climatology = Climatology(times.values, **options)
    for block in np.array_split(np.arange(len(times)), cuts):
        climatology.add(times.values[block], values[block].astype(np.float32))
    return climatology.result()


def triangle(days: int) -> np.ndarray:
    """The window of WeatherBench 2: up in half of the days, down in the other half, mean 1."""
    rise = np.linspace(0, 1, days // 2 + 1)
    weights = np.concatenate([rise, rise[-2::-1]])
    return weights / weights.mean()


def noise(times: pd.DatetimeIndex, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(280, 5, (len(times), 1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("method", ["explicit", "fast"])
def test_a_constant_keeps_its_value_and_has_no_spread(method):
    times = pd.date_range("2001-01-01", "2002-12-31T18", freq="6h")
    mean, std = gather(times, np.full((len(times), 1, 2, 3), 5e4), method=method)
    assert mean.shape == (4, 366, 1, 2, 3)
    np.testing.assert_array_equal(mean, 5e4)
    np.testing.assert_array_equal(std, 0.0)


def test_annual_harmonic_is_damped_by_the_window():
    # A triangle over a ring is symmetric, so it damps a harmonic without shifting it.
    times = pd.date_range("2001-01-01", "2003-12-31", freq="D")
    phase = 2 * np.pi * (times.day_of_year - 1) / 365
    values = np.broadcast_to(np.cos(phase).to_numpy()[:, None, None, None], (len(times), 1, 1, 1))
    weights, offsets = triangle(61), np.arange(-30, 31)
    damping = np.mean(weights * np.cos(2 * np.pi * offsets / 365))
    mean, _ = gather(times, values)
    np.testing.assert_allclose(mean[0, :365, 0, 0, 0], damping * np.cos(2 * np.pi * np.arange(365) / 365), atol=1e-6)


def test_explicit_equals_the_definition():
    times = pd.date_range("2001-01-01", "2001-12-31", freq="D")
    values = noise(times)
    mean, std = gather(times, values, window=11)
    weights = triangle(11)
    for day in (0, 3, 200, 364):
        sample = values[(day + np.arange(-5, 6)) % 365].astype(float)
        expected = np.average(sample, axis=0, weights=weights)
        spread = np.sqrt(np.average((sample - expected) ** 2, axis=0, weights=weights))
        np.testing.assert_allclose(mean[0, day], expected, rtol=1e-6)
        np.testing.assert_allclose(std[0, day], spread, rtol=1e-5)


@pytest.mark.parametrize("method", ["explicit", "fast"])
def test_blocks_of_time_do_not_matter(method):
    times = pd.date_range("2003-06-01", "2005-02-01", freq="12h")
    values = noise(times)
    values[5::7, :, 0, 1] = np.nan
    whole, cut = gather(times, values, method=method), gather(times, values, cuts=29, method=method)
    np.testing.assert_array_equal(whole, cut)


def test_a_missing_value_of_explicit_takes_day_365():
    times = pd.date_range("2001-01-01", "2001-12-31", freq="D")
    values = np.zeros((365, 1, 1, 1))
    values[364], values[100] = 7.0, np.nan
    mean, _ = gather(times, values, window=3)
    assert mean[0, 100, 0, 0, 0] == pytest.approx(7.0)


def test_day_366_of_common_years_takes_day_365():
    times = pd.date_range("2003-01-01", "2004-12-31", freq="D")
    values = np.zeros((len(times), 1, 1, 1))
    values[364], values[-1] = 3.0, 5.0
    mean, _ = gather(times, values, window=3)
    assert mean[0, 365, 0, 0, 0] == pytest.approx(4.0)


@pytest.mark.parametrize("method", ["explicit", "fast"])
def test_absent_days_are_left_out_not_filled(method):
    times = pd.date_range("2001-12-01", "2001-12-31", freq="D")
    values = np.full((31, 1, 1, 1), 4.0)
    mean, _ = gather(times, values, method=method)
    day = np.arange(1, 367)
    expected = (day > 335 - 30) | (day < 30)
    np.testing.assert_array_equal(np.isfinite(mean[0, :, 0, 0, 0]), expected)
    np.testing.assert_allclose(mean[0, expected, 0, 0, 0], 4.0)


def test_hours_are_those_of_the_data():
    times = pd.date_range("2001-01-01T03", "2001-03-01", freq="12h")
    climatology = Climatology(times.values)
    np.testing.assert_array_equal(climatology.hours, [3, 15])


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="expected 'explicit' or 'fast', got 'slow'"):
        Climatology(pd.date_range("2001", periods=2, freq="D").values, method="slow")
