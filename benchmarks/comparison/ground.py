"""What all lines share: the data of a run, which forecasts are made, and their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from comparison.lines import FIELDS, LEADS

from pipeline.config import Config
from pipeline.evaluate import evaluate_stores
from pipeline.runs import Run
from pipeline.scoring.spectral_scores import spectra_store
from pipeline.train import TrainingData
from transforms.selections import parse_leads

__all__ = ["Ground", "digest_of"]

VARIABLES = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind")
LEVELS = (500, 850)

_EVERY = {"test": 144, "validation": 48}
"""Hours between initial times. Six days, a multiple of every lead that is compared, keep forecasts of a year apart."""
_SPECTRA = {"geopotential": 500, "wind_vector_rotational": 850, "wind_vector_divergent": 850}
_LINKED = ("training.zarr", "statistics.nc", "climatology.zarr")


@dataclass(frozen=True)
class Ground:
    """The prepared data of a run, seen by a line.

    Attributes:
        base: a run whose preprocessing is done.
        folder: of the line's own results.
        overrides: of the configuration, by dotted key.
    """

    base: Run
    folder: Path
    overrides: Mapping[str, Any]

    @cached_property
    def run(self) -> Run:
        """A run directory of the line, with the base's data linked into it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _LINKED:
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to((self.base.directory / name).resolve())
        values = self.base.config.model_dump(mode="json")
        for key, value in self.overrides.items():
            *parents, last = key.split(".")
            section: Any = values
            for part in parents:
                section = section[int(part)] if isinstance(section, list) else section[part]
            section[last] = value
        return Run(self.folder, Config.model_validate(values))

    @cached_property
    def data(self) -> TrainingData:
        """Windows, weights of the loss, and the specification of the forecaster."""
        return TrainingData(self.run)

    def forecasts(self, period: str) -> dict[str, Any]:
        """Return which forecasts are made of a period, as arguments of `pipeline.forecast.forecast_store`."""
        return {
            "period": getattr(self.run.config.periods, period),
            "every_hours": _EVERY[period],
            "leads": list(LEADS if period == "test" else LEADS[:4]),
            "variables": list(VARIABLES),
            "levels": list(LEVELS),
        }

    def scores(self, forecast: Path) -> dict[str, Any]:
        """Return RMSE and ACC of a forecast and of the baselines: by system, metric and field, a value for each lead."""
        systems, metrics = ("model", "persistence", "climatology"), ("rmse", "acc")
        truth, climatology = self.run.training_store, self.run.climatology
        results = evaluate_stores(
            forecast, truth, climatology, metrics=metrics, regions=("global",), systems=systems, skipna=False
        )
        return {
            system: {metric: {field: _column(result, metric, field) for field in FIELDS} for metric in metrics}
            for system, result in results.items()
        }

    def spectra(self, forecast: Path) -> dict[str, Any]:
        """Return the power of a forecast over that of the truth: by field, for 24, 120 and 240 h, by degree."""
        path = self.folder / "spectra.nc"
        leads = parse_leads("24h,120h,240h", "leads")
        spectra_store(str(forecast), str(self.run.training_store), path, leads=leads, most_times=20)
        with xr.open_dataset(path, decode_timedelta=True) as spectra:
            return {
                f"{name}@{level}": np.round(
                    spectra[name].sel(level=level, spectrum="power_ratio").values.astype(float), 4
                ).tolist()
                for name, level in _SPECTRA.items()
            }


def _column(result: xr.Dataset, metric: str, field: str) -> list[float | None]:
    name, level = field.split("@")
    if metric not in result.metric.values or name not in result:
        return [None] * result.sizes["lead_time"]
    values = result[name].sel(metric=metric, region="global", level=int(level)).values
    return [float(value) if np.isfinite(value) else None for value in values]


def digest_of(forecast: Path) -> str:
    """Return a digest of every value of a forecast."""
    total = hashlib.sha256()
    with xr.open_zarr(forecast, decode_timedelta=True) as store:
        for name in VARIABLES:
            total.update(np.ascontiguousarray(store[name].values).tobytes())
    return total.hexdigest()[:16]
