"""The configuration of a run: typed, checked before any work starts, and saved resolved in the run directory.

`pipeline.config_files` reads it. Each section is one class, here or, of the data, in `pipeline.config_data`; `dags.stages`
says which stage reads which section, and a stage runs again only when a section it reads has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveInt, model_validator

from model.nonlinearities import NONLINEARITIES
from pipeline.config_data import (
    ClimatologyConfig,
    DataConfig,
    PeriodsConfig,
    Section,
    SimulationConfig,
    SourceConfig,
)
from pipeline.redaction import hide
from transforms.metrics import METRICS
from transforms.variables import channel_names, fields_named, require_whole_winds

if TYPE_CHECKING:
    Nonlinearity = str
else:
    # What a table holds can be chosen; the type checker knows literals only where they are spelled out.
    Nonlinearity = Literal[tuple(NONLINEARITIES)]

__all__ = ["Config"]

_PERTURBATION = 0.2
"""Amplitude of perturbations that nothing else decides."""


class LevelConfig(Section):
    """One resolution of the spectral U-Net."""

    band_limit: Annotated[int, Field(ge=2)] = Field(description="degrees 0 .. band_limit - 1 are kept")
    scalars: PositiveInt = Field(description="scalar channels")
    vectors: Annotated[int, Field(ge=0)] = Field(description="tangent-vector channels")
    blocks: PositiveInt = Field(description="residual blocks on the way down and again on the way up")


class ModelConfig(Section):
    """The spherical CNN."""

    levels: Annotated[list[LevelConfig], Field(min_length=1, description="from the finest resolution to the coarsest")]
    hidden_grid: Literal["linear", "dealiased"] = Field(
        "linear", description="Gauss grid of the nonlinearity: as many latitudes as degrees, or half as many again"
    )
    filter_knots: PositiveInt | None = Field(None, description="knots of a localised filter; null: one per degree")
    nonlinearity: Nonlinearity = Field(
        "phase_collapse",
        description="at every point; phase_collapse: the paper's; products: with products of features, as advection is",
    )
    vector_gate: bool = Field(True, description="scale vectors by scalars; not of magnitude")
    residual: bool = Field(True, description="blocks add to what enters them, coefficient by coefficient")
    winds: Literal["vectors", "scalars"] = Field(
        "vectors", description="what pairs of wind components are to the network; two scalars know no rotation"
    )
    normalisation: Literal["sample", "batch", "none"] = Field(
        "sample", description="spectral normalisation before each block: by each sample's power, the batch's, or none"
    )
    mirror_symmetric: bool = Field(False, description="filters that commute with reflections too: no Coriolis force")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the products within residual blocks")
    standardisation: Literal["unified", "per_level"] = Field(
        "unified", description="share one standard deviation over a variable's levels, or one for each level"
    )
    input_steps: PositiveInt = Field(1, description="states given to the network, t, t - step, ...")
    inputs: list[str] = Field(
        default_factory=list,
        description="fields given to the network, as variable or variable@level; all by default. Others are diagnosed",
    )
    leads_hours: list[PositiveInt] = Field(
        default_factory=list,
        description="lead times of direct forecasts, one call of the network each; by default forecasts are iterated",
    )
    outputs: list[str] = Field(
        default_factory=list, description="fields that direct forecasts give, as in inputs; all by default"
    )
    solar: bool = Field(True, description="give top-of-atmosphere solar radiation as forcing")
    clock: bool = Field(True, description="give time of day and year as forcing")
    latitude: bool = Field(True, description="give sin(latitude) as static input")
    noise: Annotated[int, Field(ge=0)] = Field(
        0, description="random fields given beside the forcings, new for each member and step; for training.loss crps"
    )
    noise_length_km: Annotated[float, Field(gt=0)] = Field(1000.0, description="length of correlation of the noise")
    remat: bool | Literal["products"] = Field(
        True,
        description="recompute each rollout step's activations in the backward pass; products: keep matrix products",
    )

    @model_validator(mode="after")
    def _descending(self) -> ModelConfig:
        limits = [level.band_limit for level in self.levels]
        if limits != sorted(set(limits), reverse=True):
            raise ValueError(f"levels: expected band limits that decrease, got {limits}")
        return self

    @model_validator(mode="after")
    def _direct(self) -> ModelConfig:
        if self.leads_hours != sorted(set(self.leads_hours)):
            raise ValueError(f"leads_hours: expected ascending lead times, got {self.leads_hours}")
        if self.outputs and not self.leads_hours:
            raise ValueError(
                "outputs: a forecast step by step needs all fields to go on from. Remove it, or give leads_hours for "
                "direct forecasts"
            )
        return self


class RolloutStage(Section):
    """One stage of the curriculum."""

    steps: PositiveInt = Field(description="model steps unrolled in the loss")
    updates: PositiveInt = Field(description="optimiser updates")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak of the cosine schedule")


class TrainingConfig(Section):
    """The optimiser and its curriculum."""

    stages: Annotated[list[RolloutStage], Field(min_length=1, description="the curriculum, one stage after the other")]
    loss: Literal["mse", "crps"] = Field(
        "mse", description="mean square error, or the fair CRPS of several members, of a network with noise"
    )
    members: PositiveInt = Field(1, description="forecasts of each window that the CRPS is taken over")
    batch_size: PositiveInt = Field(2, description="windows of an update, over all devices")
    seed: int = Field(0, description="of the initial parameters, the order of windows and the noise")
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(0.03, description="of each stage's updates")
    optimizer: Literal["adamw", "nadamw"] = Field("adamw", description="nadamw: with Nesterov momentum")
    beta2: Annotated[float, Field(gt=0, lt=1)] = Field(0.99, description="decay of AdamW's second moments")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="decoupled, of AdamW")
    clip_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="largest norm of the gradient; it is scaled down")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.995, description="0 keeps the raw parameters")
    variable_weights: dict[str, float] = Field(default_factory=dict, description="loss weight by variable; default 1")
    level_weights: dict[int, float] = Field(default_factory=dict, description="loss weight by level, hPa; default 1")
    lead_weights: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list,
        description="loss weight of the first, second ... model step of a rollout; the last holds for all later ones",
    )
    accumulate: PositiveInt | None = Field(
        None, description="parts of a batch worked on one after the other, to need less memory; null: 1"
    )
    sphere: PositiveInt = Field(1, description="devices that share a sphere; the others share the batch")
    validate_every: PositiveInt = Field(500, description="updates between validation losses")
    validation_windows: PositiveInt = Field(32, description="windows of the validation period that are used")
    validation_forecasts: Annotated[int, Field(ge=0)] = Field(
        4, description="initial times of the validation period forecast for 5 days at each validation; 0: none"
    )
    checkpoint_every: PositiveInt = Field(500, description="updates between checkpoints")
    keep_checkpoints: PositiveInt = Field(2, description="latest checkpoints kept")
    keep_every: PositiveInt | None = Field(
        None, description="also keep those whose number of updates is a multiple of this"
    )
    keep_best: Annotated[int, Field(ge=0)] = Field(1, description="also keep so many of the smallest validation loss")
    rollback_after: PositiveInt = Field(
        5,
        description="updates skipped in a row, since loss or gradient was not finite, before going back to a checkpoint",
    )
    rollback_limit: Annotated[int, Field(ge=0)] = Field(2, description="times to go back before training stops")
    skip_limit: Annotated[int, Field(ge=0)] = Field(100, description="updates skipped in all before training stops")

    def lead_weight(self, step: int) -> float:
        """Return the loss weight of a step of a rollout, from 0."""
        return self.lead_weights[min(step, len(self.lead_weights) - 1)] if self.lead_weights else 1.0


class PerturbationConfig(Section):
    """What is added to the initial states of an ensemble's members: isotropic Gaussian random fields."""

    amplitude: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="root mean square, as a fraction of the spread of `relative_to`; null: 0.2, or 0 where the network "
        "takes noise",
    )
    amplitudes: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="the same by variable, in place of amplitude"
    )
    relative_to: Literal["tendency", "state"] = Field(
        "tendency", description="spread of the change over a model step, or of states, in the training period"
    )
    spectrum: Literal["gaussian", "power_law"] = Field(
        "gaussian", description="power by degree: of a Gaussian correlation, or a power of the degree"
    )
    length_km: Annotated[float, Field(gt=0)] = Field(1000.0, description="length of correlation, of gaussian")
    slope: float = Field(-3.0, description="exponent of the power by degree, of power_law")
    lowest_degree: PositiveInt = Field(1, description="degree below which there is no power")
    divergent: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="share of a wind's power that is divergent; the rest is rotational"
    )
    seed: int = Field(0, description="of the random fields, and of the noise of a network that takes some")

    def resolved(self, *, noise: bool) -> PerturbationConfig:
        """Return the settings with an amplitude, for networks with noise or without."""
        amplitude = (0.0 if noise else _PERTURBATION) if self.amplitude is None else self.amplitude
        return self.model_copy(update={"amplitude": amplitude})

    @property
    def perturbs(self) -> bool:
        """Whether anything is added to any variable, once there is an amplitude."""
        return bool(self.amplitude) or any(self.amplitudes.values())


class ForecastConfig(Section):
    """Which forecasts are made."""

    lead_hours: PositiveInt = Field(120, description="longest lead time")
    every_hours: PositiveInt = Field(12, description="interval between initial times in periods.test")
    batch_size: PositiveInt = Field(8, description="initial times integrated together")
    variables: list[str] | None = Field(None, description="variables written; all by default")
    members: PositiveInt = Field(
        1, description="members of an ensemble from each checkpoint, the first not perturbed; 1: no ensemble"
    )
    checkpoints: Annotated[list[Literal["latest", "best"] | PositiveInt], Field(min_length=1)] = Field(
        default_factory=lambda: ["latest"],  # type: ignore[arg-type]  # a lambda's list has no literals
        description="latest, best or numbers of updates; several make members of an ensemble",
    )
    perturbation: PerturbationConfig = PerturbationConfig()


class EvaluationConfig(Section):
    """Which scores are computed (definitions: WeatherBench 2)."""

    metrics: Annotated[list[str], Field(min_length=1)] = Field(
        default_factory=lambda: ["rmse", "mse", "mae", "bias", "acc"], description="names in docs/evaluation.md"
    )
    ensemble_metrics: list[str] = Field(
        default_factory=lambda: ["crps", "ensemble_stddev", "spread_skill_ratio", "rank_histogram", "energy_score"],
        description="further metrics of forecasts with members",
    )
    regions: Annotated[list[str], Field(min_length=1)] = Field(
        default_factory=lambda: ["global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere"],
        description="names in docs/evaluation.md",
    )
    skipna: bool = Field(False, description="leave missing points out of averages; else an average is missing too")
    against: list[Literal["persistence", "climatology"]] = Field(
        default_factory=lambda: ["persistence", "climatology"],  # type: ignore[arg-type]  # a lambda's list has no literals
        description="baselines that skill is taken against",
    )
    block_hours: Annotated[float, Field(gt=0)] = Field(
        72.0, description="length of the blocks of initial times that intervals of skill are resampled by"
    )
    resamples: PositiveInt = Field(1000, description="draws of an interval of skill")
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, description="of the climatology: thresholds of brier_score, ignorance_score and rps"
    )
    threshold_method: Literal["quantile", "gaussian_quantile"] = Field(
        "quantile", description="thresholds from the climatology's quantiles, or from its mean and spread"
    )
    map_hours: list[PositiveInt] = Field(
        default_factory=lambda: [24, 72, 120], description="lead times of maps of rmse, bias and skill"
    )
    spectra_hours: list[PositiveInt] = Field(
        default_factory=lambda: [24, 72, 120], description="lead times of spectra, coherence and effective resolution"
    )
    spectra_times: PositiveInt = Field(40, description="most initial times that spectra are averaged over")

    @model_validator(mode="after")
    def _known_metrics(self) -> EvaluationConfig:
        for name in (*self.metrics, *self.ensemble_metrics):
            if name not in METRICS:
                raise ValueError(f"metrics: {name} is not known; known are {', '.join(METRICS)}")
            if METRICS[name].needs == ("quantiles",) and not self.quantiles:
                raise ValueError(f"metrics: {name} needs evaluation.quantiles, e.g. [0.1, 0.9]")
        return self


class ReportConfig(Section):
    """What the report shows first."""

    title: str | None = Field(None, description="of the page; made from the run by default")
    headline: list[str] = Field(
        default_factory=list, description="fields of the scorecard, as variable or variable@level; chosen when empty"
    )


class ExecutionConfig(Section):
    """How the work is done. Nothing here changes a result, so nothing here makes a stage run again."""

    beam: list[str] = Field(default_factory=lambda: ["--runner=DirectRunner"], description="Apache Beam options")
    memory_mb: Annotated[int, Field(ge=64)] = Field(
        1024, description="data in flight at once in a process of a Beam job"
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        4, description="further attempts at a read of a remote source that failed"
    )
    loader_memory_mb: PositiveInt = Field(1024, description="memory the training loader may keep decoded data in")
    share_results: bool = Field(
        True, description="take over what a run in the same folder has made from the same settings and inputs"
    )


_YAML: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 100}


class Config(Section):
    """Everything a run needs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run, and of its folder")]
    description: str = Field("", description="one line for a person")
    source: SourceConfig = SourceConfig()
    simulation: SimulationConfig = SimulationConfig()
    data: DataConfig
    periods: PeriodsConfig = PeriodsConfig()
    climatology: ClimatologyConfig = ClimatologyConfig()
    model: ModelConfig
    training: TrainingConfig
    forecast: ForecastConfig = ForecastConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        step = self.data.time_step_hours
        for key in ("lead_hours", "every_hours"):
            hours = getattr(self.forecast, key)
            if hours % step:
                raise ValueError(f"forecast.{key}: {hours} h is not a whole number of {step} h model steps")
        for key, names in (
            ("variables", self.forecast.variables or []),
            ("perturbation.amplitudes", self.forecast.perturbation.amplitudes),
        ):
            for name in names:
                if name not in self.data.variables:
                    raise ValueError(f"forecast.{key}: {name} is not among data.variables")
        training = self.training
        if training.lead_weights and not all(
            sum(training.lead_weight(step) for step in range(stage.steps)) > 0 for stage in training.stages
        ):
            raise ValueError("training.lead_weights: every stage needs a step of positive weight")
        if training.batch_size % (training.accumulate or 1):
            raise ValueError(
                f"training.accumulate: {training.accumulate} does not divide training.batch_size {training.batch_size}"
            )
        self._require_direct_to_fit()
        self._require_fields_to_fit()
        self._require_noise_to_fit()
        for name in self.training.variable_weights:
            if name not in self.data.variables:
                raise ValueError(f"training.variable_weights: {name} is not among data.variables")
        finest = self.model.levels[0].band_limit
        grid = self.data.grid
        limit = min(grid.latitude - (1 if grid.poles else 0), grid.longitude // 2)
        if finest > limit:
            raise ValueError(
                f"model.levels[0].band_limit: {finest} is more than the data grid of {grid.latitude} x {grid.longitude} "
                f"determines; use at most {limit}"
            )
        return self

    def _require_direct_to_fit(self) -> None:
        leads, step = self.model.leads_hours, self.data.time_step_hours
        wrong = [lead for lead in leads if lead % step]
        if wrong:
            raise ValueError(f"model.leads_hours: {wrong[0]} h is not a whole number of {step} h steps of the data")
        longer = [stage.steps for stage in self.training.stages if leads and stage.steps > 1]
        if longer:
            raise ValueError(
                f"training.stages: {longer[0]} steps, but with model.leads_hours every forecast is one call; use 1"
            )
        if leads and leads[0] > self.forecast.lead_hours:
            raise ValueError(
                f"forecast.lead_hours: {self.forecast.lead_hours} h is before the first of model.leads_hours, {leads[0]} h"
            )

    def _require_fields_to_fit(self) -> None:
        fields = channel_names(self.data.variables, self.data.levels)
        predicted = set()
        for key, names in (("model.inputs", self.model.inputs), ("model.outputs", self.model.outputs)):
            chosen = [fields[i] for i in fields_named(fields, names, key)]
            if self.model.winds == "vectors":
                require_whole_winds(chosen, key)
            predicted = {name for name, _ in chosen}
        lacking = [name for name in self.forecast.variables or [] if name not in predicted]
        if lacking:
            raise ValueError(
                f"forecast.variables: {lacking[0]} is not among model.outputs; add it there, or leave it out"
            )

    def _require_noise_to_fit(self) -> None:
        noise, loss, members = self.model.noise, self.training.loss, self.training.members
        if loss == "mse" and members > 1:
            raise ValueError(
                f"training.members: {members}, but training.loss is mse, which takes 1. Set training.loss to crps"
            )
        if loss == "mse" and noise:
            raise ValueError(
                f"model.noise: {noise}, but training.loss is mse, which teaches a network to ignore noise; expected 0. "
                "Set training.loss to crps"
            )
        if loss == "crps" and members < 2:
            raise ValueError(
                f"training.members: {members}, but training.loss is crps, which needs 2 or more. Set it to 2"
            )
        if loss == "crps" and not noise:
            raise ValueError(
                "model.noise: 0, but training.loss is crps, and without noise all members are the same; expected 1 or "
                "more. Set it to 1"
            )

    def to_yaml(self, *, shown: bool = False) -> str:
        """Return the resolved configuration, every key spelled out; without credentials where it is to be `shown`."""
        return yaml.safe_dump(self.shown() if shown else self.model_dump(mode="json"), **_YAML)

    def shown(self) -> dict[str, Any]:
        """Return the resolved configuration as JSON can hold it, without credentials."""
        return hide(self.model_dump(mode="json"))

    @property
    def holds_credentials(self) -> bool:
        """Whether credentials are written out in it; a ``${NAME}`` in their place is none."""
        return self.shown() != self.model_dump(mode="json")
