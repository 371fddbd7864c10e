"""What is asked of a scoring: stores, metrics, regions, what is selected, and how averages are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transforms.errors import InputError
from transforms.forecast_statistics import has_map, statistics_for
from transforms.metrics import METRICS, require_metrics
from transforms.selections import Selection

__all__ = ["BASELINES", "ENSEMBLE_METRICS", "Bootstrap", "Request", "default_metrics"]

BASELINES = ("persistence", "climatology")
"""Forecasts made of the truth at the initial time, and of the climatology at the valid time."""

ENSEMBLE_METRICS = (
    "rmse",
    "mae",
    "bias",
    "acc",
    "crps",
    "crps_skill",
    "crps_spread",
    "ensemble_mean_mse",
    "debiased_ensemble_mean_mse",
    "ensemble_variance",
    "ensemble_stddev",
    "spread_skill_ratio",
    "energy_score",
)
"""Scores of an ensemble where nobody says which."""
_SINGLE_METRICS = ("rmse", "mse", "mae", "bias", "acc")


def default_metrics(*, members: bool, climatology: bool, maps: bool = False) -> list[str]:
    """Return the usual scores that a climatology, or its absence, allows, and that have maps if these are asked for."""
    chosen = ENSEMBLE_METRICS if members else _SINGLE_METRICS
    return [
        name
        for name in chosen
        if (climatology or "climatology" not in METRICS[name].needs) and (has_map(name) or not maps)
    ]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals of skill and scores are made; see `transforms.bootstrap`.

    Attributes:
        block_hours: length of a block of initial times.
        resamples: draws.
        confidence: of the intervals.
        seed: of the draws.
        most_blocks: where there would be more, blocks are longer, so that memory does not grow with initial times.
    """

    block_hours: float = 72.0
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    most_blocks: int = 64


@dataclass(frozen=True)
class Request:
    """A scoring of one or several forecasts against one truth.

    Attributes:
        forecast, truth, climatology: paths or addresses of stores.
        systems: what is scored: ``model`` is the store, and `BASELINES`; all at the store's initial and lead times.
        others: further forecasts of the same initial and lead times, by name; baselines of `against`.
        against: names of baselines or of `others` that the skill of `systems` is taken against.
        metrics: names of `transforms.metrics.METRICS`.
        regions: names of `transforms.regions`.
        average: ``mean`` over initial times and regions, ``temporal``: over regions alone, ``spatial``: over initial
            times alone.
        skipna: leave missing points, members and forecasts out of averages; otherwise one makes its average missing.
        by_valid: the forecast's axis time holds valid times instead of initial times.
        initial_times, leads: of the forecast that are scored; all by default. By valid time the first are valid times.
        variables, levels: that are scored; all by default.
        quantiles: of the climatology, the thresholds of events.
        threshold_method: ``quantile`` of the climatology, or ``gaussian_quantile`` of its mean and spread.
        bins: of rank histograms.
        bootstrap: how intervals are made.
        bands: give the scores that the report draws, those with a title, an interval as well, and keep the sums of each
            block, so that forecasts of several results can be compared in pairs; see `pipeline.scoring.bands`.
    """

    forecast: str
    truth: str
    climatology: str | None = None
    systems: tuple[str, ...] = ("model",)
    others: Mapping[str, str] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    regions: tuple[str, ...] = ("global",)
    average: Literal["mean", "temporal", "spatial"] = "mean"
    skipna: bool = False
    by_valid: bool = False
    initial_times: Selection | None = None
    leads: Selection | None = None
    variables: tuple[str, ...] | None = None
    levels: tuple[float, ...] | None = None
    quantiles: tuple[float, ...] = ()
    threshold_method: Literal["quantile", "gaussian_quantile"] = "quantile"
    bins: int | None = None
    bootstrap: Bootstrap = Bootstrap()
    bands: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without the stores.

        Raises:
            InputError: an unknown metric, system or baseline, or something that another option needs.
        """
        require_metrics(self.metrics)
        taken = [name for name in ("model", *BASELINES) if name in self.others]
        if taken:
            raise InputError(f"{taken[0]!r}: names a forecast of its own here. Give the other store another name.")
        known = ("model", *BASELINES, *self.others)
        for name in (*self.systems, *self.against):
            if name not in known:
                raise InputError(f"{name!r}: no such forecast; known are {', '.join(known)}.")
        needs = {need: name for name in self.metrics for need in METRICS[name].needs}
        if "climatology" in (*self.systems, *self.against):
            needs["climatology"] = "the forecast climatology"
        for need in ("climatology", "seeps", "quantiles"):
            if need in needs and self.climatology is None:
                raise InputError(
                    f"{needs[need]}: needs a climatology. Give one, or leave {needs[need].split()[-1]} out of the metrics."
                )
        if "quantiles" in needs and not self.quantiles:
            raise InputError(f"{needs['quantiles']}: needs quantiles, e.g. 0.1,0.9. Give some, or leave it out.")
        if not all(0 < level < 1 for level in self.quantiles) or list(self.quantiles) != sorted(set(self.quantiles)):
            raise InputError(f"quantiles: got {list(self.quantiles)}; expected ascending levels between 0 and 1.")
        if self.average == "spatial":
            without = [name for name in self.metrics if not has_map(name)]
            if without:
                raise InputError(f"{without[0]}: has no map, since it is no average over points. Leave it out.")
        if self.bands and self.average != "mean":
            raise InputError(
                "bands: are taken of averages over forecasts and regions. Leave them out of other results."
            )
        if self.against and self.average == "temporal":
            raise InputError("against: skill is not taken of single forecasts. Leave it out, or average over them.")

    @property
    def computed(self) -> tuple[str, ...]:
        """Every forecast that is compared with the truth: those scored and the baselines of their skill."""
        return tuple(dict.fromkeys((*self.systems, *self.against)))

    def statistics_of(self, system: str, variable: str, *, vector: bool) -> list[str]:
        """Return the statistics of a variable, or of the wind of which it is the eastward component, that are averaged."""
        names = statistics_for(self.metrics, vector=vector, variable=variable) if system in self.systems else []
        if self.against and self.average == "spatial" and "squared_error" not in names:
            names.append("squared_error")
        return names
