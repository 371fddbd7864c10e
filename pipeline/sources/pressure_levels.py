"""A canonical source on the pressure levels asked for, selected or interpolated, lazily."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from transforms.errors import InputError
from transforms.vertical import HybridLevels, between_pressure_levels, interpolate, temperature_and_geopotential

__all__ = ["VERTICAL", "at_levels"]

VERTICAL = ("select", "interpolate")

_LOGARITHMS = ("logarithm_of_surface_pressure", "lnsp")
_VAPOUR = 0.609133
"""Ratio of the gas constants of vapour and dry air less one (IFS documentation, part IV, chapter 12)."""
_BLOCK_BYTES = 2**24
"""Of the columns interpolated together; intermediate results are several times as large."""


def at_levels(dataset: xr.Dataset, levels: Sequence[int] | None, vertical: str = "select") -> xr.Dataset:
    """Return the dataset on pressure levels; nothing is read. Variables without levels stay as they are.

    From pressure levels, ``interpolate`` takes the levels that the source has and goes linearly in ln(pressure) between
    the others; levels beyond the source's are refused.

    From model levels it goes linearly in ln(pressure) too, and holds the value of the uppermost level above it and of
    the lowest level below it, so that nothing is missing. Temperature and geopotential are in hydrostatic balance, with
    the standard lapse rate below the ground (`transforms.vertical`), where the source has temperature, surface pressure
    and geopotential at the surface; geopotential is then there even if the source lacks it, and counts humidity where
    the source has it. Otherwise temperature is like any variable, and geopotential, which no constant continues, is
    left out.

    Args:
        dataset: canonical, see `pipeline.sources.opening.open_source`; on model levels it also needs ``surface_pressure`` (Pa)
            or its logarithm.
        levels: hPa, in the order wanted; None keeps those of the source.
        vertical: ``select`` takes levels of the source, ``interpolate`` makes those it lacks.

    Returns:
        A dataset whose variables with levels are float32, ``level`` in hPa.

    Raises:
        InputError: a level cannot be had, surface pressure is missing, or `vertical` is unknown.
    """
    if vertical not in VERTICAL:
        raise InputError(f"vertical: {vertical!r} is unknown; expected one of {', '.join(VERTICAL)}.")
    names = [str(name) for name, variable in dataset.data_vars.items() if "level" in variable.dims]
    if levels is None or not names:
        return dataset
    levels = [int(level) for level in levels]
    on_model_levels = "hybrid_a" in dataset.coords
    if vertical == "interpolate":
        fields = _from_model_levels(dataset, names, levels) if on_model_levels else _between(dataset, names, levels)
        coordinate = xr.Variable("level", np.array(levels, np.int32), {"units": "hPa"})
        return dataset.drop_dims("level").assign(fields).assign_coords(level=coordinate)
    if on_model_levels:
        raise InputError(
            f"{names[0]}: the source has model levels, from which no pressure level can be selected. Set data.vertical to "
            "interpolate."
        )
    present = [int(level) for level in dataset["level"].values]
    missing = [level for level in levels if level not in present]
    if missing:
        raise InputError(
            f"{names[0]}: level {missing[0]} hPa is missing; the source has {', '.join(map(str, present))}. Remove it "
            "from data.levels, choose another source, or set data.vertical to interpolate."
        )
    return dataset.sel(level=levels)


def _between(dataset: xr.Dataset, names: list[str], levels: list[int]) -> dict[str, xr.Variable]:
    source = [int(level) for level in dataset["level"].values]
    try:
        between_pressure_levels(np.zeros((len(source), 1, 1)), source, levels)
    except InputError as error:
        raise InputError(f"{names[0]}: {error}") from error
    convert = partial(between_pressure_levels, source=source, levels=levels)
    return {name: _columnwise(convert, len(levels), dataset[name]) for name in names}


def _from_model_levels(dataset: xr.Dataset, names: list[str], levels: list[int]) -> dict[str, xr.Variable]:
    pressure = _surface_pressure(dataset, names[0])
    a, b = (dataset[name].values.astype(np.float64) for name in ("hybrid_a", "hybrid_b"))
    order = np.argsort(a + b * 1e5)
    column = HybridLevels(a[order], b[order])
    dataset = dataset.isel(level=order) if (np.diff(order) != 1).any() else dataset
    options: dict[str, Any] = {"column": column, "levels": levels}
    fields = {}
    for name in names:
        if name not in (*_LOGARITHMS, "geopotential"):
            fields[name] = _columnwise(partial(interpolate, **options), len(levels), dataset[name], pressure)
    ground = dataset.get("geopotential_at_surface")
    if "temperature" in names and ground is not None:
        kept = {name: dataset[name] for name in ("temperature", "specific_humidity") if name in names}
        below = ground.isel(time=0) if "time" in ground.dims else ground
        attributes = {"units": "m**2 s**-2", "long_name": "geopotential"}
        balanced = (
            ("temperature", _temperature, [kept["temperature"]], kept["temperature"].attrs),
            ("geopotential", _geopotential, list(kept.values()), attributes),
        )
        for name, function, inputs, attrs in balanced:
            fields[name] = _columnwise(partial(function, **options), len(levels), *inputs, pressure, below, attrs=attrs)
    return fields


def _temperature(temperature: np.ndarray, pressure: np.ndarray, ground: np.ndarray, **options: Any) -> np.ndarray:
    return temperature_and_geopotential(temperature, pressure, ground, **options)[0]


def _geopotential(temperature: np.ndarray, *rest: np.ndarray, **options: Any) -> np.ndarray:
    """Integrate over virtual temperature; `rest` is surface pressure and geopotential, after humidity if there is any."""
    *humidity, pressure, ground = rest
    for share in humidity:
        temperature = temperature * (1 + _VAPOUR * share)
    # Sums over a hundred layers lose two digits.
    temperature, pressure, ground = (array.astype(np.float64) for array in (temperature, pressure, ground))
    return temperature_and_geopotential(temperature, pressure, ground, **options)[1]


def _surface_pressure(dataset: xr.Dataset, needed_by: str) -> xr.DataArray:
    if "surface_pressure" in dataset:
        return dataset["surface_pressure"]
    for name in _LOGARITHMS:
        if name in dataset:
            logarithm = dataset[name]
            logarithm = logarithm.isel(level=0, drop=True) if "level" in logarithm.dims else logarithm
            # In float32 a logarithm near 11.5 is good to 5e-7, or 0.05 Pa.
            return np.exp(logarithm)  # type: ignore[return-value]  # of a DataArray it is one
    raise InputError(
        f"{needed_by}: the source has model levels, whose pressure needs surface_pressure or one of "
        f"{', '.join(_LOGARITHMS)}; it has {', '.join(map(str, dataset.data_vars))}. Name it under source.rename."
    )


def _columnwise(
    convert: Callable[..., np.ndarray], count: int, *fields: xr.DataArray, attrs: dict[str, Any] | None = None
) -> xr.Variable:
    """Apply a function of whole columns block by block; the first field has levels, of which `count` come out."""
    arguments: list[Any] = []
    for field in fields:
        field = field.chunk({"level": -1}) if "level" in field.dims else field.chunk()
        arguments += [field.data, field.dims]
    dims = fields[0].dims
    # The axis that comes out needs a name of its own, since its length is another.
    out = tuple("new level" if axis == "level" else axis for axis in dims)
    data = da.blockwise(
        partial(_in_parts, convert, [field.dims for field in fields]),
        out,
        *arguments,
        new_axes={"new level": count},
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0,) * len(dims), np.float32),
    )
    return xr.Variable(dims, data, fields[0].attrs if attrs is None else attrs)


def _in_parts(convert: Callable[..., np.ndarray], dims: list[tuple[Hashable, ...]], *blocks: np.ndarray) -> np.ndarray:
    """Convert rows of latitude of one time after another, so that intermediate results stay small."""
    first = blocks[0]
    times, rows = (first.shape[0] if "time" in dims[0] else 1), first.shape[-2]
    span = max(1, int(_BLOCK_BYTES / (4 * first.shape[-3] * first.shape[-1])))
    result = None
    for time in range(times):
        for start in range(0, rows, span):
            part = slice(start, start + span)
            chosen = [
                np.asarray(block[time] if "time" in axes else block)[..., part, :]
                for block, axes in zip(blocks, dims, strict=True)
            ]
            done = convert(*chosen)
            if result is None:
                leading = (times,) if "time" in dims[0] else ()
                result = np.empty((*leading, done.shape[-3], rows, first.shape[-1]), np.float32)
            (result[time] if "time" in dims[0] else result)[:, part] = done
    return result if result is not None else np.empty((0,), np.float32)
