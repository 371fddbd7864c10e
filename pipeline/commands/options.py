"""What commands on single stores share: their common arguments, how those are read, and what is said at the end."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.artefacts import SCHEMA_VERSION, digest, refuse_other, source_fingerprint
from transforms.errors import InputError

__all__ = [
    "FORMATS",
    "JOB",
    "LOOKING",
    "STORES",
    "End",
    "Memory",
    "Overwrite",
    "Runner",
    "Source",
    "Start",
    "Target",
    "beam_options",
    "fingerprint_of",
    "needed",
    "number",
    "period_of",
    "words",
    "wrote",
]

STORES: dict[str, Any] = {"rich_help_panel": "Single stores"}
LOOKING: dict[str, Any] = {"rich_help_panel": "Looking"}
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

Source = Annotated[str, typer.Argument(metavar="SRC", help="Store to read.")]
Target = Annotated[str, typer.Argument(metavar="DST", help="Path or address to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output path.")]
Start = Annotated[
    datetime | None, typer.Option("--start", formats=FORMATS, metavar="TIME", help="First time used, UTC; the first.")
]
End = Annotated[
    datetime | None, typer.Option("--end", formats=FORMATS, metavar="TIME", help="Last time used, UTC; the last.")
]
Runner = Annotated[
    str, typer.Option("--runner", help="Runner of Apache Beam. What follows -- goes to the runner unread.")
]
Memory = Annotated[
    int, typer.Option("--memory-mb", min=64, help="Data in flight at once in each process, about, in MB.")
]
JOB = {**STORES, "context_settings": {"allow_extra_args": True}}
"""Commands that run as a Beam job and pass options on to it."""


def beam_options(runner: str, rest: list[str]) -> list[str]:
    """Return the options of Apache Beam that a command line means."""
    stray = [word for word in rest[:1] if not word.startswith("-")]
    if stray:
        raise InputError(f"{stray[0]!r}: one argument too many. Options of the runner follow --, as --name=value.")
    return [f"--runner={runner}", *rest]


def words(text: str) -> list[str]:
    """Return the parts between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def number(text: str, option: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option}: expected numbers, e.g. {example}; got {text!r}.") from None


def period_of(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime] | None:
    if start is None and end is None:
        return None
    start, end = start or datetime(1678, 1, 1), end or datetime(2262, 1, 1)
    if start > end:
        raise InputError(f"--start {start:%Y-%m-%d %H} UTC comes after --end {end:%Y-%m-%d %H} UTC.")
    return start, end


def fingerprint_of(artefact: str, sources: list[str], **arguments: Any) -> str:
    """Return what tells whether an output was made from the same stores in the same way."""
    return digest([artefact, SCHEMA_VERSION, [source_fingerprint(source) for source in sources], arguments])


def needed(target: str | Path, fingerprint: str, overwrite: bool) -> bool:
    """Return whether there is work to do; refuse to replace another output unless `overwrite` is set."""
    if refuse_other(target, fingerprint, overwrite=overwrite):
        Console(stderr=True).print(f"[green]Nothing to do[/]: {escape(str(target))} is up to date.", highlight=False)
        return False
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    return True


def wrote(target: str | Path) -> None:
    Console().print(f"Wrote {target}", markup=False, highlight=False, soft_wrap=True)
