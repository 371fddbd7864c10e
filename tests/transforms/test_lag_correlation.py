"""Lag correlation against plain sums, whatever the order and the parts, with and without missing values."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.lag_correlation import LagCorrelation

LAGS = np.array([0, 1, 3])
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.1])


def plain(fields: np.ndarray, lag: int, level: int) -> float:
    cross = early = late = 0.0
    for t in range(len(fields) - lag):
        for row, weight in enumerate(WEIGHTS):
            for a, b in zip(fields[t, level, row], fields[t + lag, level, row], strict=True):
                if not np.isnan(a) and not np.isnan(b):
                    cross, early, late = cross + weight * a * b, early + weight * a * a, late + weight * b * b
    return cross / np.sqrt(early * late)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("part", [3, 20])
def test_sums_are_those_of_the_definition(missing, part):
    rng = np.random.default_rng(1)
    fields = rng.normal(size=(20, 2, 4, 5)).cumsum(axis=0)
    if missing:
        fields[rng.random(fields.shape) < 0.1] = np.nan
    sums = LagCorrelation(3, 2, WEIGHTS)
    for begin in range(0, 20, part):
        first = np.arange(begin, min(begin + part, 20))
        for lags in (slice(0, 1), slice(1, 3)):
            partner = first[:, None] + LAGS[lags]
            sums.add(lags, fields[first], fields, np.where(partner < 20, partner, -1))
    expected = [[plain(fields, lag, level) for level in range(2)] for lag in LAGS]
    np.testing.assert_allclose(sums.result(), expected, rtol=1e-12)
    assert sums.pairs.tolist() == [20, 19, 17]
    assert sums.result()[0] == pytest.approx(1.0)


def test_an_autoregressive_process_fades_as_its_coefficient():
    rng, rho = np.random.default_rng(2), 0.8
    fields = np.empty((400, 1, 4, 25))
    fields[0] = rng.normal(size=(1, 4, 25))
    for t in range(1, 400):
        fields[t] = rho * fields[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=(1, 4, 25))
    sums = LagCorrelation(3, 1, WEIGHTS)
    partner = np.arange(400)[:, None] + LAGS
    sums.add(slice(0, 3), fields, fields, np.where(partner < 400, partner, -1))
    assert sums.result()[:, 0] == pytest.approx(rho**LAGS, abs=0.03)


def test_nothing_to_correlate():
    sums = LagCorrelation(2, 1, WEIGHTS)
    still = np.zeros((2, 1, 4, 5))
    sums.add(slice(0, 2), still, still, np.array([[0, -1], [1, -1]]))
    assert sums.result()[0, 0] == 0.0
    assert np.isnan(sums.result()[1, 0])
