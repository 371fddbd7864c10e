"""The lines of a comparison: results of a forecast or of a baseline, each from one metrics file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.reporting.fields import Field
from pipeline.scoring.bands import read_blocks
from transforms.errors import InputError

__all__ = ["Kind", "Line", "read_line"]

Kind = Literal["forecast", "baseline", "other"]
_AXES = ("metric", "region", "lead_time")


@dataclass(frozen=True)
class Line:
    """Results in WeatherBench 2's layout.

    Attributes:
        name: on the page, where no other line has it.
        kind: a run's forecast, a baseline scored with one, or the results of a file that was given besides.
        path: the file.
        data: fields by (metric, region, lead_time, [level]), lead_time ascending, hours, float64.
        about: what the file says of itself, empty where it does not.
    """

    name: str
    kind: Kind
    path: Path
    data: xr.Dataset
    about: dict[str, Any]

    @property
    def simulated(self) -> bool | None:
        """Whether its truth is a simulation; None where the file does not say."""
        return self.about.get("simulated")

    @cached_property
    def blocks(self) -> xr.Dataset | None:
        """Sums over blocks of forecasts, None where the file has none; see `pipeline.scoring.bands`."""
        return read_blocks(self.path)

    @property
    def metrics(self) -> list[str]:
        return [str(name) for name in self.data["metric"].values]

    @property
    def regions(self) -> list[str]:
        return [str(name) for name in self.data["region"].values]

    @property
    def leads(self) -> np.ndarray:
        """Lead times in hours."""
        return self.data["lead_time"].values

    @cached_property
    def fields(self) -> list[Field]:
        """Every field of the file, scored or not."""
        found = []
        for name, array in self.data.data_vars.items():
            if "metric" not in array.dims:
                continue
            if "level" in array.dims:
                found += [Field(str(name), int(level)) for level in array["level"].values]
            else:
                found.append(Field(str(name)))
        return found

    def scores(self, field: Field, metrics: list[str], regions: list[str], leads: np.ndarray) -> np.ndarray:
        """Return the scores of a field, shape (metric, region, lead), float64; NaN where the file has none."""
        if field not in self.fields:
            return np.full((len(metrics), len(regions), len(leads)), np.nan)
        array = self.data[field.variable]
        array = array if field.level is None else array.sel(level=field.level)
        # Along an axis that another metric has of its own, ranks or quantiles, the scores that are drawn repeat.
        array = array.isel({axis: 0 for axis in array.dims if axis not in _AXES})
        array = array.reindex(metric=metrics, region=regions, lead_time=leads)
        return array.transpose(*_AXES).values.astype(np.float64)


def read_line(name: str, kind: Kind, path: Path) -> Line:
    """Read the results of one file.

    Raises:
        InputError: there is no such file, or it has no results by metric, region and lead time.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of results. Score a forecast with `spherecast score` first.")
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as dataset:
            data = _regular(dataset.load(), path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as netCDF ({error}). Expected results as `spherecast score` writes them."
        ) from error
    return Line(name, kind, path, data, read_description(path) or {})


def _regular(data: xr.Dataset, path: Path) -> xr.Dataset:
    """Return results with the axes of one layout: hours ascending, and a region where there is none."""
    missing = [axis for axis in ("metric", "lead_time") if axis not in data.dims]
    if missing:
        raise InputError(
            f"{path}: has no axis {' and no '.join(missing)}; it has {', '.join(map(str, data.dims)) or 'none'}. Expected "
            "results in WeatherBench 2's layout: metric, region, lead_time, level."
        )
    if not np.issubdtype(data["lead_time"].dtype, np.timedelta64):
        raise InputError(f"{path}: lead_time has no units of time, got {data['lead_time'].dtype}. Expected durations.")
    if "region" not in data.dims:
        whole = str(data["region"].values) if "region" in data.coords else "global"
        data = data.drop_vars("region", errors="ignore").expand_dims(region=[whole])
    hours = data["lead_time"].values / np.timedelta64(1, "h")
    return data.assign_coords(lead_time=hours).sortby("lead_time")
