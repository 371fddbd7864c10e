"""Climatology: closed forms, a naive oracle, blocks of time, and what absent days do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from transforms.climatology import Calendar, CellSums, origin_of, samples_of, windowed


def gather(
    times: pd.DatetimeIndex,
    values: np.ndarray,
    *,
    method: str = "explicit",
    window: int = 61,
    days: int = 366,
    daily: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread, (hour, dayofyear, level, latitude, longitude), from ranges of so many days."""
    calendar = Calendar.of(times.values, daily=daily)
    values = values.astype(np.float32)
    series = values.reshape(len(values), -1)
    samples = samples_of(series, calendar.count)
    origin = origin_of(samples[0].reshape(values.shape[1], -1)).reshape(-1)

    def last_day(year: int, hour: int) -> np.ndarray:
        at = (calendar.year == year) & (calendar.hour == hour) & (calendar.day == 364)
        return samples[np.flatnonzero(at)[0]]

    results = []
    for hour in range(calendar.hours.size):
        parts: list[CellSums] = []
        for start in range(0, calendar.days, days):
            ranges = slice(hour, hour + 1), slice(start, min(start + days, calendar.days))
            parts.append(CellSums(calendar, method, *ranges, origin, last_day))
            for sample in calendar.where(*ranges):
                start_time = calendar.start[sample]
                parts[-1].add(sample, samples[sample], series[start_time : start_time + calendar.count[sample]])
            parts[-1].finish()
        wide = max(part.number.shape[-1] for part in parts)
        number = np.concatenate([np.broadcast_to(p.number[0], (p.number.shape[1], wide)) for p in parts])
        total, square = (np.concatenate([getattr(part, of)[0] for part in parts]) for of in ("total", "square"))
        every = None
        if parts[0].all_total is not None:
            every = tuple(
                np.concatenate([getattr(part, of)[0] for part in parts]) for of in ("all_number", "all_total")
            )
        results.append(windowed(method, window, calendar.axis[hour], number, total, square, origin, every))
    shape = (calendar.hours.size, 366, *values.shape[1:])
    return tuple(np.stack([result[i] for result in results]).reshape(shape) for i in range(2))


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
@pytest.mark.parametrize("daily", [False, True])
def test_ranges_of_days_do_not_matter(method, daily):
    times = pd.date_range("2003-06-01", "2005-02-01", freq="12h")
    values = noise(times)
    values[5::7, :, 0, 1] = np.nan
    whole = gather(times, values, method=method, daily=daily)
    np.testing.assert_array_equal(whole, gather(times, values, method=method, daily=daily, days=13))


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


def test_a_day_that_only_one_year_lacks_takes_its_day_365():
    times = pd.date_range("2001-01-01", "2002-12-31", freq="D")
    values = np.where(times.year == 2001, 1.0, 2.0)[:, None, None, None] * np.ones((1, 1, 1, 2))
    values[364] = 5.0
    keep = np.delete(np.arange(len(times)), 100)
    mean, _ = gather(times[keep], values[keep], window=3)
    np.testing.assert_allclose(mean[0, 100], (5.0 + 2.0) / 2)
    np.testing.assert_allclose(mean[0, 101], 1.5)


def test_daily_means_leave_out_what_is_missing():
    times = pd.date_range("2001-01-01", "2001-12-31T18", freq="6h")
    values = np.tile(np.arange(4.0), 365)[:, None, None, None] * np.ones((1, 1, 1, 1))
    values[3::4] = np.nan
    for method in ("explicit", "fast"):
        mean, std = gather(times, values, method=method, daily=True)
        np.testing.assert_allclose(mean, 1.0)
        np.testing.assert_allclose(std, 0.0, atol=1e-7)


@pytest.mark.parametrize("first", [0.0, 0.01])
def test_spread_of_a_dry_season_is_not_drowned_by_the_wet(first):
    # Running sums leave a residue of the wet season behind; the spread of what is dry throughout is 0.
    times = pd.date_range("2001-01-01", "2002-12-31", freq="D")
    values = np.zeros((len(times), 1, 1, 2))
    wet = (times.day_of_year > 200) & (times.day_of_year < 250)
    values[wet] = np.random.default_rng(0).gamma(0.4, 0.05, (wet.sum(), 1, 1, 2))
    values[0] = first
    mean, std = gather(times, values)
    np.testing.assert_allclose(std[0, 90:150], 0.0, atol=1e-15)
    np.testing.assert_allclose(mean[0, 90:150], 0.0, atol=1e-15)
    assert (std[0, 205:245] > 1e-3).all()


def test_hours_are_those_of_the_data():
    times = pd.date_range("2001-01-01T03", "2001-03-01", freq="12h")
    np.testing.assert_array_equal(Calendar.of(times.values).hours, [3, 15])
