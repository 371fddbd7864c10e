"""The `spherecast` command: the commands that work on a run. Those that work on single stores are in `pipeline.cli`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
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
from pipeline.processes.membership import COORDINATOR, PROCESS, PROCESSES, find_membership
from pipeline.runs import Run
from pipeline.scoring.table import score_table
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
    config, directory = _locate(configuration, overrides, runs_dir, name)
    if start is not None:
        arguments = [configuration, *(overrides or []), f"--runs-dir={runs_dir}", *([f"--name={name}"] if name else [])]
        raise typer.Exit(_launch(start, [*arguments, *(["--force"] if force else [])], directory))
    member = find_membership(os.environ, coordinator, processes, process)
    if member.processes > 1:
        os.environ |= {COORDINATOR: member.coordinator, PROCESSES: str(member.processes), PROCESS: str(member.process)}
    if member.process > 0:
        with _reporting(directory):
            local.follow("train", directory)
    else:
        _bring_up_to_date("train", config, directory, force)


def _launch(text: str, arguments: list[str], directory: Path) -> int:
    """Train in processes of their own on this machine; return their status."""
    from pipeline.processes.local import launch_local, parse_local

    number = parse_local(text)
    command = [sys.executable, "-m", "dags", "train", *arguments]
    environment = {processes.PARENT_VARIABLE: str(os.getpid())}
    return launch_local(number, command, logs=directory / "logs", environment=environment)


@app.command(**_STEPS)
def launch(
    configuration: _Configuration,
    overrides: _Overrides = None,
    to: Annotated[str, typer.Option("--to", help="gke, slurm or tpu-vm.")] = "slurm",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What the place needs to know; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the files; printed otherwise.")] = None,
) -> None:
    """Write what starts a training on a cluster: a Slurm script, a GKE JobSet, or commands for a TPU VM.

    Reads nothing but the configuration. docs/distributed.md lists the settings of each place.

    Example: `spherecast launch keisler22-256 --to slurm --set nodes=4 --set gpus_per_node=8 --set partition=gpu`
    """
    from pipeline.processes.launch import render

    values = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r}: expected KEY=VALUE.")
        values[key] = value
    files = render(load_config(configuration, overrides or []), to, **values)
    for name, text in files.items():
        if output is None:
            print(text if len(files) == 1 else f"# {name}\n{text}")
        else:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text)
            Console().print(f"Wrote {output / name}", markup=False, highlight=False, soft_wrap=True)


@app.command(**_STEPS)
def plan(
    configuration: _Configuration,
    overrides: _Overrides = None,
    topology: Annotated[
        str | None, typer.Option(metavar="KIND:SHAPE", help="A TPU slice, e.g. v4:2x4x4; needs the extra tpu, no TPU.")
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Plan for so many host devices instead.")] = None,
    sphere: Annotated[int | None, typer.Option(min=1, help="Devices that share a sphere; the configuration's.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows of an update, over all; the configuration's.")
    ] = None,
    every_stage: Annotated[bool, typer.Option("--every-stage", help="Compile every stage, not the longest.")] = False,
    target: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.")] = None,
) -> None:
    """Compile a training for devices that are not here; say what fits, how fast it is and what it costs.

    Reads nothing but the configuration. The real training and forecast steps are compiled, which takes minutes for a
    large network. Status 1 when they do not fit.

    Example: `spherecast plan keisler22-256 --topology v4:2x4x4 --batch 32`
    """
    from pipeline.planning.plan import plan as make_plan
    from pipeline.planning.tables import print_plan

    console = Console()
    with Console(stderr=True).status("Compiling") as status:
        made = make_plan(
            load_config(configuration, overrides or []),
            topology=topology,
            devices=devices,
            sphere=sphere,
            batch=batch,
            every_stage=every_stage,
            report=status.update,
        )
    print_plan(made, console)
    if target is not None:
        target.write_text(json.dumps(made.to_dict(), indent=1) + "\n")
    if not made.fits:
        raise typer.Exit(1)


@app.command(**_STEPS)
def forecast(
    configuration: _Configuration,
    overrides: _Overrides = None,
    runs_dir: _RunsDir = Path("runs"),
    name: _Name = None,
    force: _Force = False,
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
    elsewhere = {
        "--initial-times": initial_times,
        "--leads": leads,
        "--variable": variable,
        "--level": level,
        "--states": states,
        "--members": members,
        "--number": number,
        "--checkpoint": checkpoint,
        "--overwrite": overwrite,
    }
    if target is None:
        for option in (option for option, value in elsewhere.items() if value):
            raise InputError(
                f"{option}: needs --output. The run's own forecast.zarr is what its configuration says: change "
                "forecast.* there, as in forecast.lead_hours=240, or give -o OUT.zarr."
            )
        _single("forecast", configuration, overrides, runs_dir, name, force)
        return
    if force:
        raise InputError("--force: is for the run's own forecast.zarr. With --output, give --overwrite.")
    from pipeline.forecasting.command import forecast_to

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    written = forecast_to(
        _locate(configuration, None, runs_dir, name)[1],
        target,
        overrides=overrides or [],
        initial_times=initial_times,
        leads=leads,
        variables=variable,
        levels=level,
        states=states,
        members=members,
        numbers=number,
        checkpoints=checkpoint,
        overwrite=overwrite,
    )
    message = f"Wrote {target}" if written else f"Nothing to do: {target} is up to date."
    Console(stderr=not written).print(message, markup=False, highlight=False, soft_wrap=True)


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
    with _reporting(directory):
        local.work(name, directory, force=force)


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
    _bring_up_to_date(stage, config, directory, force)
    return config, directory


def _bring_up_to_date(stage: str, config: Config, directory: Path, force: bool) -> None:
    status = local.run(config, directory, start=stage, until=[stage], force=[stage] if force else [])
    if status:
        raise typer.Exit(status)


@contextlib.contextmanager
def _reporting(directory: Path) -> Iterator[None]:
    """Do a stage's work; report what goes wrong, and part from the processes that worked beside this one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # At INFO it tells of every backend it does not find.
    try:
        yield
    except InputError as error:
        processes.report_error(str(error))
        _part(2, error)
        raise
    except Exception as error:
        processes.report_error(short_message(error, directory))
        _part(1, error)
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
