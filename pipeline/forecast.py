"""Stage `forecast`: integrate the trained forecaster from every initial time, in the WeatherBench 2 layout.

A forecast that was stopped goes on: a member of an initial time that is finished is not written again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, digest, publishing, require, store_identity
from pipeline.config import PerturbationConfig
from pipeline.forecasting.initial_states import initial_histories
from pipeline.forecasting.integration import Integration
from pipeline.forecasting.perturbations import Perturbations
from pipeline.forecasting.writing import forecast_content, lay_out
from pipeline.objects import Objects
from pipeline.runs import Run
from pipeline.states.reading import StateReader
from pipeline.stores.axes import grid_of
from pipeline.stores.reading import description_of, open_store, period_of, valid_times
from pipeline.training.checkpoints import Choice, ForecasterSpec, load_trained
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.selections import Selection

__all__ = ["forecast_store", "run_stage"]

logger = logging.getLogger(__name__)

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
    settings = config.forecast
    forecast_store(
        [Choice(run.checkpoints, which) for which in settings.checkpoints],
        run.training_store,
        run.forecast,
        period=config.periods.test,
        every_hours=settings.every_hours,
        lead_hours=settings.lead_hours,
        variables=settings.variables,
        members=settings.members,
        perturbation=settings.perturbation,
        batch_size=settings.batch_size,
        memory_mb=config.execution.memory_mb,
        fingerprint=fingerprint,
        inputs=inputs,
        key="periods.test",
    )


def forecast_store(
    checkpoints: str | Path | Sequence[Choice],
    states: str | Path,
    target: str | Path,
    *,
    initial_times: Sequence[datetime] | Selection | None = None,
    period: tuple[datetime, datetime] | None = None,
    every_hours: int | None = None,
    lead_hours: int = 120,
    leads: Sequence[float] | None = None,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    members: int = 1,
    numbers: Sequence[int] | None = None,
    perturbation: PerturbationConfig | None = None,
    batch_size: int = 8,
    memory_mb: int = 1024,
    target_options: Mapping[str, Any] | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
    key: str = "period",
) -> None:
    """Write forecasts from states of any store that holds the checkpoint's variables and levels on its grid.

    Where values stop being finite the rest of that member is written as missing, and the log says which variable, level
    and lead it was. What an earlier call with the same result left unfinished is gone on with.

    An ensemble has an axis ``number``. With C checkpoints member n is of checkpoint ``n % C`` and, from n = C on,
    perturbed (`pipeline.forecasting.perturbations`) as the seed, its initial time and n say. Members of a network that
    takes noise differ by it (`pipeline.forecasting.noise`), member 0 as any other, and are perturbed only where an
    amplitude is given.

    Args:
        checkpoints: folder of a training's checkpoints, of which the latest is taken, or those to take.
        states: initial states, any store that `pipeline.stores.reading.open_store` opens.
        target: path or fsspec address; what is there is replaced at the end.
        initial_times: those to start from; by default all that are possible within `period`, both ends included,
            which by default is everything.
        every_hours: of the possible ones take those at whole intervals after the first.
        lead_hours: longest lead; a forecast holds every step until then.
        leads: the leads that are written, in hours, instead; 0 is the initial state.
        variables, levels: those that are written; all by default.
        members: of each checkpoint. One member of one checkpoint is no ensemble.
        numbers: of the members that are written; all by default.
        perturbation: of the members; the defaults of the configuration.
        batch_size: members integrated together. It changes rounding, nothing else.
        memory_mb: bound on states, forcings and what is being written; parameters and work space come on top.
        fingerprint, inputs: for the description.
        key: the configuration key of the period, for messages.

    Raises:
        InputError: the store and the checkpoints do not fit together, no initial time, leads that are no multiples of
            the time step, unknown variables, levels or members, or too little memory.
    """
    choices = [Choice(Path(checkpoints))] if isinstance(checkpoints, str | Path) else list(checkpoints)
    models = load_trained(choices)
    # That which looks back furthest decides what can be started from.
    spec = max((model.spec for model in models), key=lambda spec: spec.model.input_steps)
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
    initial = dataset.time.values[histories[:, -1]]
    ensemble = members * len(models) > 1
    noise = [model.spec.model.noise for model in models]
    settings = (perturbation or PerturbationConfig()).resolved(noise=all(noise))
    perturbs = members > 1 and (settings.perturbs or not all(noise))
    chosen = _numbers(members * len(models), numbers)
    work = Integration(
        models,
        StateReader(dataset, spec.layout, str(states)),
        initial,
        histories,
        chosen,
        ensemble,
        Perturbations(settings, models[0].spec) if perturbs else None,
        _channels(spec, variables, levels),
        _steps(spec, lead_hours, leads),
        settings.seed,
    )
    perturbed = settings.model_dump(mode="json") if perturbs else None
    about_noise = {"fields": max(noise), "seed": settings.seed} if any(noise) else None
    digests = [model.digest for model in models]
    job = digest(
        [digests, store_identity(states), initial.tolist(), work.steps, work.channels, chosen, perturbed, about_noise]
    )
    description = describe(
        "forecast",
        fingerprint,
        inputs,
        simulated=bool(description_of(dataset).get("simulated", False)),
        grid=str(grid),
        levels=list(work.kept.levels),
        time_step_hours=spec.time_step_hours,
        period=period_of(initial),
        job=job,
        **({"members": chosen, "perturbation": perturbed} if ensemble else {}),
        **({} if about_noise is None else {"noise": about_noise}),
    )
    content = _content(work, dataset, grid, description)
    options = dict(target_options or {})
    with publishing(target, keep_partial=True, storage_options=options) as partial:
        store = lay_out(content, job, Objects(str(partial), options))
        resumed = store.start()
        work.run(store, batch_size, memory_mb * 1e6, resumed=resumed)
    counts = f"{len(initial)} initial times, {len(work.steps)} leads" + f", {len(chosen)} members" * ensemble
    logger.info("%s: %s of %s", target, counts, ", ".join(map(str, content.data_vars)))


def _content(work: Integration, dataset: xr.Dataset, grid: Grid, description: dict[str, Any]) -> xr.Dataset:
    """Return the store's axes and attributes, its forecasts without values."""
    step = work.models[0].spec.time_step_hours * _HOUR
    return forecast_content(
        work.initial,
        np.array(work.steps) * step,
        work.kept.variables,
        {"level": np.array(work.kept.levels), "latitude": grid.latitude, "longitude": grid.longitude},
        {name: {k: v for k, v in dataset[name].attrs.items() if k != ATTRIBUTE} for name in work.kept.variables},
        {ATTRIBUTE: description},
        list(work.numbers) if work.labelled else None,
    )


def _steps(spec: ForecasterSpec, lead_hours: int, leads: Sequence[float] | None) -> list[int]:
    """Numbers of steps after which a state is written, ascending."""
    step, direct = spec.time_step_hours, spec.model.leads_hours
    if direct:
        chosen = [lead for lead in direct if lead <= lead_hours] if leads is None else sorted(set(leads))
        wrong = [lead for lead in chosen if lead not in direct]
        if wrong or not chosen:
            raise InputError(
                f"leads: {', '.join(f'{lead:g}' for lead in wrong) or f'none up to {lead_hours} h'}; the checkpoint "
                f"forecasts {', '.join(map(str, direct))} h, each by one call. Choose among these."
            )
        return [int(lead) // step for lead in chosen]
    if leads is None:
        if lead_hours < step:
            raise InputError(f"lead_hours: {lead_hours}; expected at least the checkpoint's time step, {step}.")
        return list(range(1, lead_hours // step + 1))
    wrong = [lead for lead in leads if lead < 0 or lead % step]
    if wrong or not any(leads):
        raise InputError(
            f"leads: {', '.join(f'{lead:g}' for lead in wrong) or '0'}; expected multiples of the checkpoint's time step, "
            f"{step} h, and one above 0."
        )
    return sorted({int(lead) // step for lead in leads})


def _channels(spec: ForecasterSpec, variables: Sequence[str] | None, levels: Sequence[int] | None) -> list[int]:
    """Channels that are written, of those that are predicted."""
    names, heights = (list(dict.fromkeys(part)) for part in zip(*spec.predicted, strict=True))
    for what, chosen, known in (("variables", variables, names), ("levels", levels, heights)):
        unknown = [value for value in chosen or () if value not in known]
        if unknown:
            has = ", ".join(str(value) for value in known if value is not None)
            raise InputError(f"{what}: {unknown[0]} is not forecast; the checkpoint has {has}.")
    return [
        i
        for i, (name, level) in enumerate(spec.predicted)
        if (variables is None or name in variables) and (levels is None or level is None or level in levels)
    ]


def _numbers(count: int, numbers: Sequence[int] | None) -> list[int]:
    """Members that are written, ascending."""
    wrong = [number for number in numbers or () if not 0 <= number < count]
    if wrong:
        raise InputError(f"number: {wrong[0]}; the ensemble has members 0 to {count - 1}. Choose among these.")
    return list(range(count)) if numbers is None else sorted(set(numbers))
