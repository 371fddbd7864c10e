"""Commands that work on single stores, without a run. `dags.cli` offers them beside those that work on runs."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from pipeline.config import list_configs

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel="Looking")
def configs() -> None:
    """List the shipped configurations.

    Example: `spherecast configs`
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, description in list_configs().items():
        table.add_row(f"[bold]{name}[/]", description)
    Console().print(table)
