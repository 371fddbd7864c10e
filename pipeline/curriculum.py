"""The training loop: stages of ever longer rollouts, with reports, validation and checkpoints on the way."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
from flax import nnx
from tensorboardX import SummaryWriter

from model.forecaster import Forecaster
from model.training import Batch, LossWeights, Trainer, TrainState, learning_rate_schedule
from pipeline.checkpoints import CheckpointStore
from pipeline.config import TrainingConfig
from pipeline.progress import Progress, progress
from pipeline.windows import WindowSource, batches, fixed_batches
from transforms.errors import InputError

__all__ = ["TRAINING_LOG", "Windows", "train"]

logger = logging.getLogger(__name__)

TRAINING_LOG = "training.jsonl"
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
    """

    stage: int = 0
    in_stage: int = 0
    loader: dict[str, Any] | None = None


def train(
    forecaster: Forecaster,
    windows: Windows,
    weights: LossWeights,
    settings: TrainingConfig,
    directory: Path,
    *,
    tensorboard: Path,
) -> None:
    """Run the curriculum from the latest checkpoint in `directory` to its end.

    Args:
        forecaster: with initial parameters; it is not changed.
        windows: gives the windows of the periods ``train`` and ``validation``.
        directory: holds the checkpoints and ``training.jsonl``.
        tensorboard: folder for event files.

    Raises:
        InputError: the training period has no window for some stage.
        FloatingPointError: the loss is not finite.
    """
    for index, stage in enumerate(settings.stages):
        if len(windows("train", stage.steps)) == 0:
            raise InputError(
                f"training.stages[{index}]: {stage.steps} steps need {forecaster.input_steps + stage.steps} consecutive "
                "valid times, and periods.train has none. Extend the period, or use fewer steps."
            )
    total = sum(stage.updates for stage in settings.stages)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(CheckpointStore(directory)))
        latest = store.latest()
        log = stack.enter_context(contextlib.closing(_Log(directory / TRAINING_LOG, tensorboard, latest or 0)))
        bar = stack.enter_context(progress("train", total))
        curriculum = _Curriculum(forecaster, windows, weights, settings, store, log, bar)
        position, state = Position(), None
        if latest is not None:
            logger.info("going on after %d of %d updates", latest, total)
            position = Position(**store.restore_progress(latest))
            state = store.restore(latest, curriculum.trainer(position.stage).init(nnx.state(forecaster, nnx.Param)))
        bar.update(latest or 0, "compiling")
        curriculum.run(position, state)


class _Curriculum:
    """The loop over stages and updates."""

    def __init__(
        self,
        forecaster: Forecaster,
        windows: Windows,
        weights: LossWeights,
        settings: TrainingConfig,
        store: CheckpointStore,
        log: _Log,
        bar: Progress,
    ) -> None:
        self.forecaster, self.windows, self.weights, self.settings = forecaster, windows, weights, settings
        self.store, self.log, self.bar = store, log, bar
        self._since = (time.perf_counter(), 0)

    def run(self, position: Position, state: TrainState | None) -> None:
        """Make all updates from `position` on; `state` is None at the very start."""
        for index in range(position.stage, len(self.settings.stages)):
            trainer = self.trainer(index)
            if state is None:
                state = trainer.init(nnx.state(self.forecaster, nnx.Param))
            if position.in_stage == 0:
                state = trainer.restart(state)
            state = self._run_stage(index, trainer, state, position)
            position = Position(index + 1)

    def trainer(self, index: int) -> Trainer:
        """Return the compiled steps of a stage; past the last stage, those of the last."""
        settings = self.settings
        return Trainer(
            self.forecaster,
            self.weights,
            self._schedule(min(index, len(settings.stages) - 1)),
            beta2=settings.beta2,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            ema_decay=settings.ema_decay,
        )

    def _schedule(self, index: int) -> optax.Schedule:
        stage = self.settings.stages[index]
        return learning_rate_schedule(stage.learning_rate, stage.updates, self.settings.warmup_fraction)

    def _run_stage(self, index: int, trainer: Trainer, state: TrainState, position: Position) -> TrainState:
        settings, stage = self.settings, self.settings.stages[index]
        iterator = batches(self.windows("train", stage.steps), settings.batch_size, settings.seed + index)
        if position.loader is not None:
            iterator.set_state(position.loader)
        update = int(state.update)
        for in_stage in range(position.in_stage + 1, stage.updates + 1):
            state, metrics = trainer.update(state, Batch(*next(iterator)))
            update += 1
            last = in_stage == stage.updates
            if in_stage == 1 or update % _REPORT_EVERY == 0 or last:
                self._report(index, update, in_stage, metrics)
            if update % settings.validate_every == 0 or last:
                self._validate(index, update, trainer, state)
            if update % settings.checkpoint_every == 0 or last:
                reached = Position(index + 1) if last else Position(index, in_stage, _plain(iterator.get_state()))
                self.store.save(update, state, asdict(reached))
        return state

    def _report(self, index: int, update: int, in_stage: int, metrics: dict[str, jax.Array]) -> None:
        stage, loss = self.settings.stages[index], float(metrics["loss"])
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"training: the loss is {loss} at update {update} (rollout of {stage.steps}). Lower "
                f"training.stages[{index}].learning_rate or training.clip_norm."
            )
        speed = self._samples_per_second(update, first=in_stage == 1)
        self.log.write(
            "train",
            update,
            stage=index,
            rollout_steps=stage.steps,
            loss=loss,
            gradient_norm=float(metrics["gradient_norm"]),
            learning_rate=float(self._schedule(index)(in_stage - 1)),
            **speed,
        )
        note = "".join(f", {value:.0f} samples/s" for value in speed.values())
        self.bar.update(update, f"{stage.steps}-step loss {loss:.3f}{note}")

    def _samples_per_second(self, update: int, *, first: bool) -> dict[str, float]:
        """Return the rate since the last call; nothing for a stage's first update, which holds the compilation."""
        (then, before), self._since = self._since, (time.perf_counter(), update)
        if first or update == before:
            return {}
        return {"samples_per_second": round((update - before) * self.settings.batch_size / (self._since[0] - then), 2)}

    def _validate(self, index: int, update: int, trainer: Trainer, state: TrainState) -> None:
        steps = self.settings.stages[index].steps
        held_out = self.windows("validation", steps)
        losses = [
            float(trainer.loss(state.ema, state.statistics, Batch(*batch)))
            for batch in fixed_batches(held_out, self.settings.batch_size, self.settings.validation_windows)
        ]
        if losses:
            mean = float(np.mean(losses))
            self.log.write("validation", update, stage=index, rollout_steps=steps, loss=mean)
            logger.info("update %d: %d-step loss on held-out windows %.4f", update, steps, mean)
        # What validation took must not count against the next rate.
        self._since = (time.perf_counter(), update)


class _Log:
    """Events as JSON lines, and as curves for TensorBoard."""

    def __init__(self, path: Path, tensorboard: Path, upto: int) -> None:
        """Open the log, dropping events after update `upto`: they will be written again."""
        path.write_text("".join(line + "\n" for line in _complete_lines(path) if json.loads(line)["update"] <= upto))
        self._file = path.open("a")
        if upto == 0 and tensorboard.is_dir():
            shutil.rmtree(tensorboard)
        self._writer = SummaryWriter(str(tensorboard), purge_step=upto + 1 if upto else None)

    def write(self, event: str, update: int, **values: float) -> None:
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


def _complete_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a log; a last one that a kill has cut short is left out."""
    text = path.read_text() if path.is_file() else ""
    yield from text[: text.rfind("\n") + 1].splitlines()


def _plain(value: Any) -> Any:
    """Return an iterator's state with plain Python numbers, as JSON wants them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
