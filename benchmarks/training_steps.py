"""What a longer rollout costs: compiled memory of its gradient and time of its update, against a single step.

Memory is the compiler's count of temporaries and results. Times are those of the process on all cores, so that other work on
the machine weighs little, interleaved, medians; the ratio is to the time of one step times the number of steps.

    python benchmarks/training_steps.py
    python benchmarks/training_steps.py --steps 1 4 12 --repeats 3
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from common import main, row
from flax import nnx

from model.forecaster import Channels, Forecaster, Normalisation
from model.network import Level, NetworkConfig
from model.training import Batch, Trainer, abstract_batch, learning_rate_schedule, loss_weights
from transforms.grids import Grid

MEMORY_BAR, TIME_BAR = 1.35, 1.1
_CHANNELS, _FORCINGS, _BATCH = 15, 5, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 8, 12], help="lengths of rollouts, the first 1")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep activations: no rematerialisation")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows."""
    grid = Grid.equiangular(32, 64, poles=False)
    constants = Normalisation(np.zeros(_CHANNELS), np.ones(_CHANNELS), np.full(_CHANNELS, 0.1))
    model = Forecaster(
        NetworkConfig((Level(22, 24, 12, arguments.blocks),)),
        grid,
        Channels(tuple(range(9)), (9, 10, 11), (12, 13, 14)),
        constants,
        np.zeros((0, *grid.shape)),
        forcings=_FORCINGS,
        remat=not arguments.keep,
        rngs=nnx.Rngs(0),
    )
    weights = loss_weights(grid.latitude_weights(), np.ones(_CHANNELS))
    rows, runs, alone = [], {}, 0
    for steps in arguments.steps:
        settings = {"beta2": 0.99, "weight_decay": 0.01, "clip_norm": 1.0, "ema_decay": 0.99}
        trainer = Trainer(model, weights, learning_rate_schedule(1e-3, 1000, 0.03), **settings)
        shapes = abstract_batch(
            None,
            batch_size=_BATCH,
            accumulate=1,
            input_steps=1,
            steps=steps,
            channels=_CHANNELS,
            forcings=_FORCINGS,
            shape=grid.shape,
        )
        memory = _gradient_memory(trainer, shapes)
        alone = alone or memory
        carried = 4 * steps * _BATCH * _CHANNELS * grid.shape[0] * grid.shape[1]
        rows.append(row(f"gradient of {steps} steps", memory / 1e6, "MB", (alone + carried) / 1e6, MEMORY_BAR))
        trainer.compile(shapes)
        rng = np.random.default_rng(0)
        batch = Batch(*(jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32) for leaf in shapes))
        runs[steps] = [trainer, trainer.init(nnx.state(model, nnx.Param)), batch, []]
    for _ in range(arguments.repeats + 1):
        for run in runs.values():
            trainer, state, batch, times = run
            began = time.process_time()
            state, metrics = trainer.update(state, batch)
            jax.block_until_ready((state, metrics))
            times.append(time.process_time() - began)
            run[1] = state
    seconds = {steps: statistics.median(run[3][1:]) for steps, run in runs.items()}
    single = seconds[arguments.steps[0]]
    for steps, value in seconds.items():
        rows.append(row(f"update of {steps} steps", 1e3 * value, "ms CPU", 1e3 * steps * single, TIME_BAR))
    return rows


def _gradient_memory(trainer: Trainer, shapes: Batch) -> int:
    used = trainer.compiled_gradient(shapes).memory_analysis()
    return used.temp_size_in_bytes + used.output_size_in_bytes


if __name__ == "__main__":
    main(measure, __doc__, add_arguments)
