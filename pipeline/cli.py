"""Commands that work on single stores, without a run. `dags.cli` offers them beside those that work on runs.

What they call is imported when it is called: it brings xarray, Beam or JAX.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.artefacts import SCHEMA_VERSION, digest, refuse_other, source_fingerprint
from pipeline.config import GridConfig, SimulationConfig, list_configs, load_config
from transforms.errors import InputError
from transforms.variables import known

__all__ = ["app"]

app = typer.Typer()

_STORES = {"rich_help_panel": "Single stores"}
_LOOKING = {"rich_help_panel": "Looking"}
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

_Source = Annotated[str, typer.Argument(metavar="SRC", help="Store to read.")]
_Target = Annotated[Path, typer.Argument(metavar="DST", help="Path to write.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output path.")]
_Start = Annotated[
    datetime | None, typer.Option("--start", formats=_FORMATS, metavar="TIME", help="First time used, UTC; the first.")
]
_End = Annotated[
    datetime | None, typer.Option("--end", formats=_FORMATS, metavar="TIME", help="Last time used, UTC; the last.")
]


@app.command(**_LOOKING)
def configs() -> None:
    """List the shipped configurations.

    Example: `spherecast configs`
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    for name, description in list_configs().items():
        table.add_row(name, escape(description))
    Console().print(table)


@app.command(**_LOOKING)
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
    from pipeline.validation import inspect_config

    _, rows = inspect_config(config)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    for what, about in rows:
        table.add_row(what, escape(about))
    console = Console()
    console.print(table)
    console.print(f"[green]{escape(config.name)} can run.[/]", highlight=False)


@app.command(**_STORES)
def simulate(
    target: _Target,
    kind: Annotated[
        Literal["simulation", "waves"], typer.Option(help="A SPEEDY simulation, or waves in closed form (at once).")
    ] = "simulation",
    truncation: Annotated[int, typer.Option(help="Spectral truncation of the simulation: 21, 31 or 42.")] = 21,
    start: Annotated[
        datetime, typer.Option(formats=_FORMATS, metavar="DATE", help="First time written, 00 UTC.")
    ] = datetime(2001, 1, 1),
    days: Annotated[int, typer.Option(help="Length written.")] = 760,
    spinup_days: Annotated[int, typer.Option(help="Days from rest that are thrown away.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the small perturbation it starts from.")] = 0,
    grid: Annotated[str, typer.Option(metavar="NLATxNLON", help="Latitudes and longitudes of the grid.")] = "33x64",
    poles: Annotated[bool, typer.Option("--poles/--no-poles", help="Whether rows lie on the poles.")] = True,
    level: Annotated[list[int] | None, typer.Option(help="Level to write, hPa; repeatable. 250, 500, 850.")] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Make an atmosphere: ERA5's variables, units and layout, every 6 h, labelled as simulated.

    Reads nothing (a simulation needs the extra `simulate`, which `make venv` installs). Writes zarr.

    Example: `spherecast simulate atmosphere.zarr --days 365 --level 500 --level 850`
    """
    values = {
        "truncation": truncation,
        "start": start,
        "days": days,
        "spinup_days": spinup_days,
        "seed": seed,
        "grid": _grid(grid, poles),
        "levels": level or [250, 500, 850],
    }
    try:
        settings = SimulationConfig.model_validate(values)
    except ValidationError as error:
        faults = [f"--{fault['loc'][0]}: {fault['msg']}, got {fault['input']!r}." for fault in error.errors()]
        raise InputError("\n".join(faults).replace("spinup_days", "spinup-days")) from error
    fingerprint = _fingerprint("source store", [], kind=kind, settings=settings.model_dump(mode="json"))
    if _needed(target, fingerprint, overwrite):
        from pipeline.simulate import simulate_store, source_description

        simulate_store(target, kind, settings, source_description(kind, settings, fingerprint))
        _wrote(target)


@app.command(**_STORES)
def regrid(
    source: _Source,
    target: _Target,
    grid: Annotated[str, typer.Option(metavar="NLATxNLON", help="Latitudes and longitudes of the grid.")] = "32x64",
    poles: Annotated[bool, typer.Option("--poles/--no-poles", help="Whether rows lie on the poles.")] = False,
    method: Annotated[
        Literal["conservative", "bilinear", "nearest"], typer.Option(help="How; winds go as vectors in any case.")
    ] = "conservative",
    variable: Annotated[
        list[str] | None, typer.Option(help="Variable to keep; repeatable. All that are on the grid by default.")
    ] = None,
    level: Annotated[list[int] | None, typer.Option(help="Level to keep, hPa; repeatable. All by default.")] = None,
    start: _Start = None,
    end: _End = None,
    step_hours: Annotated[int | None, typer.Option(min=1, help="Step of the times kept; all by default.")] = None,
    beam: Annotated[list[str] | None, typer.Option(metavar="OPTION", help="Option of Apache Beam; repeatable.")] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Regrid a store onto an equiangular grid, as an Apache Beam job.

    Reads zarr, netCDF or GRIB on any global grid of circles of latitude, in either order. Writes zarr: float32,
    latitudes ascending, longitudes from 0, with a flag for times without missing values.

    Example: `spherecast regrid era5.zarr coarse.zarr --grid 121x240 --poles --beam=--runner=DaskRunner`
    """
    shape, period = _grid(grid, poles), _period(start, end)
    chosen = {"method": method, "period": period, "levels": level, "step_hours": step_hours}
    fingerprint = _fingerprint("regrid", [source], grid=shape.model_dump(), variables=variable, **chosen)
    if _needed(target, fingerprint, overwrite):
        from pipeline.regrid import regrid_store
        from transforms.grids import Grid

        names = [name for name in variable or [] if known(name).kind != "static"]
        regrid_store(
            source,
            target,
            Grid.equiangular(shape.latitude, shape.longitude, poles=poles),
            variables=names if variable else None,
            statics=[name for name in variable if name not in names] if variable else None,
            beam_options=beam or ["--runner=DirectRunner"],
            fingerprint=fingerprint,
            **chosen,
        )
        _wrote(target)


@app.command(**_STORES)
def statistics(
    source: _Source, target: _Target, start: _Start = None, end: _End = None, overwrite: _Overwrite = False
) -> None:
    """Mean and spread of every variable and of its change over a step.

    Reads a zarr or netCDF store of fields over time, latitude and longitude. Writes netCDF: mean, std, tendency_mean
    and tendency_std by variable and level.

    Example: `spherecast statistics training.zarr statistics.nc --end 2017-12-31T18`
    """
    period = _period(start, end)
    fingerprint = _fingerprint("statistics", [source], period=period)
    if _needed(target, fingerprint, overwrite):
        from pipeline.statistics import statistics_store

        statistics_store(source, target, period=period, fingerprint=fingerprint)
        _wrote(target)


@app.command(**_STORES)
def climatology(
    source: _Source,
    target: _Target,
    start: _Start = None,
    end: _End = None,
    method: Annotated[
        Literal["explicit", "fast"], typer.Option(help="WeatherBench 2's two ways: average years last, or first.")
    ] = "explicit",
    window_days: Annotated[int, typer.Option(min=1, help="Width of the triangular window, odd.")] = 61,
    overwrite: _Overwrite = False,
) -> None:
    """Mean and spread of every variable by hour and day of year, as WeatherBench 2 defines them.

    Reads a zarr or netCDF store of fields over time, latitude and longitude. Writes zarr.

    Example: `spherecast climatology training.zarr climatology.zarr --window-days 31`
    """
    if window_days % 2 == 0:
        raise InputError(f"--window-days: expected an odd number, got {window_days}.")
    period = _period(start, end)
    fingerprint = _fingerprint("climatology", [source], period=period, method=method, window_days=window_days)
    if _needed(target, fingerprint, overwrite):
        from pipeline.climatology import climatology_store

        climatology_store(
            source, target, period=period, method=method, window_days=window_days, fingerprint=fingerprint
        )
        _wrote(target)


@app.command(**_STORES)
def score(
    forecast: Annotated[str, typer.Argument(metavar="FORECAST", help="Store in WeatherBench 2's forecast layout.")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Store of the same variables on the same grid.")],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.nc", help="netCDF file to write.")],
    climatology: Annotated[
        str | None, typer.Option(metavar="STORE", help="Climatology by hour and dayofyear; acc needs one.")
    ] = None,
    region: Annotated[list[str] | None, typer.Option(help="Region to average over; repeatable.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="rmse, mse, mae, bias or acc; repeatable.")] = None,
    skipna: Annotated[
        bool, typer.Option("--skipna", help="Leave missing points out of averages; else an average is missing too.")
    ] = False,
    overwrite: _Overwrite = False,
) -> None:
    """Score any forecast in WeatherBench 2's layout with its metrics.

    Reads the forecast, the truth and perhaps a climatology. Writes netCDF: each field by metric, region, lead time and
    level.

    Example: `spherecast score forecast.zarr era5.zarr -o scores.nc --climatology climatology.zarr`
    """
    stores = [forecast, truth, *([climatology] if climatology else [])]
    regions = {"regions": region} if region else {}
    fingerprint = _fingerprint("metrics", stores, metrics=metric, skipna=skipna, **regions)
    if _needed(target, fingerprint, overwrite):
        from pipeline.evaluate import score_store

        score_store(
            forecast,
            truth,
            target,
            climatology=climatology,
            metrics=metric,
            skipna=skipna,
            fingerprint=fingerprint,
            **regions,
        )
        _wrote(target)


def _grid(text: str, poles: bool) -> GridConfig:
    """Return the grid that e.g. ``32x64`` means."""
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text)
    if match is None or min(map(int, match.groups())) < 4:
        raise InputError(f"--grid {text!r}: expected LATITUDESxLONGITUDES, each at least 4, e.g. 32x64.")
    return GridConfig(latitude=int(match.group(1)), longitude=int(match.group(2)), poles=poles)


def _period(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime] | None:
    if start is None and end is None:
        return None
    start, end = start or datetime(1678, 1, 1), end or datetime(2262, 1, 1)
    if start > end:
        raise InputError(f"--start {start:%Y-%m-%d %H} UTC comes after --end {end:%Y-%m-%d %H} UTC.")
    return start, end


def _fingerprint(artefact: str, sources: list[str], **arguments: Any) -> str:
    """Return what tells whether an output was made from the same stores in the same way."""
    return digest([artefact, SCHEMA_VERSION, [source_fingerprint(source) for source in sources], arguments])


def _needed(target: Path, fingerprint: str, overwrite: bool) -> bool:
    """Return whether there is work to do; refuse to replace another output unless `overwrite` is set."""
    if refuse_other(target, fingerprint, overwrite=overwrite):
        Console(stderr=True).print(f"[green]Nothing to do[/]: {escape(str(target))} is up to date.", highlight=False)
        return False
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    return True


def _wrote(target: Path) -> None:
    Console().print(f"Wrote {target}", markup=False, highlight=False, soft_wrap=True)
