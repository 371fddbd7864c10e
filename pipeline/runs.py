"""A run directory: its resolved configuration and where each artefact lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.artefacts import working_path
from pipeline.config import Config
from pipeline.config_files import load_config
from transforms.errors import InputError

__all__ = ["Run", "refuse_foreign"]


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

    @classmethod
    def create(cls, directory: str | Path, config: Config) -> Run:
        """Write the resolved configuration into a run directory, which is made where it is missing.

        A file that holds the same already is left as it is.

        Raises:
            InputError: the directory is somebody else's, or cannot be written to.
        """
        directory = Path(directory)
        path = directory / "config.yaml"
        refuse_foreign(directory)
        text = config.to_yaml()
        if not path.is_file() or path.read_text() != text:
            try:
                (directory / "logs").mkdir(parents=True, exist_ok=True)
                _replace(path, text, private=bool(config.source.storage_options) or config.holds_credentials)
            except OSError as error:
                reason = f"cannot write there ({error.strerror})"
                raise InputError(f"{directory}: {reason}. Choose another --runs-dir.") from error
        return cls(directory, config)

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


def refuse_foreign(directory: Path) -> None:
    """Refuse a directory that holds somebody else's files; a run that was killed at once leaves only its logs and lock.

    Raises:
        InputError: it is one.
    """
    if (directory / "config.yaml").is_file() or not directory.exists():
        return
    if not directory.is_dir() or any(entry.name not in ("logs", ".lock") for entry in directory.iterdir()):
        raise InputError(f"{directory}: exists and is not a run directory. Choose another --name or --runs-dir.")


def _replace(path: Path, text: str, private: bool) -> None:
    """Write a text file that readers see whole; `private` where its values may be credentials."""
    partial = working_path(path)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    if not private:
        partial.chmod(0o644)
    os.replace(partial, path)
