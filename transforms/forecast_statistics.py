"""Statistics of forecasts: one value for each forecast and region, from regional means of integrands.

The anomaly correlation (ACC) is uncentred and taken for each forecast before averaging:
<f'o'> / sqrt(<f'^2> <o'^2>), with anomalies from the climatology at the valid time. The metric ``acc_pooled`` averages
the three means over forecasts first, as WeatherBench-X does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.averaging import RegionalMean
from transforms.comparison import INTEGRANDS, Comparison
from transforms.ensemble_metrics import energy_skill, energy_spread
from transforms.metrics import METRICS, correlation

__all__ = ["STATISTICS", "Statistic", "has_map", "has_vector", "own_axis", "statistics_for"]

Array = np.ndarray


@dataclass(frozen=True)
class Statistic:
    """What is averaged over forecasts.

    Attributes:
        integrand: whose regional mean it is, and whose values its map has; None where it is no linear average.
        regional: makes it from a comparison and a regional mean, shape (region, ...); the integrand's mean by default.
        vector: whether winds have it.
        axis: name of an axis of its own, the last: ``quantile`` or ``bins``.
    """

    integrand: str | None = None
    regional: Callable[[Comparison, RegionalMean], Array] | None = None
    vector: bool = False
    axis: str | None = None

    def of(self, case: Comparison, mean: RegionalMean) -> Array:
        """Return the statistic of every forecast in each region, float64, (region, ..., [own axis])."""
        if self.regional is not None:
            return self.regional(case, mean)
        return mean(self._integrand(case))

    def at_points(self, case: Comparison) -> Array:
        """Return the statistic at every point, float64, (..., latitude, longitude, [own axis])."""
        values = np.asarray(self._integrand(case), np.float64)
        return values if self.axis is None else np.moveaxis(values, -3, -1)

    def _integrand(self, case: Comparison) -> Array:
        assert self.integrand is not None
        return case.of(self.integrand)


def _anomaly_correlation(case: Comparison, mean: RegionalMean) -> Array:
    names = ("anomaly_product", "forecast_anomaly_square", "truth_anomaly_square")
    return correlation(*(mean(case.of(name)) for name in names))


def _root(integrand: str) -> Callable[[Comparison, RegionalMean], Array]:
    return lambda case, mean: np.sqrt(mean(case.of(integrand)))


def _crps(case: Comparison, mean: RegionalMean) -> Array:
    return mean(case.of("crps_skill")) - 0.5 * mean(case.of("crps_spread"))


def _energy_score(case: Comparison, mean: RegionalMean) -> Array:
    return _energy_skill(case, mean) - 0.5 * _energy_spread(case, mean)


def _energy_skill(case: Comparison, mean: RegionalMean) -> Array:
    return energy_skill(case.ensemble(), case.truth, mean, skipna=case.skipna)


def _energy_spread(case: Comparison, mean: RegionalMean) -> Array:
    return energy_spread(case.ensemble(), mean, skipna=case.skipna)


STATISTICS: dict[str, Statistic] = {
    # The regional mean of any integrand is one of the same name, unless it is named below.
    **{name: Statistic(name) for name in INTEGRANDS},
    "squared_error": Statistic("squared_error", vector=True),
    "root_mean_squared_error": Statistic(regional=_root("squared_error"), vector=True),
    "anomaly_correlation": Statistic(regional=_anomaly_correlation),
    "crps": Statistic("crps", _crps),
    "energy_score": Statistic(regional=_energy_score, vector=True),
    "energy_skill": Statistic(regional=_energy_skill, vector=True),
    "energy_spread": Statistic(regional=_energy_spread, vector=True),
    "root_ensemble_mean_mse": Statistic(regional=_root("ensemble_mean_mse")),
    "root_ensemble_variance": Statistic(regional=_root("ensemble_variance")),
    "rank_histogram": Statistic("rank_histogram", axis="bins"),
    "brier_score": Statistic("brier_score", axis="quantile"),
    "debiased_brier_score": Statistic("debiased_brier_score", axis="quantile"),
    "ignorance_score": Statistic("ignorance_score", axis="quantile"),
    # Climates that are too dry or too wet have no score, whatever becomes of missing values elsewhere.
    "seeps": Statistic("seeps", lambda case, mean: mean(case.of("seeps"), skipna=True)),
}
"""Statistics by name."""


def has_vector(metric: str) -> bool:
    """Whether winds have this metric as vectors."""
    return all(STATISTICS[name].vector for name in METRICS[metric].statistics)


def has_map(metric: str) -> bool:
    """Whether this metric has a map."""
    return all(STATISTICS[name].integrand is not None for name in METRICS[metric].statistics)


def own_axis(metric: str) -> str | None:
    """Return the name of an axis that this metric has of its own."""
    return STATISTICS[METRICS[metric].statistics[0]].axis


def statistics_for(metrics: Sequence[str], *, vector: bool = False, variable: str | None = None) -> list[str]:
    """Return the statistics that `metrics` are made from, each once; with `vector` those of wind vectors.

    Args:
        variable: leave out what belongs to another variable.
    """
    wanted = [
        METRICS[name]
        for name in metrics
        if (has_vector(name) or not vector) and METRICS[name].variable in (None, variable)
    ]
    return list(dict.fromkeys(name for metric in wanted for name in metric.statistics))
