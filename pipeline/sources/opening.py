"""Reading raw data: zarr, netCDF or GRIB, made canonical at the door.

Whatever the source looks like, what leaves here has ARCO-ERA5 names, axes (time, level, latitude, longitude), latitudes
that ascend, longitudes from 0 to 360, levels in hPa or numbered, and times as dates, and nothing has been read yet but
coordinates.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pipeline.artefacts import ATTRIBUTE
from pipeline.config import Config
from pipeline.presets import Preset, canonical_names, preset_named
from pipeline.redaction import redact
from pipeline.sources.chunks import absent_chunk_times
from pipeline.sources.files import netcdf_files, open_raw
from pipeline.sources.levels import HYBRID, with_levels
from pipeline.sources.times import with_dates
from pipeline.stores.axes import AXES, HORIZONTAL
from pipeline.stores.retrying import Retry
from transforms.errors import InputError
from transforms.grids import COORDINATE_TOLERANCE
from transforms.units import conversion, same_units
from transforms.variables import VARIABLES, known

__all__ = [
    "absent_chunk_times",
    "in_blocks",
    "open_source",
    "origin_facts",
    "reading_options",
    "times_in_block",
]

_BLOCK_BYTES = 8e6
"""Size aimed at for the blocks of one variable that are read together, where stored chunks are smaller."""
_LARGEST_BLOCK_BYTES = 512e6


def open_source(
    path: str | Path,
    *,
    rename: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    units: Mapping[str, str] | None = None,
    retries: int = 4,
    select: Mapping[str, Any] | None = None,
    variables: Iterable[str] | None = None,
    blocks: bool = True,
) -> xr.Dataset:
    """Open a source lazily and make it canonical. Winds stay components; values change by conversion of units alone.

    Args:
        path: zarr store (local or an fsspec address), netCDF file, directory or glob of netCDF files, GRIB file.
        rename: names in the source: names in Spherecast; applied before those of the preset and the known aliases.
        storage_options: passed to fsspec for addresses, over those of the preset.
        preset: a name of `pipeline.presets.PRESETS`.
        units: variable: units its values are in, whatever its attributes say; they are converted when read.
        retries: further attempts at a read that failed for a reason that passes.
        select: axis other than those of a field: the one entry taken, by its label, or by position where it has none.
        variables: names of those kept, where the source has them; all by default.
        blocks: whether variables are dask arrays; else xarray's own lazy ones, of which `in_blocks` makes dask arrays
            once the times wanted are cut out. Long series cost time and memory for every block of a dask array.

    Returns:
        Variables of float32: (time, level, latitude, longitude) on levels, (time, latitude, longitude) at the surface,
        (latitude, longitude) for statics, whose first time is taken where they have several. ``level`` is integer: in
        hPa, or of model levels their number, with coordinates ``hybrid_a`` (level), Pa, and ``hybrid_b`` (level), the
        pressure being a + b * surface pressure. ``time`` is datetime64; where the attributes ``valid_time_start`` and
        ``valid_time_stop`` bound the data, times outside are left out. Global attributes are kept.

    Raises:
        InputError: nothing is there, it cannot be read, an axis is missing, times cannot be decoded or are of a
            calendar other than the standard one, units cannot be converted, or a name given does not exist.
    """
    path, retry, known_as = str(path), Retry(retries), preset_named(preset)
    options = {**known_as.options_for(path), **(storage_options or {})}
    making = _Making(path, rename or {}, known_as, units or {}, select or {}, variables)
    files = netcdf_files(path)
    parts = [
        making.canonical(raw, file)
        for file in (files or [path])
        for raw in open_raw(file, {} if files else options, retry)
    ]
    dataset = _joined(parts, path) if len(parts) > 1 else parts[0]
    making.require_all_found()
    return in_blocks(dataset) if blocks else dataset


def _joined(parts: list[xr.Dataset], path: str) -> xr.Dataset:
    """Return the canonical parts of a source as one dataset, without reading them."""
    # Lazy arrays of xarray would be read when they are joined, those of dask are not.
    blocks = [in_blocks(part) for part in parts]
    try:
        joined: Any = xr.combine_by_coords(
            blocks, data_vars="minimal", coords="minimal", compat="override", join="exact", combine_attrs="override"
        )
    except (ValueError, xr.MergeError) as error:
        raise InputError(
            f"source.path: the {len(parts)} parts of {path} do not fit together ({error}). Give data of one grid and "
            "one set of levels whose times do not overlap."
        ) from error
    return joined


def in_blocks(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with dask arrays in blocks of `times_in_block` times.

    Blocks are counted from the first time of the dataset: cut it where a stored chunk starts. What is in blocks already
    stays as it is.
    """
    block = times_in_block(dataset)
    return dataset.assign(
        {
            name: variable.chunk({axis: block if axis == "time" else -1 for axis in variable.dims})
            for name, variable in dataset.data_vars.items()
            if variable.chunks is None
        }
    )


def times_in_block(dataset: xr.Dataset) -> int:
    """Return the number of times that are read together: whole stored chunks.

    One variable has then about 8 MB, or the size of a stored chunk where that is larger, at most 512 MB.
    """
    spans, largest = [1], 1.0
    for variable in dataset.data_vars.values():
        if "time" not in variable.dims:
            continue
        chunks = variable.encoding.get("chunks")
        spans.append(chunks[variable.dims.index("time")] if chunks and len(chunks) == variable.ndim else 1)
        largest = max(largest, variable.dtype.itemsize * variable.size / max(variable.sizes["time"], 1))
    limit = max(1, int(_LARGEST_BLOCK_BYTES / largest))
    stored = math.lcm(*spans)
    stored = stored if stored <= min(limit, 4 * max(spans)) else max(spans)
    return min(limit, stored * max(1, int(_BLOCK_BYTES / (stored * largest))))


def reading_options(config: Config) -> dict[str, Any]:
    """Return the keyword arguments of `open_source` that a configuration gives."""
    source = config.source
    keys = ("rename", "preset", "units", "select")
    options = {"storage_options": source.access()[1], "retries": config.execution.retries}
    return {**{key: getattr(source, key) for key in keys}, **options}


def origin_facts(dataset: xr.Dataset, path: str) -> dict[str, Any]:
    """Return what a description says of where data come from: ``source``, a name for a person, and ``simulated``."""
    made_by = dataset.attrs.get(ATTRIBUTE, {})
    made_by = json.loads(made_by) if isinstance(made_by, str) else made_by
    title = dataset.attrs.get("title") or dataset.attrs.get("source") or Path(path).name
    return {"source": redact(str(title)), "simulated": bool(made_by.get("simulated", False))}


class _Making:
    """Makes parts of one source canonical, and remembers which of the names given were found in any."""

    def __init__(
        self,
        path: str,
        rename: Mapping[str, str],
        preset: Preset,
        units: Mapping[str, str],
        select: Mapping[str, Any],
        variables: Iterable[str] | None,
    ) -> None:
        self.path, self.rename, self.preset, self.units, self.select = path, rename, preset, units, select
        self.wanted = None if variables is None else set(variables)
        self.conversions = {name: (known(name), given) for name, given in units.items()}
        self.seen: set[str] = set()
        self.found: set[str] = set()

    def canonical(self, raw: xr.Dataset, path: str) -> xr.Dataset:
        self.seen.update(map(str, (*raw.variables, *raw.dims)))
        names = canonical_names(raw, self.rename, self.preset)
        dataset = raw.rename({old: new for old, new in names.items() if old in raw.variables or old in raw.dims})
        for axis in AXES:
            if axis in dataset.dims and axis not in dataset.coords and axis in dataset.data_vars:
                dataset = dataset.set_coords(axis)
        for axis in HORIZONTAL:
            if dataset.get(axis, xr.DataArray(0)).dims != (axis,):
                raise InputError(
                    f"{axis}: {path} has no axis of that name with coordinates; its axes are "
                    f"{', '.join(map(str, dataset.dims))}. Name it under source.rename, or choose a latitude-longitude "
                    "grid."
                )
        dataset = self._selected(dataset, path)
        dataset = with_dates(dataset, path)
        dataset = with_levels(dataset, path)
        dataset = _ascending_latitudes(dataset)
        return self._fields(dataset)

    def require_all_found(self) -> None:
        for given, key in ((self.rename, "source.rename"), (self.select, "source.select")):
            for name in given:
                if name not in self.seen and not (key == "source.select" and name in self.found):
                    raise InputError(f"{key}: {name} is not in {self.path}, which has {', '.join(sorted(self.seen))}.")
        for name in self.units:
            if name not in self.found and (self.wanted is None or name in self.wanted):
                raise InputError(
                    f"source.units: {name} is not in {self.path}, which has {', '.join(sorted(self.found))}. "
                    "Name variables as Spherecast does, after source.rename."
                )

    def _selected(self, dataset: xr.Dataset, path: str) -> xr.Dataset:
        for axis, label in self.select.items():
            self.found.update([axis] if axis in dataset.dims else [])
            if axis not in dataset.dims:
                continue
            labels = dataset[axis].values if axis in dataset.coords else np.arange(dataset.sizes[axis])
            place = np.flatnonzero(labels == label)
            if place.size != 1:
                shown = ", ".join(map(str, labels[:20])) + (" ..." if labels.size > 20 else "")
                raise InputError(
                    f"source.select: {axis} of {path} has no {label!r}; it has {shown}. Choose one of them."
                )
            dataset = dataset.isel({axis: int(place[0])})
        return dataset

    def _fields(self, dataset: xr.Dataset) -> xr.Dataset:
        """Give every variable the axes of its kind in order, drop other axes of length 1, convert to float32."""
        scalar = {
            axis: dataset[axis] for axis in ("time", "level") if axis in dataset.coords and not dataset[axis].dims
        }
        dataset = dataset.drop_vars(scalar)
        for axis in ("latitude", "longitude"):
            wrong = int(np.sum(~np.isfinite(dataset[axis].values)))
            if wrong:
                raise InputError(
                    f"{axis}: {self.path} has {wrong} of {dataset[axis].size} values that are not finite; expected degrees. "
                    "A chunk of the coordinate may be missing or damaged: fetch or write it again."
                )
        order, roll = _eastward(dataset["longitude"].values)
        if roll is None:
            dataset = dataset.isel(longitude=order)
        longitude = _within_circle(dataset["longitude"].values)
        variables = {}
        for name, field in dataset.data_vars.items():
            name = str(name)
            if not np.issubdtype(field.dtype, np.number) or not set(HORIZONTAL) <= set(field.dims):
                continue
            self.found.add(name)
            if self.wanted is not None and name not in self.wanted:
                continue
            variable, chunks = field.variable, _stored_spans(field.variable)
            variable = variable.squeeze([axis for axis in field.dims if axis not in AXES and field.sizes[axis] == 1])
            kind = VARIABLES[name].kind if name in VARIABLES else "surface"
            if kind == "static" and "time" in variable.dims:
                variable = variable.isel(time=0)
            added = [
                axis
                for axis in scalar
                if (axis == "time" and kind != "static") or (axis == "level" and kind == "pressure")
            ]
            axes = {*variable.dims, *added}
            dims = [axis for axis in AXES if axis in axes] + [axis for axis in variable.dims if axis not in AXES]
            factor, offset, attributes = self._conversion(name, variable.attrs)
            array = _FieldArray(variable, dims, 0 if roll is None else roll, factor, offset)
            encoding = {"chunks": tuple(chunks.get(axis, 1) for axis in dims)} if chunks else {}
            variables[name] = xr.Variable(dims, indexing.LazilyIndexedArray(array), attributes, encoding)
        coordinates: dict[str, Any] = {
            name: (name, np.atleast_1d(values.values)) for name, values in scalar.items() if name == "time"
        }
        if "level" in scalar and any("level" in variable.dims for variable in variables.values()):
            coordinates["level"] = ("level", np.atleast_1d(scalar["level"].values), scalar["level"].attrs)
        coordinates |= {name: dataset[name].variable for name in (*AXES, *HYBRID) if name in dataset.coords}
        coordinates["longitude"] = ("longitude", np.roll(longitude, -(roll or 0)), {"units": "degrees_east"})
        kept = {axis for variable in variables.values() for axis in variable.dims}
        extra = {name: dataset[name].variable for name in kept if name in dataset.coords and name not in coordinates}
        return xr.Dataset(variables, {**coordinates, **extra}, dataset.attrs)

    def _conversion(self, name: str, attributes: Mapping[str, Any]) -> tuple[float, float, dict[str, Any]]:
        entry, given = VARIABLES.get(name), attributes.get("units")
        if entry is None:
            return 1.0, 0.0, dict(attributes)
        if name in self.conversions:
            factor, offset = conversion(self.conversions[name][1], entry)
        elif name in self.preset.units:
            factor, offset = conversion(self.preset.units[name], entry)
        elif self.preset.convert and given is not None and not same_units(str(given), entry.units):
            try:
                factor, offset = conversion(str(given), entry)
            except InputError:  # Validation says what is wrong with it.
                return 1.0, 0.0, dict(attributes)
        else:
            return 1.0, 0.0, dict(attributes)
        return factor, offset, {**attributes, "units": entry.units}


class _FieldArray(BackendArray):
    """A field of a source with axes in the order of the house, longitudes rolled, in float32 and the house's units.

    New axes have length 1. Reads go to an `xr.Variable` in slices.
    """

    def __init__(self, source: xr.Variable, dims: list[str], roll: int, factor: float, offset: float) -> None:
        self._source, self._roll, self._factor, self._offset = source, roll, factor, offset
        self._axes = [source.dims.index(axis) if axis in source.dims else None for axis in dims]
        self._order = [axis for axis in self._axes if axis is not None]
        self._longitude = dims.index("longitude")
        self._token = uuid.uuid4().hex
        self.shape = tuple(1 if axis is None else source.shape[axis] for axis in self._axes)
        self.dtype = np.dtype(np.float32)

    def __dask_tokenize__(self) -> str:
        return self._token

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        chosen, rest = [slice(None)] * self._source.ndim, list[int | slice]()
        for part, size, axis in zip(key, self.shape, self._axes, strict=True):
            part = part if isinstance(part, slice) else range(size)[part]
            if axis is None or (self._roll and len(rest) == self._longitude):
                rest.append(part)
            elif isinstance(part, slice):
                chosen[axis] = part
                rest.append(slice(None))
            else:
                chosen[axis] = slice(part, part + 1)
                rest.append(0)
        values = self._source[tuple(chosen)].values.transpose(self._order)
        if self._factor != 1.0 or self._offset != 0.0:
            values = values * np.float64(self._factor) + self._offset
        values = values.astype(np.float32, copy=False)
        for place, axis in enumerate(self._axes):
            if axis is None:
                values = np.expand_dims(values, place)
        if self._roll:
            # Read whole: halves of it would decode the same chunks twice.
            along = self._longitude
            halves = np.split(values, [self._roll], axis=along)
            values = np.concatenate(halves[::-1], axis=along)
        return values[tuple(rest)]


def _stored_spans(variable: xr.Variable) -> dict[str, int]:
    """Entries by axis that are stored together, in a shard or a chunk; empty where the store does not say."""
    for key in ("shards", "chunks", "chunksizes"):
        spans = variable.encoding.get(key)
        if spans and len(spans) == variable.ndim:
            return dict(zip(map(str, variable.dims), spans, strict=True))
    return {}


def _ascending_latitudes(dataset: xr.Dataset) -> xr.Dataset:
    latitude = dataset["latitude"].values.astype(np.float64)
    if latitude[0] > latitude[-1]:
        dataset, latitude = dataset.isel(latitude=slice(None, None, -1)), latitude[::-1]
    return dataset.assign_coords(latitude=("latitude", latitude, {"units": "degrees_north"}))


def _eastward(values: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Order in which longitudes ascend from 0, and by how much they must be rolled, None where that is not enough."""
    order = np.argsort(_within_circle(values), kind="stable")
    start = int(order[0])
    return order, start if np.array_equal(order, np.roll(np.arange(order.size), -start)) else None


def _within_circle(values: np.ndarray) -> np.ndarray:
    longitude = values.astype(np.float64) % 360.0
    return np.where(longitude > 360.0 - COORDINATE_TOLERANCE, longitude - 360.0, longitude)
