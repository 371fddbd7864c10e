"""What the targets of a regridding job hold: their axes, statics, attributes and objects, all but the values over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE
from pipeline.objects import Objects
from pipeline.regridding.methods import FieldRegridder
from pipeline.regridding.work import Target, rounding_errors
from pipeline.stores.writing import arrays_of, build_template, round_mantissa, shard_span
from transforms.errors import InputError
from transforms.variables import VARIABLES

__all__ = ["Layout", "rounding_attributes"]

_VALID = {"long_name": "whether every variable is complete in the source"}


@dataclass(frozen=True)
class Layout:
    """What every target of a job holds, whatever its grid."""

    names: list[str]
    statics: list[str]
    levels: list[int]
    times: np.ndarray
    shard_times: int
    zarr_format: int
    keep_bits: Mapping[str, int]

    def __post_init__(self) -> None:
        written = (*self.names, *self.statics)
        unknown = [name for name in self.keep_bits if name not in written]
        if unknown:
            raise InputError(f"keep_bits: {unknown[0]} is not written; expected among {', '.join(written)}.")

    def target(
        self,
        path: str,
        dataset: xr.Dataset,
        mapping: FieldRegridder,
        description: dict[str, Any],
        options: dict[str, Any],
    ) -> Target:
        """Return the target that will be written at a path, by this way to its grid."""
        names = self.names
        content = _content(dataset, mapping, names, self.statics, self.levels, self.times, description, self.keep_bits)
        spans = {name: shard_span(self.shard_times, content[name][0].nbytes, self.zarr_format) for name in names}
        template = build_template(content, {**spans, "valid": self.shard_times}, self.zarr_format)
        arrays = {name: array for name, array in arrays_of(template).items() if name in (*names, "valid")}
        return Target(path, mapping, arrays, template, description["job"], Objects(path, options))


def _content(
    dataset: xr.Dataset,
    mapping: FieldRegridder,
    names: list[str],
    statics: list[str],
    levels: list[int],
    times: np.ndarray,
    description: dict[str, Any],
    keep_bits: Mapping[str, int],
) -> xr.Dataset:
    """The store, without the values that vary in time."""
    grid = mapping.target
    coordinates: dict[str, Any] = {
        "time": ("time", times, {"long_name": "valid time, UTC"}),
        "latitude": ("latitude", grid.latitude, {"units": "degrees_north", "long_name": "latitude"}),
        "longitude": ("longitude", grid.longitude, {"units": "degrees_east", "long_name": "longitude"}),
    }
    if levels:
        coordinates["level"] = ("level", np.array(levels, np.int32), {"units": "hPa", "long_name": "pressure"})
    sizes = {axis: len(values[1]) for axis, values in coordinates.items()}
    variables: dict[str, Any] = {"valid": (("time",), np.zeros(times.size, bool), _VALID)}
    for name in names:
        axes = tuple(map(str, dataset[name].dims))
        empty = np.broadcast_to(np.float32(0), tuple(sizes[axis] for axis in axes))
        variables[name] = (axes, empty, _attributes(dataset[name]))
    for name in statics:
        values, attributes = mapping(dataset[name].values).astype(np.float32), _attributes(dataset[name])
        if name in keep_bits:
            exact, values = values, round_mantissa(values, keep_bits[name])
            attributes |= rounding_attributes(keep_bits[name], rounding_errors(exact[None], values[None]))
        variables[name] = (("latitude", "longitude"), values, attributes)
    return xr.Dataset(variables, coordinates, {ATTRIBUTE: description})


def _attributes(variable: xr.DataArray) -> dict[str, Any]:
    name = str(variable.name)
    entry = VARIABLES.get(name)
    return {
        "units": entry.units if entry else str(variable.attrs.get("units", "")),
        "long_name": str(variable.attrs.get("long_name", name.replace("_", " "))),
    }


def rounding_attributes(bits: int, errors: Sequence[Sequence[float]]) -> dict[str, Any]:
    largest, squares, counts = zip(*errors, strict=True)
    return {
        "keep_bits": bits,
        "rounding_largest_error": max(largest),
        # An exact sum, so that the order in which workers were done makes no difference.
        "rounding_rms_error": math.sqrt(math.fsum(squares) / max(1, sum(counts))),
    }
