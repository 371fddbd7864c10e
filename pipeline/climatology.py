"""Stage `climatology`: mean and spread by hour and day of year over the training period."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from pipeline.artefacts import ATTRIBUTE, describe, publishing, require
from pipeline.progress import progress
from pipeline.runs import Run
from pipeline.stores import (
    blocks,
    consolidate,
    description_of,
    fields_of,
    grid_of,
    open_store,
    period_of,
    read_times,
    select_period,
)
from transforms.climatology import DAYS, Climatology
from transforms.errors import InputError

__all__ = ["climatology_store", "run_stage"]

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 4e6


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``climatology.zarr`` of the run."""
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    climatology_store(
        run.training_store,
        run.climatology,
        period=run.config.periods.train,
        method=run.config.climatology.method,
        window_days=run.config.climatology.window_days,
        fingerprint=fingerprint,
        inputs=inputs,
    )


def climatology_store(
    source: str | Path,
    target: str | Path,
    *,
    period: tuple[datetime, datetime] | None = None,
    method: str = "explicit",
    window_days: int = 61,
    memory_bytes: float = 1e9,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write the climatology of every variable of a store that changes in time, as zarr.

    For each VARIABLE the store has VARIABLE (mean) and VARIABLE_std, float32, axes (hour, dayofyear, [level],
    latitude, longitude), as WeatherBench 2 names them. ``hour`` holds the distinct hours of the source, ``dayofyear``
    1 to 366. Days without data within the window are NaN.

    Args:
        source: store with axes time, latitude, longitude and perhaps level.
        target: zarr directory to publish.
        period: first and last time, both included; all times by default.
        method: ``explicit`` or ``fast``; see `transforms.climatology`.
        window_days: width of the triangular window, odd.
        memory_bytes: about how much the sums of one pass may take; larger fields take several passes over the source.

    Raises:
        InputError: the source has no valid time in the period, or no variable on a global grid.
    """
    dataset = open_store(source, "source")
    positions = select_period(dataset, period, str(source))
    grid = grid_of(dataset)
    names = fields_of(dataset, "time")
    if not names:
        raise InputError(f"{source}: expected variables over time, latitude and longitude, got {list(dataset)}.")
    times = dataset.time.values
    used = times[positions]
    hours = Climatology(used, method=method, window=window_days).hours
    description = describe(
        "climatology",
        fingerprint,
        inputs,
        period=period_of(used),
        method=method,
        window_days=window_days,
        grid=str(grid),
        levels=[int(level) for level in dataset.level.values] if "level" in dataset.coords else [],
        simulated=bool(description_of(dataset).get("simulated", False)),
    )
    with publishing(target) as partial:
        coordinates = xr.Dataset(
            coords={"hour": hours, "dayofyear": np.arange(1, DAYS + 1)}
            | {axis: dataset[axis].variable for axis in ("level", "latitude", "longitude") if axis in dataset.coords}
        )
        coordinates.drop_encoding().to_zarr(partial, zarr_format=3, consolidated=False)
        group = zarr.open_group(partial, mode="r+")
        passes = [(name, part) for name in names for part in _parts(dataset[name], hours.size, memory_bytes)]
        with progress("climatology", len(passes) * len(positions)) as bar:
            for name, part in passes:
                variable = dataset[name].isel(part)
                gathered = Climatology(used, method=method, window=window_days)
                for block in blocks(positions, variable):
                    values = read_times(variable, block)
                    gathered.add(times[block], values if values.ndim == 4 else values[:, np.newaxis])
                    bar.advance(len(block), note=name)
                for suffix, values in zip(("", "_std"), gathered.result(), strict=True):
                    array = _array(group, name + suffix, dataset[name], hours.size)
                    where = tuple(part.get(axis, slice(None)) for axis in dataset[name].dims[1:])
                    array[(slice(None), slice(None), *where)] = values if "level" in variable.dims else values[:, :, 0]
        group.attrs[ATTRIBUTE] = description
        consolidate(partial)
    logger.info("%s: %d variables, %d hours, from %d times", target, len(names), hours.size, len(positions))


def _parts(variable: xr.DataArray, hours: int, memory_bytes: float) -> Iterator[dict[str, slice]]:
    """Yield selections of levels, or of rows of one level, whose sums fit into the memory given."""
    row_bytes = hours * DAYS * variable.sizes["longitude"] * 3 * 8
    rows = variable.sizes["latitude"]
    if "level" in variable.dims:
        levels = max(1, int(memory_bytes / (row_bytes * rows)))
        for start in range(0, variable.sizes["level"], levels):
            selection = slice(start, min(start + levels, variable.sizes["level"]))
            if row_bytes * rows <= memory_bytes:
                yield {"level": selection}
            else:
                yield from ({"level": selection} | band for band in _bands(rows, row_bytes, memory_bytes))
    elif row_bytes * rows <= memory_bytes:
        yield {}
    else:
        yield from _bands(rows, row_bytes, memory_bytes)


def _bands(rows: int, row_bytes: float, memory_bytes: float) -> Iterator[dict[str, slice]]:
    step = max(1, int(memory_bytes / row_bytes))
    for start in range(0, rows, step):
        yield {"latitude": slice(start, min(start + step, rows))}


def _array(group: zarr.Group, name: str, source: xr.DataArray, hours: int) -> zarr.Array:
    """Return the array of the climatology called `name`, made at its first use."""
    if name in group:
        return group[name]
    space = source.shape[1:]
    days = int(np.clip(_CHUNK_BYTES / (4 * np.prod(space)), 1, 61))
    return group.create_array(
        name,
        shape=(hours, DAYS, *space),
        chunks=(1, days, *space),
        dtype="float32",
        fill_value=float("nan"),
        dimension_names=("hour", "dayofyear", *map(str, source.dims[1:])),
        attributes={key: source.attrs[key] for key in ("units", "long_name") if key in source.attrs},
    )
