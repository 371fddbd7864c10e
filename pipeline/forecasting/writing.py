"""Forecast stores as they are written: laid out beforehand, filled initial time by initial time, and gone on with.

An object, a shard of zarr v3, holds some consecutive leads of one initial time and member, whole in level, latitude and
longitude. It is put in place at once; a member is finished when all its objects are there and agree with their checksums.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from pipeline.artefacts import unfinished
from pipeline.objects import Objects
from pipeline.stores.axes import forecast_axes
from pipeline.stores.writing import StoredArray, arrays_of, build_template
from transforms.variables import known

__all__ = ["ForecastStore", "GroupWriting", "Place", "forecast_content", "lay_out", "lead_spans"]

logger = logging.getLogger(__name__)

_SHARD_BYTES = 2e6
"""Values in one object at most, where a lead is not larger: one for every variable and member of a batch is held."""
_CHUNK_BYTES = 1e6
_LEAD = 1
_MEMBER = 2
"""Axes of a forecast; the second only where there are members."""

Place = tuple[int, int]
"""Position of the initial time and of the member in a store; the latter 0 where there are no members."""


def lead_spans(leads: int, lead_bytes: int) -> tuple[int, int]:
    """Return how many leads a chunk and a shard hold; the first divides the second.

    Args:
        lead_bytes: of the values at one lead of one initial time and member.
    """
    span = math.ceil(leads / math.ceil(leads / max(1, int(_SHARD_BYTES / lead_bytes))))
    chunks = math.ceil(span / max(1, int(_CHUNK_BYTES / lead_bytes)))
    chunk = math.ceil(span / chunks)
    return chunk, chunk * chunks


@dataclass(frozen=True, eq=False)
class ForecastStore:
    """A store being written.

    Attributes:
        arrays: those that hold forecasts.
        members: length of the axis ``number``; None where there is none.
        template: all its objects but forecasts.
        job: digest of all that decides the values.
        objects: where it is being written.
    """

    arrays: dict[str, StoredArray]
    members: int | None
    template: dict[str, bytes]
    job: str
    objects: Objects

    def start(self) -> bool:
        """Put the template in place, beside what an earlier attempt at the same left; return whether it left anything.

        What another attempt left is removed.
        """
        resumed = (unfinished(self.objects) or {}).get("job") == self.job
        if not resumed:
            self.objects.remove()
        self.objects.remove_leftovers()
        # The document that names the job comes last: what is beside it is then known to be of that job.
        for key in sorted(self.template, key=lambda key: key == "zarr.json"):
            if not resumed or self.objects.read(key) != self.template[key]:
                self.objects.write(key, self.template[key])
        return resumed

    def keys(self, name: str, place: Place) -> list[str]:
        """Return the keys of the objects of a member, by lead."""
        time, member = place
        members = self.members or 1
        each = len(self._keys[name]) // self.arrays[name].shape[0]
        return self._keys[name][time * each + member : (time + 1) * each : members]

    def span(self, name: str) -> int:
        """Return how many leads an object holds."""
        return self.arrays[name].metadata["chunk_grid"]["configuration"]["chunk_shape"][_LEAD]

    def field_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one lead of one member, ([level], latitude, longitude)."""
        return self.arrays[name].shape[_LEAD + 1 if self.members is None else _MEMBER + 1 :]

    def encode(self, name: str, values: np.ndarray) -> bytes:
        """Encode an object of a member's values, (lead, [level], latitude, longitude)."""
        axes = (0,) if self.members is None else (0, _MEMBER)
        return self.arrays[name].encode(np.expand_dims(values, axes))

    @cached_property
    def _keys(self) -> dict[str, list[str]]:
        return {name: array.all_keys() for name, array in self.arrays.items()}

    def finished(self, place: Place) -> bool:
        """Whether all objects of a member are there and sound."""
        return all(
            array.is_sound(self.objects.read(key))
            for name, array in self.arrays.items()
            for key in self.keys(name, place)
        )


def lay_out(content: xr.Dataset, job: str, objects: Objects) -> ForecastStore:
    """Return the store for `content`, of whose forecasts the shapes count, not the values."""
    spans, single = {}, (1,) * ("number" in content.sizes)
    for name, variable in content.data_vars.items():
        leads = variable.sizes["prediction_timedelta"]
        chunk, shard = lead_spans(leads, 4 * math.prod(variable.shape[_LEAD + 1 + len(single) :]))
        spans[str(name)] = ((1, chunk, *single), (1, shard, *single))
    template = build_template(content, spans)
    arrays = {name: array for name, array in arrays_of(template).items() if name in spans}
    return ForecastStore(arrays, content.sizes.get("number"), template, job, objects)


class GroupWriting:
    """Takes the forecasts of members integrated together, block of steps by block, and writes full objects."""

    def __init__(
        self,
        store: ForecastStore,
        places: Sequence[Place | None],
        labels: Sequence[str],
        rows: Mapping[int, int],
        pool: Executor,
    ) -> None:
        """Begin.

        Args:
            places: of the members in the store, None for those that are not written.
            labels: what messages call them.
            rows: position of a lead in the store, by number of steps.
        """
        self._store, self._labels, self._rows, self._pool = store, labels, rows, pool
        self._leads, self._next = max(rows.values()) + 1, 0
        self._buffers: dict[str, np.ndarray] = {}
        self._stopped = [place is None for place in places]
        self._keys = {
            name: [None if place is None else store.keys(name, place) for place in places] for name in store.arrays
        }

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self._labels)

    @property
    def stopped(self) -> bool:
        """Whether nothing is left to integrate."""
        return all(self._stopped)

    def stop(self, member: int, what: str) -> None:
        """Write a member as missing from here on, and say why."""
        if not self._stopped[member]:
            self._stopped[member] = True
            logger.warning(
                "forecast of %s: %s; it is written as missing from there on, and so will its scores be.",
                self._labels[member],
                what,
            )

    def add(self, step: int, fields: Mapping[str, np.ndarray]) -> None:
        """Take the fields after `step` steps, (member, [level], latitude, longitude); leads come in order."""
        if step not in self._rows:
            return
        row = self._rows[step]
        stopped = np.flatnonzero(self._stopped)
        for name, values in fields.items():
            buffer = self._buffer(name, row)
            at = row % self._store.span(name)
            buffer[:, at] = values[: self.size]
            buffer[stopped, at] = np.nan
        self._write_full(row)

    def finish(self) -> None:
        """Write what is left of members that have all stopped."""
        for row in sorted(self._rows.values()):
            if row >= self._next:
                for name in self._store.arrays:
                    self._buffer(name, row)[:, row % self._store.span(name)] = np.nan
                self._write_full(row)

    def _buffer(self, name: str, row: int) -> np.ndarray:
        span = self._store.span(name)
        if row % span == 0:
            shape = (self.size, min(span, self._leads - row), *self._store.field_shape(name))
            self._buffers[name] = np.empty(shape, np.float32)
        return self._buffers[name]

    def _write_full(self, row: int) -> None:
        self._next = row + 1
        full = [
            name for name in self._store.arrays if (row + 1) % self._store.span(name) == 0 or row + 1 == self._leads
        ]
        writing = [
            self._pool.submit(self._put, name, self._buffers[name][member], keys[row // self._store.span(name)])
            for name in full
            for member, keys in enumerate(self._keys[name])
            if keys is not None
        ]
        for future in writing:
            future.result()

    def _put(self, name: str, values: np.ndarray, key: str) -> None:
        self._store.objects.write(key, self._store.encode(name, values))


def forecast_content(
    initial: np.ndarray,
    leads: np.ndarray,
    variables: Sequence[str],
    coordinates: Mapping[str, np.ndarray],
    described: Mapping[str, Mapping[str, object]],
    attributes: Mapping[str, object],
    numbers: Sequence[int] | None = None,
) -> xr.Dataset:
    """Return a dataset of the right shape, its forecasts zero and without memory.

    Args:
        initial: datetime64. leads: timedelta64.
        coordinates: ``level`` where a variable has levels, ``latitude``, ``longitude``.
        described: attributes of the variables.
        attributes: of the store.
        numbers: of the members; None for forecasts without members.
    """
    about = {
        "time": {"long_name": "initial time", "standard_name": "forecast_reference_time"},
        "prediction_timedelta": {"long_name": "lead time", "standard_name": "forecast_period"},
        "number": {"long_name": "ensemble member", "standard_name": "realization"},
        "level": {"units": "hPa", "long_name": "pressure"},
        "latitude": {"units": "degrees_north", "long_name": "latitude"},
        "longitude": {"units": "degrees_east", "long_name": "longitude"},
    }
    values = {
        "time": initial.astype("datetime64[ns]"),
        "prediction_timedelta": leads.astype("timedelta64[ns]"),
        **({} if numbers is None else {"number": np.asarray(numbers, np.int64)}),
        **coordinates,
    }
    sizes = {axis: len(value) for axis, value in values.items()}
    arrays = {}
    for name in variables:
        dims = forecast_axes(known(name).kind, members=numbers is not None)
        values_of = np.broadcast_to(np.float32(0), tuple(sizes[dim] for dim in dims))
        arrays[name] = (dims, values_of, dict(described.get(name, {})))
    used = {dim for dims, _, _ in arrays.values() for dim in dims}
    coords = {axis: (axis, value, about[axis]) for axis, value in values.items() if axis in used}
    return xr.Dataset(arrays, coords, dict(attributes))
