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
from pipeline.config import ClimatologyConfig, GridConfig, SimulationConfig, list_configs, load_config
from transforms.errors import InputError
from transforms.variables import known

__all__ = ["app"]

app = typer.Typer()

_STORES = {"rich_help_panel": "Single stores"}
_LOOKING = {"rich_help_panel": "Looking"}
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

_Source = Annotated[str, typer.Argument(metavar="SRC", help="Store to read.")]
_Target = Annotated[str, typer.Argument(metavar="DST", help="Path or address to write.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output path.")]
_Start = Annotated[
    datetime | None, typer.Option("--start", formats=_FORMATS, metavar="TIME", help="First time used, UTC; the first.")
]
_End = Annotated[
    datetime | None, typer.Option("--end", formats=_FORMATS, metavar="TIME", help="Last time used, UTC; the last.")
]
_Runner = Annotated[
    str, typer.Option("--runner", help="Runner of Apache Beam. What follows -- goes to the runner unread.")
]
_Memory = Annotated[
    int, typer.Option("--memory-mb", min=64, help="Data in flight at once in each process, about, in MB.")
]
_JOB = {**_STORES, "context_settings": {"allow_extra_args": True}}
"""Commands that run as a Beam job and pass options on to it."""


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
    from pipeline.validate import inspect_config

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
        raise InputError(_option_faults(error)) from error
    fingerprint = _fingerprint("source store", [], kind=kind, settings=settings.model_dump(mode="json"))
    if _needed(target, fingerprint, overwrite):
        from pipeline.simulate import simulate_store, source_description

        simulate_store(target, kind, settings, source_description(kind, settings, fingerprint))
        _wrote(target)


@app.command(**_JOB)
def regrid(
    context: typer.Context,
    source: _Source,
    target: _Target,
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
    preset: Annotated[
        Literal["weatherbench2", "arco-era5", "cf"] | None, typer.Option(help="Names and units of a known source.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Name in the source, and in ERA5; repeatable.")
    ] = None,
    units: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE=UNITS", help="What its values really are; repeatable.")
    ] = None,
    start: _Start = None,
    end: _End = None,
    step_hours: Annotated[int | None, typer.Option(min=1, help="Step of the times kept; all by default.")] = None,
    zarr_format: Annotated[int, typer.Option(min=2, max=3, help="3, with shards, or 2.")] = 3,
    keep_bits: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE=BITS", help="Bits of the mantissa to keep; repeatable. All.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rewrite what is missing or damaged in a store made by the same command.")
    ] = False,
    runner: _Runner = "DirectRunner",
    memory_mb: _Memory = 1024,
    overwrite: _Overwrite = False,
) -> None:
    """Regrid a store onto an equiangular grid, as an Apache Beam job.

    Reads zarr, netCDF or GRIB on any global grid of circles of latitude, in either order. Writes zarr: float32,
    latitudes ascending, longitudes from 0, with a flag for times without missing values. A job that was interrupted
    goes on where it stopped.

    Example: `spherecast regrid era5.zarr coarse.zarr --latitudes 121 --longitudes 240 --poles`
    """
    period, options = _period(start, end), _beam_options(runner, context.args)
    targets = {str(target): GridConfig(latitude=latitudes, longitude=longitudes, poles=poles)}
    for text in also or []:
        path, grid = _also(text)
        targets[path] = grid
    chosen = {
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
    fingerprint = _fingerprint("regrid", [source], grids=grids, variables=variable, **chosen)
    needed = [path for path in targets if repair or _needed(path, fingerprint, overwrite)]
    if not needed:
        return
    from pipeline.regrid import regrid_store
    from transforms.grids import Grid

    first, *others = [
        (path, Grid.equiangular(grid.latitude, grid.longitude, poles=grid.poles), method)
        for path, grid in targets.items()
    ]
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
        _wrote(path)


@app.command(**_STORES)
def verify(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store that this program regridded.")],
    memory_mb: _Memory = 1024,
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


@app.command(**_JOB)
def statistics(
    context: typer.Context,
    source: _Source,
    target: _Target,
    start: _Start = None,
    end: _End = None,
    runner: _Runner = "DirectRunner",
    memory_mb: _Memory = 1024,
    overwrite: _Overwrite = False,
) -> None:
    """Mean, spread and extremes of every variable, and mean and spread of its change over a step.

    Reads a zarr or netCDF store of fields over time, latitude and longitude. Writes netCDF: mean, std, tendency_mean,
    tendency_std, minimum and maximum by variable and level.

    Example: `spherecast statistics training.zarr statistics.nc --end 2017-12-31T18`
    """
    period, options = _period(start, end), _beam_options(runner, context.args)
    fingerprint = _fingerprint("statistics", [source], period=period)
    if _needed(target, fingerprint, overwrite):
        from pipeline.statistics import statistics_store

        statistics_store(
            source, target, period=period, beam_options=options, memory_mb=memory_mb, fingerprint=fingerprint
        )
        _wrote(target)


@app.command(**_JOB)
def climatology(
    context: typer.Context,
    source: _Source,
    target: _Target,
    years: Annotated[str | None, typer.Option(metavar="FIRST-LAST", help="Years used, e.g. 1990-2019; all.")] = None,
    start: _Start = None,
    end: _End = None,
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
    runner: _Runner = "DirectRunner",
    memory_mb: _Memory = 1024,
    overwrite: _Overwrite = False,
) -> None:
    """Mean, spread and quantiles of every variable by hour and day of year, as WeatherBench 2 defines them.

    Reads a zarr or netCDF store of fields over time, latitude and longitude. Writes zarr.

    Example: `spherecast climatology training.zarr climatology.zarr --years 2017-2020 --statistics mean,std`
    """
    settings = {
        "method": method,
        "window_days": window_days,
        "statistics": _words(statistics),
        "quantiles": [_number(word, "--quantiles", "0.1,0.9") for word in _words(quantiles)],
    }
    try:
        ClimatologyConfig.model_validate(settings)
    except ValidationError as error:
        raise InputError(_option_faults(error)) from error
    period, options = _years(years, _period(start, end)), _beam_options(runner, context.args)
    settings |= {"daily": daily, "hour_interval": hour_interval}
    fingerprint = _fingerprint("climatology", [source], period=period, **settings)
    if _needed(target, fingerprint, overwrite):
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
        _wrote(target)


@app.command(**_STORES)
def baseline(
    kind: Annotated[
        Literal["persistence", "climatology", "damped-anomaly"],
        typer.Argument(
            metavar="KIND", help="persistence, climatology, or damped-anomaly: the anomaly fades into climatology."
        ),
    ],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Store of fields over time, of the initial states.")],
    target: Annotated[str, typer.Argument(metavar="OUT.zarr", help="Path or address to write.")],
    initial_times: Annotated[
        str, typer.Option(metavar="TIMES", help="E.g. 2020-01-01T12,2020-02-01:2020-02-28:12h.", show_default=False)
    ],
    leads: Annotated[str, typer.Option(metavar="LEADS", help="E.g. 6h:240h:6h or 1d,3d,5d.", show_default=False)],
    climatology: Annotated[
        str | None, typer.Option(metavar="STORE", help="By hour and dayofyear; all but persistence need one.")
    ] = None,
    train_period: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Times from which damping is estimated; by default the climatology's."),
    ] = None,
    variable: Annotated[list[str] | None, typer.Option(help="Variable to write; repeatable. All by default.")] = None,
    level: Annotated[list[int] | None, typer.Option(help="Level to write, hPa; repeatable. All by default.")] = None,
    memory_mb: _Memory = 1024,
    overwrite: _Overwrite = False,
) -> None:
    """Write a baseline forecast in WeatherBench 2's layout, to be scored beside a model's.

    Reads the states at the initial times and, by kind, the climatology and the training period. Writes zarr.

    Example: `spherecast baseline persistence era5.zarr still.zarr --initial-times 2020-01-01:2020-12-31 --leads 6h:240h:6h`
    """
    from transforms.selections import parse_leads, parse_times

    if kind == "persistence" and climatology is not None:
        raise InputError("--climatology: persistence uses none. Leave it out, or choose damped-anomaly.")
    if kind != "damped-anomaly" and train_period is not None:
        raise InputError(f"--train-period: {kind} estimates nothing. Leave it out, or choose damped-anomaly.")
    chosen = {
        "initial_times": parse_times(initial_times),
        "leads": parse_leads(leads),
        "train_period": None if train_period is None else parse_times(train_period, "--train-period"),
    }
    stores = [truth, *([climatology] if climatology else [])]
    asked = {"initial_times": initial_times, "leads": leads, "train_period": train_period}
    fingerprint = _fingerprint("baseline", stores, kind=kind, variables=variable, levels=level, **asked)
    if _needed(target, fingerprint, overwrite):
        from pipeline.baselines import baseline_store

        baseline_store(
            kind,
            truth,
            target,
            climatology=climatology,
            variables=variable,
            levels=level,
            memory_mb=memory_mb,
            fingerprint=fingerprint,
            **chosen,
        )
        _wrote(target)


@app.command(**_JOB)
def score(
    context: typer.Context,
    forecast: Annotated[str, typer.Argument(metavar="FORECAST", help="Store in WeatherBench 2's forecast layout.")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Store of the same variables on the same grid.")],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.nc", help="netCDF file to write.")],
    climatology: Annotated[
        str | None, typer.Option(metavar="STORE", help="Climatology by hour and dayofyear; acc needs one.")
    ] = None,
    scored: Annotated[
        Literal["model", "persistence", "climatology"],
        typer.Option("--forecast", help="Score a baseline instead, at the times and leads of FORECAST."),
    ] = "model",
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="E.g. mse,acc,crps; docs/evaluation.md lists all.")
    ] = None,
    regions: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="E.g. global,tropics,europe_land; five by default.")
    ] = None,
    variables: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Variables; all by default.")] = None,
    levels: Annotated[str | None, typer.Option(metavar="HPA,HPA", help="Levels; all by default.")] = None,
    leads: Annotated[str | None, typer.Option(metavar="FIRST:LAST:STEP", help="E.g. 0h:240h:6h or 1d,3d,5d.")] = None,
    initial_times: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST:STEP", help="E.g. 2020-02-26:2020-03-01; both included.")
    ] = None,
    skipna: Annotated[
        bool, typer.Option("--skipna", help="Leave missing points out of averages; else an average is missing too.")
    ] = False,
    temporal: Annotated[bool, typer.Option("--temporal", help="Every single forecast, no mean over them.")] = False,
    spatial: Annotated[bool, typer.Option("--spatial", help="Maps: a mean over forecasts, none over space.")] = False,
    by_valid: Annotated[bool, typer.Option("--by-valid", help="The axis time of FORECAST holds valid times.")] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE", help="Skill against persistence, climatology or another forecast store; repeatable."
        ),
    ] = None,
    block_hours: Annotated[float, typer.Option(help="Blocks of initial times that skill is resampled by.")] = 72.0,
    quantiles: Annotated[
        str, typer.Option(metavar="Q,Q", help="Of the climatology: thresholds of brier_score, ignorance_score, rps.")
    ] = "",
    threshold_method: Annotated[
        Literal["quantile", "gaussian_quantile"], typer.Option(help="Quantiles, or those of its mean and spread.")
    ] = "quantile",
    bins: Annotated[int | None, typer.Option(min=1, help="Bins of rank_histogram; members and one by default.")] = None,
    backend: Annotated[
        Literal["spherecast", "weatherbench2"], typer.Option(help="Whose code; the official package where installed.")
    ] = "spherecast",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one a processor, up to four.")] = None,
    runner: Annotated[
        str | None,
        typer.Option("--runner", help="Score as a job on this runner of Apache Beam. What follows -- goes to it."),
    ] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Score any forecast, or ensemble, in WeatherBench 2's layout with its metrics and more.

    Reads the forecast, the truth and perhaps a climatology. Writes netCDF in WeatherBench 2's result layout: each field
    by metric, region, lead time and level. Forecasts without truth are left out and counted.

    Example: `spherecast score forecast.zarr era5.zarr -o scores.nc --climatology climatology.zarr --leads 0h:240h:24h`
    """
    from pipeline.scoring.request import Bootstrap
    from transforms.selections import parse_leads, parse_times

    if temporal and spatial:
        raise InputError("--temporal, --spatial: are two kinds of result. Give one of them.")
    baselines, others = [], {}
    for name in against or []:
        if name in ("persistence", "climatology"):
            baselines.append(name)
        else:
            label = Path(name.rstrip("/")).stem
            baselines.append(label)
            others[label] = name
    stores = [forecast, truth, *([climatology] if climatology else []), *others.values()]
    chosen = {
        "average": "temporal" if temporal else "spatial" if spatial else "mean",
        "skipna": skipna,
        "by_valid": by_valid,
        "initial_times": parse_times(initial_times) if initial_times else None,
        "leads": parse_leads(leads) if leads else None,
        "variables": tuple(_words(variables)) if variables else None,
        "levels": tuple(_number(word, "--levels", "500,850") for word in _words(levels)) if levels else None,
        "quantiles": tuple(_number(word, "--quantiles", "0.1,0.9") for word in _words(quantiles)),
        "threshold_method": threshold_method,
        "bins": bins,
    }
    wanted = {"metrics": _words(metrics) if metrics else None, "regions": _words(regions) if regions else None}
    fingerprint = _fingerprint(
        "metrics",
        stores,
        system=scored,
        against=baselines,
        block_hours=block_hours,
        backend=backend,
        **wanted,
        **chosen,
    )
    if _needed(target, fingerprint, overwrite):
        from pipeline.evaluate import request_of, score_store

        request = request_of(
            forecast,
            truth,
            climatology,
            **{name: values for name, values in wanted.items() if values is not None},
            systems=(scored,),
            against=tuple(baselines),
            others=others,
            bootstrap=Bootstrap(block_hours),
            **chosen,
        )
        options = None if runner is None else _beam_options(runner, context.args)
        if runner is None and context.args:
            raise InputError(f"{context.args[0]!r}: options of a runner need --runner.")
        score_store(request, target, workers=workers, beam_options=options, backend=backend, fingerprint=fingerprint)
        _wrote(target)


@app.command(**_STORES)
def spectra(
    forecast: Annotated[str, typer.Argument(metavar="FORECAST", help="Store in WeatherBench 2's forecast layout.")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Store of the same variables on the same grid.")],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.nc", help="netCDF file to write.")],
    variables: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Variables; all by default.")] = None,
    levels: Annotated[str | None, typer.Option(metavar="HPA,HPA", help="Levels; all by default.")] = None,
    leads: Annotated[str, typer.Option(metavar="FIRST:LAST:STEP", help="E.g. 1d,3d,5d or 0h:240h:24h.")] = "1d,3d,5d",
    initial_times: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST:STEP", help="E.g. 2020-02-26:2020-03-01; both included.")
    ] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Power of forecasts and truth by degree of spherical harmonics: blur, coherence, kinetic energy.

    Reads the forecast and the truth. Writes netCDF: each scalar, and the rotational and the divergent kinetic energy of
    winds, by lead time, level and degree; and the degree down to which forecasts keep half the power.

    Example: `spherecast spectra forecast.zarr era5.zarr -o spectra.nc --leads 1d,5d,10d`
    """
    from transforms.selections import parse_leads, parse_times

    chosen = {
        "leads": parse_leads(leads),
        "initial_times": parse_times(initial_times) if initial_times else None,
        "variables": tuple(_words(variables)) if variables else None,
        "levels": tuple(_number(word, "--levels", "500,850") for word in _words(levels)) if levels else None,
    }
    fingerprint = _fingerprint("spectra", [forecast, truth], **chosen)
    if _needed(target, fingerprint, overwrite):
        from pipeline.scoring.spectral_scores import spectra_store

        spectra_store(forecast, truth, target, fingerprint=fingerprint, **chosen)
        _wrote(target)


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


def _beam_options(runner: str, rest: list[str]) -> list[str]:
    """Return the options of Apache Beam that a command line means."""
    stray = [word for word in rest[:1] if not word.startswith("-")]
    if stray:
        raise InputError(f"{stray[0]!r}: one argument too many. Options of the runner follow --, as --name=value.")
    return [f"--runner={runner}", *rest]


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


def _words(text: str) -> list[str]:
    """Return the parts between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(text: str, option: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option}: expected numbers, e.g. {example}; got {text!r}.") from None


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


def _needed(target: str | Path, fingerprint: str, overwrite: bool) -> bool:
    """Return whether there is work to do; refuse to replace another output unless `overwrite` is set."""
    if refuse_other(target, fingerprint, overwrite=overwrite):
        Console(stderr=True).print(f"[green]Nothing to do[/]: {escape(str(target))} is up to date.", highlight=False)
        return False
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    return True


def _wrote(target: str | Path) -> None:
    Console().print(f"Wrote {target}", markup=False, highlight=False, soft_wrap=True)
