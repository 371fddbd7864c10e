"""How a state's variables and levels lie in the channel axis of the model's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from model.forecaster import Channels, Normalisation
from pipeline.config import Config
from transforms.errors import InputError
from transforms.variables import channel_names, wind_pairs

__all__ = ["FieldsKept", "StateLayout", "normalisation"]


@dataclass(frozen=True)
class StateLayout:
    """The fields of a state in channel order: variable by variable, each from its first to its last level.

    Attributes:
        variables: prognostic variables.
        levels: pressure levels in hPa.
        vectors: whether pairs of wind components are vectors to the network; otherwise each is a scalar.
    """

    variables: tuple[str, ...]
    levels: tuple[int, ...]
    vectors: bool = True

    @classmethod
    def of(cls, config: Config) -> StateLayout:
        """Return the layout that a configuration describes."""
        return cls(tuple(config.data.variables), tuple(config.data.levels), config.model.winds == "vectors")

    @cached_property
    def fields(self) -> list[tuple[str, int | None]]:
        """(variable, level) of every channel; level is None for surface variables."""
        return channel_names(self.variables, self.levels)

    @cached_property
    def channels(self) -> Channels:
        """Which channels are scalars and which are components of winds."""
        index = {field: i for i, field in enumerate(self.fields)}
        east, north = [], []
        for u, v in wind_pairs(self.variables) if self.vectors else ():
            for name, level in self.fields:
                if name == u:
                    east.append(index[u, level])
                    north.append(index[v, level])
        scalars = [i for i in range(len(self.fields)) if i not in {*east, *north}]
        return Channels(tuple(scalars), tuple(east), tuple(north))

    def slices(self) -> dict[str, slice]:
        """Return the channels of every variable."""
        names = [name for name, _ in self.fields]
        return {name: slice(names.index(name), names.index(name) + names.count(name)) for name in self.variables}


@dataclass(frozen=True)
class FieldsKept:
    """Some fields of a state, in its order, as variables of a store with one axis of levels.

    Attributes:
        fields: (variable, level); level is None for surface variables.
        levels: that any of them has, in hPa, in the order of the state.
    """

    fields: list[tuple[str, int | None]]
    levels: tuple[int, ...]

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(dict.fromkeys(name for name, _ in self.fields))

    def unpack(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Split (..., channel, latitude, longitude) into variables (..., [level], latitude, longitude).

        A level that a variable does not have is missing, NaN.
        """
        return {name: self._variable(states, name) for name in self.variables}

    def _variable(self, states: np.ndarray, name: str) -> np.ndarray:
        channels = {level: i for i, (variable, level) in enumerate(self.fields) if variable == name}
        if None in channels:
            return states[..., channels[None], :, :]
        first = channels[next(iter(channels))]
        if tuple(channels) == self.levels:
            return states[..., first : first + len(channels), :, :]
        values = np.full((*states.shape[:-3], len(self.levels), *states.shape[-2:]), np.nan, states.dtype)
        for level, channel in channels.items():
            values[..., self.levels.index(level), :, :] = states[..., channel, :, :]
        return values


def normalisation(
    layout: StateLayout, statistics: xr.Dataset, *, unified: bool, whole: Sequence[int] = ()
) -> Normalisation:
    """Return the network's per-channel constants.

    Winds are not centred and their components share one spread, so that the network keeps its equivariance.

    Args:
        statistics: as `pipeline.statistics` writes it.
        unified: share the spread of states over the levels of a variable (root mean square), too.
        whole: channels that are predicted as values; their outputs are measured in their own spread.

    Raises:
        InputError: statistics lack a variable or level, or a field does not change in time.
    """
    values = {key: np.empty(len(layout.fields)) for key in ("mean", "std", "tendency_std")}
    for i, (name, level) in enumerate(layout.fields):
        if name not in statistics:
            raise InputError(f"{name}: missing from the statistics, which have {', '.join(map(str, statistics))}.")
        field = statistics[name]
        if level is not None:
            if level not in field.level.values:
                raise InputError(f"{name}: level {level} hPa is missing from the statistics.")
            field = field.sel(level=level)
        for key, channel in values.items():
            channel[i] = float(field.sel(statistic=key))
    channels = layout.channels
    east, north = np.asarray(channels.eastward, int), np.asarray(channels.northward, int)
    for key in ("std", "tendency_std"):
        shared = np.sqrt(0.5 * (values[key][east] ** 2 + values[key][north] ** 2))
        values[key][east] = values[key][north] = shared
    values["mean"][east] = values["mean"][north] = 0.0
    values["tendency_std"][list(whole)] = values["std"][list(whole)]
    if unified:
        for group in layout.slices().values():
            values["std"][group] = np.sqrt(np.mean(values["std"][group] ** 2))
    for i, (name, level) in enumerate(layout.fields):
        for key in ("std", "tendency_std"):
            if not values[key][i] > 0:
                where = name if level is None else f"{name} at {level} hPa"
                raise InputError(
                    f"{where}: {key} is {values[key][i]:g}, expected a positive spread. The training period must hold "
                    "at least two consecutive times in which the field changes; extend periods.train."
                )
    return Normalisation(**values)
