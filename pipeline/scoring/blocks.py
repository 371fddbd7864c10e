"""The work of a scoring, block by block: some initial times and leads of one variable, or of a wind's components.

A block is read once and all forecasts of it are scored: the model, the baselines, other stores.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.special import ndtri

from pipeline.climatologies.normals import climatology_at
from pipeline.scoring.bands import banded_statistics
from pipeline.scoring.request import Request
from pipeline.scoring.stores import Stores, open_stores
from pipeline.scoring.tally import Average, Pair, Tally
from pipeline.stores.reading import read_times
from transforms.averaging import RegionalMean, RunningMean
from transforms.bootstrap import block_numbers, paired
from transforms.comparison import Comparison, Limits
from transforms.forecast_statistics import STATISTICS
from transforms.metrics import METRICS, vector_name
from transforms.regions import region_weights
from transforms.seeps import dry_probability
from transforms.window_quantiles import SEEPS_DRY

__all__ = ["Block", "Portion", "Scorer"]

_BLOCK_BYTES = 16e6
"""Forecast values read at once: large enough to read well, small enough to stay near the processor."""
_CASE_BYTES = 4e6
"""Of one initial time: what is made of it takes some ten times as much."""


_SKILL_STATISTICS = ("squared_error", "crps")
_PORTION_BYTES = 128e6
"""Sums held at once, where they are many."""


@dataclass(frozen=True)
class Block:
    """A part of the work.

    Attributes:
        group: number of the group of variables.
        times: first and one past the last of the initial times.
        leads: the same of the leads.
    """

    group: int
    times: tuple[int, int]
    leads: tuple[int, int]


@dataclass(frozen=True)
class Portion:
    """Groups of variables, leads and initial times whose sums are held at once."""

    groups: range
    leads: range
    times: range


class Scorer:
    """Scores blocks of one request; its stores are open and nothing in it changes, so that threads may share it."""

    def __init__(self, request: Request, stores: Stores | None = None) -> None:
        """Open the stores, unless they are given.

        Raises:
            InputError: they do not fit together; see `pipeline.scoring.stores.open_stores`.
        """
        self.request = request
        self.stores = open_stores(request) if stores is None else stores
        weights = region_weights(request.regions, self.stores.grid, self.stores.land_sea_mask)
        self._mean = RegionalMean(weights, skipna=request.skipna)
        length = np.timedelta64(round(request.bootstrap.block_hours * 3600), "s")
        self._blocks = block_numbers(self.stores.model.time.values, length, request.bootstrap.most_blocks)

    def plan(self, portion: Portion) -> list[Block]:
        """Cut a portion of the work into blocks, in the order of their initial times."""
        stores, blocks = self.stores, []
        for group in portion.groups:
            each = max(stores.model[name].nbytes for name in stores.groups[group]) / stores.samples.position.size
            span = min(len(portion.leads), max(1, int(min(_CASE_BYTES, _BLOCK_BYTES) / each)))
            batch = max(1, int(_BLOCK_BYTES / (each * span)))
            for lead in portion.leads[::span]:
                leads = (lead, min(lead + span, portion.leads.stop))
                blocks += [
                    Block(group, (time, min(time + batch, portion.times.stop)), leads)
                    for time in portion.times[::batch]
                ]
        return blocks

    def portions(self) -> list[Portion]:
        """Cut the work so that the sums of each portion fit into memory, however many initial times or points there are.

        Averages over initial times and regions take little: they are one portion.
        """
        stores, request = self.stores, self.request
        times, leads = (range(size) for size in stores.samples.position.shape)
        groups = range(len(stores.groups))
        if request.average == "mean":
            return [Portion(groups, leads, times)]
        levels = stores.model.sizes.get("level", 1)
        own = max(
            1, len(request.quantiles), (stores.model.sizes.get("number", 0) + 1) * ("rank_histogram" in request.metrics)
        )
        values = 8.0 * levels * own * len(request.computed) * (len(request.metrics) + 2)
        if request.average == "temporal":
            each = values * len(leads) * len(request.regions) * len(stores.fields())
            return [Portion(groups, leads, part) for part in _cut(times, each)]
        each = values * np.prod(stores.grid.shape)
        return [Portion(range(group, group + 1), part, times) for group in groups for part in _cut(leads, each)]

    def score(self, block: Block) -> Tally:
        """Return the sums of a block."""
        reading = _Reading(self, block)
        tally = Tally()
        for row, time in enumerate(range(*block.times)):
            for field, names in reading.fields:
                self._score_field(tally, reading, field, names, row, time)
        return tally

    def _score_field(
        self, tally: Tally, reading: _Reading, field: str, names: tuple[str, ...], row: int, time: int
    ) -> None:
        """Take in one initial time of a variable, or of the vector that two make."""
        request, samples = self.request, self.stores.samples
        leads = slice(*reading.block.leads)
        slot = time if request.average == "temporal" else -1
        scored: dict[tuple[str, str], np.ndarray] = {}
        banded = banded_statistics(request)
        for system in request.computed:
            case = reading.comparison(system, names, row)
            vector = len(names) > 1
            wanted = request.statistics_of(system, names[0], vector=vector)
            included = samples.included_for(system)[time, leads]
            for name in wanted:
                values = self._values(name, case)
                scored[system, name] = values
                average = RunningMean.of(values, included, skipna=request.skipna)
                tally.average(Average(system, field, name, leads.start, slot), average)
                if name in banded:
                    key = Average(system, field, name, leads.start, block=int(self._blocks[time]))
                    tally.average(key, RunningMean(average.total, average.count))
            for name in self._skill_statistics(vector=vector):
                if (system, name) not in scored:
                    scored[system, name] = self._values(name, case)
        if request.average == "mean":
            self._pair(tally, scored, field, leads, time)

    def _pair(
        self, tally: Tally, scored: dict[tuple[str, str], np.ndarray], field: str, leads: slice, time: int
    ) -> None:
        """Take in the scores of one initial time beside those of each baseline, for skill."""
        request, samples = self.request, self.stores.samples
        block = int(self._blocks[time])
        for system, baseline in itertools.product(request.systems, request.against):
            if system == baseline:
                continue
            included = (samples.included_for(system) & samples.included_for(baseline))[time, leads]
            for name in _SKILL_STATISTICS:
                if (system, name) in scored and (baseline, name) in scored:
                    own, other = scored[system, name], scored[baseline, name]
                    sums = paired(own, other, included, skipna=request.skipna)
                    tally.pair(Pair(system, baseline, field, name, leads.start, block), sums)

    def _skill_statistics(self, *, vector: bool) -> tuple[str, ...]:
        """Return the statistics whose averages skill is made of: of ensembles the CRPS as well, which winds have not."""
        if not self.request.against or self.request.average != "mean":
            return ()
        return _SKILL_STATISTICS if self.stores.members and not vector else _SKILL_STATISTICS[:1]

    def _values(self, name: str, case: Comparison) -> np.ndarray:
        statistic = STATISTICS[name]
        if self.request.average == "spatial":
            return statistic.at_points(case)[np.newaxis]
        return statistic.of(case, self._mean)

    @cached_property
    def dry_probabilities(self) -> dict[str, np.ndarray]:
        """The climate's probability of dry, (latitude, longitude), by variable of precipitation."""
        found = {}
        for metric in self.request.metrics:
            variable = METRICS[metric].variable
            if variable is not None:
                fraction = self.stores.normals[f"{variable}_seeps_dry_fraction"]
                found[variable] = dry_probability(fraction.values)
        return found


class _Reading:
    """The values of a block, from which comparisons are made one initial time after another."""

    def __init__(self, scorer: Scorer, block: Block) -> None:
        stores, request = scorer.stores, scorer.request
        self._scorer, self.block = scorer, block
        self.names = stores.groups[block.group]
        rows, leads = slice(*block.times), slice(*block.leads)
        samples = stores.samples
        position = samples.position[rows, leads]
        start = samples.start[rows, leads] if samples.start.shape[1] > 1 else samples.start[rows]
        needed = np.unique(np.concatenate([position.ravel(), start.ravel()] if self._starts else [position.ravel()]))
        self._at, self._starting = np.searchsorted(needed, position), np.searchsorted(needed, start)
        self._states = {name: read_times(stores.truth[name], needed) for name in self.names}
        self._times = stores.truth.time.values[needed]
        needs = {need for metric in request.metrics for need in METRICS[metric].needs}
        self._normals: dict[str, np.ndarray] = {}
        if "climatology" in (*needs, *request.computed):
            self._normals = {name: climatology_at(stores.normals[name], self._times) for name in self.names}
        self._thresholds = {name: self._thresholds_of(name) for name in self.names} if "quantiles" in needs else {}
        self._heavy = {
            name: climatology_at(stores.normals[f"{name}_seeps_threshold"], self._times)
            for name in self.names
            if "seeps" in needs and name in scorer.dry_probabilities
        }
        self._forecasts = {
            system: {name: _read(store[name], rows, leads) for name in self.names}
            for system, store in stores.forecasts.items()
            if system in request.computed
        }

    @property
    def fields(self) -> list[tuple[str, tuple[str, ...]]]:
        """Name of each field to score, and the variables it is made of."""
        fields: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in self.names]
        if len(self.names) == 2:
            fields.append((vector_name(self.names[0]), self.names))
        return fields

    def comparison(self, system: str, names: tuple[str, ...], row: int) -> Comparison:
        """Return a system's forecasts from one initial time beside the truth."""
        stores, request = self._scorer.stores, self._scorer.request
        at = self._at[row]
        truth = tuple(self._states[name][at] for name in names)
        normal = tuple(self._normals[name][at] for name in names) if self._normals else None
        if system == "persistence":
            forecast = tuple(self._states[name][self._starting[row]] for name in names)
            forecast = tuple(np.broadcast_to(f, t.shape) for f, t in zip(forecast, truth, strict=True))
        elif system == "climatology":
            assert normal is not None
            forecast = normal
        else:
            forecast = tuple(self._forecasts[system][name][row] for name in names)
        return Comparison(
            forecast,
            truth,
            normal,
            members=system in stores.forecasts and "number" in stores.forecasts[system].dims,
            skipna=request.skipna,
            bins=request.bins,
            limits=self._limits(names[0], at),
        )

    @property
    def _starts(self) -> bool:
        return "persistence" in self._scorer.request.computed

    def _limits(self, name: str, at: np.ndarray) -> Limits:
        thresholds = self._thresholds.get(name)
        heavy = self._heavy.get(name)
        if thresholds is None and heavy is None:
            return Limits()
        return Limits(
            None if thresholds is None else thresholds[:, at],
            None if heavy is None else heavy[at],
            self._scorer.dry_probabilities.get(name),
            SEEPS_DRY.get(name, 0.0),
        )

    def _thresholds_of(self, name: str) -> np.ndarray:
        """Return the thresholds of events at the times read, (threshold, time, [level], latitude, longitude)."""
        climatology, request = self._scorer.stores.normals, self._scorer.request
        if request.threshold_method == "gaussian_quantile":
            mean, std = (climatology_at(climatology[f"{name}{suffix}"], self._times) for suffix in ("", "_std"))
            return np.stack([mean + ndtri(level) * std for level in request.quantiles])
        has = climatology["quantile"].values
        nearest = [int(np.abs(has - level).argmin()) for level in request.quantiles]
        variable = climatology[f"{name}_quantile"]
        return np.stack([climatology_at(variable.isel(quantile=i), self._times) for i in nearest])


def _cut(positions: range, each: float) -> list[range]:
    """Cut positions into runs whose sums, of so many bytes each, take no more than they should."""
    span = max(1, int(_PORTION_BYTES / each))
    return [positions[first : first + span] for first in range(0, len(positions), span)]


def _read(variable: xr.DataArray, rows: slice, leads: slice) -> np.ndarray:
    """Return (time, lead, [level], [number], latitude, longitude) of a forecast."""
    values = variable.isel(time=rows, prediction_timedelta=leads).values
    return np.moveaxis(values, 2, -3) if "number" in variable.dims else values
