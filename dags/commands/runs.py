"""Commands on whole runs: run the chain, show how far it is, and clean up."""

from __future__ import annotations

import functools
import itertools
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dags import cleaning, local
from dags.commands.options import RUNS, Configuration, Jobs, Name, Overrides, Retries, RunsDir, locate, print_result
from dags.display import as_bytes, as_duration
from dags.doctor import examine
from dags.progress import run_record
from dags.schedule import Patience
from dags.verifying import verify_run
from pipeline.runs import Run

__all__ = ["app"]

app = typer.Typer()

_MARKS = {"sound": "[green]ok[/]     ", "note": "[yellow]note[/]   ", "fault": "[bold red]fault[/]  "}


@app.command(**RUNS)
def run(
    configuration: Configuration,
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    name: Name = None,
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
    jobs: Jobs = None,
    retries: Retries = Patience.retries,
) -> None:
    """Run the whole chain: simulate, validate, regrid, statistics, climatology, train, forecast, evaluate, report.

    Reads the source that the configuration names. Writes the folder runs/NAME: the resolved configuration, every
    stage's result, its log, and report.html. A stage whose result was made from the same settings and inputs is
    skipped, so the same command resumes what was interrupted.

    Example: `spherecast run quickstart training.seed=1 --name second-seed`
    """
    config, directory = locate(configuration, overrides, runs_dir, name)
    status = local.run(
        config,
        directory,
        start=start,
        until=[until] if until else [],
        force=force or [],
        dry_run=dry_run,
        jobs=jobs,
        patience=Patience(retries),
    )
    if status == 0 and not dry_run and until in (None, "report"):
        print_result(config, directory)
    raise typer.Exit(status)


@app.command(**RUNS)
def status(
    directory: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or the name of a run.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show each stage of a run: its state, the time it took, the size of its result and its log.

    Reads runs/NAME/state.json. Example: `spherecast status quickstart`
    """
    record = run_record(_located(directory, runs_dir))
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
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]  # one of Rich's words
    for name, entry in record["stages"].items():
        size = sum((entry.get("bytes") or {}).values())
        state = "up to date" if entry["state"] == "skipped" else entry["state"]
        log = entry.get("log") or ""
        table.add_row(name, state, as_duration(entry.get("seconds")), as_bytes(size) if size else "", escape(log))
    Console().print(table)


@app.command(**RUNS)
def clean(
    folder: Annotated[Path, typer.Argument(metavar="RUNS_DIR", help="The folder of runs, or one run.")] = Path("runs"),
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; otherwise it is only listed.")] = False,
) -> None:
    """List what no run refers to, with sizes: partial artefacts, older logs, checkpoints; remove it with --delete.

    A run that is worked on is passed over. What an unfinished stage goes on from is kept, and so is all that is not of
    Spherecast's making.

    Example: `spherecast clean runs --delete`
    """
    found = cleaning.remove(folder) if delete else cleaning.survey(folder)
    console = Console()
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    if found.leftovers:
        table = Table(box=None, pad_edge=False)
        table.add_column("removed" if delete else "left over", overflow="fold")
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("why")
        for leftover in found.leftovers:
            table.add_row(escape(str(leftover.path)), as_bytes(leftover.size), leftover.reason)
        console.print(table)
    for directory, reason in found.passed_over:
        say(f"{directory}: passed over, {reason}")
    total = as_bytes(sum(leftover.size for leftover in found.leftovers))
    if not found.leftovers:
        say(f"{folder}: nothing is left over.")
    elif delete:
        say(f"Removed {total}.")
    else:
        say(f"{total} in all; nothing was removed. Remove it with: spherecast clean {folder} --delete")


@app.command(**RUNS)
def doctor(
    directory: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Verify this run, too: a directory, or its name.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say what works here and what is missing, with the mend; with RUN, whether its artefacts are whole.

    Looks at the versions of packages, optional extras, JAX's devices, memory, disk and credentials, of which only the
    presence is said. Of a run every artefact's checksums and lineage are verified. Status 1 when something is at fault.

    Example: `spherecast doctor quickstart`
    """
    findings = examine(runs_dir, os.environ)
    if directory is not None:
        findings = itertools.chain(findings, verify_run(_located(directory, runs_dir).directory))
    console, group, faults = Console(), "", 0
    for finding in findings:
        if finding.group != group:
            group = finding.group
            console.print(f"\n[bold]{group}[/]", highlight=False)
        faults += finding.level == "fault"
        mark = _MARKS[finding.level]
        lines = finding.found.splitlines()
        console.print(f"  {mark} {escape(finding.name):<16} {escape(lines[0])}", highlight=False, soft_wrap=True)
        for line in lines[1:]:
            console.print(f"{'':27}{escape(line)}", highlight=False, soft_wrap=True)
        if finding.mend:
            console.print(f"{'':27}[dim]{escape(finding.mend)}[/]", highlight=False, soft_wrap=True)
    verdict = "[green]All is well.[/]" if not faults else f"[red]{faults} fault{'s' * (faults > 1)}.[/]"
    console.print(f"\n{verdict}", highlight=False)
    raise typer.Exit(1 if faults else 0)


def _located(directory: str, runs_dir: Path) -> Run:
    """Return the run that a directory, or the name of a run, means."""
    path = Path(directory) if (Path(directory) / "config.yaml").is_file() else runs_dir / directory
    return Run.open(path if path.exists() else Path(directory))
