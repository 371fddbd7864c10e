"""Scores: closed forms, invariances, missing values, and the official values of single forecasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from transforms.averaging import RegionalMean, RunningMean
from transforms.comparison import Comparison
from transforms.forecast_statistics import STATISTICS, statistics_for
from transforms.grids import Grid
from transforms.metrics import METRICS, vector_name
from transforms.regions import region_weights

GRID = Grid.equiangular(36, 72, poles=False)
REGIONS = ["global", "tropics", "europe"]
ALL = ["rmse", "mse", "mae", "bias", "acc", "rmse_sqrt_before_time_avg"]
MEAN = RegionalMean(region_weights(REGIONS, GRID))


def score(forecast, truth, climatology=None, metrics=ALL, mean=MEAN) -> dict[str, np.ndarray]:
    """Return the metrics of a single forecast."""
    if climatology is None:
        climatology = np.zeros(GRID.shape)
    case = Comparison((forecast,), (truth,), (climatology,))
    statistics = {name: STATISTICS[name].of(case, mean) for name in statistics_for(metrics)}
    return {name: METRICS[name].finish(*(statistics[each] for each in METRICS[name].statistics)) for name in metrics}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, *GRID.shape))


def test_a_constant_error():
    truth = noise(4)
    scores = score(truth - 3.0, truth)
    for name, value in {"rmse": 3.0, "mse": 9.0, "mae": 3.0, "bias": -3.0, "rmse_sqrt_before_time_avg": 3.0}.items():
        assert scores[name].shape == (3, 4)
        np.testing.assert_allclose(scores[name], value, rtol=1e-12)


def test_a_single_harmonic():
    # sin(lon) cos(lat) has area mean square 1/3; cell areas of 5 degrees change it by less than 1e-3.
    lon, lat = np.meshgrid(np.deg2rad(GRID.longitude), np.deg2rad(GRID.latitude))
    scores = score(np.sin(lon) * np.cos(lat), np.zeros(GRID.shape))
    assert scores["mse"][0] == pytest.approx(1 / 3, rel=1e-3)
    assert scores["bias"][0] == pytest.approx(0.0, abs=1e-15)
    assert scores["rmse"][0] == pytest.approx(np.sqrt(scores["mse"][0]))


def test_acc_of_perfect_opposite_and_unrelated_forecasts():
    climatology, anomaly = 280 + noise(), noise(seed=1)
    acc = [
        score(climatology + f, climatology + anomaly, climatology)["acc"][0] for f in (anomaly, 5 * anomaly, -anomaly)
    ]
    np.testing.assert_allclose(acc, [1.0, 1.0, -1.0], rtol=1e-12)
    other = score(climatology + noise(seed=2), climatology + anomaly, climatology)["acc"][0]
    assert abs(other) < 0.1


def test_acc_of_the_climatology_is_undefined():
    climatology = noise()
    assert np.isnan(score(climatology, noise(seed=1), climatology)["acc"]).all()


def test_acc_is_uncentred():
    # With one constant anomaly each, centred correlation would be 0/0; the uncentred one is their sign.
    assert score(np.full(GRID.shape, 2.0), np.full(GRID.shape, -1.0))["acc"][0] == pytest.approx(-1.0)


def test_shifting_both_in_longitude_changes_no_global_score():
    forecast, truth, climatology = noise(), noise(seed=1), noise(seed=2)
    plain = score(forecast, truth, climatology)
    shifted = score(*(np.roll(field, 7, axis=-1) for field in (forecast, truth, climatology)))
    for name in ALL:
        assert shifted[name][0] == pytest.approx(plain[name][0], rel=1e-12)


def test_wind_vector_adds_the_squares_and_ignores_rotation():
    u, v, p, q = (noise(seed=seed) for seed in range(4))
    names = statistics_for(ALL, vector=True)
    assert names == ["squared_error", "root_mean_squared_error"]
    vector = {name: STATISTICS[name].of(Comparison((u, v), (p, q)), MEAN) for name in names}
    np.testing.assert_allclose(vector["squared_error"], score(u, p)["mse"] + score(v, q)["mse"], rtol=1e-12)
    cosine, sine = np.cos(0.7), np.sin(0.7)

    def turn(a, b):
        return cosine * a - sine * b, sine * a + cosine * b

    turned = STATISTICS["squared_error"].of(Comparison(turn(u, v), turn(p, q)), MEAN)
    np.testing.assert_allclose(turned, vector["squared_error"], rtol=1e-12)


def test_vector_names():
    assert vector_name("u_component_of_wind") == "wind_vector"
    assert vector_name("10m_u_component_of_wind") == "10m_wind_vector"


def test_a_missing_point_spoils_only_regions_that_hold_it():
    truth = noise()
    truth[18, 36] = np.nan  # 2.5 degrees north, 180 degrees east
    scores = score(noise(seed=1), truth)
    for name in ALL:
        np.testing.assert_array_equal(np.isnan(scores[name]), [True, True, False], err_msg=name)


def test_skipna_leaves_a_missing_point_out_of_the_weights():
    weights = region_weights(REGIONS, GRID)
    forecast, truth = noise(seed=1), noise()
    truth[18, 36] = np.nan
    weights_without = weights.copy()
    weights_without[:, 18, 36] = 0.0
    skipped = score(forecast, truth, mean=RegionalMean(weights, skipna=True))
    expected = score(forecast, np.nan_to_num(truth), mean=RegionalMean(weights_without))
    for name in set(ALL) - {"acc"}:
        np.testing.assert_allclose(skipped[name], expected[name], rtol=1e-12, err_msg=name)
    # The three means of the correlation are masked apart: the forecast's own keeps the point.
    whole, without = RegionalMean(weights), RegionalMean(weights_without)
    known = np.nan_to_num(truth)
    correlation = without(forecast * known) / np.sqrt(whole(forecast**2) * without(known**2))
    np.testing.assert_allclose(skipped["acc"], correlation, rtol=1e-12)
    nothing = score(forecast, np.full(GRID.shape, np.nan), mean=RegionalMean(weights, skipna=True))
    assert np.isnan(nothing["mse"]).all()


def average(*values, included=None, skipna=False) -> np.ndarray:
    """Return the average of some forecasts' values, (region, lead, ...)."""
    included = [True] * len(values) if included is None else included
    parts = [
        RunningMean.of(np.asarray(v), np.atleast_1d(i), skipna=skipna) for v, i in zip(values, included, strict=True)
    ]
    for part in parts[1:]:
        parts[0].add(part)
    return parts[0].result()


def test_rmse_takes_the_root_last_and_its_sibling_first():
    cases = [Comparison((np.full((1, *GRID.shape), e),), (np.zeros((1, *GRID.shape)),)) for e in (1.0, 7.0)]
    for name, expected in {"rmse": 5.0, "rmse_sqrt_before_time_avg": 4.0}.items():
        (statistic,) = METRICS[name].statistics
        values = [STATISTICS[statistic].of(case, MEAN) for case in cases]
        assert METRICS[name].finish(average(*values))[0, 0] == pytest.approx(expected)


def test_running_mean_leaves_out_what_is_not_included():
    two = average([[1.0, np.nan]], [[3.0, 5.0]], included=[[True, False], [True, True]])
    np.testing.assert_array_equal(two, [[2.0, 5.0]])
    three = average(
        [[1.0, np.nan]], [[3.0, 5.0]], [[np.nan, 7.0]], included=[[True, False], [True, True], [True, True]]
    )
    np.testing.assert_array_equal(three, [[np.nan, 6.0]])


def test_running_mean_skipna():
    values = [[[value, np.nan]] for value in (2.0, np.nan, 4.0)]
    np.testing.assert_array_equal(average(*values, included=[[True, True]] * 3, skipna=True), [[3.0, np.nan]])


def test_pooled_acc_activity_and_their_ratio():
    climatology, truth = 280 + noise(), noise(seed=1)
    for factor in (0.5, 2.0):
        scores = score(
            climatology + factor * truth, climatology + truth, climatology, ["acc_pooled", "activity", "activity_ratio"]
        )
        np.testing.assert_allclose(scores["acc_pooled"], 1.0, rtol=1e-12)
        np.testing.assert_allclose(scores["activity_ratio"], factor, rtol=1e-12)
        np.testing.assert_allclose(scores["activity"], factor * np.sqrt(MEAN(truth**2)), rtol=1e-10)
    # Pooled over two forecasts it weighs each by its activity; averaged it does not.
    parts = [Comparison((a * truth[None],), (truth[None],), (0 * truth[None],)) for a in (1.0, -3.0)]
    names = METRICS["acc_pooled"].statistics
    pooled = METRICS["acc_pooled"].finish(*(average(*(STATISTICS[n].of(p, MEAN) for p in parts)) for n in names))
    np.testing.assert_allclose(pooled, -2.0 / np.sqrt(2.0 * 10.0), rtol=1e-12)


def test_single_forecasts_equal_weatherbench(reference, reference_stores):
    folder = reference_stores("64x32p")
    official = xr.open_dataset(
        reference / "results" / "64x32p_skipna0_deterministic_temporal.nc", decode_timedelta=True
    )
    space = ("latitude", "longitude")
    forecast, truth, climatology = (
        xr.open_zarr(folder / f"{name}.zarr", decode_timedelta=True).transpose(..., *space)
        for name in ("forecast", "truth", "climatology")
    )
    grid = Grid(truth.latitude.values, truth.longitude.values)
    mean = RegionalMean(region_weights(official.region.values.tolist(), grid))
    for i in (0, 11, 29):  # before, across and after 29 February; the humidity of initial time 11 has a missing field
        valid = pd.DatetimeIndex(forecast.time.values[i] + forecast.prediction_timedelta.values)
        normal = climatology.sel(
            hour=xr.DataArray(valid.hour.values, dims="lead"),
            dayofyear=xr.DataArray(valid.day_of_year.values, dims="lead"),
        ).transpose("lead", ...)
        predicted, observed = forecast.isel(time=i), truth.sel(time=valid)
        for name in ("geopotential", "2m_temperature", "specific_humidity"):
            fields = [store[name].values for store in (predicted, observed, normal)]
            case = Comparison(*((field,) for field in fields))
            for metric in official.metric.values:
                expected = official[name].sel(metric=metric).isel(init_time=i).transpose("region", "lead_time", ...)
                scale = float(np.abs(expected).max())
                np.testing.assert_allclose(
                    STATISTICS[METRICS[metric].statistics[0]].of(case, mean),
                    expected,
                    rtol=1e-6,
                    atol=1e-9 * scale,
                    err_msg=f"{metric} {name}",
                )
