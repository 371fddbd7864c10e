"""Scores, number for number those of WeatherBench 2 where it has them: what each is made from.

Three steps, kept apart so that parts of a long evaluation combine exactly:

- an integrand is a field at each point, e.g. the squared error (`transforms.comparison`);
- a statistic is one value for each forecast and region, made from regional means of integrands
  (`transforms.forecast_statistics`); statistics are averaged over forecasts (`transforms.averaging.RunningMean`);
- a metric is a function of averaged statistics: ``rmse`` is the root of the averaged ``squared_error``.

docs/evaluation.md has every formula. This table is read by every command, so it brings NumPy only when a score is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transforms.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["METRICS", "Metric", "correlation", "require_metrics", "vector_name"]


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        statistics: whose averages it is made from.
        finish: makes it from these.
        needs: what must be given, some of ``climatology``, ``quantiles``, ``seeps``.
        variable: the only variable that has it; all by default.
        counts: it is the number of forecasts that entered the average instead.
        title: heading of its curves in the report, which leaves out those without.
        dimensionless: it has no units, whatever the variable's.
    """

    statistics: tuple[str, ...]
    finish: Callable[..., np.ndarray] = lambda average: average
    needs: tuple[str, ...] = ()
    variable: str | None = None
    counts: bool = False
    title: str | None = None
    dimensionless: bool = False


def root(average: np.ndarray) -> np.ndarray:
    """Return the square root."""
    return average**0.5


def correlation(product: np.ndarray, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean product over the root of the mean squares; NaN where there is no anomaly."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return product / np.sqrt(forecast * truth)


def _root_of_ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from transforms.ensemble_metrics import spread_skill_ratio

    return spread_skill_ratio(first, second)


_CLIMATOLOGY = ("climatology",)
_QUANTILES = ("quantiles",)
_ANOMALY_SQUARES = ("forecast_anomaly_square", "truth_anomaly_square")

METRICS: dict[str, Metric] = {
    "rmse": Metric(("squared_error",), root, title="RMSE"),
    "mse": Metric(("squared_error",)),
    "mae": Metric(("absolute_error",), title="Mean absolute error"),
    "bias": Metric(("error",), title="Bias"),
    "acc": Metric(("anomaly_correlation",), needs=_CLIMATOLOGY, title="Anomaly correlation", dimensionless=True),
    "rmse_sqrt_before_time_avg": Metric(("root_mean_squared_error",)),
    "acc_pooled": Metric(("anomaly_product", *_ANOMALY_SQUARES), correlation, needs=_CLIMATOLOGY),
    "activity": Metric(("forecast_anomaly_square",), root, needs=_CLIMATOLOGY),
    "activity_ratio": Metric(_ANOMALY_SQUARES, _root_of_ratio, needs=_CLIMATOLOGY),
    "count": Metric(("squared_error",), counts=True),
    "crps": Metric(("crps",), title="CRPS"),
    "crps_skill": Metric(("crps_skill",)),
    "crps_spread": Metric(("crps_spread",)),
    "energy_score": Metric(("energy_score",)),
    "energy_score_skill": Metric(("energy_skill",)),
    "energy_score_spread": Metric(("energy_spread",)),
    "ensemble_mean_mse": Metric(("ensemble_mean_mse",)),
    "debiased_ensemble_mean_mse": Metric(("debiased_ensemble_mean_mse",)),
    "ensemble_mean_rmse": Metric(("ensemble_mean_mse",), root),
    "ensemble_mean_rmse_sqrt_before_time_avg": Metric(("root_ensemble_mean_mse",)),
    "ensemble_variance": Metric(("ensemble_variance",)),
    "ensemble_stddev": Metric(("ensemble_variance",), root, title="Ensemble spread"),
    "ensemble_stddev_sqrt_before_time_avg": Metric(("root_ensemble_variance",)),
    "spread_skill_ratio": Metric(
        ("ensemble_variance", "debiased_ensemble_mean_mse"),
        _root_of_ratio,
        title="Spread over skill",
        dimensionless=True,
    ),
    "rank_histogram": Metric(("rank_histogram",)),
    "brier_score": Metric(("brier_score",), needs=_QUANTILES),
    "debiased_brier_score": Metric(("debiased_brier_score",), needs=_QUANTILES),
    "ignorance_score": Metric(("ignorance_score",), needs=_QUANTILES),
    "rps": Metric(("rps",), needs=_QUANTILES),
    "seeps_24hr": Metric(("seeps",), needs=("seeps",), variable="total_precipitation_24hr"),
    "seeps_6hr": Metric(("seeps",), needs=("seeps",), variable="total_precipitation_6hr"),
}
"""Metrics by name, the names of WeatherBench 2 where it has them."""


def require_metrics(names: Iterable[str]) -> None:
    """Raise InputError for the first name that is no metric."""
    for name in names:
        if name not in METRICS:
            raise InputError(f"metric {name!r}: not known; known are {', '.join(METRICS)}.")


def vector_name(eastward: str) -> str:
    """Return WeatherBench 2's name of the vector with this eastward component, e.g. ``10m_wind_vector``."""
    return eastward.replace("u_component_of_wind", "wind_vector")
