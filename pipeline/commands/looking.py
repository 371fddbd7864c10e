"""Commands that look and write nothing: the shipped configurations, and whether one can run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.commands.options import LOOKING
from pipeline.config_files import list_configs, load_config

__all__ = ["app"]

app = typer.Typer()


@app.command(**LOOKING)
def configs() -> None:
    """List the shipped configurations.

    Example: `spherecast configs`
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    for name, description in list_configs().items():
        table.add_row(name, escape(description))
    Console().print(table)


@app.command(**LOOKING)
def validate(
    configuration: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A shipped configuration, a YAML file or a run directory.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="a.b=c", help="Values to change, e.g. source.path=/data/era5.zarr")
    ] = None,
) -> None:
    """Check a configuration and its source, and say what would be computed.

    Reads the source once: schema, units, grid, levels, periods, gaps and missing values. Writes nothing.

    Example: `spherecast validate era5-5.625deg source.path=/data/era5.zarr`
    """
    config = load_config(configuration, overrides or [])
    from pipeline.validate import inspect_config

    _, rows = inspect_config(config)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    for what, about in rows:
        table.add_row(what, escape(about))
    console = Console()
    console.print(table)
    console.print(f"[green]{escape(config.name)} can run.[/]", highlight=False)
