"""The `spherecast` command: the commands that work on a run. Those that work on single stores are in `pipeline.cli`."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from dags import local, processes
from dags.display import as_bytes, as_duration
from dags.failures import disk_message, short_message
from dags.fingerprints import graph
from dags.stages import PREPROCESS_END, STAGES
from dags.state import State
from pipeline.cli import app as stores
from pipeline.config import Config, load_config, names_run
from pipeline.defaults import data_config, is_store
from pipeline.runs import Run
from pipeline.scores import score_table
from transforms.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    name="spherecast",
    help="Forecast the weather with spherical convolutional networks, from raw zarr to verification report.",
    epilog="Start with: spherecast run tiny (under a minute), then: spherecast run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Configuration = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A shipped configuration, a YAML file or a run directory.")
]
_Overrides = Annotated[list[str] | None, typer.Argument(metavar="a.b=c", help="Values to change, e.g. training.seed=1")]
_RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of all runs.")]
_Name = Annotated[str | None, typer.Option("--name", help="Name of the run, and of its folder; the configuration's.")]
_Force = Annotated[bool, typer.Option("--force", help="Run again although the result is up to date.")]
_StageNames = f"One of {', '.join(STAGES)}."
_RUNS = {"rich_help_panel": "Runs"}
_STEPS = {"rich_help_panel": "Stages of a run"}


@app.command(**_RUNS)
def run(
    configuration: _Configuration,
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Leave out all before STAGE; it must be there and match."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after STAGE.")] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(
            "--force", metavar="STAGE", help="Run STAGE from its beginning, and all that comes after it. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and why; change nothing.")] = False,
) -> None:
    """Run the whole chain: simulate, validate, regrid, statistics, climatology, train, forecast, evaluate, report.

    Reads the source that the configuration names. Writes the folder runs/NAME: the resolved configuration, every
    stage's result, its log, and report.html. A stage whose result was made from the same settings and inputs is
    skipped, so the same command resumes what was interrupted.

    Example: `spherecast run quickstart training.seed=1 --name second-seed`
    """
    config, directory = _locate(configuration, overrides, runs_dir, name)
    status = local.run(
        config,
        directory,
        start=start,
        until=[until] if until else [],
        force=force or [],
        dry_run=dry_run,
    )
    if status == 0 and not dry_run and until in (None, "report"):
        _print_result(config, directory)
    raise typer.Exit(status)


@app.command(**_RUNS)
def status(
    directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or the name of a run.")],
    runs_dir: _RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show each stage of a run: its state, the time it took, the size of its result and its log.

    Reads runs/NAME/state.json. Example: `spherecast status quickstart`
    """
    path = Path(directory) if (Path(directory) / "config.yaml").is_file() else runs_dir / directory
    run = Run.open(path if path.exists() else Path(directory))
    record = _record(run)
    if as_json:
        print(json.dumps(record, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for heading, justify in (
        ("stage", "left"),
        ("state", "left"),
        ("time", "right"),
        ("size", "right"),
        ("log", "left"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")
    for name, entry in record["stages"].items():
        size = sum(entry.get("bytes", {}).values())
        state = "up to date" if entry["state"] == "skipped" else entry["state"]
        log = entry.get("log") or ""
        table.add_row(name, state, as_duration(entry.get("seconds")), as_bytes(size) if size else "", escape(log))
    Console().print(table)


@app.command(**_STEPS)
def preprocess(
    configuration: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|SOURCE",
            help="A configuration, a run directory, or data: a .zarr, .nc or .grib, or its URL.",
        ),
    ],
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    runner: Annotated[
        str | None,
        typer.Option(
            "--runner", help="Runner of Apache Beam; the configuration's. What follows -- goes to the runner."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and why; change nothing.")] = False,
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
        config, directory = _locate(configuration, overrides, runs_dir, name)
    status = local.run(config, directory, until=PREPROCESS_END, dry_run=dry_run)
    if status == 0 and not dry_run:
        Console().print(f"Training store: {directory / 'training.zarr'}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


@app.command(**_STEPS)
def train(
    configuration: _Configuration,
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    force: _Force = False,
) -> None:
    """Train the network of a run.

    Reads training.zarr and statistics.nc of the run, writes checkpoints/. An interrupted training goes on from its
    last checkpoint.

    Example: `spherecast train runs/quickstart training.seed=1`
    """
    _single("train", configuration, overrides, runs_dir, name, force)


@app.command(**_STEPS)
def forecast(
    configuration: _Configuration,
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    force: _Force = False,
) -> None:
    """Forecast from every initial time of a run's test period.

    Reads checkpoints/ and training.zarr of the run, writes forecast.zarr in WeatherBench 2's layout.

    Example: `spherecast forecast runs/quickstart forecast.lead_hours=240`
    """
    _single("forecast", configuration, overrides, runs_dir, name, force)


@app.command(**_STEPS)
def evaluate(
    configuration: _Configuration,
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    force: _Force = False,
) -> None:
    """Score a run's forecasts beside persistence and climatology.

    Reads forecast.zarr, training.zarr and climatology.zarr of the run, writes metrics/*.nc.

    Example: `spherecast evaluate runs/quickstart evaluation.regions="[global, tropics]"`
    """
    config, directory = _single("evaluate", configuration, overrides, runs_dir, name, force)
    _print_scores(config, directory)


@app.command(**_STEPS)
def report(
    configuration: _Configuration,
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    force: _Force = False,
) -> None:
    """Write a run's verification report, one HTML page that needs nothing else.

    Reads metrics/*.nc, forecast.zarr and the training record of the run, writes report.html.

    Example: `spherecast report runs/quickstart report.title="My first forecasts"`
    """
    config, directory = _single("report", configuration, overrides, runs_dir, name, force)
    _print_result(config, directory)


@app.command(hidden=True)
def stage(
    name: Annotated[str, typer.Argument(metavar="STAGE", help=_StageNames)],
    directory: Annotated[Path, typer.Argument(metavar="RUN")],
    force: _Force = False,
) -> None:
    """Do the work of one stage in this process; what schedulers call."""
    processes.tie_to_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # At INFO it tells of every backend it does not find.
    try:
        local.work(name, directory, force=force)
    except InputError as error:
        processes.report_error(str(error))
        raise
    except Exception as error:
        processes.report_error(short_message(error, directory))
        if not processes.inherited_lock():
            raise
        traceback.print_exc()
        raise typer.Exit(1) from error


app.add_typer(stores)


def main() -> None:
    """Run the command; faults of the input end in a message and status 2, others in a short one and status 1."""
    console = Console(stderr=True)
    try:
        app()
    except InputError as error:
        _show(console, str(error))
        sys.exit(2)
    except Exception as error:
        _unexpected(console, error)
        sys.exit(1)


def _locate(configuration: str, overrides: list[str] | None, runs_dir: Path, name: str | None) -> tuple[Config, Path]:
    """Return the configuration and the run directory that a command line means."""
    changes = [*(overrides or []), *([f"name={name}"] if name else [])]
    config = load_config(configuration, changes)
    source = config.source
    if source.path is not None and "://" not in source.path:
        # A run is resumed from any working directory.
        path = str(Path(source.path).expanduser().absolute())
        config = config.model_copy(update={"source": source.model_copy(update={"path": path})})
    if name is None and names_run(configuration):
        return config, Path(configuration)
    return config, runs_dir / config.name


def _with_runner(overrides: list[str], runner: str | None) -> list[str]:
    """Turn a runner, and options of its own among the overrides, into an override of the configuration."""
    options = [word for word in overrides if word.startswith("-")]
    if runner is None and not options:
        return overrides
    beam = [f"--runner={runner or 'DirectRunner'}", *options]
    return [word for word in overrides if word not in options] + [f"execution.beam={json.dumps(beam)}"]


def _single(
    stage: str, configuration: str, overrides: list[str] | None, runs_dir: Path, name: str | None, force: bool
) -> tuple[Config, Path]:
    """Bring one stage of a run up to date; leave with the runner's status where that fails."""
    config, directory = _locate(configuration, overrides, runs_dir, name)
    status = local.run(config, directory, start=stage, until=[stage], force=[stage] if force else [])
    if status:
        raise typer.Exit(status)
    return config, directory


def _record(run: Run) -> dict[str, Any]:
    """Return the run's record; a stage that nobody works on any more is not running."""
    state = State(run.directory)
    working = processes.in_use(run.directory)
    entries = {}
    for name in graph(run.config):
        entry = {"state": "pending", **state.stages.get(name, {})}
        if entry["state"] == "running" and not working:
            entry["state"] = "interrupted"
        entries[name] = entry
    return {"run": str(run.directory), "working": working, "stages": entries}


def _print_result(config: Config, directory: Path) -> None:
    _print_scores(config, directory)
    report = directory / "report.html"
    if report.is_file():
        Console().print(f"Report: {report.absolute()}", markup=False, highlight=False, soft_wrap=True)


def _print_scores(config: Config, directory: Path) -> None:
    table = score_table(directory / "metrics", config.report.headline)
    if table is not None:
        Console().print(table)


def _show(console: Console, text: str) -> None:
    if console.is_terminal:
        console.print(Panel(escape(text), title="Error", title_align="left", border_style="red"))
    else:
        console.print(f"Error: {text}", markup=False, highlight=False, soft_wrap=True)


def _unexpected(console: Console, error: Exception) -> None:
    message = disk_message(error)
    if message is not None:
        _show(console, message)
        return
    with tempfile.NamedTemporaryFile("w", prefix="spherecast-", suffix=".log", delete=False) as stream:
        traceback.print_exception(error, file=stream)
    _show(console, f"{short_message(error)}\nThe traceback is in {stream.name}")
