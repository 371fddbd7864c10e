"""Scores of ensembles, number for number those of WeatherBench 2.

An ensemble has the axes (..., number, latitude, longitude) and its truth (..., latitude, longitude). As in
`transforms.metrics`, an integrand is a field at each point, whose regional means are statistics, which are averaged
over initial times. Only the energy score takes a norm over space for each member and so needs the regional mean.

A missing member, truth or threshold makes the point missing. With `skipna` members that are missing at a point are
left out there, and sums over members or pairs run over those present.

Missing values are where WeatherBench 2 differs. With `skipna` it keeps the full number of members in the spread of the
CRPS, which then depends on the field's mean, and in both debiased scores. It counts them as above all thresholds in the
ranked probability score and as the largest in the rank histogram.

References:
    Gneiting & Raftery (2007), JASA 102, 359-378: CRPS and energy score.
    Zamo & Naveau (2018), Math. Geosci. 50, 209-234: the fair CRPS of an ensemble, appendix B.
    Fortin et al. (2014), J. Hydrometeorol. 15, 1708-1713: spread and skill.
    Ferro (2007), Weather Forecast. 22, 1089-1100: the Brier score of ensembles.
    Epstein (1969), J. Appl. Meteorol. 8, 985-987: ranked probability score.
    Hamill (2001), Mon. Weather Rev. 129, 550-560: rank histograms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transforms.averaging import RegionalMean
from transforms.errors import InputError

__all__ = [
    "brier_score",
    "crps",
    "crps_skill",
    "crps_spread",
    "debiased_ensemble_mean_mse",
    "energy_skill",
    "energy_spread",
    "ensemble_mean",
    "ensemble_mean_mse",
    "ensemble_variance",
    "ignorance_score",
    "rank_histogram",
    "ranked_probability_score",
    "spread_skill_ratio",
]

_MEMBERS = -3


def crps(ensemble: np.ndarray, truth: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return the fair continuous ranked probability score at each point, E|X - Y| - 1/2 E|X - X'|.

    Its expectation does not depend on the number of members, two or more.
    """
    return crps_skill(ensemble, truth, skipna=skipna) - 0.5 * crps_spread(ensemble, skipna=skipna)


def crps_skill(ensemble: np.ndarray, truth: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return E|X - Y| at each point, the mean over members, shape (..., latitude, longitude)."""
    return _average(np.abs(_error(ensemble, truth)), skipna)


def crps_spread(ensemble: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return E|X - X'| at each point, 2 / (N (N - 1)) times the sum over pairs; 0 for a single member.

    Between the sorted members x_k and x_(k+1) lies a gap that k (N - k) pairs span. All terms are positive, so nothing
    cancels.
    """
    members = ensemble.shape[_MEMBERS]
    if members == 1:
        return np.zeros(ensemble[..., 0, :, :].shape)
    gaps = np.diff(np.sort(ensemble, axis=_MEMBERS).astype(np.float64), axis=_MEMBERS)
    below = np.arange(1.0, members)
    if not skipna:
        return np.einsum("k,...kij->...ij", below * (members - below) * 2 / (members * (members - 1)), gaps)
    present = np.asarray(np.sum(~np.isnan(ensemble), axis=_MEMBERS, dtype=np.float64))
    below = below[:, np.newaxis, np.newaxis]
    # Missing members are sorted last, so that the gaps before them are those between members that are present.
    spanning = below * (present[..., np.newaxis, :, :] - below)
    total = np.sum(np.where(np.isnan(gaps), 0.0, spanning * gaps), axis=_MEMBERS)
    pairs = present * (present - 1) / 2
    return np.divide(total, pairs, out=np.where(present > 0, 0.0, np.nan), where=pairs > 0)


def ensemble_mean(ensemble: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return the mean over members, float64, shape (..., latitude, longitude)."""
    return _average(ensemble.astype(np.float64), skipna)


def ensemble_mean_mse(ensemble: np.ndarray, truth: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return the squared error of the ensemble mean at each point; it exceeds that of many members by variance / N.

    The mean of float32 members is a float32 field, as in WeatherBench 2, and this shows where members differ from truth
    by little; cast members to float64 to be rid of it.
    """
    _check(ensemble, truth)
    return np.square(np.subtract(_average(ensemble, skipna), truth, dtype=np.float64))


def debiased_ensemble_mean_mse(ensemble: np.ndarray, truth: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return the squared error of the ensemble mean less variance / N, the excess of few; NaN for one member."""
    variance, count = _variance(ensemble, skipna)
    return ensemble_mean_mse(ensemble, truth, skipna=skipna) - variance / count


def ensemble_variance(ensemble: np.ndarray, *, skipna: bool = False) -> np.ndarray:
    """Return the variance of members at each point, with divisor N - 1; 0 for an ensemble of one member."""
    if ensemble.shape[_MEMBERS] == 1:
        return np.zeros(ensemble[..., 0, :, :].shape)
    return _variance(ensemble, skipna)[0]


def spread_skill_ratio(variance: np.ndarray, mse: np.ndarray) -> np.ndarray:
    """Return sqrt(variance / mse) of averages over space and time (Fortin et al. 2014).

    Where members and truth are drawn alike it is 1 with the debiased mse, and sqrt(N / (N + 1)) with the plain one.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.asarray(variance) / mse)


def energy_skill(
    ensembles: Sequence[np.ndarray], truths: Sequence[np.ndarray], mean: RegionalMean, *, skipna: bool = False
) -> np.ndarray:
    """Return E||X - Y||, the mean over members of the norm over a region and the components of a vector.

    ||.||^2 is the regional mean of the sum of squared components. The energy score is E||X - Y|| - 1/2 E||X - X'||.

    Args:
        ensembles, truths: the components, e.g. u and v; one for a scalar.
        mean: averages over the regions.

    Returns:
        Array (region, ...).
    """
    squared = sum(np.square(_error(f, o)) for f, o in zip(ensembles, truths, strict=True))
    return _average(np.sqrt(mean(squared)), skipna, axis=-1)


def energy_spread(ensembles: Sequence[np.ndarray], mean: RegionalMean, *, skipna: bool = False) -> np.ndarray:
    """Return E||X - X'||, the mean over the N - 1 pairs of adjacent members of the norm as in `energy_skill`.

    Unbiased, with N norms instead of N (N - 1) / 2; 0 for a single member. Shape (region, ...).
    """
    if ensembles[0].shape[_MEMBERS] == 1:
        return np.zeros((mean.regions, *ensembles[0].shape[:_MEMBERS]))
    squared: Any = sum(np.square(np.diff(f.astype(np.float64), axis=_MEMBERS)) for f in ensembles)
    return _average(np.sqrt(mean(squared)), skipna, axis=-1)


def rank_histogram(
    ensemble: np.ndarray,
    truth: np.ndarray,
    *,
    bins: int | None = None,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """Return in which bin truth falls among the sorted members: 1 there and 0 elsewhere.

    Truth that equals t members belongs to any of t + 1 bins. WeatherBench 2 draws one; without a generator each gets
    1 / (t + 1), the expectation, which does not depend on chunks or their order.

    Args:
        bins: number of bins, a divisor of N + 1, each of as many ranks; by default N + 1.
        generator: draws the bin of ties.

    Returns:
        Array (..., bin, latitude, longitude), NaN where truth or a member is missing.

    Raises:
        InputError: `bins` does not divide N + 1.
    """
    ranks = ensemble.shape[_MEMBERS] + 1
    bins = ranks if bins is None else bins
    if bins < 1 or ranks % bins:
        raise InputError(
            f"bins: expected a divisor of {ranks}, the number of ranks among {ranks - 1} members; got {bins}."
        )
    observed = truth[..., np.newaxis, :, :]
    lowest = np.sum(ensemble < observed, axis=_MEMBERS, keepdims=True)
    ties = np.sum(ensemble == observed, axis=_MEMBERS, keepdims=True)
    if generator is not None:
        lowest, ties = lowest + generator.integers(ties, endpoint=True), np.zeros_like(ties)
    rank = np.arange(ranks)[:, np.newaxis, np.newaxis]
    shares = np.where((rank >= lowest) & (rank <= lowest + ties), 1.0 / (ties + 1), 0.0)
    missing = np.isnan(ensemble).any(axis=_MEMBERS, keepdims=True) | np.isnan(observed)
    shares[np.broadcast_to(missing, shares.shape)] = np.nan
    return shares.reshape(*shares.shape[:_MEMBERS], bins, ranks // bins, *shares.shape[-2:]).sum(axis=_MEMBERS)


def brier_score(
    ensemble: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, *, debias: bool = False, skipna: bool = False
) -> np.ndarray:
    """Return the squared error of the share of members above each threshold, against 1 or 0 for truth.

    Args:
        thresholds: (threshold,), or (threshold, ..., latitude, longitude) which broadcasts with truth, e.g. quantiles
            of the climatology at the valid times.
        debias: subtract p (1 - p) / (N - 1), the excess of few members (Ferro 2007).

    Returns:
        Array (threshold, ..., latitude, longitude).
    """
    score = debiased_ensemble_mean_mse if debias else ensemble_mean_mse
    return np.stack(
        [
            score(
                _event(np.greater, ensemble, limit[..., np.newaxis, :, :]),
                _event(np.greater, truth, limit),
                skipna=skipna,
            )
            for limit in _fields(thresholds)
        ]
    )


def ignorance_score(
    ensemble: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, *, skipna: bool = False
) -> np.ndarray:
    """Return -log of the share of members on truth's side of each threshold; infinite where there is none.

    Benedetti (2010), Mon. Weather Rev. 138, 203-211.

    Args:
        thresholds: as in `brier_score`.

    Returns:
        Array (threshold, ..., latitude, longitude).
    """
    scores = []
    for limit in _fields(thresholds):
        share = _average(_event(np.greater, ensemble, limit[..., np.newaxis, :, :]), skipna)
        event = _event(np.greater, truth, limit)
        with np.errstate(divide="ignore"):
            # Away from zero minus: a certain forecast that is right costs 0.
            scores.append(np.abs(np.log(np.where(event == 1, share, 1 - share))) + 0.0 * event)
    return np.stack(scores)


def ranked_probability_score(
    ensemble: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, *, skipna: bool = False
) -> np.ndarray:
    """Return the sum over thresholds of the squared error of the share of members below, at each point.

    Args:
        thresholds: limits between categories, as in `brier_score`; a category holds its lower limit.

    Returns:
        Array (..., latitude, longitude), from 0 to the number of thresholds.
    """
    total: Any = sum(
        ensemble_mean_mse(
            _event(np.less, ensemble, limit[..., np.newaxis, :, :]), _event(np.less, truth, limit), skipna=skipna
        )
        for limit in _fields(thresholds)
    )
    return total


def _check(ensemble: np.ndarray, truth: np.ndarray) -> None:
    if ensemble.ndim < 3 or ensemble.shape[-2:] != truth.shape[-2:]:
        raise InputError(
            f"ensemble: expected the axes (..., number, latitude, longitude) on the grid of the truth {truth.shape}; "
            f"got {ensemble.shape}."
        )


def _error(ensemble: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _check(ensemble, truth)
    return np.subtract(ensemble, truth[..., np.newaxis, :, :], dtype=np.float64)


def _present(values: np.ndarray, skipna: bool) -> np.ndarray:
    return ~np.isnan(values) if skipna else np.broadcast_to(True, values.shape)


def _average(values: np.ndarray, skipna: bool, axis: int = _MEMBERS) -> np.ndarray:
    """Return the mean in the precision of the values."""
    if not skipna:
        return np.mean(values, axis=axis)
    present = _present(values, skipna)
    count = present.sum(axis=axis)
    total = np.sum(values, axis=axis, where=present)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0, dtype=total.dtype)


def _variance(values: np.ndarray, skipna: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return variance (divisor N - 1, NaN for N = 1) and N at each point."""
    values = values.astype(np.float64)
    present = _present(values, skipna)
    count = present.sum(axis=_MEMBERS)
    squared = np.square(values - np.expand_dims(_average(values, skipna), _MEMBERS))
    total = np.sum(squared, axis=_MEMBERS, where=present)
    return np.divide(total, count - 1, out=np.full(total.shape, np.nan), where=count > 1), np.maximum(count, 1)


def _fields(thresholds: np.ndarray) -> np.ndarray:
    thresholds = np.asarray(thresholds)
    return thresholds[:, np.newaxis, np.newaxis] if thresholds.ndim == 1 else thresholds


def _event(compare: np.ufunc, values: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return 1 where the comparison holds, 0 where not, NaN where either is missing."""
    return np.where(np.isnan(values) | np.isnan(limit), np.nan, compare(values, limit))
