"""Intervals of scores, and the sums of blocks of forecasts that results of several forecasts are compared by.

A netCDF result with bands has two more metrics for each score that the report draws, ``NAME_lower`` and ``NAME_upper``, and
a group ``blocks``: for each field the sum of squared errors over the forecasts of each block of initial times, (block,
region, lead_time, [level]), and which forecasts entered. Two results of the same forecasts' times have all that a paired
bootstrap needs, without their stores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import xarray as xr

from pipeline.scoring.request import Request
from transforms.metrics import METRICS

__all__ = ["BLOCKS", "COUNT", "STATISTIC", "banded_metrics", "banded_statistics", "read_blocks", "write_result"]

BLOCKS = "blocks"
"""The group."""

STATISTIC = "squared_error"
"""What is summed over blocks."""

COUNT = "_count"
"""Ends the name of how many forecasts entered a field's sums."""


def banded_metrics(request: Request) -> list[str]:
    """Return the scores of a request that get an interval: those that the report draws."""
    return [name for name in request.metrics if METRICS[name].title] if request.bands else []


def banded_statistics(request: Request) -> set[str]:
    """Return the statistics that are summed by block of initial times."""
    wanted = {statistic for name in banded_metrics(request) for statistic in METRICS[name].statistics}
    return wanted | ({STATISTIC} if request.bands else set())


def write_result(result: xr.Dataset, blocks: xr.Dataset | None, path: Path) -> None:
    """Write a result as netCDF, the sums of blocks in a group of their own; the same bytes each time."""
    result.to_netcdf(path, engine="netcdf4", compute=False)
    # Dask would lay the pieces of a lazy result down in an order that changes from time to time.
    with netCDF4.Dataset(path, "a") as file:
        for name, variable in result.data_vars.items():
            for piece in _pieces(variable.chunks):
                file[str(name)][piece] = variable[piece].values
    if blocks is not None:
        compressed = {name: {"zlib": True, "complevel": 1} for name in blocks.data_vars}
        blocks.to_netcdf(path, mode="a", group=BLOCKS, engine="netcdf4", encoding=compressed)


def _pieces(chunks: tuple[tuple[int, ...], ...] | None) -> Iterator[tuple[slice, ...]]:
    """Yield the part that each chunk of a lazy variable covers, the last axis fastest; nothing of one in memory."""
    if chunks is not None:
        ends = [list(itertools.accumulate(sizes)) for sizes in chunks]
        spans = [
            [slice(end - size, end) for end, size in zip(e, s, strict=True)] for e, s in zip(ends, chunks, strict=True)
        ]
        yield from itertools.product(*spans)


def read_blocks(path: Path) -> xr.Dataset | None:
    """Return the sums of blocks of a result, None where it has none."""
    try:
        with xr.open_dataset(path, engine="netcdf4", group=BLOCKS, decode_timedelta=True) as blocks:
            return blocks.load()
    except OSError:
        return None
