"""Commands that work on single stores, without a run. `dags.cli` offers them beside those that work on runs.

What they call is imported when it is called: it brings xarray, Beam or JAX.
"""

from __future__ import annotations

import typer

from pipeline.commands import data, looking, scores

__all__ = ["app"]

app = typer.Typer()
for part in (looking, data, scores):
    app.add_typer(part.app)
