"""Stage `train`: the spherical network, trained over a curriculum of rollouts."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from flax import nnx
from tensorboardX import SummaryWriter

from model.training import Batch, LossWeights, Trainer, TrainState, learning_rate_schedule, loss_weights
from pipeline.artefacts import describe, publishing, require, write_description
from pipeline.checkpoints import CheckpointStore, ForecasterSpec
from pipeline.config import Config, RolloutStage, TrainingConfig
from pipeline.layout import StateLayout, normalisation
from pipeline.progress import Progress, progress
from pipeline.runs import Run
from pipeline.stores import description_of, grid_of, open_store, valid_times
from pipeline.windows import StateReader, WindowSource, batches, fixed_batches, window_starts
from transforms.errors import InputError
from transforms.forcings import forcing_fields

__all__ = ["TRAINING_LOG", "run_stage", "static_inputs"]

logger = logging.getLogger(__name__)

TRAINING_LOG = "training.jsonl"
_IDENTITY = "training.json"
_LOG_EVERY = 20


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Train and publish ``checkpoints/``; an interrupted training goes on from its latest checkpoint."""
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    require(run.statistics, "statistics", "run `spherecast preprocess` first")
    config = run.config
    data = TrainingData(run)
    with publishing(run.checkpoints, keep_partial=True) as partial:
        _start_or_resume(partial, fingerprint)
        data.spec.save(partial)
        train(
            data,
            config.training,
            partial,
            tensorboard=run.logs / "tensorboard",
        )
        description = describe(
            "checkpoint",
            fingerprint,
            inputs,
            simulated=data.simulated,
            grid=str(data.spec.grid),
            time_step_hours=config.data.time_step_hours,
            parameters=_count_parameters(data.spec),
            training_windows=data.window_count(config.training.stages[0].steps),
        )
        write_description(partial, description)


class TrainingData:
    """What training reads: the specification of the forecaster, and windows of each period."""

    def __init__(self, run: Run) -> None:
        """Read statistics and coordinates.

        Raises:
            InputError: variables, levels or periods that the store or the statistics lack.
        """
        self.config: Config = run.config
        dataset = open_store(run.training_store, "training store")
        self.simulated = bool(description_of(dataset).get("simulated", False))
        self.times, self.valid = dataset.time.values, valid_times(dataset)
        layout = StateLayout.of(self.config)
        statistics = xr.load_dataset(run.statistics, engine="netcdf4")
        grid = grid_of(dataset)
        names, fields = static_inputs(self.config, dataset, statistics)
        self.spec = ForecasterSpec(
            layout,
            grid,
            self.config.data.time_step_hours,
            self.config.model,
            normalisation(layout, statistics, unified=self.config.model.standardisation == "unified"),
            names,
            fields,
        )
        self._reader = StateReader(run.training_store, layout, self.config.execution.loader_memory_mb)

    def windows(self, period_name: str, steps: int) -> WindowSource:
        """Return the windows of a period for rollouts of `steps`."""
        period = getattr(self.config.periods, period_name)
        model, grid = self.config.model, self.spec.grid
        step = np.timedelta64(self.config.data.time_step_hours, "h")
        starts = window_starts(self.times, self.valid, model.input_steps + steps, step, period)
        return WindowSource(
            self._reader,
            self.times,
            starts,
            input_steps=model.input_steps,
            steps=steps,
            forcing=lambda times: forcing_fields(times, grid, solar=model.solar, clock=model.clock),
        )

    def window_count(self, steps: int) -> int:
        """Return how many training windows there are for rollouts of `steps`."""
        return len(self.windows("train", steps))

    def weights(self) -> LossWeights:
        """Return the loss weights by latitude and channel."""
        training = self.config.training
        channel = [
            training.variable_weights.get(name, 1.0) * training.level_weights.get(level, 1.0)
            for name, level in self.spec.layout.fields
        ]
        return loss_weights(self.spec.grid.latitude_weights(), np.array(channel))


def static_inputs(config: Config, dataset: xr.Dataset, statistics: xr.Dataset) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names and normalised fields (static, latitude, longitude) of the time-independent inputs.

    Raises:
        InputError: a static variable is missing from the training store.
    """
    grid = grid_of(dataset)
    names, fields = [], []
    for name in config.data.statics:
        if name not in dataset:
            raise InputError(f"{name}: missing from the training store. Remove it from data.statics or prepare again.")
        mean, std = (float(statistics[name].sel(statistic=key)) for key in ("mean", "std"))
        names.append(name)
        fields.append((dataset[name].values - mean) / (std if std > 0 else 1.0))
    if config.model.latitude:
        names.append("sin_latitude")
        fields.append(np.broadcast_to(np.sin(np.deg2rad(grid.latitude))[:, None], grid.shape))
    return tuple(names), np.array(fields, np.float32).reshape(len(fields), *grid.shape)


def train(data: TrainingData, settings: TrainingConfig, directory: Path, *, tensorboard: Path) -> None:
    """Run the curriculum from the latest checkpoint in `directory` to its end.

    Args:
        directory: holds the checkpoints and ``training.jsonl``.
        tensorboard: folder for event files.

    Raises:
        InputError: the training period has no window for some stage.
        FloatingPointError: the loss is not finite.
    """
    forecaster = data.spec.build(settings.seed)
    weights = data.weights()
    total = sum(stage.updates for stage in settings.stages)
    sources = [data.windows("train", stage.steps) for stage in settings.stages]
    for index, source in enumerate(sources):
        if len(source) == 0:
            raise InputError(
                f"training.stages[{index}]: {settings.stages[index].steps} steps need {settings.stages[index].steps + 1} "
                "consecutive valid times, and periods.train has none. Extend the period, or use fewer steps."
            )
    store = CheckpointStore(directory)
    resumed = store.latest()
    position = store.restore_progress(resumed) if resumed is not None else {"stage": 0, "in_stage": 0, "loader": None}
    log = _TrainingLog(directory / TRAINING_LOG, tensorboard, upto=resumed or 0)
    state: TrainState | None = None
    with progress("train", total) as bar:
        bar.update(resumed or 0, "compiling")
        for index in range(position["stage"], len(settings.stages)):
            stage = settings.stages[index]
            schedule = learning_rate_schedule(stage.learning_rate, stage.updates, settings.warmup_fraction)
            trainer = Trainer(
                forecaster,
                weights,
                schedule,
                beta2=settings.beta2,
                weight_decay=settings.weight_decay,
                clip_norm=settings.clip_norm,
                ema_decay=settings.ema_decay,
            )
            iterator = batches(sources[index], settings.batch_size, settings.seed + index)
            if state is None:
                state = trainer.init(nnx.state(forecaster, nnx.Param))
                if resumed is not None:
                    state = store.restore(resumed, state)
                    logger.info("resumed after %d of %d updates", resumed, total)
            if index == position["stage"] and position["in_stage"] > 0:
                iterator.set_state(position["loader"])
            else:
                state = trainer.restart(state)
            validation = data.windows("validation", stage.steps) if data.config.periods.validation else None
            state = _Stage(index, stage, trainer, schedule, iterator, validation, settings, store, log, bar).run(
                state, position["in_stage"] if index == position["stage"] else 0
            )
    store.close()
    log.close()


class _Stage:
    """The updates of one stage of the curriculum."""

    def __init__(
        self,
        index: int,
        stage: RolloutStage,
        trainer: Trainer,
        schedule: Callable[[Any], Any],
        iterator: Any,
        validation: WindowSource | None,
        settings: TrainingConfig,
        store: CheckpointStore,
        log: _TrainingLog,
        bar: Progress,
    ) -> None:
        self.index, self.stage, self.trainer, self.schedule = index, stage, trainer, schedule
        self.iterator, self.validation, self.settings = iterator, validation, settings
        self.store, self.log, self.bar = store, log, bar
        self._since = (time.perf_counter(), 0)

    def run(self, state: TrainState, done: int) -> TrainState:
        """Make the remaining updates of the stage, of which `done` are made; return the final state."""
        update = int(state.update)
        for in_stage in range(done + 1, self.stage.updates + 1):
            state, metrics = self.trainer.update(state, Batch(*next(self.iterator)))
            update += 1
            last = in_stage == self.stage.updates
            if in_stage == 1 or update % _LOG_EVERY == 0 or last:
                self._report(update, in_stage, metrics)
            if update % self.settings.validate_every == 0 or last:
                self._validate(update, state)
            if update % self.settings.checkpoint_every == 0 or last:
                self._save(update, in_stage, state)
        return state

    def _report(self, update: int, in_stage: int, metrics: dict[str, jax.Array]) -> None:
        loss = float(metrics["loss"])
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"training: the loss is {loss} at update {update} (rollout of {self.stage.steps}). Lower "
                f"training.stages[{self.index}].learning_rate or training.clip_norm."
            )
        speed = self._samples_per_second(update, first=in_stage == 1)
        self.log.write(
            update,
            event="train",
            stage=self.index,
            rollout_steps=self.stage.steps,
            loss=loss,
            gradient_norm=float(metrics["gradient_norm"]),
            learning_rate=float(self.schedule(in_stage - 1)),
            **speed,
        )
        note = "".join(f", {value:.0f} samples/s" for value in speed.values())
        self.bar.update(update, f"{self.stage.steps}-step loss {loss:.3f}{note}")

    def _samples_per_second(self, update: int, *, first: bool) -> dict[str, float]:
        """Return the rate since the last call; nothing for a stage's first update, which holds the compilation."""
        (then, before), self._since = self._since, (time.perf_counter(), update)
        if first or update == before:
            return {}
        return {"samples_per_second": round((update - before) * self.settings.batch_size / (self._since[0] - then), 2)}

    def _validate(self, update: int, state: TrainState) -> None:
        if self.validation is None:
            return
        windows = fixed_batches(self.validation, self.settings.batch_size, self.settings.validation_windows)
        losses = [float(self.trainer.loss(state.ema, Batch(*batch))) for batch in windows]
        if losses:
            self.log.write(
                update,
                event="validation",
                stage=self.index,
                rollout_steps=self.stage.steps,
                loss=float(np.mean(losses)),
            )
        # What validation took must not count against the next rate.
        self._since = (time.perf_counter(), update)

    def _save(self, update: int, in_stage: int, state: TrainState) -> None:
        finished = in_stage == self.stage.updates
        self.store.save(
            update,
            state,
            {
                "stage": self.index + 1 if finished else self.index,
                "in_stage": 0 if finished else in_stage,
                "loader": None if finished else _jsonable(self.iterator.get_state()),
                "seed": self.settings.seed,
            },
        )


class _TrainingLog:
    """Events as JSON lines and for TensorBoard."""

    def __init__(self, path: Path, tensorboard: Path, upto: int) -> None:
        """Open the log, dropping events after update `upto`: they will be written again."""
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if json.loads(line)["update"] <= upto]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")
        if upto == 0 and tensorboard.is_dir():
            shutil.rmtree(tensorboard)
        self._writer = SummaryWriter(str(tensorboard), purge_step=upto + 1 if upto else None)

    def write(self, update: int, event: str, **values: float) -> None:
        """Append one event."""
        self._file.write(json.dumps({"event": event, "update": update, **values}) + "\n")
        self._file.flush()
        for name in ("loss", "learning_rate", "gradient_norm", "samples_per_second"):
            if name in values:
                self._writer.add_scalar(f"{event}/{name}", values[name], update)

    def close(self) -> None:
        """Write what is still in memory."""
        self._file.close()
        self._writer.close()


def _start_or_resume(directory: Path, fingerprint: str) -> None:
    """Keep an interrupted training of the same fingerprint; remove another's."""
    identity = directory / _IDENTITY
    if identity.is_file():
        try:
            if json.loads(identity.read_text())["fingerprint"] == fingerprint:
                return
        except (ValueError, KeyError):
            logger.info("%s: unreadable; training starts anew", identity)
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    identity.write_text(json.dumps({"fingerprint": fingerprint}) + "\n")


def _count_parameters(spec: ForecasterSpec) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(spec.build(), nnx.Param)))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
