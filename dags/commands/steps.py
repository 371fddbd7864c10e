"""Commands on single stages of a run."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dags import local, processes, stage_work
from dags.commands.options import (
    STAGE_NAMES,
    STEPS,
    Configuration,
    Force,
    Jobs,
    Name,
    Overrides,
    RunsDir,
    bring_stage_up_to_date,
    bring_up_to_date,
    locate,
    print_result,
    print_scores,
    reporting,
)
from dags.fingerprints import graph
from dags.plan import expected_of, nothing_to_do, upstream_faults
from dags.stages import PREPROCESS_END, STAGES
from dags.state import State
from pipeline.config import Config
from pipeline.config_files import load_config
from pipeline.defaults import data_config, is_store
from pipeline.processes.membership import COORDINATOR, PROCESS, PROCESSES, find_membership
from pipeline.runs import Run
from pipeline.stages import load
from transforms.errors import InputError

__all__ = ["app"]

app = typer.Typer()

_REPEATABLE = {
    "variables": "--variable",
    "levels": "--level",
    "numbers": "--number",
    "checkpoints": "--checkpoint",
}
"""Options of `forecast` that are named for one of what they gather."""


@app.command(**STEPS)
def preprocess(
    configuration: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|SOURCE",
            help="A configuration, a run directory, or data: a .zarr, .nc or .grib, or its URL.",
        ),
    ],
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
    runner: Annotated[
        str | None,
        typer.Option(
            "--runner", help="Runner of Apache Beam; the configuration's. What follows -- goes to the runner."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and why; change nothing.")] = False,
    jobs: Jobs = None,
) -> None:
    """Prepare data for training: validate, regrid, statistics, climatology.

    Reads the source. Writes training.zarr, statistics.nc and climatology.zarr into runs/NAME. Given data instead of a
    configuration, it takes every variable it knows, on WeatherBench's 13 levels, to a grid of 32 x 64 points.

    Example: `spherecast preprocess era5.zarr data.grid.latitude=64 data.grid.longitude=128`
    """
    overrides = _with_runner(overrides or [], runner)
    if is_store(configuration):
        config = data_config(configuration, overrides or [], name)
        directory = runs_dir / config.name
    else:
        config, directory = locate(configuration, overrides, runs_dir, name)
    status = local.run(config, directory, until=PREPROCESS_END, dry_run=dry_run, jobs=jobs)
    if status == 0 and not dry_run:
        Console().print(f"Training store: {directory / 'training.zarr'}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


@app.command(**STEPS)
def train(
    configuration: Configuration,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
    force: Force = False,
    start: Annotated[
        str | None,
        typer.Option("--launch", metavar="local:N", help="Train in N processes on this machine, as a trial."),
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of process 0, of a training in several processes.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Number of processes.")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="Number of this process, from 0.")] = None,
) -> None:
    """Train the network of a run, on all devices it finds.

    Reads training.zarr and statistics.nc of the run, writes checkpoints/. An interrupted training goes on from its
    last checkpoint. On several machines, run it on each: Slurm, Kubernetes and TPU slices tell it which it is.

    Example: `spherecast train runs/quickstart training.seed=1`
    """
    config, directory = locate(configuration, overrides, runs_dir, name)
    if start is not None:
        arguments = [configuration, *(overrides or []), f"--runs-dir={runs_dir}", *([f"--name={name}"] if name else [])]
        raise typer.Exit(_launch(start, [*arguments, *(["--force"] if force else [])], directory))
    member = find_membership(os.environ, coordinator, processes, process)
    if member.processes > 1:
        os.environ |= {
            COORDINATOR: str(member.coordinator),
            PROCESSES: str(member.processes),
            PROCESS: str(member.process),
        }
    if member.process > 0:
        with reporting(directory):
            stage_work.follow("train", directory)
    else:
        bring_up_to_date("train", config, directory, force)


def _launch(text: str, arguments: list[str], directory: Path) -> int:
    """Train in processes of their own on this machine; return their status."""
    from pipeline.processes.local import launch_local, parse_local

    number = parse_local(text)
    command = [sys.executable, "-m", "dags", "train", *arguments]
    environment = {processes.PARENT_VARIABLE: str(os.getpid())}
    return launch_local(number, command, logs=directory / "logs", environment=environment)


@app.command(**STEPS)
def forecast(
    configuration: Configuration,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
    force: Force = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Write there instead, .zarr (path or address) or .nc; see below."
        ),
    ] = None,
    initial_times: Annotated[
        str | None,
        typer.Option(metavar="TIMES", help="E.g. 2020-01-01T12,2020-02-01:2020-02-28:12h; the test period's."),
    ] = None,
    leads: Annotated[
        str | None, typer.Option(metavar="LEADS", help="E.g. 0h:240h:6h or 1d,3d,5d; the configuration's.")
    ] = None,
    variable: Annotated[list[str] | None, typer.Option(help="Variable to write; repeatable. All.")] = None,
    level: Annotated[list[int] | None, typer.Option(help="Level to write, hPa; repeatable. All.")] = None,
    states: Annotated[
        str | None, typer.Option(metavar="STORE", help="Where forecasts start from; the run's training store.")
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="Members from each checkpoint, the first not perturbed.")
    ] = None,
    number: Annotated[list[int] | None, typer.Option(help="Member to write; repeatable. All.")] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="WHICH", help="latest, best, a number of updates, RUN or RUN@WHICH; repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output path.")] = False,
) -> None:
    """Forecast from every initial time of a run's test period; with --output, from any initial times to any place.

    Reads checkpoints/ and training.zarr of the run, writes forecast.zarr in WeatherBench 2's layout. With --output it
    changes nothing in the run, reads --states instead, and goes on with what the same command left unfinished;
    docs/forecasts.md tells of ensembles.

    Example: `spherecast forecast runs/quickstart -o storm.nc --initial-times 2003-01-01:2003-01-05:12h --members 10`
    """
    asked = {
        "initial_times": initial_times,
        "leads": leads,
        "variables": variable,
        "levels": level,
        "states": states,
        "members": members,
        "numbers": number,
        "checkpoints": checkpoint,
        "overwrite": overwrite,
    }
    processes.tie_to_parent()
    if target is None:
        _refuse_without_output(asked)
        bring_stage_up_to_date("forecast", configuration, overrides, runs_dir, name, force)
    elif force:
        raise InputError("--force: is for the run's own forecast.zarr. With --output, give --overwrite.")
    else:
        _forecast_to(locate(configuration, None, runs_dir, name)[1], target, overrides or [], asked)


def _refuse_without_output(asked: dict[str, Any]) -> None:
    for key, value in asked.items():
        if value:
            option = _REPEATABLE.get(key, f"--{key.replace('_', '-')}")
            raise InputError(
                f"{option}: needs --output. The run's own forecast.zarr is what its configuration says: change "
                "forecast.* there, as in forecast.lead_hours=240, or give -o OUT.zarr."
            )


def _forecast_to(directory: Path, target: str, overrides: list[str], asked: dict[str, Any]) -> None:
    """Forecast from a run to any place and say so; `asked` are arguments of `forecast_to`."""
    from pipeline.commands.forecast_elsewhere import forecast_to

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    written = forecast_to(directory, target, overrides=overrides, **asked)
    message = f"Wrote {target}" if written else f"Nothing to do: {target} is up to date."
    Console(stderr=not written).print(message, markup=False, highlight=False, soft_wrap=True)


@app.command(**STEPS)
def evaluate(
    configuration: Configuration,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
    force: Force = False,
) -> None:
    """Score a run's forecasts beside persistence and climatology.

    Reads forecast.zarr, training.zarr and climatology.zarr of the run, writes metrics/*.nc.

    Example: `spherecast evaluate runs/quickstart evaluation.regions="[global, tropics]"`
    """
    config, directory = bring_stage_up_to_date("evaluate", configuration, overrides, runs_dir, name, force)
    print_scores(config, directory)


@app.command(**STEPS)
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs side by side, or one configuration; and a.b=c, values to change."),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="RESULTS.nc", help="Results in WeatherBench 2's layout, as a further line; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="RUN/report.html of one run; of several report.html here."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write figures for papers there too; needs spherecast[figures]."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="FORMATS", help="Of the figures, e.g. png,pdf.")
    ] = "png,pdf",
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
    force: Force = False,
) -> None:
    """Write the verification report of a run, or of several side by side: one HTML page that needs nothing else.

    Reads metrics/*.nc, forecast.zarr and the records of each run; what a run lacks, the page says first. Results of other
    forecasts, as `spherecast score` writes them, join by --against. docs/report.md tells how to read it.

    Example: `spherecast report runs/quickstart runs/other --against graphcast.nc -o comparison.html`
    """
    words = [word for word in runs if "=" in word and not Path(word).exists()]
    named = [word for word in runs if word not in words]
    if not named:
        raise InputError(f"{words[0]!r}: changes a value of no run. Name a run first.")
    if len(named) == 1 and not against and output is None:
        config, directory = locate(named[0], words, runs_dir, name)
        if not _report_of_what_there_is(config, directory, words):
            bring_up_to_date("report", config, directory, force)
        print_result(config, directory)
        if figures:
            _write_figures(figures, [Run.open(directory)], [], formats)
        return
    for option, given in (("--force", force), ("--name", name)):
        if given:
            raise InputError(f"{option}: is for a run's own report. Leave it out, or {option} alone with one run.")
    target = output or Path("report.html")
    existing = [_existing_run(word, runs_dir, words) for word in named]
    _write_report(target, existing, against or [])
    Console().print(f"Report: {target.absolute()}", markup=False, highlight=False, soft_wrap=True)
    if figures:
        _write_figures(figures, existing, against or [], formats)


def _report_of_what_there_is(config: Config, directory: Path, words: list[str]) -> bool:
    """Write the report of a run whose stages before it are not all done; return whether it is such a run."""
    if not (directory / "config.yaml").is_file() or not all(word.startswith("report.") for word in words):
        return False
    nodes = graph(config, STAGES)
    upstream = [nodes[stage] for stage in nodes["report"].upstream]
    if not upstream_faults(directory, upstream, expected_of(config, State(directory), STAGES)):
        return False
    _write_report(directory / "report.html", [Run(directory, config)], [])
    return True


def _existing_run(word: str, runs_dir: Path, words: list[str]) -> Run:
    """Return the run at a path or of a name among all runs, with changed values of its report."""
    other = next((text for text in words if not text.startswith("report.")), None)
    if other:
        raise InputError(
            f"{other!r}: only values of report.* can be changed here. Change others with `spherecast run`."
        )
    directory = Path(word) if (Path(word) / "config.yaml").is_file() else runs_dir / word
    run = Run.open(directory if (directory / "config.yaml").is_file() else Path(word))
    return Run(run.directory, load_config(str(run.directory), words)) if words else run


def _write_figures(directory: Path, runs: list[Run], against: list[Path], formats: str) -> None:
    """Write the figures and say where they are."""
    from pipeline.report import write_figures

    chosen = [kind.strip() for kind in formats.split(",") if kind.strip()]
    written = write_figures(directory, runs, against, formats=chosen)
    text = f"Figures: {len(written)} files in {directory.absolute()}"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def _write_report(target: Path, runs: list[Run], against: list[Path]) -> None:
    """Write a report and say what is missing from it."""
    from pipeline.report import write_report

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    if not target.parent.is_dir():
        raise InputError(f"--output: there is no folder {target.parent}. Make it first.")
    for sentence in write_report(target, runs, against):
        Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)


@app.command(hidden=True)
def stage(
    name: Annotated[str, typer.Argument(metavar="STAGE", help=STAGE_NAMES)],
    directory: Annotated[Path, typer.Argument(metavar="RUN")],
    beam: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTIONS", help="Of Apache Beam, instead of the configuration's.")
    ] = None,
    force: Force = False,
    idle_status: Annotated[
        int, typer.Option(metavar="N", help="Exit status where there is nothing to do: up to date, or not of this run.")
    ] = 0,
) -> None:
    """Do the work of one stage in this process; what schedulers call."""
    processes.tie_to_parent()
    if idle_status and not force and nothing_to_do(directory, name, Run.open(directory).config):
        raise typer.Exit(idle_status)
    with reporting(directory):
        changed: dict[str, Any] = {"function": _with_beam(beam)} if beam else {}
        stage_work.work(name, directory, force=force, **changed)


def _with_beam(options: list[str]) -> Callable[[str], Callable[[Run, str, dict[str, str]], None]]:
    """Return what finds the function of a stage, which is given a run with these options of Apache Beam."""

    def find(name: str) -> Callable[[Run, str, dict[str, str]], None]:
        function = load(name)

        def work(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
            execution = run.config.execution.model_copy(update={"beam": options})
            changed = Run(run.directory, run.config.model_copy(update={"execution": execution}))
            function(changed, fingerprint, inputs)

        return work

    return find


def _with_runner(overrides: list[str], runner: str | None) -> list[str]:
    """Turn a runner, and options of its own among the overrides, into an override of the configuration."""
    options = [word for word in overrides if word.startswith("-")]
    if runner is None and not options:
        return overrides
    beam = [f"--runner={runner or 'DirectRunner'}", *options]
    return [word for word in overrides if word not in options] + [f"execution.beam={json.dumps(beam)}"]
