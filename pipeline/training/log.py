"""The record of a training: JSON lines, curves for TensorBoard and, where it is set up, MLflow."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

__all__ = ["TRAINING_LOG", "TrainingLog"]

logger = logging.getLogger(__name__)

TRAINING_LOG = "training.jsonl"
_MLFLOW = "MLFLOW_TRACKING_URI"
_MLFLOW_RUN = "mlflow-run"


class TrainingLog:
    """Writes events; one process of a training does."""

    def __init__(self, path: Path, tensorboard: Path, upto: int) -> None:
        """Open the log, dropping events after update `upto`: they will be written again.

        Args:
            path: of the JSON lines.
            tensorboard: folder of the event files.
        """
        path.write_text("".join(line + "\n" for line in _complete_lines(path) if json.loads(line)["update"] <= upto))
        self._file = path.open("a")
        if upto == 0 and tensorboard.is_dir():
            shutil.rmtree(tensorboard)
        self._writer = SummaryWriter(str(tensorboard), purge_step=upto + 1 if upto else None)
        self._mlflow = _Mlflow.of(tensorboard.parent / _MLFLOW_RUN, resume=upto > 0)

    def write(self, event: str, update: int, **values: Any) -> None:
        """Append one event; its numbers, and those in dictionaries among its values, become curves too."""
        self._file.write(json.dumps({"event": event, "update": update, **values}) + "\n")
        self._file.flush()
        self.curves(event, update, **values)

    def curves(self, event: str, update: int, **values: Any) -> None:
        """Add points to the curves alone: of what another machine, or the same at another time, finds otherwise."""
        points = {
            f"{event}/{name}": value for name, value in _numbers(values) if name not in ("stage", "rollout_steps")
        }
        for name, value in points.items():
            self._writer.add_scalar(name, value, update)
        if self._mlflow is not None:
            self._mlflow.log(points, update)

    def close(self) -> None:
        """Write what is still in memory."""
        self._file.close()
        self._writer.close()
        if self._mlflow is not None:
            self._mlflow.close()


class _Mlflow:
    """A run of an MLflow server; it never stops a training."""

    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    @classmethod
    def of(cls, remembered: Path, *, resume: bool) -> _Mlflow | None:
        """Return the run named in the file `remembered`, or a new one; None where MLflow is absent or not set up."""
        if not os.environ.get(_MLFLOW) or importlib.util.find_spec("mlflow") is None:
            return None
        from mlflow.tracking import MlflowClient

        try:
            client = MlflowClient()
            if resume and remembered.is_file():
                return cls(client, remembered.read_text().strip())
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "spherecast")
            experiment = client.get_experiment_by_name(name)
            identifier = experiment.experiment_id if experiment else client.create_experiment(name)
            run = client.create_run(identifier, run_name=remembered.parent.parent.name).info.run_id
            remembered.write_text(run + "\n")
            return cls(client, run)
        except Exception as error:  # noqa: BLE001  MLflow's clients raise classes of their own transports.
            logger.warning("MLflow: %s; going on without it. Check %s.", error, _MLFLOW)
            return None

    def log(self, points: dict[str, float], update: int) -> None:
        try:
            for name, value in points.items():
                # MLflow refuses '@' in names.
                self._client.log_metric(self._run, name.replace("@", "_"), value, step=update)
        except Exception as error:  # noqa: BLE001  As above; a training does not end for want of its log.
            logger.warning("MLflow: %s", error)

    def close(self) -> None:
        """Leave the run open: a training that is stopped goes on with it."""


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _complete_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a log; a last one that a kill has cut short is left out."""
    text = path.read_text() if path.is_file() else ""
    yield from text[: text.rfind("\n") + 1].splitlines()
