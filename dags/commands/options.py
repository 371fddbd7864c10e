"""What commands on runs share: their common arguments, the run they mean, and how a stage is brought up to date."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dags import local, processes
from dags.failures import may_pass, short_message
from dags.stages import STAGES
from pipeline import redaction
from pipeline.config import Config
from pipeline.config_files import load_config, names_run
from pipeline.processes.membership import find_membership
from pipeline.scoring.table import score_table
from transforms.errors import InputError

__all__ = [
    "RUNS",
    "STAGE_NAMES",
    "STEPS",
    "Configuration",
    "Force",
    "Jobs",
    "Name",
    "Overrides",
    "Retries",
    "RunsDir",
    "bring_stage_up_to_date",
    "bring_up_to_date",
    "locate",
    "print_result",
    "print_scores",
    "reporting",
]

_PARTING_SECONDS = 20
"""For what a failed stage has left in threads to end."""

Configuration = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A shipped configuration, a YAML file or a run directory.")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="a.b=c", help="Values to change, e.g. training.seed=1")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of all runs.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run, and of its folder; the configuration's.")]
Force = Annotated[bool, typer.Option("--force", help="Run again although the result is up to date.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Most stages at work at once; what cores and memory allow.")
]
Retries = Annotated[
    int, typer.Option(min=0, help="Further attempts at a stage that lost the network or was killed for memory.")
]
STAGE_NAMES = f"One of {', '.join(STAGES)}."
RUNS: dict[str, Any] = {"rich_help_panel": "Runs"}
STEPS: dict[str, Any] = {"rich_help_panel": "Stages of a run"}


def locate(configuration: str, overrides: list[str] | None, runs_dir: Path, name: str | None) -> tuple[Config, Path]:
    """Return the configuration and the run directory that a command line means."""
    changes = [*(overrides or []), *([f"name={name}"] if name else [])]
    config = load_config(configuration, changes)
    source = config.source
    if source.path is not None and "://" not in source.path and not source.path.startswith("${"):
        # A run is resumed from any working directory.
        path = str(Path(source.path).expanduser().absolute())
        config = config.model_copy(update={"source": source.model_copy(update={"path": path})})
    if name is None and names_run(configuration):
        return config, Path(configuration)
    return config, runs_dir / config.name


def bring_stage_up_to_date(
    stage: str, configuration: str, overrides: list[str] | None, runs_dir: Path, name: str | None, force: bool
) -> tuple[Config, Path]:
    """Bring one stage of a run up to date; leave with the runner's status where that fails."""
    config, directory = locate(configuration, overrides, runs_dir, name)
    bring_up_to_date(stage, config, directory, force)
    return config, directory


def bring_up_to_date(stage: str, config: Config, directory: Path, force: bool) -> None:
    status = local.run(config, directory, start=stage, until=[stage], force=[stage] if force else [])
    if status:
        raise typer.Exit(status)


@contextlib.contextmanager
def reporting(directory: Path) -> Iterator[None]:
    """Do a stage's work; report what goes wrong, and part from the processes that worked beside this one."""
    redaction.guard_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # At INFO it tells of every backend it does not find.
    try:
        yield
    except InputError as error:
        processes.report_error(str(error), transient=may_pass(error, directory))
        _part(2, error)
        raise
    except Exception as error:
        processes.report_error(short_message(error, directory), transient=may_pass(error, directory))
        _part(1, error)
        processes.end_within(_PARTING_SECONDS, 1)
        if not processes.inherited_lock():
            raise
        traceback.print_exc()
        raise typer.Exit(1) from error


def _part(status: int, error: Exception) -> None:
    """End at once where other processes train beside this one: a usual exit would wait for them."""
    module = sys.modules.get("pipeline.processes.distributed")
    if module is not None and find_membership(os.environ).processes > 1:
        traceback.print_exception(error)
        module.leave(status)


def print_result(config: Config, directory: Path) -> None:
    print_scores(config, directory)
    report = directory / "report.html"
    if report.is_file():
        Console().print(f"Report: {report.absolute()}", markup=False, highlight=False, soft_wrap=True)


def print_scores(config: Config, directory: Path) -> None:
    table = score_table(directory / "metrics", config.report.headline)
    if table is not None:
        Console().print(table)
