"""Stage `train`: the spherical network, trained on the windows of the training period."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from flax import nnx

from model.training import LossWeights, loss_weights
from pipeline.artefacts import describe, publishing, require, working_path, write_description
from pipeline.config import Config
from pipeline.processes.distributed import barrier, initialise, is_lead, training_mesh
from pipeline.processes.hardware import hardware
from pipeline.runs import Run
from pipeline.states.layout import StateLayout, normalisation
from pipeline.states.reading import StateReader
from pipeline.states.roles import roles_of
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import description_of, open_store, valid_times
from pipeline.training.checkpoints import ForecasterSpec
from pipeline.training.curriculum import train
from pipeline.training.windows import DirectWindows, WindowSource, window_starts, within
from transforms.errors import InputError

__all__ = ["TrainingData", "run_stage", "static_inputs"]

logger = logging.getLogger(__name__)

_IDENTITY = "training.json"


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Train and publish ``checkpoints/``; an interrupted training goes on from its latest checkpoint.

    Where this is one process of several (see `pipeline.processes.distributed`), all of them call it.
    """
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    require(run.statistics, "statistics", "run `spherecast preprocess` first")
    initialise()
    settings = run.config
    mesh = training_mesh(settings.training.sphere)
    data = TrainingData(run)
    spec = data.spec
    forecaster = spec.build(settings.training.seed, mesh)
    with _publishing_together(run.checkpoints, fingerprint) as partial:
        if is_lead():
            spec.save(partial)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(forecaster, nnx.Param)))
        windows = len(data.windows("train", settings.training.stages[0].steps))
        logger.info("%d parameters, %d training windows, %s", parameters, windows, spec.grid)
        train(
            forecaster,
            spec,
            data.windows,
            data.weights(),
            settings.training,
            partial,
            tensorboard=run.logs / "tensorboard",
            mesh=mesh,
            headline=settings.report.headline,
            memory_mb=settings.execution.loader_memory_mb - data.reader_memory_mb,
        )
        description = describe(
            "checkpoint",
            fingerprint,
            inputs,
            simulated=data.simulated,
            grid=str(spec.grid),
            time_step_hours=spec.time_step_hours,
            parameters=parameters,
            training_windows=windows,
            hardware=hardware(jax.devices()[:1] if mesh is None else mesh.devices.flat),
        )
        if is_lead():
            write_description(partial, description)


class TrainingData:
    """What training reads of a run: the specification of the forecaster, and windows of each period."""

    def __init__(self, run: Run) -> None:
        """Read statistics and coordinates.

        Raises:
            InputError: variables or levels that the store or the statistics lack.
        """
        self.config: Config = run.config
        dataset = open_store(run.training_store, "training store")
        self.simulated = bool(description_of(dataset).get("simulated", False))
        self._times, self._valid = dataset.time.values, valid_times(dataset)
        layout = StateLayout.of(self.config)
        roles = roles_of(layout, self.config.model)
        statistics = xr.load_dataset(run.statistics, engine="netcdf4")
        names, fields = static_inputs(self.config, dataset, statistics)
        self.spec = ForecasterSpec(
            layout,
            grid_of(dataset),
            self.config.data.time_step_hours,
            self.config.model,
            normalisation(
                layout, statistics, unified=self.config.model.standardisation == "unified", whole=roles.whole
            ),
            names,
            fields,
        )
        # Batches are read by loaders with memory of their own; this is for validation.
        self.reader_memory_mb = self.config.execution.loader_memory_mb // 8
        self._reader = StateReader(dataset, layout, "the training store", memory_mb=self.reader_memory_mb)

    def windows(self, period: str, steps: int) -> WindowSource:
        """Return the windows of a period of the configuration for rollouts of `steps`, or for direct forecasts.

        There are none of a validation or test period that is not configured.
        """
        bounds = getattr(self.config.periods, period)
        model, forcings = self.config.model, self.spec.forcings
        step = np.timedelta64(self.spec.time_step_hours, "h")
        valid = self._valid if bounds is not None or period == "train" else np.zeros_like(self._valid)
        if not model.leads_hours:
            starts = window_starts(self._times, valid, model.input_steps + steps, step, bounds)
            return WindowSource(
                self._reader,
                self._times,
                starts,
                input_steps=model.input_steps,
                steps=steps,
                forcing=forcings.of_times,
            )
        starts = window_starts(self._times, valid, model.input_steps, step, bounds)
        return DirectWindows(
            self._reader,
            self._times,
            starts[:, None] + np.arange(model.input_steps),
            [np.timedelta64(lead, "h") for lead in model.leads_hours],
            valid & within(self._times, bounds),
            forcing=forcings.of_leads,
        )

    def weights(self) -> LossWeights:
        """Return the loss weights by latitude and channel."""
        training = self.config.training
        channel = [
            training.variable_weights.get(name, 1.0)
            * (1.0 if level is None else training.level_weights.get(level, 1.0))
            for name, level in self.spec.predicted
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


@contextlib.contextmanager
def _publishing_together(path: Path, fingerprint: str) -> Iterator[Path]:
    """Yield in all processes the folder that the first one prepares and, at the end, publishes."""
    if not is_lead():
        barrier("training begins")
        yield working_path(path)
        barrier("training ended")
    else:
        with publishing(path, keep_partial=True) as partial:
            _start_or_resume(partial, fingerprint)
            barrier("training begins")
            yield partial
            barrier("training ended")
    barrier("checkpoints published")


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
