"""Lines of the rivals: the same windows, normalisation, loss, schedule and averaging, with torch around their networks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from comparison.ground import Ground
from comparison.lines import Line, Setting
from comparison.rivals import build

from model.training import Batch, learning_rate_schedule
from pipeline.forecasting.initial_states import initial_histories
from pipeline.states.reading import StateReader
from pipeline.stores.reading import open_store, valid_times
from pipeline.training.loader import Loader

__all__ = ["Rival"]

_UPDATES = 6
_HOUR = np.timedelta64(1, "h")


class Rival:
    """A rival's network, its training and its forecasts."""

    def __init__(self, ground: Ground, line: Line, setting: Setting, seed: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        self.ground, self.line, self.setting, self.seed = ground, line, setting, seed
        self.spec, self.data = ground.data.spec, ground.data
        constants, weights = self.spec.normalisation, self.data.weights()

        def column(values: Any) -> torch.Tensor:
            return torch.tensor(np.asarray(values, np.float32))[:, None, None]

        self.mean, self.std, self.change = (
            column(values) for values in (constants.mean, constants.std, constants.tendency_std)
        )
        self.area = column(weights.channel) * torch.tensor(np.asarray(weights.latitude))[:, None]
        self.statics = torch.tensor(self.spec.static_fields)
        outputs = len(self.spec.layout.fields)
        inputs = outputs + self.spec.forcings.count + len(self.statics)
        shape, width = self.spec.grid.shape, setting.width
        # The transformer holds what cannot be copied; a network of its own can take the values over.
        self.network, self.average = (build(line.kind, shape, inputs, outputs, width) for _ in range(2))
        self.average.load_state_dict(self.network.state_dict())

    @property
    def parameters(self) -> int:
        """Number of parameters, complex ones counted twice."""
        return sum(p.numel() * (2 if p.is_complex() else 1) for p in self.network.parameters())

    def calibrate(self) -> dict[str, Any]:
        """Return the CPU seconds of an update of each stage, by steps, and the number of parameters; spoils both."""
        costs = {}
        for steps in self.line.rollouts:
            self._learn(steps, 1)
            costs[steps] = self._learn(steps, _UPDATES) / _UPDATES
        return {"update_seconds": costs, "compile_seconds": 0.0, "parameters": self.parameters}

    def train(self, updates: dict[int, int]) -> None:
        """Train from the start; `updates` of each stage, by steps. Ends with the average of the parameters."""
        for steps, count in updates.items():
            self._learn(steps, count)

    def _learn(self, steps: int, updates: int) -> float:
        """Make the updates of a stage; return the CPU seconds they took."""
        settings, network = self.ground.run.config.training, self.network
        peak = self.line.peak(self.setting, steps)
        schedule = learning_rate_schedule(peak, updates, settings.warmup_fraction)
        rates = np.asarray([schedule(i) for i in range(updates)], float)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, settings.beta2))
        average = self.average
        windows = self.data.windows("train", steps)
        size = self.setting.batch
        loader = Loader(windows, global_batch=size, accumulate=1, mesh=None, seed=self.seed + steps, memory_mb=512)
        network.train()
        began = time.process_time()
        for made, rate in enumerate(rates, start=1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = self._loss(next(loader))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
            optimizer.step()
            decay = min(settings.ema_decay, made / (made + 9.0)) if steps == 1 else settings.ema_decay
            with torch.no_grad():
                for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                    mean.lerp_(value, 1.0 - decay)
                for mean, value in zip(average.buffers(), network.buffers(), strict=True):
                    mean.copy_(value)
        took = time.process_time() - began
        loader.close()
        return took

    def _loss(self, batch: Batch) -> torch.Tensor:
        states, forcings = (torch.from_numpy(np.array(part)) for part in batch)
        state, losses = states[:, 0], []
        for step in range(forcings.shape[1]):
            state = self._step(self.network, state, forcings[:, step])
            losses.append(torch.mean(((state - states[:, step + 1]) / self.change) ** 2 * self.area))
        return torch.stack(losses).mean()

    def _step(self, network: torch.nn.Module, state: torch.Tensor, forcing: torch.Tensor) -> torch.Tensor:
        statics = self.statics.expand(len(state), *self.statics.shape)
        inputs = torch.cat([(state - self.mean) / self.std, forcing, statics], dim=1)
        return state + self.change * network(inputs)

    @torch.no_grad()
    def forecast(self, target: Path, period: str) -> None:
        """Write forecasts of a period in WeatherBench 2's layout."""
        asked, spec = self.ground.forecasts(period), self.spec
        store = open_store(self.ground.run.training_store, "initial states")
        histories = initial_histories(
            store.time.values, valid_times(store), spec, period=asked["period"], every_hours=asked["every_hours"]
        )
        initial = store.time.values[histories[:, -1]]
        states = StateReader(store, spec.layout, "the training store")
        kept = [
            i
            for i, (name, level) in enumerate(spec.layout.fields)
            if name in asked["variables"] and level in asked["levels"]
        ]
        steps = [lead // spec.time_step_hours for lead in asked["leads"]]
        network = self.average.eval()
        written = np.empty((len(initial), len(steps), len(kept), *spec.grid.shape), np.float32)
        for first in range(0, len(initial), 8):
            chunk = slice(first, first + 8)
            state = torch.from_numpy(states.read(histories[chunk, -1]))
            for step in range(steps[-1]):
                times = initial[chunk] + step * spec.time_step_hours * _HOUR
                forcing = torch.from_numpy(spec.forcings.of_times(times))
                state = self._step(network, state, forcing)
                if step + 1 in steps:
                    written[chunk, steps.index(step + 1)] = state[:, kept].numpy()
        self._write(target, written, initial, steps, kept)

    def _write(self, target: Path, values: np.ndarray, initial: np.ndarray, steps: list[int], kept: list[int]) -> None:
        fields, grid = [self.spec.layout.fields[i] for i in kept], self.spec.grid
        levels = list(dict.fromkeys(level for _, level in fields))
        axes = ("time", "prediction_timedelta", "level", "latitude", "longitude")
        variables = {
            name: (axes, values[:, :, [i for i, field in enumerate(fields) if field[0] == name]])
            for name in dict.fromkeys(name for name, _ in fields)
        }
        coordinates = {
            "time": initial,
            "prediction_timedelta": np.array(steps) * self.spec.time_step_hours * np.timedelta64(3600 * 10**9, "ns"),
            "level": levels,
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        }
        xr.Dataset(variables, coordinates).to_zarr(target, mode="w")
