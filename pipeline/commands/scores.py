"""Commands about forecasts in WeatherBench 2's layout: baselines, scores, spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.options import (
    JOB,
    STORES,
    Memory,
    Overwrite,
    beam_options,
    fingerprint_of,
    needed,
    number,
    words,
    wrote,
)
from transforms.errors import InputError

__all__ = ["app"]

app = typer.Typer()


@app.command(**STORES)
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
    memory_mb: Memory = 1024,
    overwrite: Overwrite = False,
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
    chosen: dict[str, Any] = {
        "initial_times": parse_times(initial_times),
        "leads": parse_leads(leads),
        "train_period": None if train_period is None else parse_times(train_period, "--train-period"),
    }
    stores = [truth, *([climatology] if climatology else [])]
    asked = {"initial_times": initial_times, "leads": leads, "train_period": train_period}
    fingerprint = fingerprint_of("baseline", stores, kind=kind, variables=variable, levels=level, **asked)
    if needed(target, fingerprint, overwrite):
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
        wrote(target)


@app.command(**JOB)
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
    bands: Annotated[
        bool, typer.Option("--bands", help="Intervals of the scores too; `spherecast report` compares by them.")
    ] = False,
    block_hours: Annotated[float, typer.Option(help="Blocks of initial times that are resampled.")] = 72.0,
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
    overwrite: Overwrite = False,
) -> None:
    """Score any forecast, or ensemble, in WeatherBench 2's layout with its metrics and more.

    Reads the forecast, the truth and perhaps a climatology. Writes netCDF in WeatherBench 2's result layout: each field
    by metric, region, lead time and level. Forecasts without truth are left out and counted.

    Example: `spherecast score forecast.zarr era5.zarr -o scores.nc --climatology climatology.zarr --leads 0h:240h:24h`
    """
    from pipeline.scoring.request import Bootstrap
    from transforms.selections import parse_leads, parse_times

    if bands and backend == "weatherbench2":
        raise InputError("--bands: the official package gives no intervals. Leave out --bands or --backend.")
    if temporal and spatial:
        raise InputError("--temporal, --spatial: are two kinds of result. Give one of them.")
    baselines, others = _baselines(against or [])
    stores = [forecast, truth, *([climatology] if climatology else []), *others.values()]
    chosen: dict[str, Any] = {
        "average": "temporal" if temporal else "spatial" if spatial else "mean",
        "skipna": skipna,
        "bands": bands,
        "by_valid": by_valid,
        "initial_times": parse_times(initial_times) if initial_times else None,
        "leads": parse_leads(leads) if leads else None,
        "variables": tuple(words(variables)) if variables else None,
        "levels": tuple(number(word, "--levels", "500,850") for word in words(levels)) if levels else None,
        "quantiles": tuple(number(word, "--quantiles", "0.1,0.9") for word in words(quantiles)),
        "threshold_method": threshold_method,
        "bins": bins,
    }
    wanted = {"metrics": words(metrics) if metrics else None, "regions": words(regions) if regions else None}
    fingerprint = fingerprint_of(
        "metrics",
        stores,
        system=scored,
        against=baselines,
        block_hours=block_hours,
        backend=backend,
        **wanted,
        **chosen,
    )
    if needed(target, fingerprint, overwrite):
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
        options = None if runner is None else beam_options(runner, context.args)
        if runner is None and context.args:
            raise InputError(f"{context.args[0]!r}: options of a runner need --runner.")
        score_store(request, target, workers=workers, beam_options=options, backend=backend, fingerprint=fingerprint)
        wrote(target)


def _baselines(against: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names of baselines, and the stores of those that are forecasts of others."""
    baselines: list[str] = []
    others: dict[str, str] = {}
    for name in against:
        if name in ("persistence", "climatology"):
            baselines.append(name)
        else:
            label = Path(name.rstrip("/")).stem
            if label in baselines:
                raise InputError(f"--against {name}: another baseline is called {label} too. Rename one of the stores.")
            baselines.append(label)
            others[label] = name
    return baselines, others


@app.command(**STORES)
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
    overwrite: Overwrite = False,
) -> None:
    """Power of forecasts and truth by degree of spherical harmonics: blur, coherence, kinetic energy.

    Reads the forecast and the truth. Writes netCDF: each scalar, and the rotational and the divergent kinetic energy of
    winds, by lead time, level and degree; and the degree down to which forecasts keep half the power.

    Example: `spherecast spectra forecast.zarr era5.zarr -o spectra.nc --leads 1d,5d,10d`
    """
    from transforms.selections import parse_leads, parse_times

    chosen: dict[str, Any] = {
        "leads": parse_leads(leads),
        "initial_times": parse_times(initial_times) if initial_times else None,
        "variables": tuple(words(variables)) if variables else None,
        "levels": tuple(number(word, "--levels", "500,850") for word in words(levels)) if levels else None,
    }
    fingerprint = fingerprint_of("spectra", [forecast, truth], **chosen)
    if needed(target, fingerprint, overwrite):
        from pipeline.scoring.spectral_scores import spectra_store

        spectra_store(forecast, truth, target, fingerprint=fingerprint, **chosen)
        wrote(target)
