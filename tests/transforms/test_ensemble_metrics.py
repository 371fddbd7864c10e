"""Scores of ensembles: sums over all pairs, closed forms, missing values, and the official values."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from transforms.averaging import RegionalMean
from transforms.comparison import Comparison
from transforms.ensemble_metrics import (
    brier_score,
    crps,
    crps_skill,
    crps_spread,
    debiased_ensemble_mean_mse,
    energy_skill,
    energy_spread,
    ensemble_mean_mse,
    ensemble_variance,
    rank_histogram,
    ranked_probability_score,
    spread_skill_ratio,
)
from transforms.errors import InputError
from transforms.forecast_statistics import STATISTICS
from transforms.grids import Grid
from transforms.metrics import METRICS
from transforms.regions import region_weights

GRID = Grid.equiangular(6, 12, poles=False)
REGIONS = ["global", "tropics"]
WEIGHTS = region_weights(REGIONS, GRID)
MEAN = RegionalMean(WEIGHTS)


ENSEMBLE_STATISTICS = (
    "crps",
    "crps_skill",
    "crps_spread",
    "ensemble_mean_mse",
    "debiased_ensemble_mean_mse",
    "ensemble_variance",
    "energy_score",
    "energy_score_skill",
    "energy_score_spread",
    "ensemble_mean_rmse_sqrt_before_time_avg",
    "ensemble_stddev_sqrt_before_time_avg",
)


def ensemble_statistics(names, ensemble, truth, mean, *, skipna=False) -> dict[str, np.ndarray]:
    """Return the metrics of single forecasts, (region, ...)."""
    case = Comparison((ensemble,), (truth,), members=True, skipna=skipna)
    return {name: STATISTICS[METRICS[name].statistics[0]].of(case, mean) for name in names}


def draw(*shape: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(size=(*shape, *GRID.shape))


def missing_some(ensemble: np.ndarray, share: float = 0.3) -> np.ndarray:
    return np.where(np.random.default_rng(9).random(ensemble.shape) < share, np.nan, ensemble)


def at_points(function, ensemble, *fields):
    """Evaluate a function of the members (number,) and scalars at every point."""
    result = np.empty(ensemble[..., 0, :, :].shape)
    for index in np.ndindex(result.shape):
        *lead, i, j = index
        result[index] = function(ensemble[(*lead, slice(None), i, j)], *(field[index] for field in fields))
    return result


def pair_mean(x: np.ndarray) -> float:
    return np.mean([abs(x[i] - x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])


@pytest.mark.parametrize(("members", "mean"), [(2, 0.0), (7, 0.0), (50, 0.0), (7, 5.4e4)])
def test_crps_equals_the_sum_over_all_pairs(members, mean):
    ensemble, truth = draw(2, members, mean=mean), draw(2, seed=1, mean=mean)
    spread = at_points(pair_mean, ensemble)
    skill = at_points(lambda x, y: np.mean([abs(a - y) for a in x]), ensemble, truth)
    np.testing.assert_allclose(crps_spread(ensemble), spread, rtol=1e-12)
    np.testing.assert_allclose(crps_skill(ensemble, truth), skill, rtol=1e-12)
    np.testing.assert_allclose(crps(ensemble, truth), skill - spread / 2, rtol=1e-12, atol=1e-12)


def test_crps_of_small_ensembles_is_unbiased():
    # X and Y standard normal: E|X - Y| = E|X - X'| = 2 / sqrt(pi).
    expected = 1 / np.sqrt(np.pi)
    for members in (2, 5):
        assert crps(draw(4000, members), draw(4000, seed=1)).mean() == pytest.approx(expected, rel=5e-3)


def test_a_single_member():
    ensemble, truth = draw(3, 1), draw(3, seed=1)
    np.testing.assert_array_equal(crps(ensemble, truth), np.abs(ensemble[:, 0] - truth))
    assert not ensemble_variance(ensemble).any()
    assert not energy_spread([ensemble], MEAN).any()
    assert energy_spread([ensemble], MEAN).shape == (2, 3)
    assert np.isnan(debiased_ensemble_mean_mse(ensemble, truth)).all()


def test_moments_of_the_ensemble():
    ensemble, truth = draw(2, 5), draw(2, seed=1)
    members = np.moveaxis(ensemble, 1, 0)
    average = sum(members) / 5
    variance, mse = sum((x - average) ** 2 for x in members) / 4, (average - truth) ** 2
    tolerance = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(ensemble_variance(ensemble), variance, **tolerance)
    np.testing.assert_allclose(ensemble_variance(ensemble + 5.4e4), variance, rtol=1e-9)
    np.testing.assert_allclose(ensemble_mean_mse(ensemble, truth), mse, **tolerance)
    np.testing.assert_allclose(debiased_ensemble_mean_mse(ensemble, truth), mse - variance / 5, **tolerance)


def test_scores_of_float32_are_float64():
    ensemble, truth = draw(2, 5, mean=300.0).astype(np.float32), draw(2, seed=1, mean=300.0).astype(np.float32)
    wide = ensemble_statistics(list(ENSEMBLE_STATISTICS), ensemble.astype(np.float64), truth.astype(np.float64), MEAN)
    for name, values in ensemble_statistics(list(wide), ensemble, truth, MEAN).items():
        assert values.dtype == np.float64
        # The mean of float32 members is itself rounded.
        tolerance = 1e-4 if "mean" in name else 1e-12
        np.testing.assert_allclose(values, wide[name], rtol=tolerance, err_msg=name)


def test_spread_and_skill_of_a_reliable_ensemble():
    ensemble, truth = draw(4000, 4), draw(4000, seed=1)
    variance = ensemble_variance(ensemble).mean()
    plain, debiased = (score(ensemble, truth).mean() for score in (ensemble_mean_mse, debiased_ensemble_mean_mse))
    assert spread_skill_ratio(variance, debiased) == pytest.approx(1.0, abs=0.01)
    assert spread_skill_ratio(variance, plain) == pytest.approx(np.sqrt(4 / 5), abs=0.01)


def test_skipna_scores_the_members_that_are_present():
    full, truth = draw(2, 6), draw(2, seed=1)
    ensemble = missing_some(full)
    ensemble[0, :, 0, 0] = np.nan  # none is present
    ensemble[0, 1:, 0, 1] = np.nan  # a single one is

    def of_present(function):
        def wrapped(x, *rest):
            x = x[~np.isnan(x)]
            return function(x, *rest) if x.size else np.nan

        return at_points(wrapped, ensemble, *([truth] if function.__code__.co_argcount == 2 else []))

    def variance(x):
        return x.var(ddof=1) if x.size > 1 else np.nan

    tolerance = {"rtol": 1e-12, "atol": 1e-12}
    spread = of_present(lambda x: pair_mean(x) if x.size > 1 else 0.0)
    np.testing.assert_allclose(crps_spread(ensemble, skipna=True), spread, **tolerance)
    skill = of_present(lambda x, y: np.abs(x - y).mean())
    np.testing.assert_allclose(crps_skill(ensemble, truth, skipna=True), skill, **tolerance)
    np.testing.assert_allclose(ensemble_variance(ensemble, skipna=True), of_present(lambda x: variance(x)), **tolerance)
    debiased = of_present(lambda x, y: (x.mean() - y) ** 2 - variance(x) / x.size)
    np.testing.assert_allclose(debiased_ensemble_mean_mse(ensemble, truth, skipna=True), debiased, **tolerance)


@pytest.mark.parametrize("skipna", [False, True])
def test_skipna_changes_nothing_where_nothing_is_missing(skipna):
    ensemble, truth = draw(2, 6), draw(2, seed=1)
    plain = ensemble_statistics(list(ENSEMBLE_STATISTICS), ensemble, truth, MEAN)
    mean = RegionalMean(WEIGHTS, skipna=skipna)
    for name, values in ensemble_statistics(list(plain), ensemble, truth, mean, skipna=skipna).items():
        assert values.shape == (2, 2)
        np.testing.assert_allclose(values, plain[name], rtol=1e-13, err_msg=name)


def test_a_missing_member_makes_its_point_missing():
    ensemble, truth = draw(2, 6), draw(2, seed=1)
    ensemble[0, 2, 0, 0] = np.nan  # not in the tropics
    for name, values in ensemble_statistics(list(ENSEMBLE_STATISTICS), ensemble, truth, MEAN).items():
        np.testing.assert_array_equal(np.isnan(values), [[True, False], [False, False]], err_msg=name)
    points = [
        crps(ensemble, truth),
        debiased_ensemble_mean_mse(ensemble, truth),
        brier_score(ensemble, truth, np.array([0.5]))[0],
        ranked_probability_score(ensemble, truth, np.array([0.0, 1.0])),
        rank_histogram(ensemble, truth)[:, 0],
    ]
    for field in points:
        assert np.argwhere(np.isnan(field)).tolist() == [[0, 0, 0]]


def test_energy_score_of_winds():
    u, v, p, q = draw(3, 5), draw(3, 5, seed=1), draw(3, seed=2), draw(3, seed=3)
    weights = WEIGHTS / WEIGHTS.sum(axis=(1, 2), keepdims=True)

    def norm(a, b):
        return np.array([np.sqrt((w * (a**2 + b**2)).sum(axis=(-2, -1))) for w in weights])

    skill = np.mean([norm(u[:, n] - p, v[:, n] - q) for n in range(5)], axis=0)
    spread = np.mean([norm(u[:, n] - u[:, n + 1], v[:, n] - v[:, n + 1]) for n in range(4)], axis=0)
    np.testing.assert_allclose(energy_skill([u, v], [p, q], MEAN), skill, rtol=1e-12)
    np.testing.assert_allclose(energy_spread([u, v], MEAN), spread, rtol=1e-12)


def test_rank_histogram_counts_members_below():
    ensemble, truth = draw(2, 5), draw(2, seed=1)
    histogram = rank_histogram(ensemble, truth)
    assert histogram.shape == (2, 6, *GRID.shape)
    np.testing.assert_array_equal(histogram.sum(axis=1), 1.0)
    ranks = at_points(lambda x, y: sum(a < y for a in x), ensemble, truth)
    np.testing.assert_array_equal(histogram.argmax(axis=1), ranks)
    np.testing.assert_array_equal(rank_histogram(ensemble, truth, bins=3).argmax(axis=1), ranks // 2)
    np.testing.assert_allclose(MEAN(rank_histogram(draw(900, 4), draw(900, seed=1))).mean(axis=1), 0.2, atol=0.01)
    with pytest.raises(InputError, match="divisor of 6"):
        rank_histogram(ensemble, truth, bins=4)


def test_rank_histogram_of_ties():
    # Precipitation has many: of 0 0 0 2, truth 0 belongs to the lowest four ranks alike.
    ensemble = np.broadcast_to(np.array([0.0, 2.0, 0.0, 0.0])[:, None, None], (400, 4, *GRID.shape))
    truth = np.zeros((400, *GRID.shape))
    np.testing.assert_array_equal(rank_histogram(ensemble, truth)[0, :, 0, 0], [0.25, 0.25, 0.25, 0.25, 0.0])
    drawn = rank_histogram(ensemble, truth, generator=np.random.default_rng(0))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(axis=(0, 2, 3)), [0.25, 0.25, 0.25, 0.25, 0.0], atol=0.01)


def test_brier_score():
    ensemble, truth = draw(2, 8), draw(2, seed=1)
    thresholds = np.array([-0.5, 1.0])
    for k, limit in enumerate(thresholds):
        share = (ensemble > limit).mean(axis=1)
        excess = share * (1 - share) / 7
        expected = (share - (truth > limit)) ** 2
        np.testing.assert_allclose(brier_score(ensemble, truth, thresholds)[k], expected, rtol=1e-12, atol=1e-14)
        debiased = brier_score(ensemble, truth, thresholds, debias=True)[k]
        np.testing.assert_allclose(debiased, expected - excess, rtol=1e-12, atol=1e-14)


def test_ranked_probability_score():
    # The example of WeatherBench 2: terciles, observed at quantile 0.5, members at 0.1, 0.5, 0.6 and 0.8.
    one = np.ones(GRID.shape)
    ensemble = np.array([0.1, 0.5, 0.6, 0.8])[:, None, None] * one
    limits = np.array([0.33, 0.66])
    expected = (0.25 - 0.0) ** 2 + (0.75 - 1.0) ** 2
    np.testing.assert_allclose(ranked_probability_score(ensemble, 0.5 * one, limits), expected, rtol=1e-12)


def test_thresholds_may_be_fields():
    ensemble, truth, limits = draw(2, 8), draw(2, seed=1), draw(3, 2, seed=2)
    scores = brier_score(ensemble, truth, limits)
    assert scores.shape == limits.shape
    for k in range(3):
        alone = brier_score(ensemble - limits[k][:, None], truth - limits[k], np.zeros(1))[0]
        np.testing.assert_array_equal(scores[k], alone)
    limits[1, 0, 0, 0] = np.nan
    assert np.argwhere(np.isnan(brier_score(ensemble, truth, limits))).tolist() == [[1, 0, 0, 0]]


def test_an_ensemble_on_another_grid_is_refused():
    with pytest.raises(InputError, match=r"expected the axes .*number"):
        crps(draw(3)[..., :-1], draw())


def test_statistics_equal_weatherbench(reference, reference_stores):
    official = xr.open_dataset(reference / "results" / "ens_probabilistic.nc", decode_timedelta=True)
    space = ("latitude", "longitude")
    forecast, truth = (
        xr.open_zarr(reference_stores(folder) / f"{name}.zarr", decode_timedelta=True)
        for folder, name in (("ens", "forecast"), ("64x32p", "truth"))
    )
    mean = RegionalMean(
        region_weights(official.region.values.tolist(), Grid(truth.latitude.values, truth.longitude.values))
    )
    names = official.metric.values.tolist()
    assert set(names) == set(ENSEMBLE_STATISTICS)
    valid = forecast.time + forecast.prediction_timedelta
    for variable in ("geopotential", "2m_temperature"):
        ensemble, observed = forecast[variable], truth[variable].sel(time=valid)
        if "level" in ensemble.dims:
            ensemble, observed = ensemble.sel(level=500), observed.sel(level=500)
        ensemble = ensemble.transpose("time", "prediction_timedelta", "number", *space).values
        observed = observed.transpose("time", "prediction_timedelta", *space).values
        for name, values in ensemble_statistics(names, ensemble, observed, mean).items():
            expected = official[variable].sel(metric=name).transpose("region", "lead_time", ...).values
            np.testing.assert_allclose(
                values.mean(axis=1),
                expected.reshape(values.shape[0], -1),
                rtol=1e-6,
                atol=1e-9 * np.abs(expected).max(),
                err_msg=f"{name} {variable}",
            )
