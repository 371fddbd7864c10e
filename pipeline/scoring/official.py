"""The official `weatherbench2` package on the same request, where it is installed: to compare with, or to cite."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from pipeline.scoring.request import Request
from pipeline.scoring.stores import Stores
from pipeline.stores.reading import consolidated
from transforms.errors import InputError
from transforms.metrics import vector_name
from transforms.regions import REGIONS, parse_region
from transforms.timeaxis import time_text

__all__ = ["official_scores"]

_INSTALL = (
    "It is not on the package index; install it from its source, https://github.com/google-research/weatherbench2, or "
    "leave --backend out."
)
_SINGLE = {
    "mse": "MSE",
    "mae": "MAE",
    "bias": "Bias",
    "acc": "ACC",
    "rmse_sqrt_before_time_avg": "RMSESqrtBeforeTimeAvg",
    "seeps_24hr": "SEEPS",
}
_ENSEMBLE = {
    "crps": "CRPS",
    "crps_skill": "CRPSSkill",
    "crps_spread": "CRPSSpread",
    "energy_score": "EnergyScore",
    "energy_score_skill": "EnergyScoreSkill",
    "energy_score_spread": "EnergyScoreSpread",
    "ensemble_mean_mse": "EnsembleMeanMSE",
    "debiased_ensemble_mean_mse": "DebiasedEnsembleMeanMSE",
    "ensemble_mean_rmse_sqrt_before_time_avg": "EnsembleMeanRMSESqrtBeforeTimeAvg",
    "ensemble_variance": "EnsembleVariance",
    "ensemble_stddev_sqrt_before_time_avg": "EnsembleStddevSqrtBeforeTimeAvg",
}
_MAPS = {"mse": "SpatialMSE", "mae": "SpatialMAE", "bias": "SpatialBias", "seeps_24hr": "SpatialSEEPS"}
_ROOTS = {"rmse": "mse", "ensemble_mean_rmse": "ensemble_mean_mse", "ensemble_stddev": "ensemble_variance"}
"""Metrics that WeatherBench 2 leaves to its users: the root of another after the time mean."""


def official_scores(request: Request, stores: Stores) -> xr.Dataset:
    """Return what the official package says, on the request's leads and with its names.

    Args:
        stores: those of the request, found to fit together.

    Raises:
        InputError: the package is not installed, or it has no such metric, region or baseline.
    """
    package = {name: _module(name) for name in ("config", "metrics", "regions", "evaluation")}
    system = request.systems[0]
    if request.against:
        raise InputError("--against: weatherbench2 has no skill scores. Leave it out, or leave --backend out.")
    if system not in ("model", "persistence", "climatology"):
        raise InputError(f"{system}: weatherbench2 scores the forecast store and its baselines. Give it as FORECAST.")
    names = [_ROOTS.get(name, name) for name in request.metrics]
    metrics = {name: _metric(package["metrics"], name, request, stores) for name in dict.fromkeys(names)}
    regions = {name: _region(package["regions"], name, stores) for name in request.regions}
    times = stores.model.time.values
    variables = [name for group in stores.groups for name in group]
    with tempfile.TemporaryDirectory() as scratch:
        data = package["config"].Data(
            selection=package["config"].Selection(
                variables=variables,
                levels=stores.model.level.values.tolist() if "level" in stores.model.dims else None,
                time_slice=slice(time_text(times.min()), time_text(times.max())),
            ),
            paths=package["config"].Paths(
                forecast=request.forecast, obs=request.truth, output_dir=scratch, climatology=request.climatology
            ),
            by_init=not request.by_valid,
        )
        evaluation = package["config"].Eval(
            metrics=metrics,
            regions=None if request.average == "spatial" else regions,
            evaluate_climatology=system == "climatology",
            evaluate_persistence=system == "persistence",
            temporal_mean=request.average != "temporal",
        )
        run = _runner(package["evaluation"], system)
        run(data, {"scores": evaluation}, skipna=request.skipna)
        (path,) = Path(scratch).glob("*scores.nc")
        result = xr.load_dataset(path, decode_timedelta=True)
    return _named(result, request, stores)


def _module(name: str) -> ModuleType:
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"weatherbench2.{name}")
    raise InputError(f"--backend weatherbench2: the package weatherbench2 is not installed. {_INSTALL}")


def _runner(evaluation: ModuleType, system: str) -> Callable[..., None]:
    if system != "persistence":
        return evaluation.evaluate_in_memory

    def run(data: Any, configs: dict[str, Any], *, skipna: bool) -> None:
        # In memory its persistence is that of forecasts by valid time alone.
        chunks = {"init_time": 1, "lead_time": -1}
        evaluation.evaluate_with_beam(data, configs, input_chunks=chunks, runner="DirectRunner", skipna=skipna)

    return run


def _metric(metrics: ModuleType, name: str, request: Request, stores: Stores) -> Any:
    known = _MAPS if request.average == "spatial" else {**_SINGLE, **_ENSEMBLE}
    if name not in known:
        raise InputError(f"{name}: weatherbench2 has no such metric here. Leave it out, or leave --backend out.")
    kind = getattr(metrics, known[name])
    options: dict[str, Any] = {}
    if name in _ENSEMBLE:
        options["ensemble_dim"] = "number"
    if name in ("acc", "seeps_24hr"):
        path = str(request.climatology)
        options["climatology"] = xr.open_dataset(path, engine="zarr", chunks={}, consolidated=consolidated(path))
    pairs = [group for group in stores.groups if len(group) == 2]
    for metric, option, vector in (
        ("mse", "wind_vector_mse", "WindVectorMSE"),
        ("rmse_sqrt_before_time_avg", "wind_vector_rmse", "WindVectorRMSESqrtBeforeTimeAvg"),
    ):
        if name == metric and pairs and request.average != "spatial":
            make = getattr(metrics, vector)
            options[option] = [make(u_name=u, v_name=v, vector_name=vector_name(u)) for u, v in pairs]
    return kind(**options)


def _region(regions: ModuleType, name: str, stores: Stores) -> Any:
    base, land, threshold = parse_region(name)
    boxes = REGIONS[base]
    latitudes = [slice(*span) for span, _ in boxes]
    longitudes = [slice(*span) for span in boxes[0][1]]
    box = regions.SliceRegion(lat_slice=latitudes, lon_slice=longitudes)
    if not land:
        return box
    mask = regions.LandRegion(land_sea_mask=stores.truth["land_sea_mask"], threshold=threshold)
    if base == "global":
        return mask
    if not hasattr(regions, "CombinedRegion"):
        raise InputError(f"region {name!r}: this weatherbench2 has no regions within regions. Leave it out.")
    return regions.CombinedRegion([box, mask])


def _named(result: xr.Dataset, request: Request, stores: Stores) -> xr.Dataset:
    """Return the metrics asked for, in their order, at the leads asked for."""
    leads = stores.model.prediction_timedelta.values.astype("timedelta64[ns]")
    result = result.sel(lead_time=leads)
    entries = []
    for name in request.metrics:
        source: Any = result.sel(metric=[_ROOTS.get(name, name)])
        entries.append((np.sqrt(source) if name in _ROOTS else source).assign_coords(metric=[name]))
    result = xr.concat(entries, dim="metric")
    result["valid_samples"] = ("lead_time", stores.samples.included_for(request.systems[0]).sum(axis=0))
    return result
