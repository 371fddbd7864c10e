"""Forecasts beside their truth, and what is taken of them point by point before any average.

An integrand is a field made from forecast, truth and climatology, e.g. the squared error. Its regional means are what
`transforms.metrics` makes scores from, and its average over forecasts, point by point, is a map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from transforms import ensemble_metrics as ensembles
from transforms.seeps import seeps

__all__ = ["INTEGRANDS", "Comparison", "Limits"]

Array = np.ndarray


@dataclass(frozen=True)
class Limits:
    """What sorts values into events and categories, at the valid times.

    Attributes:
        thresholds: of events, ascending, shape (threshold, ..., latitude, longitude).
        heavy: precipitation from which on it is heavy, m, shape (..., latitude, longitude), for SEEPS.
        dry_probability: of the climate, shape (latitude, longitude).
        dry_threshold: precipitation below which it is dry, m.
    """

    thresholds: Array | None = None
    heavy: Array | None = None
    dry_probability: Array | None = None
    dry_threshold: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Forecasts of one quantity beside their truth, components of a vector together.

    Of an ensemble, deterministic integrands are those of the mean of its members; a single forecast is, to the
    integrands of ensembles, an ensemble of one.

    Attributes:
        forecast: of each component, (..., latitude, longitude), or of an ensemble (..., number, latitude, longitude).
        truth: of each component at the valid times, (..., latitude, longitude).
        climatology: the same, where an integrand needs it.
        members: whether the forecast has an axis number.
        skipna: leave missing members out.
        bins: of the rank histogram; one more than the members by default.
        limits: of events and categories.
    """

    forecast: tuple[Array, ...]
    truth: tuple[Array, ...]
    climatology: tuple[Array, ...] | None = None
    members: bool = False
    skipna: bool = False
    bins: int | None = None
    limits: Limits = Limits()
    _known: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def of(self, integrand: str) -> Array:
        """Return an integrand, (..., latitude, longitude), with an axis of its own before latitude where it has one."""
        if integrand not in self._known:
            self._known[integrand] = INTEGRANDS[integrand](self)
        return self._known[integrand]

    @cached_property
    def single(self) -> tuple[Array, ...]:
        """The components of the mean over members, or of a single forecast themselves."""
        if not self.members:
            return self.forecast
        return tuple(ensembles.ensemble_mean(values, skipna=self.skipna) for values in self.forecast)

    def ensemble(self) -> tuple[Array, ...]:
        """Return the components with an axis number, of one where it is a single forecast."""
        return self.forecast if self.members else tuple(values[..., np.newaxis, :, :] for values in self.forecast)

    def error(self) -> Array:
        """Return forecast minus truth of the only component, float64.

        Subtracted in the precision of the stores, as WeatherBench 2 does: means of nearly zero show it.
        """
        (forecast,), (truth,) = self.single, self.truth
        return np.subtract(forecast, truth).astype(np.float64)

    def anomalies(self) -> tuple[Array, Array]:
        """Return the departures of forecast and truth from the climatology, float64."""
        assert self.climatology is not None
        (forecast,), (truth,), (normal,) = self.single, self.truth, self.climatology
        return np.subtract(forecast, normal, dtype=np.float64), np.subtract(truth, normal, dtype=np.float64)


def _squared_error(case: Comparison) -> Array:
    if len(case.truth) == 1:
        return np.square(case.of("error"))
    pairs = zip(case.single, case.truth, strict=True)
    return sum(np.square(np.subtract(forecast, truth, dtype=np.float64)) for forecast, truth in pairs)


def _anomaly_product(case: Comparison) -> Array:
    # Kept together, since each needs both departures.
    departure, observed = case.anomalies()
    case._known["anomaly_product"] = departure * observed
    case._known["forecast_anomaly_square"] = np.square(departure, out=departure)
    case._known["truth_anomaly_square"] = np.square(observed, out=observed)
    return case._known["anomaly_product"]


def _anomaly_square(name: str) -> Callable[[Comparison], Array]:
    def of(case: Comparison) -> Array:
        case.of("anomaly_product")
        return case._known[name]

    return of


def _of_members(function: Callable[..., Array], *, truth: bool = True) -> Callable[[Comparison], Array]:
    """Return the integrand that a function of (members, truth) makes of a scalar."""

    def of(case: Comparison) -> Array:
        arguments = (*case.ensemble(), *(case.truth if truth else ()))
        return function(*arguments, skipna=case.skipna)

    return of


def _of_events(function: Callable[..., Array], **options: bool) -> Callable[[Comparison], Array]:
    """Return the integrand that a function of (members, truth, thresholds) makes; thresholds go before latitude."""

    def of(case: Comparison) -> Array:
        values = function(*case.ensemble(), *case.truth, case.limits.thresholds, skipna=case.skipna, **options)
        return np.moveaxis(values, 0, -3) if values.ndim > case.truth[0].ndim else values

    return of


def _rank_histogram(case: Comparison) -> Array:
    return ensembles.rank_histogram(*case.ensemble(), *case.truth, bins=case.bins)


def _seeps(case: Comparison) -> Array:
    (forecast,), (truth,), limits = case.single, case.truth, case.limits
    assert limits.heavy is not None
    assert limits.dry_probability is not None
    return seeps(forecast, truth, limits.heavy, limits.dry_probability, dry_threshold=limits.dry_threshold)


INTEGRANDS: dict[str, Callable[[Comparison], Array]] = {
    "error": Comparison.error,
    "absolute_error": lambda case: np.abs(case.of("error")),
    "squared_error": _squared_error,
    "anomaly_product": _anomaly_product,
    "forecast_anomaly_square": _anomaly_square("forecast_anomaly_square"),
    "truth_anomaly_square": _anomaly_square("truth_anomaly_square"),
    "crps": lambda case: case.of("crps_skill") - 0.5 * case.of("crps_spread"),
    "crps_skill": _of_members(ensembles.crps_skill),
    "crps_spread": _of_members(ensembles.crps_spread, truth=False),
    "ensemble_mean_mse": _of_members(ensembles.ensemble_mean_mse),
    "debiased_ensemble_mean_mse": _of_members(ensembles.debiased_ensemble_mean_mse),
    "ensemble_variance": _of_members(ensembles.ensemble_variance, truth=False),
    "rank_histogram": _rank_histogram,
    "brier_score": _of_events(ensembles.brier_score),
    "debiased_brier_score": _of_events(ensembles.brier_score, debias=True),
    "ignorance_score": _of_events(ensembles.ignorance_score),
    "rps": _of_events(ensembles.ranked_probability_score),
    "seeps": _seeps,
}
"""Integrands by name; `transforms.metrics` says which scores are made from them."""
