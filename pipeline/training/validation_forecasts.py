"""Forecasts in the midst of a training: losses on held-out windows, and errors at 1, 3 and 5 days or at direct leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx

from model.training import Batch, LossWeights
from model.verification import ForecastErrors, weighted_loss
from pipeline.training.checkpoints import ForecasterSpec
from pipeline.training.windows import DirectWindows, WindowSource
from transforms.metrics import vector_name
from transforms.variables import field_name, wind_pairs

__all__ = ["Headline", "HeldOut", "headline_fields"]

_DAYS = (1, 3, 5)
_USUAL = ("geopotential@500", "temperature@850", "2m_temperature", "wind_vector@850")


class Headline(dict[str, list[int]]):
    """Channels of the fields that are followed, by ``variable@level`` or ``variable``; several for a wind vector."""


def headline_fields(fields: Sequence[tuple[str, int | None]], wanted: Sequence[str]) -> Headline:
    """Return those of the fields `wanted` that a state has, or the usual ones, or its first.

    Args:
        fields: (variable, level) of every channel.
        wanted: as in ``report.headline``; ``wind_vector`` stands for both components.
    """
    names = {field_name(variable, level): [channel] for channel, (variable, level) in enumerate(fields)}
    for east, north in wind_pairs(dict(fields)):
        for variable, level in fields:
            if variable == east:
                names[field_name(vector_name(east), level)] = (
                    names[field_name(east, level)] + names[field_name(north, level)]
                )
    for choice in (wanted, _USUAL, list(names)[:1]):
        found = Headline({name: names[name] for name in choice if name in names})
        if found:
            return found
    return Headline()


class HeldOut:
    """Validation: losses by the rollout of a stage, and errors of the headline fields beside persistence."""

    def __init__(
        self,
        windows: Callable[[str, int], WindowSource],
        errors: ForecastErrors,
        *,
        spec: ForecasterSpec,
        latitude_weights: np.ndarray,
        headline: Headline,
        crps: bool,
        batch_size: int,
        loss_windows: int,
        initial_times: int,
    ) -> None:
        """Prepare.

        Args:
            headline: channels among those that are predicted.
            crps: whether losses are the fair CRPS of the members; errors are those of their mean either way.
            batch_size: windows forecast together.
            loss_windows: windows of the losses, at most.
            initial_times: of the forecasts, at most; 0 for none.
        """
        self._windows, self._errors, self._scale = windows, errors, spec.scale
        self._latitude_weights, self._headline, self._hours = latitude_weights, headline, spec.time_step_hours
        self._batch_size, self._loss_windows, self._initial_times = batch_size, loss_windows, initial_times
        self._crps = crps
        self._input_steps, self._predicted = spec.model.input_steps, list(spec.roles.predicted)
        self._direct = spec.model.leads_hours
        self._persistence: dict[str, list[float | None]] | None = None
        self._leads = self._possible() if initial_times else []

    def loss(self, params: nnx.State, statistics: nnx.State, steps: int, weights: LossWeights) -> float | None:
        """Return the mean loss of rollouts of so many steps; None where there are no windows."""
        measure, power = (self._errors.crps, 1) if self._crps else (self._errors, 2)
        losses = [
            weighted_loss(measure(params, statistics, batch), self._scale, weights, power)
            for batch in self._batches(self._windows("validation", steps), self._loss_windows)
        ]
        return float(np.mean(losses)) if losses else None

    def forecasts(self, params: nnx.State, statistics: nnx.State) -> dict[str, Any] | None:
        """Return root mean square errors ``rmse`` and ``persistence`` by field, at ``lead_hours``; None without windows.

        Values are in the units of the fields; those of an ensemble are of its mean.
        """
        if not self._leads:
            return None
        errors = self._by_lead(lambda batch: self._errors(params, statistics, batch))
        if self._persistence is None:
            self._persistence = self._rmse(self._by_lead(self._errors_of_persistence))
        return {
            "lead_hours": self._leads,
            "rmse": self._rmse(errors),
            "persistence": self._persistence,
        }

    def _by_lead(self, measure: Callable[[Batch], np.ndarray]) -> np.ndarray:
        """Return mean square errors, (lead, channel), of what gives those of a batch, (step, channel)."""
        if not self._direct:
            steps = [lead // self._hours for lead in self._leads]
            batches = self._batches(self._windows("validation", steps[-1]), self._initial_times)
            return np.mean([measure(batch) for batch in batches], axis=0)[[step - 1 for step in steps]]
        windows = [self._of_lead(lead) for lead in self._leads]
        return np.array(
            [
                np.mean([measure(batch)[0] for batch in self._batches(own, self._initial_times)], axis=0)
                for own in windows
            ]
        )

    def _errors_of_persistence(self, batch: Batch) -> np.ndarray:
        """(step, channel)."""
        states, now = np.asarray(batch.states)[:, :, self._predicted], self._input_steps - 1
        squares = (states[:, now + 1 :] - states[:, now : now + 1]) ** 2 * self._latitude_weights[:, None]
        return np.asarray(np.mean(squares, axis=(0, 3, 4), dtype=np.float64))

    def _possible(self) -> list[int]:
        """Return the leads, in hours, for which the validation period has windows: whole days, or a few direct ones."""
        if self._direct:
            chosen = np.unique(np.linspace(0, len(self._direct) - 1, len(_DAYS)).round().astype(int))
            leads = [self._direct[index] for index in chosen]
            return [lead for lead in leads if len(self._of_lead(lead))]
        leads = [24 * day for day in _DAYS if 24 * day % self._hours == 0]
        return [lead for lead in leads if len(self._windows("validation", lead // self._hours))]

    def _of_lead(self, lead: int) -> WindowSource:
        windows = self._windows("validation", 1)
        assert isinstance(windows, DirectWindows)
        return windows.of_lead(self._direct.index(lead))

    def _rmse(self, errors: np.ndarray) -> dict[str, list[float | None]]:
        def root(square: float) -> float | None:
            # Forecasts of a young network may overflow, and JSON has no word for that.
            return float(f"{np.sqrt(square):.6g}") if np.isfinite(square) else None

        return {name: [root(row[channels].sum()) for row in errors] for name, channels in self._headline.items()}

    def _batches(self, source: WindowSource, most: int) -> Iterator[Batch]:
        """Yield windows evenly spread over the period, the same ones every time, in batches that are all full."""
        count = min(most, len(source))
        if count == 0:
            return
        chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
        # A batch of another size would need a program of its own. What does not fill one is left out, unless it is all
        # there is: then windows are taken twice.
        full = len(chosen) // self._batch_size * self._batch_size
        chosen = chosen[:full] if full else np.resize(chosen, self._batch_size)
        for group in chosen.reshape(-1, self._batch_size):
            yield source.read(group)
