"""Commands that make and prepare data: simulate, regrid, verify, statistics, climatology."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from pipeline.commands.options import (
    FORMATS,
    JOB,
    STORES,
    End,
    Memory,
    Overwrite,
    Runner,
    Source,
    Start,
    Target,
    beam_options,
    fingerprint_of,
    needed,
    number,
    period_of,
    words,
    wrote,
)
from pipeline.config_data import ClimatologyConfig, GridConfig, Preset, SimulationConfig
from transforms.errors import InputError
from transforms.variables import known

__all__ = ["app"]

app = typer.Typer()


@app.command(**STORES)
def simulate(
    target: Target,
    kind: Annotated[
        Literal["simulation", "waves"], typer.Option(help="A SPEEDY simulation, or waves in closed form (at once).")
    ] = "simulation",
    truncation: Annotated[int, typer.Option(help="Spectral truncation of the simulation: 21, 31 or 42.")] = 21,
    start: Annotated[
        datetime, typer.Option(formats=FORMATS, metavar="DATE", help="First time written, 00 UTC.")
    ] = datetime(2001, 1, 1),
    days: Annotated[int, typer.Option(help="Length written.")] = 760,
    spinup_days: Annotated[int, typer.Option(help="Days from rest that are thrown away.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the small perturbation it starts from.")] = 0,
    grid: Annotated[str, typer.Option(metavar="NLATxNLON", help="Latitudes and longitudes of the grid.")] = "33x64",
    poles: Annotated[bool, typer.Option("--poles/--no-poles", help="Whether rows lie on the poles.")] = True,
    level: Annotated[list[int] | None, typer.Option(help="Level to write, hPa; repeatable. 250, 500, 850.")] = None,
    overwrite: Overwrite = False,
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
        raise InputError(_option_faults(error)) from error
    fingerprint = fingerprint_of("source store", [], kind=kind, settings=settings.model_dump(mode="json"))
    if needed(target, fingerprint, overwrite):
        from pipeline.simulate import simulate_store, source_description

        simulate_store(target, kind, settings, source_description(kind, settings, fingerprint))
        wrote(target)


@app.command(**JOB)
def regrid(
    context: typer.Context,
    source: Source,
    target: Target,
    latitudes: Annotated[int, typer.Option(min=4, help="Rows of the grid.")] = 32,
    longitudes: Annotated[int, typer.Option(min=4, help="Points of a row, from 0 degrees east.")] = 64,
    poles: Annotated[bool, typer.Option("--poles/--no-poles", help="Whether rows lie on the poles.")] = False,
    method: Annotated[
        Literal["conservative", "bilinear", "nearest", "spectral"],
        typer.Option(help="How; winds go as vectors in any case."),
    ] = "conservative",
    skipna: Annotated[
        bool,
        typer.Option(
            "--skipna", help="Average what is there where values are missing; else missing values are refused."
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="DST=LATxLON[p]", help="A further store from the same read, p: with poles; repeatable."),
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(help="Variable to keep or derive; repeatable. All on the grid by default.")
    ] = None,
    level: Annotated[list[int] | None, typer.Option(help="Level to keep, hPa; repeatable. All by default.")] = None,
    vertical: Annotated[
        Literal["select", "interpolate"], typer.Option(help="Take levels of the source, or interpolate to them.")
    ] = "select",
    preset: Annotated[Preset | None, typer.Option(help="Names and units of a known source.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Name in the source, and in ERA5; repeatable.")
    ] = None,
    units: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE=UNITS", help="What its values really are; repeatable.")
    ] = None,
    start: Start = None,
    end: End = None,
    step_hours: Annotated[int | None, typer.Option(min=1, help="Step of the times kept; all by default.")] = None,
    zarr_format: Annotated[int, typer.Option(min=2, max=3, help="3, with shards, or 2.")] = 3,
    keep_bits: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE=BITS", help="Bits of the mantissa to keep; repeatable. All.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rewrite what is missing or damaged in a store made by the same command.")
    ] = False,
    runner: Runner = "DirectRunner",
    memory_mb: Memory = 1024,
    overwrite: Overwrite = False,
) -> None:
    """Regrid a store onto an equiangular grid, as an Apache Beam job.

    Reads zarr, netCDF or GRIB on any global grid of circles of latitude, in either order. Writes zarr: float32,
    latitudes ascending, longitudes from 0, with a flag for times without missing values. A job that was interrupted
    goes on where it stopped.

    Example: `spherecast regrid era5.zarr coarse.zarr --latitudes 121 --longitudes 240 --poles`
    """
    period, options = period_of(start, end), beam_options(runner, context.args)
    targets = {str(target): GridConfig(latitude=latitudes, longitude=longitudes, poles=poles)}
    for text in also or []:
        path, grid = _also(text)
        targets[path] = grid
    chosen: dict[str, Any] = {
        "method": method,
        "period": period,
        "levels": level,
        "vertical": vertical,
        "step_hours": step_hours,
        "skipna": skipna,
        "preset": preset,
        "rename": dict(_pair(text, "--rename") for text in rename or []),
        "units": dict(_pair(text, "--units") for text in units or []),
        "zarr_format": zarr_format,
        "keep_bits": dict(_bits(text) for text in keep_bits or []),
    }
    grids = [grid.model_dump() for grid in targets.values()]
    fingerprint = fingerprint_of("regrid", [source], grids=grids, variables=variable, **chosen)
    left = [path for path in targets if repair or needed(path, fingerprint, overwrite)]
    if not left:
        return
    from pipeline.regrid import regrid_store

    first, *others = [(path, grid.build(), method) for path, grid in targets.items()]
    names = [name for name in variable or [] if known(name).kind != "static"]
    regrid_store(
        source,
        *first[:2],
        also=others,
        variables=names if variable else None,
        statics=[name for name in variable if name not in names] if variable else None,
        beam_options=options,
        memory_mb=memory_mb,
        repair=repair,
        fingerprint=fingerprint,
        **chosen,
    )
    for path in targets:
        wrote(path)


@app.command(**STORES)
def verify(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store that this program regridded.")],
    memory_mb: Memory = 1024,
) -> None:
    """Check every object of a regridded store against its checksum, and name those that are missing or damaged.

    Reads the store. Writes nothing; `spherecast regrid --repair` writes again what is named.

    Example: `spherecast verify training.zarr`
    """
    from pipeline.stores.writing import verify_store

    faults = verify_store(store, memory_mb=memory_mb)
    if faults:
        raise InputError("\n".join(faults))
    Console().print(f"[green]{escape(store)} is whole.[/]", highlight=False, soft_wrap=True)


@app.command(**JOB)
def statistics(
    context: typer.Context,
    source: Source,
    target: Target,
    start: Start = None,
    end: End = None,
    runner: Runner = "DirectRunner",
    memory_mb: Memory = 1024,
    overwrite: Overwrite = False,
) -> None:
    """Mean, spread and extremes of every variable, and mean and spread of its change over a step.

    Reads a zarr or netCDF store of fields over time, latitude and longitude. Writes netCDF: mean, std, tendency_mean,
    tendency_std, minimum and maximum by variable and level.

    Example: `spherecast statistics training.zarr statistics.nc --end 2017-12-31T18`
    """
    period, options = period_of(start, end), beam_options(runner, context.args)
    fingerprint = fingerprint_of("statistics", [source], period=period)
    if needed(target, fingerprint, overwrite):
        from pipeline.statistics import statistics_store

        statistics_store(
            source, target, period=period, beam_options=options, memory_mb=memory_mb, fingerprint=fingerprint
        )
        wrote(target)


@app.command(**JOB)
def climatology(
    context: typer.Context,
    source: Source,
    target: Target,
    years: Annotated[str | None, typer.Option(metavar="FIRST-LAST", help="Years used, e.g. 1990-2019; all.")] = None,
    start: Start = None,
    end: End = None,
    method: Annotated[
        Literal["explicit", "fast"], typer.Option(help="WeatherBench 2's two ways: average years last, or first.")
    ] = "explicit",
    statistics: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Among mean, std, quantile, seeps.")
    ] = "mean,std",
    quantiles: Annotated[str, typer.Option(metavar="Q,Q", help="Levels of the statistic quantile, in 0 to 1.")] = "",
    window_days: Annotated[int, typer.Option(min=1, help="Width of the triangular window, odd.")] = 61,
    hour_interval: Annotated[
        int | None, typer.Option(min=1, max=24, help="Hours 0, N, 2 N, ...; by default those of the source.")
    ] = None,
    daily: Annotated[bool, typer.Option("--daily", help="One climatology a day of the year, not one an hour.")] = False,
    runner: Runner = "DirectRunner",
    memory_mb: Memory = 1024,
    overwrite: Overwrite = False,
) -> None:
    """Mean, spread and quantiles of every variable by hour and day of year, as WeatherBench 2 defines them.

    Reads a zarr or netCDF store of fields over time, latitude and longitude. Writes zarr.

    Example: `spherecast climatology training.zarr climatology.zarr --years 2017-2020 --statistics mean,std`
    """
    settings: dict[str, Any] = {
        "method": method,
        "window_days": window_days,
        "statistics": words(statistics),
        "quantiles": [number(word, "--quantiles", "0.1,0.9") for word in words(quantiles)],
    }
    try:
        ClimatologyConfig.model_validate(settings)
    except ValidationError as error:
        raise InputError(_option_faults(error)) from error
    period, options = _years(years, period_of(start, end)), beam_options(runner, context.args)
    settings |= {"daily": daily, "hour_interval": hour_interval}
    fingerprint = fingerprint_of("climatology", [source], period=period, **settings)
    if needed(target, fingerprint, overwrite):
        from pipeline.climatology import climatology_store

        climatology_store(
            source,
            target,
            period=period,
            beam_options=options,
            memory_mb=memory_mb,
            fingerprint=fingerprint,
            **settings,
        )
        wrote(target)


def _grid(text: str, poles: bool, option: str = "--grid") -> GridConfig:
    """Return the grid that e.g. ``32x64`` means."""
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text)
    if match is None or min(map(int, match.groups())) < 4:
        raise InputError(f"{option} {text!r}: expected LATITUDESxLONGITUDES, each at least 4, e.g. 32x64.")
    return GridConfig(latitude=int(match.group(1)), longitude=int(match.group(2)), poles=poles)


def _also(text: str) -> tuple[str, GridConfig]:
    """Return path and grid of e.g. ``fine.zarr=121x240p``."""
    match = re.fullmatch(r"(.+)=(\d+x\d+)(p?)", text)
    if match is None:
        raise InputError(
            f"--also {text!r}: expected DST=LATITUDESxLONGITUDES, and p for poles, e.g. fine.zarr=121x240p."
        )
    return match.group(1), _grid(match.group(2), bool(match.group(3)), "--also")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{option} {text!r}: expected NAME=VALUE.")
    return name, value


def _bits(text: str) -> tuple[str, int]:
    """Return variable and number of e.g. ``geopotential=12``."""
    match = re.fullmatch(r"(\w+)=(\d+)", text)
    if match is None or not 1 <= int(match.group(2)) <= 23:
        raise InputError(f"--keep-bits {text!r}: expected VARIABLE=BITS with 1 to 23 bits, e.g. geopotential=12.")
    return match.group(1), int(match.group(2))


def _years(text: str | None, period: tuple[datetime, datetime] | None) -> tuple[datetime, datetime] | None:
    """Return the period that e.g. ``2017-2020`` means, or the one given where there are no years."""
    if text is None:
        return period
    match = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", text)
    if match is None or period is not None:
        raise InputError(f"--years {text!r}: expected FIRST-LAST, e.g. 1990-2019, and neither --start nor --end.")
    first, last = int(match.group(1)), int(match.group(2) or match.group(1))
    if first > last:
        raise InputError(f"--years {text!r}: the first year comes after the last.")
    return datetime(first, 1, 1), datetime(last, 12, 31, 23, 59, 59)


def _option_faults(error: ValidationError) -> str:
    """Name the options that a section of the configuration refuses."""
    lines = []
    for fault in error.errors():
        message = fault["msg"].removeprefix("Value error, ")
        if fault["loc"]:
            message = f"{fault['loc'][0]}: {message}, got {fault['input']!r}"
        name, colon, rest = message.partition(":")
        lines.append(f"--{name.replace('_', '-')}{colon}{rest}.")
    return "\n".join(lines)
