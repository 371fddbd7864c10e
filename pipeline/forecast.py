"""Stage `forecast`: integrate the trained forecaster from every initial time, in the WeatherBench 2 layout.

Initial times are integrated in batches, each over blocks of steps; a block is written while the next is computed. A
forecast that was stopped goes on: an initial time that is finished is not written again. Batches are always made up of
the same initial times, so that rounding does not depend on where a forecast was stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from flax import nnx

from model.forecaster import Forecaster
from pipeline.artefacts import ATTRIBUTE, describe, digest, publishing, read_description, require, source_fingerprint
from pipeline.checkpoints import SPEC_FILE, ForecasterSpec, load_forecaster
from pipeline.forecast_writing import ForecastStore, GroupWriting, forecast_content, lay_out
from pipeline.layout import StateLayout
from pipeline.objects import Objects, is_url
from pipeline.progress import progress
from pipeline.rollout_blocks import Block, Program, block_length, block_program
from pipeline.runs import Run
from pipeline.stores import description_of, grid_of, open_store, period_of, valid_times
from pipeline.threads import background, thread_limit
from transforms.errors import InputError
from transforms.forcings import forcing_fields
from transforms.timeaxis import as_datetime64, require_ascending, time_text

__all__ = ["forecast_store", "initial_histories", "run_stage"]

logger = logging.getLogger(__name__)

_WAITING = 2
"""Blocks computed or written at once, that being computed aside."""
_WRITERS = 4
_HOUR = np.timedelta64(1, "h")


def run_stage(run: Run, fingerprint: str, inputs: dict[str, str]) -> None:
    """Write ``forecast.zarr`` of the run.

    Raises:
        InputError: no test period, no valid initial time in it, or a training store on another grid than the
            checkpoint's.
    """
    require(run.training_store, "training store", "run `spherecast preprocess` first")
    config = run.config
    if config.periods.test is None:
        raise InputError("periods.test: not set; it holds the initial times. Give its first and last time.")
    forecast_store(
        run.checkpoints,
        run.training_store,
        run.forecast,
        period=config.periods.test,
        every_hours=config.forecast.every_hours,
        lead_hours=config.forecast.lead_hours,
        variables=config.forecast.variables,
        batch_size=config.forecast.batch_size,
        memory_mb=config.execution.memory_mb,
        fingerprint=fingerprint,
        inputs=inputs,
        key="periods.test",
    )


def forecast_store(
    checkpoints: str | Path,
    states: str | Path,
    target: str | Path,
    *,
    initial_times: Sequence[datetime] | None = None,
    period: tuple[datetime, datetime] | None = None,
    every_hours: int | None = None,
    lead_hours: int = 120,
    leads: Sequence[int] | None = None,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    batch_size: int = 8,
    memory_mb: int = 1024,
    best: bool = False,
    target_options: Mapping[str, Any] | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
    key: str = "period",
) -> None:
    """Write forecasts from states of any store that holds the checkpoint's variables and levels on its grid.

    Where values stop being finite the rest of that initial time is written as missing, and the log says which variable,
    level and lead it was. What an earlier call with the same result left unfinished is gone on with.

    Args:
        checkpoints: folder of a training's checkpoints.
        states: initial states, any store that `pipeline.stores.open_store` opens.
        target: path or fsspec address; what is there is replaced at the end.
        initial_times: those to start from; by default all that are possible within `period`, both ends included,
            which by default is everything.
        every_hours: of the possible ones take those at whole intervals after the first.
        lead_hours: longest lead; a forecast holds every step until then.
        leads: the leads that are written, in hours, instead.
        variables, levels: those that are written; all by default.
        batch_size: initial times integrated together. It changes rounding, nothing else.
        memory_mb: bound on states, forcings and what is being written; parameters and work space come on top.
        best: take the checkpoint of the smallest validation loss instead of the latest.
        fingerprint, inputs: for the description.
        key: the configuration key of the period, for messages.

    Raises:
        InputError: the store and the checkpoint do not fit together, no initial time, leads that are no multiples of
            the time step, unknown variables or levels, or too little memory.
    """
    forecaster, spec = load_forecaster(Path(checkpoints), best=best)
    dataset = open_store(states, "initial states")
    grid = grid_of(dataset)
    if not grid.matches(spec.grid):
        raise InputError(
            f"{states}: is on {grid}, but the checkpoint on {spec.grid}. Regrid it (`spherecast regrid`), or train again."
        )
    histories = initial_histories(
        dataset.time.values,
        valid_times(dataset),
        spec,
        initial_times=initial_times,
        period=period,
        every_hours=every_hours,
        key=key,
    )
    initial = dataset.time.values[histories[:, 0]]
    steps = _steps(spec, lead_hours, leads)
    channels = _channels(spec.layout, variables, levels)
    reader = _Reader(dataset, spec.layout, str(states))
    kept = StateLayout(
        tuple(name for name in spec.layout.variables if any(spec.layout.fields[i][0] == name for i in channels)),
        tuple(level for level in spec.layout.levels if any(spec.layout.fields[i][1] == level for i in channels)),
    )
    job = digest([_parameters(forecaster, Path(checkpoints)), _identity(states), initial.tolist(), steps, channels])
    description = describe(
        "forecast",
        fingerprint,
        inputs,
        simulated=bool(description_of(dataset).get("simulated", False)),
        grid=str(grid),
        levels=list(kept.levels),
        time_step_hours=spec.time_step_hours,
        period=period_of(initial),
        job=job,
    )
    content = forecast_content(
        initial,
        np.array(steps) * spec.time_step_hours * _HOUR,
        kept.variables,
        {"level": np.array(kept.levels), "latitude": grid.latitude, "longitude": grid.longitude},
        {name: {k: v for k, v in dataset[name].attrs.items() if k != ATTRIBUTE} for name in kept.variables},
        {ATTRIBUTE: description},
    )
    options = dict(target_options or {})
    with publishing(target, keep_partial=True, storage_options=options) as partial:
        store = lay_out(content, job, Objects(str(partial), options))
        resumed = store.start()
        work = _Integration(forecaster, spec, reader, kept, channels, steps, store)
        work.run(initial, histories, min(batch_size, len(initial)), memory_mb * 1e6, resumed)
    logger.info("%s: %d initial times, %d leads of %s", target, len(initial), len(steps), ", ".join(content.data_vars))


def initial_histories(
    times: np.ndarray,
    valid: np.ndarray,
    spec: ForecasterSpec,
    *,
    initial_times: Sequence[datetime] | None = None,
    period: tuple[datetime, datetime] | None = None,
    every_hours: int | None = None,
    key: str = "period",
) -> np.ndarray:
    """Return where the states at ``t, t - dt, ...`` of every initial time t lie, (initial time, input_steps).

    The states before an initial time that the network needs may lie before the period.

    Args:
        times: of the store, datetime64, ascending.
        valid: whether each holds complete data.

    Raises:
        InputError: there is no initial time, or one that was asked for is not possible.
    """
    require_ascending(times)
    back = np.arange(spec.model.input_steps) * spec.time_step_hours * _HOUR
    wanted = times[:, None] - back
    found = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    possible = ((times[found] == wanted) & valid[found]).all(axis=1)
    has = f"the store has {np.datetime_as_string(times[0], 'h')} to {np.datetime_as_string(times[-1], 'h')}"
    if initial_times is not None:
        asked = np.unique(np.array([as_datetime64(instant) for instant in initial_times], dtype=times.dtype))
        lost = [time_text(time) for time in asked if not (possible & (times == time)).any()]
        if lost or not asked.size:
            raise InputError(
                f"initial_times: {', '.join(lost[:5]) or 'none'}{' ...' if len(lost) > 5 else ''} cannot be started "
                f"from, for want of valid states at it and the {len(back) - 1} steps before; {has}."
            )
        return found[np.isin(times, asked)]
    if period is not None:
        start, end = map(as_datetime64, period)
        possible &= (times >= start) & (times <= end)
    chosen = np.flatnonzero(possible)
    if chosen.size and every_hours is not None:
        # Counted from the first valid time, so that data which start between two intervals are used as well.
        chosen = chosen[(times[chosen] - times[chosen[0]]) % np.timedelta64(every_hours, "h") == np.timedelta64(0)]
    if chosen.size == 0:
        within = "all times" if period is None else f"{period[0]:%Y-%m-%d %H} to {period[1]:%Y-%m-%d %H} UTC"
        raise InputError(f"{key}: {within} holds no valid initial time; {has}.")
    return found[chosen]


class _Reader:
    """Reads states of a store as (time, channel, latitude, longitude)."""

    def __init__(self, dataset: xr.Dataset, layout: StateLayout, path: str) -> None:
        self._fields = []
        for name in layout.variables:
            if name not in dataset:
                raise InputError(f"{name}: missing; {path} has {', '.join(map(str, dataset.data_vars))}.")
            field = dataset[name]
            if "level" in field.dims:
                lacking = [level for level in layout.levels if level not in field.level.values]
                if lacking:
                    raise InputError(
                        f"{name}: level {lacking[0]} hPa is missing; {path} has "
                        f"{', '.join(f'{level:g}' for level in field.level.values)}."
                    )
                if field.level.values.tolist() != list(layout.levels):
                    field = field.isel(level=[field.level.values.tolist().index(level) for level in layout.levels])
            self._fields.append(field)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the states at some positions, float32."""
        distinct, index = np.unique(positions, return_inverse=True)
        runs = np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)
        columns = []
        for field in self._fields:
            values = np.concatenate([field.isel(time=slice(int(run[0]), int(run[-1]) + 1)).values for run in runs])
            columns.append(values.reshape(len(values), -1, *values.shape[-2:]))
        return np.concatenate(columns, axis=1)[index].astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class _Integration:
    """All initial times, batch by batch."""

    forecaster: Forecaster
    spec: ForecasterSpec
    reader: _Reader
    kept: StateLayout
    channels: list[int]
    steps: list[int]
    store: ForecastStore

    def run(self, initial: np.ndarray, histories: np.ndarray, batch: int, memory: float, resumed: bool) -> None:
        """Integrate and write what is not finished."""
        forcings = forcing_fields(initial[:1], self.spec.grid, solar=self.spec.model.solar, clock=self.spec.model.clock)
        plane = 4.0 * batch * np.prod(self.spec.grid.shape)
        fields = len(self.spec.layout.fields)
        held = plane * fields * histories.shape[1] + batch * sum(a.value_bytes for a in self.store.arrays.values())
        length = block_length(self.steps[-1], plane * (fields + forcings.shape[1]), memory - held)
        everything = self.channels == list(range(fields))
        program = block_program(self.forecaster, None if everything else np.array(self.channels))
        writers = 1 if thread_limit() == 1 else _WRITERS
        with (
            progress("forecast", len(initial)) as bar,
            background() as consumer,
            ThreadPoolExecutor(writers) as pool,
        ):
            bar.update(0, "compiling")
            waiting: deque[Future] = deque()
            for first in range(0, len(initial), batch):
                group = np.arange(first, min(first + batch, len(initial)))
                numbers = [None if resumed and self.store.finished(number) else int(number) for number in group]
                if any(number is not None for number in numbers):
                    rows = {step: row for row, step in enumerate(self.steps)}
                    writing = GroupWriting(self.store, numbers, initial[group], rows, pool)
                    # The last batch is filled up, so that one program serves all.
                    filled = np.concatenate([group, np.repeat(group[-1:], batch - len(group))])
                    self._integrate(program, length, initial[filled], histories[filled], writing, consumer, waiting)
                    waiting.append(consumer.submit(writing.finish))
                done = len(group), f"{np.datetime_as_string(initial[group[-1]], 'h')} UTC"
                waiting.append(consumer.submit(bar.advance, *done))
            for future in waiting:
                future.result()

    def _integrate(
        self,
        program: Program,
        length: int,
        initial: np.ndarray,
        histories: np.ndarray,
        writing: GroupWriting,
        consumer: Executor,
        waiting: deque[Future],
    ) -> None:
        history = self.reader.read(histories.ravel()).reshape(*histories.shape, -1, *self.spec.grid.shape)
        for member, states in enumerate(history[: writing.size]):
            bad = ~np.isfinite(states).all(axis=(0, 2, 3))
            if bad.any():
                writing.stop(member, f"{self._name(np.argmax(bad))} has missing values in the initial state")
        steps = self.steps[-1]
        for first in range(0, steps, length):
            if writing.stopped:
                break
            forcings = self._forcings(initial, np.minimum(np.arange(first, first + length), steps - 1))
            while len(waiting) >= _WAITING:
                waiting.popleft().result()
            history, block = program(history, forcings)
            waiting.append(consumer.submit(self._write, block, first, writing))

    def _write(self, block: Block, first: int, writing: GroupWriting) -> None:
        finite, states = np.asarray(block.finite), np.asarray(block.states)
        for offset in range(min(states.shape[1], self.steps[-1] - first)):
            step = first + offset + 1
            for member in np.flatnonzero(~finite[: writing.size, offset].all(axis=1)):
                name = self._name(np.argmin(finite[member, offset]))
                hours = step * self.spec.time_step_hours
                writing.stop(
                    int(member), f"{name} is not finite at lead {hours} h (train longer, or with longer rollouts)"
                )
            writing.add(step, self.kept.unpack(states[:, offset]))

    def _forcings(self, initial: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """(batch, step, forcing, latitude, longitude)."""
        times = initial[:, None] + offsets * self.spec.time_step_hours * _HOUR
        # Batches overlap in time, where leads are longer than the interval between initial times.
        distinct, index = np.unique(times, return_inverse=True)
        model = self.spec.model
        fields = forcing_fields(distinct, self.spec.grid, solar=model.solar, clock=model.clock)
        return fields[index.reshape(times.shape)]

    def _name(self, channel: int) -> str:
        name, level = self.spec.layout.fields[int(channel)]
        return name if level is None else f"{name} at {level} hPa"


def _steps(spec: ForecasterSpec, lead_hours: int, leads: Sequence[int] | None) -> list[int]:
    """Numbers of steps after which a state is written, ascending."""
    step = spec.time_step_hours
    if leads is None:
        if lead_hours < step:
            raise InputError(f"lead_hours: {lead_hours}; expected at least the checkpoint's time step, {step}.")
        return list(range(1, lead_hours // step + 1))
    wrong = [lead for lead in leads if lead < step or lead % step]
    if wrong or not leads:
        raise InputError(
            f"leads: {', '.join(map(str, wrong)) or 'none'}; expected multiples of the checkpoint's time step, {step} h."
        )
    return sorted({int(lead) // step for lead in leads})


def _channels(layout: StateLayout, variables: Sequence[str] | None, levels: Sequence[int] | None) -> list[int]:
    """Channels that are written."""
    for what, chosen, known in (("variables", variables, layout.variables), ("levels", levels, layout.levels)):
        unknown = [value for value in chosen or () if value not in known]
        if unknown:
            raise InputError(f"{what}: {unknown[0]} is not forecast; the checkpoint has {', '.join(map(str, known))}.")
    return [
        i
        for i, (name, level) in enumerate(layout.fields)
        if (variables is None or name in variables) and (levels is None or level is None or level in levels)
    ]


def _parameters(forecaster: Forecaster, checkpoints: Path) -> str:
    """Digest of the trained values and of what they belong to."""
    total = hashlib.sha256(json.dumps(json.loads((checkpoints / SPEC_FILE).read_text()), sort_keys=True).encode())
    for leaf in jax.tree.leaves(nnx.state(forecaster, nnx.Param, nnx.BatchStat)):
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()


def _identity(states: str | Path) -> Any:
    """What tells a store from others: what it says it was made from, or where it is and what its files are."""
    made_from = None if is_url(states) else (read_description(states) or {}).get("fingerprint")
    return made_from or [str(states), source_fingerprint(str(states))]
