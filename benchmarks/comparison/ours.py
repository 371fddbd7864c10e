"""Lines of this project's network: trained and forecast by the stages that a run goes through."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import jax
from comparison.ground import Ground
from comparison.lines import Line, Setting
from flax import nnx

from model.training import abstract_batch
from pipeline.forecast import forecast_store
from pipeline.train import run_stage
from pipeline.training.checkpoints import Choice
from pipeline.training.curriculum import stage_trainer
from pipeline.training.loader import Loader

__all__ = ["calibrate", "forecast", "overrides", "train"]

_UPDATES = 12


def overrides(line: Line, setting: Setting, seed: int, updates: dict[int, int]) -> dict[str, Any]:
    """Return what a line changes of the base's configuration.

    Args:
        updates: of each stage, by its steps.
    """
    stages = [
        {
            "steps": steps,
            "updates": count,
            "learning_rate": line.peak(setting, steps),
        }
        for steps, count in updates.items()
    ]
    never = sum(updates.values())
    return {
        **line.overrides,
        "model.levels.0.scalars": setting.width,
        "model.levels.0.vectors": setting.width // 2,
        "training.batch_size": setting.batch,
        "training.seed": seed,
        "training.stages": stages,
        # Held-out losses cost time that rivals do not spend.
        "training.validate_every": never,
        "training.checkpoint_every": never,
        "training.validation_windows": 2,
    }


def calibrate(ground: Ground) -> dict[str, Any]:
    """Return the CPU seconds of an update of each stage, by steps, and of compiling, and the number of parameters."""
    data, settings = ground.data, ground.run.config.training
    forecaster = data.spec.build(settings.seed)
    state = None
    costs, compiling = {}, 0.0
    for index, stage in enumerate(settings.stages):
        windows = data.windows("train", stage.steps)
        trainer = stage_trainer(forecaster, data.weights(), settings, index)
        states, forcings = windows.shapes
        batch = abstract_batch(
            None,
            batch_size=settings.batch_size,
            accumulate=1,
            input_steps=forecaster.input_steps,
            steps=stage.steps,
            channels=states[1],
            forcings=forcings[1],
            shape=states[2:],
        )
        began = time.process_time()
        trainer.compile(batch)
        compiling += time.process_time() - began
        state = trainer.init(nnx.state(forecaster, nnx.Param))
        loader = Loader(windows, global_batch=settings.batch_size, accumulate=1, mesh=None, seed=0, memory_mb=512)
        for count in range(_UPDATES + 3):
            if count == 3:
                jax.block_until_ready(state)
                began = time.process_time()
            state, _ = trainer.update(state, next(loader))
        jax.block_until_ready(state)
        costs[stage.steps] = (time.process_time() - began) / _UPDATES
        loader.close()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(forecaster, nnx.Param)))
    return {"update_seconds": costs, "compile_seconds": compiling, "parameters": parameters}


def train(ground: Ground) -> None:
    """Train from the start."""
    shutil.rmtree(ground.run.checkpoints, ignore_errors=True)
    run_stage(ground.run, fingerprint="comparison", inputs={})


def forecast(ground: Ground, target: Path, period: str, which: str | int = "latest") -> None:
    """Write forecasts of a period.

    Args:
        which: checkpoint, as `pipeline.training.checkpoints.Choice` has it.
    """
    run = ground.run
    choice = Choice(run.checkpoints, which)
    forecast_store([choice], run.training_store, target, batch_size=8, **ground.forecasts(period))
