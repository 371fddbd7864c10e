"""Stage `evaluate`: score forecasts and the two baselines against the truth, in the WeatherBench 2 result layout."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, digest, publishing, require
from pipeline.config import EvaluationConfig
from pipeline.jobs.threads import thread_limit
from pipeline.runs import Run
from pipeline.scoring.bands import write_result
from pipeline.scoring.blocks import Portion, Scorer
from pipeline.scoring.request import BASELINES, Bootstrap, Request, default_metrics
from pipeline.scoring.results import blocks_of, result_of, warn_of_missing_scores, warn_of_missing_truth
from pipeline.scoring.running import score_here
from pipeline.scoring.tally import Tally
from pipeline.stores.reading import description_of, open_store, period_of
from transforms.selections import Selection, parse_leads

__all__ = ["SYSTEMS", "evaluate_stores", "request_of", "run_stage", "score", "score_store"]

SYSTEMS = ("model", *BASELINES)
"""What a run scores: the forecast, the state at the initial time, and the climatology at the valid time."""

DEFAULT_REGIONS = ("global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere")
_MOST_WORKERS = 4


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write the run's ``metrics``: ``model.nc``, ``persistence.nc``, ``climatology.nc``, ``maps.nc``, ``spectra.nc``.

    The last two where the configuration names lead times for them.
    """
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    require(run.climatology, "climatology", "run `spherecast preprocess` first")
    require(run.forecast, "forecast", "run `spherecast forecast` first")
    settings = run.config.evaluation
    members = "number" in open_store(run.forecast, "forecast").dims
    request = Request(
        str(run.forecast),
        str(run.training_store),
        str(run.climatology),
        systems=SYSTEMS,
        against=tuple(settings.against),
        metrics=tuple(dict.fromkeys([*settings.metrics, *(settings.ensemble_metrics if members else [])])),
        regions=tuple(settings.regions),
        skipna=settings.skipna,
        quantiles=tuple(settings.quantiles),
        threshold_method=settings.threshold_method,
        bootstrap=Bootstrap(settings.block_hours, settings.resamples),
        bands=True,
    )
    described: dict[str, Any] = {"fingerprint": fingerprint, "inputs": inputs}
    with publishing(run.metrics) as partial:
        partial.mkdir()
        for system, (result, blocks) in _score(request, **described).items():
            write_result(result, blocks, partial / f"{system}.nc")
        _write_maps(request, settings, partial / "maps.nc", described)
        _write_spectra(request, settings, partial / "spectra.nc", described)


def _write_maps(request: Request, settings: EvaluationConfig, path: Path, described: dict[str, Any]) -> None:
    leads = _leads_there(request, settings.map_hours)
    if leads is not None:
        maps = replace(
            request, average="spatial", bands=False, systems=("model",), metrics=("rmse", "bias"), leads=leads
        )
        score_store(maps, path, **described)


def _write_spectra(request: Request, settings: EvaluationConfig, path: Path, described: dict[str, Any]) -> None:
    leads = _leads_there(request, settings.spectra_hours)
    if leads is not None:
        # Imported here because it brings JAX.
        from pipeline.scoring.spectral_scores import spectra_store

        spectra_store(
            request.forecast,
            request.truth,
            path,
            leads=leads,
            most_times=settings.spectra_times,
            **described,
        )


def _leads_there(request: Request, hours: Sequence[int]) -> Selection | None:
    """Return those of the lead times that the forecast has."""
    has = open_store(request.forecast, "forecast").prediction_timedelta.values / np.timedelta64(1, "h")
    there = [f"{lead}h" for lead in hours if lead in has]
    return parse_leads(",".join(there), "evaluation") if there else None


def request_of(
    forecast: str | Path,
    truth: str | Path,
    climatology: str | Path | None = None,
    *,
    metrics: Sequence[str] | None = None,
    regions: Sequence[str] = DEFAULT_REGIONS,
    **options: Any,
) -> Request:
    """Return a request with the usual metrics and regions where none are given.

    Args:
        metrics: by default the usual ones of a single forecast or of an ensemble that the climatology allows.
        options: further attributes of `pipeline.scoring.request.Request`.

    Raises:
        InputError: there is no such store, or the options do not go together.
    """
    if metrics is None:
        members = "number" in open_store(forecast, "forecast").dims
        maps = options.get("average") == "spatial"
        metrics = default_metrics(members=members, climatology=climatology is not None, maps=maps)
    return Request(
        str(forecast),
        str(truth),
        None if climatology is None else str(climatology),
        metrics=tuple(metrics),
        regions=tuple(regions),
        **options,
    )


def evaluate_stores(
    forecast: str | Path,
    truth: str | Path,
    climatology: str | Path | None = None,
    *,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
    **options: Any,
) -> dict[str, xr.Dataset]:
    """Score forecasts against the truth at their valid times; see `request_of` for the options, and `score`."""
    return score(request_of(forecast, truth, climatology, **options), fingerprint=fingerprint, inputs=inputs)


def score_store(
    request: Request,
    target: str | Path,
    *,
    workers: int | None = None,
    beam_options: Sequence[str] | None = None,
    backend: str = "spherecast",
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Score the first of the request's systems and write the result as netCDF; see `score`.

    Maps and the scores of single forecasts are written portion by portion, so that they need not fit into memory.

    Args:
        backend: ``weatherbench2`` has the official package do the work, which must be installed.
    """
    target, system = Path(target), request.systems[0]
    scorer = Scorer(request)
    parts = _parts_folder(target, request, fingerprint)
    with publishing(target) as partial:
        if backend == "weatherbench2":
            from pipeline.scoring.official import official_scores

            pieces = [official_scores(request, scorer.stores)]
            blocks = None
        else:
            pieces = []
            portions = scorer.portions()
            for number, portion in enumerate(portions):
                tally = _tally(scorer, portion, workers, beam_options, parts / str(number))
                pieces.append(result_of(scorer, system, tally, portion))
                blocks = blocks_of(scorer, system, tally, portion)
                if len(portions) > 1:
                    parts.mkdir(exist_ok=True)
                    pieces[-1].to_netcdf(parts / f"{number}.nc", engine="netcdf4")
                    pieces[-1] = xr.open_dataset(parts / f"{number}.nc", chunks={}, decode_timedelta=True)
        result = _described(scorer, system, _joined(scorer, pieces), fingerprint, inputs)
        write_result(result, blocks, partial)
        for piece in pieces:
            piece.close()
        shutil.rmtree(parts, ignore_errors=True)


def score(
    request: Request,
    *,
    workers: int | None = None,
    beam_options: Sequence[str] | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
    folder: Path | None = None,
) -> dict[str, xr.Dataset]:
    """Score forecasts against the truth at their valid times.

    All systems are scored for the same initial times and lead times. A forecast whose truth is missing (no such time in
    the store, or not a valid one) does not enter the average of its lead; the log and the attributes say how many.

    Args:
        workers: threads; by default as many as there are processors, up to four.
        beam_options: of an Apache Beam job that does the work instead.
        folder: for what a Beam job leaves on the way, which its workers must see; a temporary one by default.

    Returns:
        For each system a dataset with one variable per field, and one per wind vector, axes (metric, region, lead_time,
        [level]), float64, and ``valid_samples`` (lead_time), the number of initial times that entered; see
        `pipeline.scoring.results` for maps and single forecasts.

    Raises:
        InputError: the stores do not fit together (variables, levels, grid, units, hours), no truth at any valid time,
            or a metric that needs what is not given.
    """
    options: dict[str, Any] = {"workers": workers, "beam_options": beam_options, "folder": folder}
    found = _score(request, fingerprint=fingerprint, inputs=inputs, **options)
    return {system: result for system, (result, _) in found.items()}


def _score(
    request: Request,
    *,
    workers: int | None = None,
    beam_options: Sequence[str] | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
    folder: Path | None = None,
) -> dict[str, tuple[xr.Dataset, xr.Dataset | None]]:
    """Return what `score` returns, each with its sums of blocks, which results with bands have: they are of one portion."""
    scorer = Scorer(request)
    pieces: dict[str, list[xr.Dataset]] = {system: [] for system in request.systems}
    blocks: dict[str, xr.Dataset | None] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, portion in enumerate(scorer.portions()):
            tally = _tally(scorer, portion, workers, beam_options, Path(folder or scratch) / str(number))
            for system, found in pieces.items():
                found.append(result_of(scorer, system, tally, portion))
                blocks[system] = blocks_of(scorer, system, tally, portion)
    return {
        system: (_described(scorer, system, _joined(scorer, found), fingerprint, inputs), blocks[system])
        for system, found in pieces.items()
    }


def _tally(
    scorer: Scorer, portion: Portion, workers: int | None, beam_options: Sequence[str] | None, folder: Path
) -> Tally:
    blocks = scorer.plan(portion)
    if beam_options is None:
        most = thread_limit() or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        return score_here(scorer, blocks, most if workers is None else workers)
    from pipeline.scoring.beam_job import score_with_beam

    return score_with_beam(scorer.request, blocks, beam_options, folder)


def _parts_folder(target: Path, request: Request, fingerprint: str) -> Path:
    """Return the folder of what is left on the way, without what another request left."""
    name = f".parts-{target.name}-{digest([repr(request), fingerprint])}"
    for other in target.parent.glob(f".parts-{target.name}-*"):
        if other.name != name or not fingerprint:
            shutil.rmtree(other, ignore_errors=True)
    return target.with_name(name)


def _joined(scorer: Scorer, pieces: list[xr.Dataset]) -> xr.Dataset:
    """Join the results of all portions, in their order."""
    if len(pieces) == 1:
        return pieces[0]
    request = scorer.request
    if request.average == "temporal":
        return xr.concat(pieces, dim="time" if request.by_valid else "init_time")
    of_groups: dict[range, list[xr.Dataset]] = {}
    for portion, piece in zip(scorer.portions(), pieces, strict=True):
        of_groups.setdefault(portion.groups, []).append(piece)
    return xr.merge(
        [xr.concat(parts, dim="lead_time") for parts in of_groups.values()], compat="override", join="outer"
    )


def _described(
    scorer: Scorer, system: str, result: xr.Dataset, fingerprint: str, inputs: dict[str, str] | None
) -> xr.Dataset:
    """Return a result with the description of what it is, after warnings of what is missing."""
    stores, request = scorer.stores, scorer.request
    missing = warn_of_missing_truth(system, stores.samples.included_for(system))
    warn_of_missing_scores(system, result)
    description = describe(
        "metrics",
        fingerprint,
        inputs,
        system=system,
        simulated=any(description_of(store).get("simulated", False) for store in (stores.model, stores.truth)),
        period=period_of(stores.model.time.values),
        initial_times=int(stores.model.sizes["time"]),
        members=int(stores.model.sizes.get("number", 1)),
        forecasts_without_truth=missing,
        skipna=request.skipna,
        average=request.average,
        grid=str(stores.grid),
    )
    return result.assign_attrs({ATTRIBUTE: json.dumps(description)})
