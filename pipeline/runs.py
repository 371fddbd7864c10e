"""A run directory: its resolved configuration and where each artefact lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.config_files import load_config
from transforms.errors import InputError

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        directory: e.g. ``runs/quickstart``.
        config: resolved configuration.
    """

    directory: Path
    config: Config

    @classmethod
    def open(cls, directory: str | Path) -> Run:
        """Open an existing run directory.

        Raises:
            InputError: it holds no ``config.yaml``.
        """
        directory = Path(directory)
        if not (directory / "config.yaml").is_file():
            raise InputError(
                f"{directory}: not a run directory (it has no config.yaml). Start it with `spherecast run`."
            )
        return cls(directory, load_config(directory / "config.yaml"))

    @property
    def source_path(self) -> str:
        """Path or address of the raw data."""
        if self.config.source.kind != "store":
            return str(self.directory / "source.zarr")
        if self.config.source.path is None:
            raise InputError(
                "source.path: not set. Say where the raw data is, e.g. source.path=/data/era5.zarr on the command line."
            )
        return str(self.config.source.access()[0])

    @property
    def training_store(self) -> Path:
        return self.directory / "training.zarr"

    @property
    def validation_record(self) -> Path:
        return self.directory / "validation.json"

    @property
    def statistics(self) -> Path:
        return self.directory / "statistics.nc"

    @property
    def climatology(self) -> Path:
        return self.directory / "climatology.zarr"

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def forecast(self) -> Path:
        return self.directory / "forecast.zarr"

    @property
    def metrics(self) -> Path:
        return self.directory / "metrics"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"
