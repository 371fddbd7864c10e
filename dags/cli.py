"""The `spherecast` command: the commands that work on a run. Those that work on single stores are in `pipeline.cli`."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from dags.commands import elsewhere, runs, schedulers, steps, view
from dags.failures import disk_message, may_pass, short_message
from dags.processes import InUseError, inherited_lock
from pipeline import cli as stores
from pipeline.redaction import redact
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
for part in (runs, view, steps, elsewhere, schedulers, stores):
    app.add_typer(part.app)


def main() -> None:
    """Run the command; faults of the input end in a message and status 2, others in a short one and status 1.

    Status 75 says that the same command may succeed later: another process works there, or the network failed. A runner
    learns that from the stage itself, and takes 75 for a stage that was told to stop.
    """
    console = Console(stderr=True)
    try:
        app()
    except InputError as error:
        _show(console, str(error))
        later = (isinstance(error, InUseError) or may_pass(error)) and not inherited_lock()
        sys.exit(os.EX_TEMPFAIL if later else 2)
    except Exception as error:  # noqa: BLE001  Told in a short message, with the traceback in a file.
        _unexpected(console, error)
        sys.exit(1)


def _show(console: Console, text: str) -> None:
    text = redact(text)
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
        stream.write(redact("".join(traceback.format_exception(error))))
    _show(console, f"{short_message(error)}\nThe traceback is in {stream.name}")
