"""The training loop: stages of ever longer rollouts, with reports, validation and checkpoints on the way."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from model.forecaster import Forecaster
from model.training import (
    LossWeights,
    Trainer,
    TrainState,
    abstract_batch,
    learning_rate_schedule,
    loss_weights,
    replicated,
)
from model.verification import ForecastErrors
from pipeline.config import RolloutStage, TrainingConfig
from pipeline.jobs.progress import Progress, progress
from pipeline.processes.distributed import is_lead
from pipeline.training.checkpoints import CheckpointStore, ForecasterSpec
from pipeline.training.divergence import explain
from pipeline.training.loader import Loader
from pipeline.training.log import TRAINING_LOG, TrainingLog
from pipeline.training.preemption import Preempted, StopRequest, stop_requests
from pipeline.training.validation_forecasts import HeldOut, headline_fields
from pipeline.training.windows import WindowSource
from transforms.errors import InputError
from transforms.variables import field_name

__all__ = ["TRAINING_LOG", "Windows", "configured_trainer", "stage_trainer", "train"]

logger = logging.getLogger(__name__)

_REPORT_EVERY = 20


class Windows(Protocol):
    """Gives the windows of a period, for rollouts of some number of steps."""

    def __call__(self, period: str, steps: int) -> WindowSource: ...


@dataclass(frozen=True)
class Position:
    """Where training stands: what a checkpoint holds beside the arrays.

    Attributes:
        stage: index of the stage that the next update belongs to.
        in_stage: updates already made in it.
        loader: state of its data iterator; None at its start.
        rollbacks: times that training went back to a checkpoint.
    """

    stage: int = 0
    in_stage: int = 0
    loader: dict[str, Any] | None = None
    rollbacks: int = 0


def stage_trainer(
    forecaster: Forecaster, weights: LossWeights, settings: TrainingConfig, index: int, mesh: Mesh | None = None
) -> Trainer:
    """Return the trainer of a stage.

    Args:
        weights: of latitudes and channels; those of the leads are added.
    """
    stage = settings.stages[index]
    if settings.lead_weights:
        lead = loss_weights(*weights[:2], np.array([settings.lead_weight(step) for step in range(stage.steps)])).lead
        weights = weights._replace(lead=replicated(lead, mesh))
    return configured_trainer(forecaster, weights, settings, stage, mesh)


def configured_trainer(
    forecaster: Forecaster, weights: LossWeights, settings: TrainingConfig, stage: RolloutStage, mesh: Mesh | None
) -> Trainer:
    """Return the trainer of a stage for weights of all kinds; forecaster and weights may be shapes alone."""
    return Trainer(
        forecaster,
        weights,
        learning_rate_schedule(stage.learning_rate, stage.updates, settings.warmup_fraction),
        beta2=settings.beta2,
        nesterov=settings.optimizer == "nadamw",
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        ema_decay=settings.ema_decay,
        accumulate=settings.accumulate or 1,
        members=settings.members,
        seed=settings.seed,
        mesh=mesh,
    )


def train(
    forecaster: Forecaster,
    spec: ForecasterSpec,
    windows: Windows,
    weights: LossWeights,
    settings: TrainingConfig,
    directory: Path,
    *,
    tensorboard: Path,
    mesh: Mesh | None = None,
    headline: list[str] | None = None,
    memory_mb: int = 1024,
) -> None:
    """Run the curriculum from the latest checkpoint in `directory` to its end; all processes of `mesh` must call it.

    Args:
        forecaster: with initial parameters, built by `spec` for `mesh`; on return its arrays lie on all devices.
        windows: gives the windows of the periods ``train`` and ``validation``.
        weights: of latitudes and channels.
        directory: holds the checkpoints and ``training.jsonl``; one that all processes see.
        tensorboard: folder for event files.
        mesh: devices that share the work; None for the default device alone.
        headline: fields whose errors are followed, as in ``report.headline``.
        memory_mb: host memory of the loader.

    Raises:
        InputError: the training period has no window for some stage, or batches cannot be split over the mesh.
        FloatingPointError: losses or gradients are not finite and going back did not mend it.
        Preempted: a signal asked to stop; a checkpoint holds all that was done.
    """
    _require_windows(windows, settings, forecaster.input_steps)
    if mesh is not None:
        nnx.update(forecaster, replicated(nnx.state(forecaster), mesh))
    total = sum(stage.updates for stage in settings.stages)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        store = CheckpointStore(
            directory, keep=settings.keep_checkpoints, keep_every=settings.keep_every, keep_best=settings.keep_best
        )
        stack.enter_context(contextlib.closing(store))
        latest = store.latest()
        log, bar = None, Progress("train", total, lambda _: None)
        if is_lead():
            log = TrainingLog(directory / TRAINING_LOG, tensorboard, latest or 0)
            stack.enter_context(contextlib.closing(log))
            bar = stack.enter_context(progress("train", total))
        position = Position()
        if latest is not None:
            logger.info("going on after %d of %d updates", latest, total)
            position = Position(**store.restore_progress(latest))
        weights = replicated(weights, mesh)
        curriculum = _Curriculum(forecaster, spec, windows, weights, settings, mesh, store, log, bar, stop, memory_mb)
        stack.enter_context(contextlib.closing(curriculum))
        curriculum.follow(headline or [])
        bar.update(latest or 0, "compiling")
        curriculum.compile(position)
        curriculum.run(position, latest)


def _require_windows(windows: Windows, settings: TrainingConfig, input_steps: int) -> None:
    """Require that the training period has windows for every stage."""
    for index, stage in enumerate(settings.stages):
        if len(windows("train", stage.steps)) == 0:
            raise InputError(
                f"training.stages[{index}]: {stage.steps} steps need {input_steps + stage.steps} consecutive "
                "valid times, and periods.train has none. Extend the period, or use fewer steps."
            )


class _Curriculum:
    """The loop over stages and updates."""

    def __init__(
        self,
        forecaster: Forecaster,
        spec: ForecasterSpec,
        windows: Windows,
        weights: LossWeights,
        settings: TrainingConfig,
        mesh: Mesh | None,
        store: CheckpointStore,
        log: TrainingLog | None,
        bar: Progress,
        stop: StopRequest,
        memory_mb: int,
    ) -> None:
        self.forecaster, self.spec, self.windows, self.weights = forecaster, spec, windows, weights
        self.settings, self.mesh, self.store, self.log, self.bar, self.stop = settings, mesh, store, log, bar, stop
        self.memory_mb = memory_mb
        # Collectives of two programs at once can wait for each other on a host that has fewer cores than devices.
        self.one_by_one = mesh is not None and mesh.devices.flat[0].platform == "cpu"
        self.fields = [field_name(*field) for field in spec.layout.fields]
        self.predicted = [field_name(*field) for field in spec.predicted]
        self.trainers: dict[int, Trainer] = {}
        self.skipped = 0
        self._loader: tuple[int, Loader] | None = None
        self._rate = _Rate(settings)

    def follow(self, headline: list[str]) -> None:
        """Prepare validation."""
        settings, grid = self.settings, self.spec.grid
        self.errors = ForecastErrors(
            self.forecaster, self.weights.latitude, self.mesh, members=settings.members, seed=settings.seed
        )
        self.held_out = HeldOut(
            self.windows,
            self.errors,
            spec=self.spec,
            latitude_weights=grid.latitude_weights() / np.mean(grid.latitude_weights()),
            headline=headline_fields(self.spec.predicted, headline),
            crps=settings.loss == "crps",
            batch_size=settings.batch_size // (settings.accumulate or 1),
            loss_windows=settings.validation_windows,
            initial_times=settings.validation_forecasts,
        )

    def compile(self, position: Position) -> None:
        """Compile every stage from `position` on, the longest rollout first: what does not fit fails at once."""
        settings, accumulate = self.settings, self.settings.accumulate or 1
        remaining = range(position.stage, len(settings.stages))
        if not remaining:
            return
        self._open_loader(position).prefetch()
        seconds, done = 0.0, 0
        for index in sorted(remaining, key=lambda index: -settings.stages[index].steps):
            steps = settings.stages[index].steps
            self.bar.update(self.bar.done, f"compiling: {steps}-step rollout ({done} of {len(remaining)} stages done)")
            states, forcings = self.windows("train", steps).shapes
            batch = abstract_batch(
                self.mesh,
                batch_size=settings.batch_size,
                accumulate=accumulate,
                input_steps=self.forecaster.input_steps,
                steps=steps,
                channels=states[1],
                forcings=forcings[1],
                shape=states[2:],
            )
            self.trainers[index] = stage_trainer(self.forecaster, self.weights, settings, index, self.mesh)
            seconds += self.trainers[index].compile(batch)
            done += 1
            self._leave_if_asked_at_start()
        if len(self.windows("validation", 1)):
            seconds += self.errors.compile(
                batch_size=settings.batch_size // accumulate,
                channels=states[1],
                forcings=forcings[1],
                shape=states[2:],
            )
            self._leave_if_asked_at_start()
        logger.info("compiled %d stages in %.1f s", done, seconds)
        self.bar.update(self.bar.done, f"compiled in {seconds:.0f} s")

    def run(self, position: Position, latest: int | None) -> None:
        """Make all updates from `position` on, that of the checkpoint `latest` or, without one, the start."""
        if not self.trainers:
            return
        state = self.trainers[position.stage].init(nnx.state(self.forecaster, nnx.Param))
        if latest is not None:
            state = self.store.restore(latest, state)
        while position.stage < len(self.settings.stages):
            if position.in_stage == 0:
                state = self.trainers[position.stage].restart(state)
            position, state = self._run_stage(position, state)

    def close(self) -> None:
        """End the loader's threads."""
        if self._loader is not None:
            self._loader[1].close()

    def _run_stage(self, position: Position, state: TrainState) -> tuple[Position, TrainState]:
        """Make updates until the stage ends or training must go back; return where it stands then."""
        settings, index = self.settings, position.stage
        stage, trainer, loader = settings.stages[index], self.trainers[index], self._open_loader(position)
        update, waited = int(state.update), loader.wait_seconds
        unread: tuple[int, int, dict[str, jax.Array]] | None = None
        self._rate.start(update)
        for in_stage in range(position.in_stage + 1, stage.updates + 1):
            state, metrics = trainer.update(state, next(loader))
            if self.one_by_one:
                jax.block_until_ready(metrics)
            update += 1
            last = in_stage == stage.updates
            validating, stopping = update % settings.validate_every == 0 or last, self.stop.agreed(update)
            saving = update % settings.checkpoint_every == 0 or last
            # Read one update late, the device has its next one by then.
            fresh = (update, in_stage, metrics)
            due = [unread, fresh] if validating or saving or stopping else [unread]
            unread = None if len(due) == 2 else fresh
            skipped = 0
            for read in filter(None, due):
                skipped = self._read(index, *read, waiting=loader.wait_seconds - waited)
            if skipped >= settings.rollback_after or (skipped and (last or self.skipped > settings.skip_limit)):
                return self._go_back(position, state, update, skipped)
            score = self._validate(index, update, trainer, state) if validating else None
            if stopping or (saving and not skipped):
                reached = Position(index, in_stage, loader.get_state(), position.rollbacks)
                if last:
                    reached = Position(index + 1, rollbacks=position.rollbacks)
                self.store.save(update, state, asdict(reached), score)
            if stopping and not (last and index + 1 == len(settings.stages)):
                self.store.wait()
                message = f"stopped by {self.stop.signal or 'another process'} after {update} updates, all saved"
                logger.info(message)
                raise Preempted(message)
        return Position(index + 1, rollbacks=position.rollbacks), state

    def _open_loader(self, position: Position) -> Loader:
        """Return the loader of a stage, which is made at its position when the stage begins or training goes on."""
        if self._loader is None or self._loader[0] != position.stage:
            self.close()
            self._loader = (position.stage, self._new_loader(position.stage))
            if position.loader is not None:
                self._loader[1].set_state(position.loader)
        return self._loader[1]

    def _new_loader(self, index: int) -> Loader:
        settings = self.settings
        return Loader(
            self.windows("train", settings.stages[index].steps),
            global_batch=settings.batch_size,
            accumulate=settings.accumulate or 1,
            mesh=self.mesh,
            seed=settings.seed + index,
            memory_mb=self.memory_mb,
        )

    def _read(self, index: int, update: int, in_stage: int, metrics: dict[str, jax.Array], *, waiting: float) -> int:
        """Report an update where it is due; return how many in a row were skipped up to it."""
        stage, in_row = self.settings.stages[index], int(metrics["skipped_in_row"])
        if in_row:
            self.skipped = int(metrics["skipped"])
            logger.warning("update %d skipped: loss or gradient is not finite", update)
            self._write("skipped", update, stage=index, in_row=in_row, skipped=self.skipped)
        self.bar.update(update)
        if not (in_stage == 1 or update % _REPORT_EVERY == 0 or in_stage == stage.updates):
            return in_row
        loss, norm = (_finite(float(metrics[name])) for name in ("loss", "gradient_norm"))
        measured = self._rate.measure(update, waiting) if in_stage > 1 else {}
        self._write(
            "train",
            update,
            stage=index,
            rollout_steps=stage.steps,
            loss=loss,
            gradient_norm=norm,
            learning_rate=float(metrics["learning_rate"]),
            **measured,
        )
        note = f"{stage.steps}-step loss " + ("not finite" if loss is None else f"{loss:.3f}")
        if measured:
            note += f", {measured['samples_per_second']:.3g} samples/s, {measured['waiting']:.0%} waiting for data"
            note += f", {_duration(self._rate.remaining(index, in_stage))} left"
        self.bar.update(update, note)
        return in_row

    def _go_back(self, position: Position, state: TrainState, update: int, skipped: int) -> tuple[Position, TrainState]:
        """Return the last checkpoint's position and state; the data go on from where they are.

        Raises:
            FloatingPointError: there is none, or training went back often enough.
        """
        settings = self.settings
        self.store.wait()
        latest = self.store.latest()
        if latest is None or position.rollbacks >= settings.rollback_limit or self.skipped > settings.skip_limit:
            raise FloatingPointError(self._reason(position, state, update, skipped))
        back = Position(**self.store.restore_progress(latest))
        logger.warning("%d updates skipped in a row; going back from update %d to %d", skipped, update, latest)
        self._write("rollback", update, stage=position.stage, to=latest, skipped=skipped)
        back = Position(back.stage, back.in_stage, back.loader, position.rollbacks + 1)
        return back, self.store.restore(latest, state)

    def _reason(self, position: Position, state: TrainState, update: int, skipped: int) -> str:
        """Return why training ends; finds out with the last batch that was skipped."""
        trainer, settings = self.trainers[position.stage], self.settings
        reached = self._open_loader(position).get_state()
        with contextlib.closing(self._new_loader(position.stage)) as again:
            # The state may be one update ahead of what was read; both were skipped.
            again.set_state({**reached, "step": reached["step"] - 1})
            origin = trainer.origin(state, next(again))
        return (
            f"training: loss or gradient is not finite at update {update}, and {skipped} in a row were skipped "
            f"({position.rollbacks} times back to a checkpoint): "
            f"{explain(origin, self.fields, self.predicted, position.stage, settings)}"
        )

    def _validate(self, index: int, update: int, trainer: Trainer, state: TrainState) -> tuple[int, float] | None:
        """Report losses and forecasts of the averaged parameters; return stage and loss where there is one."""
        began, steps = time.perf_counter(), self.settings.stages[index].steps
        loss = self.held_out.loss(state.ema, state.statistics, steps, trainer.weights)
        if loss is not None:
            self._write("validation", update, stage=index, rollout_steps=steps, loss=_finite(loss))
            logger.info("update %d: %d-step loss on held-out windows %.4f", update, steps, loss)
        forecasts = self.held_out.forecasts(state.ema, state.statistics)
        if forecasts is not None:
            self._write("forecast", update, stage=index, **forecasts)
        # What validation took must not count against the next rate.
        self._rate.pause(time.perf_counter() - began)
        return (index, loss) if loss is not None and math.isfinite(loss) else None

    def _leave_if_asked_at_start(self) -> None:
        if self.stop.agreed(0):
            raise Preempted("stopped before the first update")

    def _write(self, event: str, update: int, **values: Any) -> None:
        if self.log is not None:
            self.log.write(event, update, **values)


class _Rate:
    """How fast training goes."""

    def __init__(self, settings: TrainingConfig) -> None:
        self._settings = settings
        self._seconds_per_update = 0.0

    def start(self, update: int) -> None:
        """Begin to measure; the updates of a stage follow."""
        self._since, self._update, self._waited = time.perf_counter(), update, 0.0

    def pause(self, seconds: float) -> None:
        """Leave out time that was not spent on updates."""
        self._since += seconds

    def measure(self, update: int, waited: float) -> dict[str, float]:
        """Return ``samples_per_second`` and the share of time ``waiting`` since the last call.

        Args:
            waited: seconds that the stage has waited for data, in all.
        """
        now = time.perf_counter()
        elapsed, updates = max(now - self._since, 1e-9), update - self._update
        if updates <= 0:
            return {}
        share = min(1.0, (waited - self._waited) / elapsed)
        self._since, self._update, self._waited = now, update, waited
        self._seconds_per_update = elapsed / updates
        return {
            "samples_per_second": round(updates * self._settings.batch_size / elapsed, 2),
            "waiting": round(max(0.0, share), 4),
        }

    def remaining(self, index: int, in_stage: int) -> float:
        """Return the seconds to the end of the curriculum, should an update take time as its steps."""
        stages = self._settings.stages
        later = sum(stage.steps * stage.updates for stage in stages[index + 1 :])
        steps = stages[index].steps * (stages[index].updates - in_stage) + later
        return self._seconds_per_update / stages[index].steps * steps


def _finite(value: float) -> float | None:
    """JSON has no word for what is not finite."""
    return value if math.isfinite(value) else None


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
