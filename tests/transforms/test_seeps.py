"""SEEPS: its table of costs, its expectation for uninformed forecasts, and the official values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from transforms.averaging import RegionalMean
from transforms.grids import Grid
from transforms.regions import region_weights
from transforms.seeps import DRY_THRESHOLD, dry_probability, seeps

SHAPE = (2, 3)
ONE = np.ones(SHAPE)
HEAVY = 5e-3
AMOUNTS = {"dry": 1e-4, "light": 2e-3, "heavy": 9e-3}


def cost(forecast: float, truth: float, probability: float = 0.4) -> float:
    (value,) = np.unique(seeps(forecast * ONE, truth * ONE, HEAVY * ONE, probability * ONE))
    return value


def test_costs():
    # Rodwell et al. 2010, eq. 15, at p1 = 0.4.
    table = {
        ("dry", "light"): 0.5 / 0.6,
        ("dry", "heavy"): 2 / 0.6,
        ("light", "dry"): 0.5 / 0.4,
        ("light", "heavy"): 1.5 / 0.6,
        ("heavy", "dry"): 0.5 / 0.4 + 1.5 / 2.4,
        ("heavy", "light"): 1.5 / 2.4,
    }
    for forecast, predicted in AMOUNTS.items():
        for truth, observed in AMOUNTS.items():
            np.testing.assert_allclose(cost(predicted, observed), table.get((forecast, truth), 0.0), rtol=1e-12)


def test_constant_forecasts_cost_one_on_average():
    p1 = 0.4
    shares = {"dry": p1, "light": (1 - p1) * 2 / 3, "heavy": (1 - p1) / 3}
    for predicted in AMOUNTS.values():
        expected = sum(share * cost(predicted, AMOUNTS[truth], p1) for truth, share in shares.items())
        np.testing.assert_allclose(expected, 1.0, rtol=1e-12)


def test_limits_of_categories():
    assert cost(HEAVY, AMOUNTS["heavy"]) == 0.0
    assert cost(np.nextafter(HEAVY, 0), AMOUNTS["light"]) == 0.0
    assert cost(np.nextafter(DRY_THRESHOLD, 0), AMOUNTS["dry"]) == 0.0
    assert cost(DRY_THRESHOLD, AMOUNTS["heavy"]) == 0.0


def test_missing_values_and_climates_are_left_out():
    probability = np.array([[0.05, 0.1, 0.4], [0.85, 0.9, np.nan]])
    score = seeps(AMOUNTS["dry"] * ONE, AMOUNTS["heavy"] * ONE, HEAVY * ONE, probability)
    np.testing.assert_array_equal(np.isnan(score), [[True, True, False], [True, True, True]])
    forecast = np.where(np.arange(6).reshape(SHAPE) == 2, np.nan, 0.0)
    np.testing.assert_array_equal(np.isnan(seeps(forecast, ONE, HEAVY * ONE, 0.4 * ONE)), np.isnan(forecast))


def test_dry_probability_is_the_mean_of_what_there_is():
    fraction = np.stack([0.2 * ONE, 0.4 * ONE]).reshape(1, 2, *SHAPE)
    fraction[0, 0, 0, 0] = np.nan
    expected = 0.3 * ONE
    expected[0, 0] = 0.4
    np.testing.assert_allclose(dry_probability(fraction), expected)


def test_scores_equal_weatherbench(reference, reference_stores):
    official = xr.open_dataset(reference / "results" / "seeps_deterministic.nc", decode_timedelta=True)
    folder, space, name = reference_stores("ens"), ("latitude", "longitude"), "total_precipitation_24hr"
    forecast, truth, climatology = (
        xr.open_zarr(folder / f"tp_{store}.zarr", decode_timedelta=True).transpose(..., *space)
        for store in ("forecast", "truth", "climatology")
    )
    mean = RegionalMean(
        region_weights(official.region.values.tolist(), Grid(truth.latitude.values, truth.longitude.values)),
        skipna=True,
    )
    probability = dry_probability(climatology[f"{name}_seeps_dry_fraction"].values)
    scores = []
    for initial in forecast.time.values:
        valid = pd.DatetimeIndex(initial + forecast.prediction_timedelta.values)
        heavy = climatology[f"{name}_seeps_threshold"].sel(
            hour=xr.DataArray(valid.hour.values, dims="lead"),
            dayofyear=xr.DataArray(valid.day_of_year.values, dims="lead"),
        )
        fields = (forecast[name].sel(time=initial), truth[name].sel(time=valid), heavy.transpose("lead", *space))
        scores.append(mean(seeps(*(field.values for field in fields), probability)))
    expected = official[name].isel(metric=0).transpose("region", "lead_time").values
    assert np.isfinite(expected[:, 1:]).all()
    np.testing.assert_allclose(np.mean(scores, axis=0), expected, rtol=1e-6)
