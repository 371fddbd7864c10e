"""Commands that other schedulers start, one process a task: the run's folder first, then stage after stage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from dags import processes
from dags.commands.options import Configuration, Name, Overrides, RunsDir, locate
from pipeline.runs import Run

__all__ = ["app"]

app = typer.Typer()


@app.command(hidden=True)
def configure(
    configuration: Configuration,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
) -> None:
    """Write the folder of a run with its resolved configuration, and print the folder; do nothing else.

    Reads the configuration. Writes runs/NAME/config.yaml, which `spherecast stage` reads.

    Example: `spherecast configure tiny training.seed=1 --runs-dir /data/runs`
    """
    config, directory = locate(configuration, overrides, runs_dir, name)
    directory = directory.absolute()
    path = directory / "config.yaml"
    with contextlib.ExitStack() as stack:
        if path.is_file() and path.read_text() != config.to_yaml():
            # What works on the run has read the configuration as it is.
            stack.enter_context(processes.hold(directory))
        Run.create(directory, config)
    print(directory)
