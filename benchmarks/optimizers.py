"""Which optimiser gets furthest on a run's data in the processor time of so many updates of AdamW.

Trains the network of a run directory on 1-step rollouts by each candidate: the same batches, clipping, decay, warm-up and
cosine, moving average and validation windows. Updates of a costlier candidate are fewer, so that all take the time that
AdamW takes for `--updates`. Each has a small grid of learning rates; its best is trained with further seeds of parameters
and batches, and its row gives the mean loss over them all, against AdamW's.

    spherecast preprocess quickstart --runs-dir runs
    python benchmarks/optimizers.py --run runs/quickstart
    python benchmarks/optimizers.py --run runs/quickstart --only adamw lion --updates 800
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import main, row
from flax import nnx

from model.training import Batch, compiler_options, learning_rate_schedule, rollout_loss
from pipeline.runs import Run
from pipeline.train import TrainingData
from pipeline.training.loader import Loader

TIMED_UPDATES = 20


class Candidate(NamedTuple):
    """An optimiser of learning rate one, and the rates to try."""

    make: Callable[[], optax.GradientTransformation]
    rates: tuple[float, ...]


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _muon() -> optax.GradientTransformation:
    def axes(params: Any) -> Any:
        # Of filters the degree is a batch of matrices.
        def of(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
            return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1) if leaf.ndim > 1 else None

        return jax.tree.map(of, params)

    return optax.contrib.muon(
        1.0, weight_decay=DECAY, adam_b2=0.99, consistent_rms=0.2, muon_weight_dimension_numbers=axes
    )


DECAY = 1e-2
CANDIDATES = {
    "adamw": Candidate(lambda: optax.adamw(1.0, b2=0.99, weight_decay=DECAY, mask=_matrices), (3e-3, 1e-2, 3e-2)),
    "nadamw": Candidate(lambda: optax.nadamw(1.0, b2=0.99, weight_decay=DECAY, mask=_matrices), (3e-3, 1e-2, 3e-2)),
    "adan": Candidate(lambda: optax.adan(1.0, weight_decay=DECAY, mask=_matrices), (3e-3, 1e-2, 3e-2)),
    # Lion's steps are those of signs: rates are smaller, and decay as much larger.
    "lion": Candidate(lambda: optax.lion(1.0, weight_decay=10 * DECAY, mask=_matrices), (3e-4, 1e-3, 3e-3)),
    "muon": Candidate(_muon, (3e-3, 1e-2, 3e-2)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run directory, preprocessed")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), help="candidates")
    parser.add_argument("--updates", type=int, default=400, help="of AdamW")
    parser.add_argument("--seeds", type=int, default=2, help="of parameters and batches, the grid's one included")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows: processor time of an update, updates, and loss on held-out windows."""
    data = TrainingData(Run.open(arguments.run))
    names = ["adamw", *(name for name in arguments.only if name != "adamw")]
    trials = {name: _Trial(data, CANDIDATES[name].make()) for name in names}
    seconds = _seconds(trials)
    rows, best = [], {}
    for name in names:
        updates = round(arguments.updates * seconds["adamw"] / seconds[name])
        losses = {rate: trials[name].loss(rate, updates, 0) for rate in CANDIDATES[name].rates}
        rate = min(losses, key=losses.__getitem__)
        best[name] = statistics.fmean(
            [losses[rate], *(trials[name].loss(rate, updates, seed) for seed in range(1, arguments.seeds))]
        )
        rows.append(row(f"{name}, an update", 1e3 * seconds[name], "ms CPU", 1e3 * seconds["adamw"]))
        for tried, loss in losses.items():
            rows.append(row(f"{name}, {updates} updates, rate {tried:g}", loss, "loss", None))
        label = f"{name}, {updates} updates, rate {rate:g}, {arguments.seeds} seeds"
        rows.append(row(label, best[name], "loss", best["adamw"]))
        print(rows[-1]["name"], f"{best[name]:.4f}", flush=True)
    return rows


class _Trial:
    """Training by one optimiser."""

    def __init__(self, data: TrainingData, optimizer: optax.GradientTransformation) -> None:
        self._data, settings = data, data.config.training
        self._settings = settings
        weights = data.weights()
        graph, params, rest = nnx.split(data.spec.build(settings.seed, None), nnx.Param, ...)
        self._example = params
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)

        def loss_of(params: nnx.State, batch: Batch) -> jax.Array:
            return rollout_loss(nnx.merge(graph, params, rest, copy=True), batch, weights)

        def update(params: nnx.State, state: Any, ema: nnx.State, batch: Batch, rate: jax.Array, number: jax.Array):
            change, state = optimizer.update(jax.grad(loss_of)(params, batch), state, params)
            params = optax.apply_updates(params, jax.tree.map(lambda leaf: rate * leaf, change))
            decay = jnp.minimum(settings.ema_decay, (number + 1.0) / (number + 10.0))
            return params, state, jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, ema, params)

        options = compiler_options()
        self._optimizer = optimizer
        self._update = jax.jit(update, donate_argnums=(0, 1, 2), compiler_options=options)
        self._loss = jax.jit(loss_of, compiler_options=options)

    def loss(self, rate: float, updates: int, seed: int) -> float:
        """Return the loss of the averaged parameters on held-out windows after a training."""
        ema = self._train(rate, updates, seed)
        held_out = self._data.windows("validation", 1)
        size = self._settings.batch_size
        losses = [
            float(self._loss(ema, Batch(*map(jnp.asarray, held_out.read(range(first, first + size))))))
            for first in range(0, len(held_out) - size + 1, size)
        ]
        loss = statistics.fmean(losses)
        return loss if math.isfinite(loss) else math.inf

    def time(self) -> float:
        """Return the processor seconds of one update."""
        began = time.process_time()
        self._train(1e-3, TIMED_UPDATES, 0)
        return (time.process_time() - began) / TIMED_UPDATES

    def _train(self, rate: float, updates: int, seed: int) -> nnx.State:
        schedule = learning_rate_schedule(rate, updates, self._settings.warmup_fraction)
        rates = np.asarray(jax.vmap(schedule)(jnp.arange(updates)), np.float32)
        params = nnx.state(self._data.spec.build(seed, None), nnx.Param) if seed else self._example
        params, ema = (jax.tree.map(jnp.copy, params) for _ in range(2))
        state = self._optimizer.init(params)
        windows = self._data.windows("train", 1)
        with Loader(windows, global_batch=self._settings.batch_size, seed=seed, workers=1, memory_mb=512) as loader:
            for number in range(updates):
                params, state, ema = self._update(params, state, ema, next(loader), rates[number], np.float32(number))
        return jax.block_until_ready(ema)


def _seconds(trials: dict[str, _Trial]) -> dict[str, float]:
    """Return the processor seconds of an update of each, medians of turns taken one after the other."""
    for trial in trials.values():
        trial.time()
    turns = [{name: trial.time() for name, trial in trials.items()} for _ in range(3)]
    return {name: statistics.median(turn[name] for turn in turns) for name in trials}


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("numpy", "jax", "optax"))
