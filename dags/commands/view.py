"""The command that shows runs in a browser."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dags.commands.options import RUNS, RunsDir
from transforms.errors import InputError

__all__ = ["app"]

app = typer.Typer()


@app.command(**RUNS)
def view(
    target: Annotated[
        str | None, typer.Argument(metavar="[RUN|RUNS_DIR]", help="A run, by name or directory, or a folder of runs.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes one that is free.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's show all to all.")] = (
        "127.0.0.1"
    ),
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Show all runs of a folder in a browser: their scores, reports and comparisons, and runs at work as they go.

    Reads the folder of runs and writes nothing into it. Serves until it is interrupted.

    Example: `spherecast view quickstart`
    """
    from dags.viewing.library import address_of
    from dags.viewing.server import make_server

    folder, name = _located(target, runs_dir)
    with make_server(folder, host, port) as server:
        address = server.address + (address_of(name)[1:] if name else "")
        say = Console().print
        say(f"Serving {folder} at {address}", markup=False, highlight=False, soft_wrap=True)
        if not server.is_local:
            say(f"Anyone who reaches {host} can read these runs.", markup=False, highlight=False)
        say("Stop with Ctrl+C.", markup=False, highlight=False)
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _located(target: str | None, runs_dir: Path) -> tuple[Path, str | None]:
    """Return the folder of runs that a command line means, and the name of the run where it means one."""
    if target is None:
        folder, name = runs_dir, None
    elif (Path(target) / "config.yaml").is_file():
        directory = Path(os.path.abspath(target))
        folder = Path(target).parent if Path(target).name == directory.name else directory.parent
        name = directory.name
    elif (runs_dir / target / "config.yaml").is_file() and Path(target).name == target:
        folder, name = runs_dir, target
    else:
        folder, name = Path(target), None
    if not folder.is_dir():
        raise InputError(f"{folder}: neither a run nor a folder of runs. Start a run with `spherecast run quickstart`.")
    return folder, name
