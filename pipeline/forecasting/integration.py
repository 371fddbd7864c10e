"""Integrating forecasts: members in batches, a batch in blocks of steps, a block written while the next is computed.

A member is a forecast from one initial time with one checkpoint and one perturbation. Batches are always made up of the
same members, so that rounding does not depend on where a forecast was stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from model.sharding import make_mesh
from model.training import replicated
from pipeline.forecasting.noise import ForecastNoise
from pipeline.forecasting.perturbations import Perturbations
from pipeline.forecasting.rollout_blocks import Block, Program, block_length, block_program
from pipeline.forecasting.writing import ForecastStore, GroupWriting, Place
from pipeline.jobs.progress import progress
from pipeline.jobs.threads import background, thread_limit
from pipeline.states.layout import FieldsKept
from pipeline.states.reading import StateReader
from pipeline.training.checkpoints import ForecasterSpec, Trained

__all__ = ["Batch", "Integration"]

_WAITING = 2
"""Blocks computed or written at once, that being computed aside."""
_WRITERS = 4
_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True, eq=False)
class Batch:
    """Members that are integrated together.

    Attributes:
        model: the forecaster of all of them.
        places: of the members in the store; a last batch has fewer than others.
        size: of the batch, filled up with the last member, so that one program serves all.
    """

    model: Trained
    places: list[Place]
    size: int

    @property
    def times(self) -> np.ndarray:
        """Positions of the initial times, filled up, (batch,)."""
        times = [time for time, _ in self.places]
        return np.array(times + times[-1:] * (self.size - len(times)))


@dataclass(frozen=True, eq=False)
class Integration:
    """All members of all initial times.

    Attributes:
        models: one for each checkpoint, of one layout, grid and time step.
        states: initial states.
        initial: initial times, datetime64.
        histories: where the states up to each lie, ascending in time, as many as the model that needs most takes.
        numbers: of the members that are written; number n has checkpoint ``n % len(models)``, and those whose quotient
            is zero are not perturbed.
        labelled: whether messages name the member.
        perturbations: of the others; None where there are none.
        noise_seed: of the noise of networks that take some.
        channels: those that are written, of the predicted ones.
        steps: numbers of steps after which a state is written, ascending, the last above 0; those of direct forecasts are
            among their lead times.
    """

    models: Sequence[Trained]
    states: StateReader
    initial: np.ndarray
    histories: np.ndarray
    numbers: Sequence[int]
    labelled: bool
    perturbations: Perturbations | None
    channels: list[int]
    steps: list[int]
    noise_seed: int = 0

    @cached_property
    def mesh(self) -> Mesh | None:
        """The devices of this process, where there are several."""
        devices = jax.local_devices()
        return None if len(devices) == 1 else make_mesh(devices)

    @cached_property
    def kept(self) -> FieldsKept:
        """Variables and levels that are written."""
        fields = [self._spec.predicted[i] for i in self.channels]
        heights = {level for _, level in fields}
        return FieldsKept(fields, tuple(level for level in self._spec.layout.levels if level in heights))

    @cached_property
    def calls(self) -> list[int]:
        """The step whose state each call of the network gives: one after the other, or those of direct forecasts."""
        return self.steps if self._spec.roles.direct else list(range(1, self.steps[-1] + 1))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all members in batches, those of a checkpoint together.

        Args:
            size: at most; more where that would leave devices without a member.
        """
        for checkpoint, model in enumerate(self.models):
            own = [i for i, number in enumerate(self.numbers) if number % len(self.models) == checkpoint]
            places = [(time, member) for time in range(len(self.initial)) for member in own]
            devices = 1 if self.mesh is None else self.mesh.size
            length = -(-min(size, len(places)) // devices) * devices
            for first in range(0, len(places), max(length, 1)):
                yield Batch(model, places[first : first + length], length)

    def block_steps(self, size: int, memory: float, written: float = 0.0) -> int:
        """Return how many steps a block has.

        Args:
            size: of a batch.
            memory: bytes that states, forcings and what is being written may take.
            written: bytes of one member that are held until they are written.
        """
        plane = 4.0 * size * np.prod(self._spec.grid.shape)
        fields = len(self._spec.layout.fields)
        forcings = max(model.spec.forcings.count + model.spec.model.noise for model in self.models)
        held = plane * fields * self.histories.shape[1] + size * written
        return block_length(len(self.calls), plane * (fields + forcings), memory - held)

    @cached_property
    def programs(self) -> dict[int, Program]:
        """The program of each graph, by its identity; they are compiled when first called."""
        everything = self.channels == list(range(len(self._spec.predicted)))
        channels = None if everything else np.array(self.channels)
        return {id(model.graph): block_program(model.graph, channels, self.mesh) for model in self.models}

    @cached_property
    def noises(self) -> dict[int, ForecastNoise]:
        """What makes the noise of each graph whose network takes some, by its identity."""
        return {
            id(model.graph): ForecastNoise(model.spec, self.noise_seed)
            for model in self.models
            if model.spec.model.noise
        }

    def run(self, store: ForecastStore, size: int, memory: float, *, resumed: bool) -> None:
        """Integrate and write what is not finished.

        Args:
            size: members integrated together.
            memory: see `block_steps`.
            resumed: whether the store may hold finished members.
        """
        batches = list(self.batches(size))
        largest = max(batch.size for batch in batches)
        length = self.block_steps(largest, memory, sum(array.value_bytes for array in store.arrays.values()))
        rows = {step: row for row, step in enumerate(self.steps)}
        writers = 1 if thread_limit() == 1 else _WRITERS
        with (
            progress("forecast", sum(len(batch.places) for batch in batches)) as bar,
            background() as consumer,
            ThreadPoolExecutor(writers) as pool,
        ):
            bar.update(0, "compiling")
            writes: deque[Future] = deque()
            others: list[Future] = []
            model: Any = None
            arrays: Any = None
            for batch in batches:
                if batch.model is not model:
                    model, arrays = batch.model, replicated(batch.model.state, self.mesh)
                places = [None if resumed and store.finished(place) else place for place in batch.places]
                if any(place is not None for place in places):
                    writing = GroupWriting(store, places, [self._label(place) for place in batch.places], rows, pool)
                    program = partial(self.programs[id(model.graph)], arrays)
                    self._integrate(program, length, batch, writing, consumer, writes)
                    others.append(consumer.submit(writing.finish))
                last = self.initial[batch.places[-1][0]]
                done = len(places), f"{np.datetime_as_string(last, 'h')} UTC"
                others.append(consumer.submit(bar.advance, *done))
            for future in (*writes, *others):
                future.result()

    def history(self, batch: Batch) -> np.ndarray:
        """Return what a batch starts from, perturbed, (batch, input_steps, channel, latitude, longitude).

        All states of a member's history are perturbed alike, which leaves its tendency as it is.
        """
        positions = self.histories[batch.times, -batch.model.spec.model.input_steps :]
        history = self.states.read(positions)
        for i, (time, member) in enumerate(batch.places):
            number = self.numbers[member]
            if number >= len(self.models) and self.perturbations is not None:
                history[i] += self.perturbations.of(self.initial[time], number)
        return history

    def forcings(self, batch: Batch, first: int, length: int) -> np.ndarray:
        """Return what drives a block, (batch, step, forcing, latitude, longitude); times need not be in any data.

        Noise, where the network takes some, comes last.
        """
        spec, step = batch.model.spec, batch.model.spec.time_step_hours * _HOUR
        calls = self.calls[first : first + length]
        calls += calls[-1:] * (length - len(calls))
        initial = self.initial[batch.times][:, None]
        if spec.roles.direct:
            forcings = spec.forcings.of_leads(initial, initial + np.array(calls) * step)
        else:
            forcings = spec.forcings.of_times(initial + (np.array(calls) - 1) * step)
        noise = self.noises.get(id(batch.model.graph))
        if noise is None:
            return forcings
        drawn = [noise.of(self.initial[time], self.numbers[member], calls) for time, member in batch.places]
        drawn += drawn[-1:] * (batch.size - len(drawn))
        return np.concatenate([forcings, np.stack(drawn)], axis=2)

    def _integrate(
        self,
        program: Callable[[np.ndarray | jax.Array, np.ndarray], tuple[jax.Array, Block]],
        length: int,
        batch: Batch,
        writing: GroupWriting,
        consumer: Executor,
        writes: deque[Future],
    ) -> None:
        history: Any = self.history(batch)
        for member, states in enumerate(history[: writing.size]):
            bad = ~np.isfinite(states).all(axis=(0, 2, 3))
            if bad.any():
                name = _named(self._spec.layout.fields[int(np.argmax(bad))])
                writing.stop(member, f"{name} has missing values in the initial state")
        if self.steps[0] == 0:
            writes.append(consumer.submit(writing.add, 0, self.kept.unpack(history[:, -1, self.channels])))
        for first in range(0, len(self.calls), length):
            if writing.stopped:
                break
            forcings = self.forcings(batch, first, length)
            while len(writes) >= _WAITING:
                writes.popleft().result()
            history, block = program(history, forcings)
            writes.append(consumer.submit(self._write, block, first, writing))

    def _write(self, block: Block, first: int, writing: GroupWriting) -> None:
        finite, states = np.asarray(block.finite), np.asarray(block.states)
        for offset, step in enumerate(self.calls[first : first + states.shape[1]]):
            for member in np.flatnonzero(~finite[: writing.size, offset].all(axis=1)):
                name = _named(self._spec.predicted[int(np.argmin(finite[member, offset]))])
                hours = step * self._spec.time_step_hours
                writing.stop(
                    int(member), f"{name} is not finite at lead {hours} h (train longer, or with longer rollouts)"
                )
            writing.add(step, self.kept.unpack(states[:, offset]))

    @property
    def _spec(self) -> ForecasterSpec:
        return self.models[0].spec

    def _label(self, place: Place) -> str:
        time, member = place
        label = f"{np.datetime_as_string(self.initial[time], 'h')} UTC"
        return f"{label}, member {self.numbers[member]}" if self.labelled else label


def _named(field: tuple[str, int | None]) -> str:
    name, level = field
    return name if level is None else f"{name} at {level} hPa"
