"""Checkpoints: saving and resuming training, and rebuilding a forecaster from one."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers as managers

from model.forecaster import Forecaster, Normalisation, Roles
from model.network import Level, NetworkConfig
from model.noise import Noise
from model.training import TrainState
from pipeline.artefacts import digest, require
from pipeline.config import ModelConfig
from pipeline.states.layout import StateLayout
from pipeline.states.roles import Forcings, roles_of
from transforms.errors import InputError
from transforms.grids import Grid

__all__ = ["CheckpointStore", "Choice", "ForecasterSpec", "Trained", "load_forecaster", "load_trained"]

SPEC_FILE = "forecaster.json"
_STATICS_FILE = "statics.npy"


@dataclass(frozen=True)
class Choice:
    """One checkpoint of a training.

    Attributes:
        folder: of its checkpoints.
        which: ``latest``, ``best`` or a number of updates.
    """

    folder: Path
    which: str | int = "latest"

    def __str__(self) -> str:
        return f"{self.folder}@{self.which}"


@dataclass(frozen=True)
class ForecasterSpec:
    """All that defines a forecaster except its parameters; saved beside them.

    Attributes:
        layout: channels of a state.
        grid: grid of the states.
        time_step_hours: model step.
        model: configuration of the network.
        normalisation: per-channel constants.
        statics: names of the time-independent inputs.
        static_fields: normalised, (static, latitude, longitude).
    """

    layout: StateLayout
    grid: Grid
    time_step_hours: int
    model: ModelConfig
    normalisation: Normalisation
    statics: tuple[str, ...]
    static_fields: np.ndarray

    @cached_property
    def roles(self) -> Roles:
        """What the fields of a state are to the network."""
        return roles_of(self.layout, self.model)

    @property
    def predicted(self) -> list[tuple[str, int | None]]:
        """(variable, level) of every predicted channel."""
        return [self.layout.fields[channel] for channel in self.roles.predicted]

    @property
    def scale(self) -> np.ndarray:
        """What predicted channels and their errors are measured in."""
        return self.normalisation.tendency_std[list(self.roles.predicted)]

    @property
    def forcings(self) -> Forcings:
        """What drives the network."""
        return Forcings(self.model, self.grid)

    def noise(self, mesh: Mesh | None = None) -> Noise | None:
        """Return what makes the noise that the network takes; None where it takes none."""
        model = self.model
        return Noise(self.grid, model.noise, model.noise_length_km, mesh) if model.noise else None

    def build(self, seed: int = 0, mesh: Mesh | None = None) -> Forecaster:
        """Return a forecaster with initial parameters, to be run on `mesh`; they do not depend on it."""
        levels = tuple(Level(**level.model_dump()) for level in self.model.levels)
        network = NetworkConfig(
            levels,
            hidden_grid=self.model.hidden_grid,
            filter_knots=self.model.filter_knots,
            nonlinearity=self.model.nonlinearity,
            vector_gate=self.model.vector_gate,
            residual=self.model.residual,
            normalisation=self.model.normalisation,
            mirror_symmetric=self.model.mirror_symmetric,
            precision=self.model.precision,
        )
        return Forecaster(
            network,
            self.grid,
            self.layout.channels,
            self.normalisation,
            self.static_fields,
            forcings=self.forcings.count,
            roles=self.roles,
            input_steps=self.model.input_steps,
            remat=self.model.remat,
            noise=self.noise(mesh),
            mesh=mesh,
            rngs=nnx.Rngs(seed),
        )

    def save(self, directory: Path) -> None:
        """Write the specification into a checkpoint directory."""
        value = {
            "variables": self.layout.variables,
            "levels": self.layout.levels,
            "time_step_hours": self.time_step_hours,
            "model": self.model.model_dump(mode="json"),
            "latitude": self.grid.latitude.tolist(),
            "longitude": self.grid.longitude.tolist(),
            "normalisation": {key: array.tolist() for key, array in asdict(self.normalisation).items()},
            "statics": self.statics,
        }
        (directory / SPEC_FILE).write_text(json.dumps(value, indent=1) + "\n")
        np.save(directory / _STATICS_FILE, self.static_fields)

    @classmethod
    def load(cls, directory: Path) -> ForecasterSpec:
        """Read what `save` wrote."""
        value = json.loads((directory / SPEC_FILE).read_text())
        model = ModelConfig.model_validate(value["model"])
        return cls(
            StateLayout(tuple(value["variables"]), tuple(value["levels"]), model.winds == "vectors"),
            Grid(np.array(value["latitude"]), np.array(value["longitude"])),
            value["time_step_hours"],
            model,
            Normalisation(**{key: np.array(array) for key, array in value["normalisation"].items()}),
            tuple(value["statics"]),
            np.load(directory / _STATICS_FILE),
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained forecaster in inference mode, to be merged from its parts.

    Attributes:
        graph: its static part; one object for all of equal specification.
        state: all its arrays.
        digest: of the trained values and of what they belong to.
    """

    spec: ForecasterSpec
    graph: nnx.GraphDef
    state: nnx.State
    digest: str


class CheckpointStore:
    """The Orbax checkpoints of one training, written while training goes on.

    With several processes all of them must call the same methods in the same order.
    """

    def __init__(
        self, directory: Path, *, keep: int | None = None, keep_every: int | None = None, keep_best: int = 0
    ) -> None:
        """Open the folder.

        Args:
            keep: latest checkpoints that are kept; None keeps all.
            keep_every: keep those, too, whose number of updates is a multiple of this.
            keep_best: number of those kept, too, that forecast best; see `save`.
        """
        # Orbax logs each step of a save, and warns of each that has no score; a user reads the log for the training.
        logging.getLogger("absl").setLevel(logging.ERROR)
        policies = [managers.LatestN(keep)]
        if keep_every is not None:
            policies.append(managers.EveryNSteps(keep_every))
        if keep_best:
            policies.append(managers.BestN(get_metric_fn=_rank, n=keep_best, keep_checkpoints_without_metrics=False))
        self._manager = ocp.CheckpointManager(
            directory.resolve(),
            options=ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=keep is not None,
                preservation_policy=managers.AnyPreservationPolicy(policies),
                # The caller says when; Orbax's own rules would ask a service for preemptions that is not used.
                save_decision_policy=managers.FixedIntervalPolicy(1),
                best_fn=_rank,
            ),
        )

    def latest(self) -> int | None:
        """Return the number of updates of the latest complete checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Return the number of updates of the best checkpoint that has a score, or None."""
        scored = [step for step in self._manager.all_steps() if self._manager.metrics(step) is not None]
        return max(scored, key=lambda step: _rank(self._manager.metrics(step)), default=None)

    def updates(self) -> list[int]:
        """Return the numbers of updates of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self, update: int, state: TrainState, progress: dict[str, Any], score: tuple[int, float] | None = None
    ) -> None:
        """Save asynchronously.

        Args:
            progress: JSON-serialisable position in the curriculum and in the data.
            score: stage and validation loss, where it is known. A later stage is better; within one, a smaller loss.
        """
        items = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), progress=ocp.args.JsonSave(progress))
        metrics = None if score is None else {"stage": score[0], "loss": score[1]}
        self._manager.save(update, args=items, metrics=metrics, force=True)

    def wait(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()

    def restore_progress(self, update: int) -> dict[str, Any]:
        """Return the position saved with a checkpoint."""
        return self._manager.restore(update, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]

    def restore(self, update: int, like: TrainState) -> TrainState:
        """Return the saved state, placed as `like` is, wherever it was when it was saved."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return TrainState(**self._manager.restore(update, args=items)["state"])

    def restore_average(
        self, like: nnx.State, statistics: nnx.State, update: int | None = None
    ) -> tuple[nnx.State, nnx.State]:
        """Return averaged parameters and statistics of normalisations, by default the latest, placed as those given."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"ema": like, "statistics": statistics})
        arguments = ocp.args.PyTreeRestore(
            abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=True
        )
        update = self.latest() if update is None else update
        restored = self._manager.restore(update, args=ocp.args.Composite(state=arguments))["state"]
        return restored["ema"], restored["statistics"]

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_forecaster(checkpoints: Path, which: str | int = "latest") -> tuple[Forecaster, ForecasterSpec]:
    """Return the trained forecaster (its averaged parameters, in inference mode) and its specification.

    Args:
        which: ``latest``; ``best``, that of the smallest validation loss, or the latest where none has one; or a number
            of updates.

    Raises:
        InputError: no published checkpoint is there, or not that one.
    """
    require(checkpoints, "checkpoint", "run `spherecast train` first")
    spec = ForecasterSpec.load(checkpoints)
    forecaster = spec.build()
    forecaster.eval()
    _restore(forecaster, checkpoints, which)
    return forecaster, spec


def load_trained(choices: Sequence[Choice]) -> list[Trained]:
    """Return the forecasters of some checkpoints, those of equal specification with one graph and one set of tables.

    Raises:
        InputError: as `load_forecaster`, or they differ in grid, variables, levels or time step.
    """
    built: dict[str, tuple[Forecaster, ForecasterSpec]] = {}
    loaded: list[Trained] = []
    for choice in choices:
        require(choice.folder, "checkpoint", "run `spherecast train` first")
        statics = (choice.folder / _STATICS_FILE).read_bytes()
        identity = digest([json.loads((choice.folder / SPEC_FILE).read_text()), hashlib.sha256(statics).hexdigest()])
        if identity not in built:
            built[identity] = load_forecaster(choice.folder, choice.which)
        else:
            _restore(built[identity][0], choice.folder, choice.which)
        forecaster, spec = built[identity]
        values = hashlib.sha256(identity.encode())
        for leaf in jax.tree.leaves(nnx.state(forecaster, nnx.Param, nnx.BatchStat)):
            values.update(np.ascontiguousarray(leaf).tobytes())
        first = loaded[0].spec if loaded else spec
        for what, got, expected in (
            ("variables and levels", spec.layout.fields, first.layout.fields),
            ("time step", spec.time_step_hours, first.time_step_hours),
            ("grid", spec.grid.matches(first.grid), True),
        ):
            if got != expected:
                raise InputError(
                    f"{choice}: its {what} differ from those of {choices[0]}; members of one forecast need the same. "
                    "Forecast with each by itself."
                )
        graph, state = nnx.split(forecaster)
        # The variables of `state` are the forecaster's, which the next checkpoint changes; the arrays stay as they are.
        loaded.append(Trained(spec, graph, jax.tree.map(lambda leaf: leaf, state), values.hexdigest()))
    return loaded


def _restore(forecaster: Forecaster, checkpoints: Path, which: str | int) -> None:
    """Give a forecaster the averaged parameters of a checkpoint."""
    store = CheckpointStore(checkpoints)
    try:
        named: dict[str | int, Any] = {"latest": None, "best": store.best()}
        update = named.get(which, which)
        if update is not None and update not in store.updates():
            raise InputError(
                f"{checkpoints}: no checkpoint after {update} updates is kept; there are "
                f"{', '.join(map(str, store.updates()))}. Choose one of these, latest or best."
            )
        trained = store.restore_average(nnx.state(forecaster, nnx.Param), nnx.state(forecaster, nnx.BatchStat), update)
    finally:
        store.close()
    nnx.update(forecaster, *trained)


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """Order checkpoints, the best last: losses of rollouts of different lengths cannot be compared."""
    return metrics["stage"], -metrics["loss"]
