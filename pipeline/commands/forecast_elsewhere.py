"""Forecasts of a run's checkpoints written anywhere: what a command line asks for, checked and carried out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artefacts import SCHEMA_VERSION, digest, read_description, refuse_other, require, store_identity
from pipeline.config import Config, ForecastConfig
from pipeline.config_files import load_config
from pipeline.forecast import forecast_store
from pipeline.objects import is_url
from pipeline.runs import Run
from pipeline.stores.netcdf import write_netcdf
from pipeline.training.checkpoints import Choice
from transforms.errors import InputError
from transforms.selections import parse_leads, parse_times

__all__ = ["forecast_to"]

_HOUR = np.timedelta64(1, "h")
_CHANGEABLE = ("forecast.", "execution.memory_mb")
"""What may be changed of a run without making it another."""
_OPTIONS = {
    "every_hours": "--initial-times",
    "lead_hours": "--leads",
    "variables": "--variable",
    "members": "--members",
    "checkpoints": "--checkpoint",
}
"""Keys of ``forecast`` that an option stands for."""


def forecast_to(
    directory: Path,
    target: str,
    *,
    overrides: Sequence[str] = (),
    initial_times: str | None = None,
    leads: str | None = None,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    states: str | None = None,
    members: int | None = None,
    numbers: Sequence[int] | None = None,
    checkpoints: Sequence[str] | None = None,
    overwrite: bool = False,
) -> bool:
    """Write a forecast of a run's checkpoints; return whether there was anything to do.

    Args:
        directory: of the run.
        target: path or address that ends in ``.zarr``, or path that ends in ``.nc``.
        overrides: changes of the run's ``forecast`` section.
        initial_times, leads: as `transforms.selections` reads them; the run's by default.
        states: where forecasts start from; the run's training store by default.
        members, numbers, variables, levels: see `pipeline.forecast.forecast_store`; the run's by default.
        checkpoints: each ``latest``, ``best``, a number of updates, the directory of another run, or ``RUN@WHICH``.
        overwrite: replace something else at the target.

    Raises:
        InputError: see `pipeline.forecast.forecast_store`; options that contradict each other; something else is at the
            target.
    """
    _check_target(target)
    run = Run.open(directory)
    given = (initial_times, leads, variables, members, checkpoints)
    config = _changed(run, overrides, [key for key, value in zip(_OPTIONS, given, strict=True) if value])
    settings = config.forecast
    choices = [_choice(str(which), run) for which in checkpoints or settings.checkpoints]
    members = members or settings.members
    if numbers and members * len(choices) == 1:
        raise InputError("--number: a single forecast has no members. Give --members N or several --checkpoint.")
    states = states or str(run.training_store)
    asked: dict[str, Any] = {
        **_starts(config, initial_times),
        "leads": None if leads is None else _hours(leads, config.data.time_step_hours),
        "variables": variables or settings.variables,
        "levels": levels or None,
        "members": members,
        "numbers": numbers or None,
    }
    fingerprint = _fingerprint(choices, states, initial_times, settings, asked)
    if refuse_other(target, fingerprint, overwrite=overwrite):
        return False
    asked |= {"batch_size": settings.batch_size, "memory_mb": config.execution.memory_mb, "fingerprint": fingerprint}
    asked |= {"lead_hours": settings.lead_hours, "perturbation": settings.perturbation, "key": "periods.test"}
    if target.endswith(".nc"):
        _write_netcdf(choices, states, Path(target), asked)
    else:
        forecast_store(choices, states, target, **asked)
    return True


def _starts(config: Config, initial_times: str | None) -> dict[str, Any]:
    """Return the initial times that are asked for, or else those of the run, as arguments of `forecast_store`."""
    if initial_times is not None:
        return {"initial_times": parse_times(initial_times), "period": None, "every_hours": None}
    if config.periods.test is None:
        raise InputError(
            "--initial-times: needed, since periods.test of the run is not set, e.g. 2020-01-01:2020-02-01:12h."
        )
    return {"initial_times": None, "period": config.periods.test, "every_hours": config.forecast.every_hours}


def _fingerprint(
    choices: list[Choice], states: str, initial_times: str | None, settings: ForecastConfig, asked: dict[str, Any]
) -> str:
    """Return what tells whether a forecast was made from the same checkpoints and states in the same way."""
    trained = [
        require(choice.folder, "checkpoint", "run `spherecast train` first")["fingerprint"] for choice in choices
    ]
    return digest(
        ["forecast", SCHEMA_VERSION, trained, [choice.which for choice in choices], store_identity(states)]
        + [initial_times, asked["period"], settings.model_dump(mode="json", exclude={"batch_size"}), asked["leads"]]
        + [asked[key] for key in ("variables", "levels", "members", "numbers")]
    )


def _write_netcdf(choices: list[Choice], states: str, target: Path, options: dict[str, Any]) -> None:
    """Write a forecast as netCDF; it is a store until it is whole, so that it can be gone on with."""
    store = target.with_name(f".{target.name}.zarr")
    if (read_description(store) or {}).get("fingerprint") != options["fingerprint"]:
        forecast_store(choices, states, store, **options)
    write_netcdf(store, target)
    shutil.rmtree(store)


def _check_target(target: str) -> None:
    if not re.search(r"\.(zarr|nc)/?$", target):
        raise InputError(f"--output {target}: expected a name that ends in .zarr or .nc.")
    if target.endswith(".nc") and is_url(target):
        raise InputError(
            f"--output {target}: netCDF can only be written to this machine's disks. Give a path, or .zarr."
        )


def _changed(run: Run, overrides: Sequence[str], given: Sequence[str]) -> Config:
    """Return the run's configuration with its forecasts changed.

    Args:
        given: keys of `_OPTIONS` whose option says already what they are.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if not key.startswith(_CHANGEABLE):
            raise InputError(
                f"{override}: a forecast with --output takes the run as it was trained; only forecast.* and "
                "execution.memory_mb can be changed. Leave it out."
            )
        name = key.removeprefix("forecast.")
        if name in given:
            raise InputError(f"{override}: {_OPTIONS[name]} says the same in another way. Give one of the two.")
    return load_config(run.directory / "config.yaml", overrides)


def _choice(text: str, run: Run) -> Choice:
    """Return the checkpoint that e.g. ``best``, ``850``, ``runs/other`` or ``runs/other@best`` means."""
    place, at, which = text.rpartition("@") if "@" in text else ("", "", text)
    if not at and not re.fullmatch(r"latest|best|\d+", which):
        place, which = which, "latest"
    if not re.fullmatch(r"latest|best|\d+", which):
        raise InputError(f"--checkpoint {text!r}: expected latest, best, a number of updates, RUN or RUN@WHICH.")
    folder = Run.open(place).checkpoints if place else run.checkpoints
    return Choice(folder, int(which) if which.isdigit() else which)


def _hours(text: str, step_hours: int) -> list[float]:
    """Return the leads that a command line means, in hours."""
    values = parse_leads(text).values(step_hours * _HOUR) / _HOUR
    return [int(value) if value.is_integer() else value for value in values.tolist()]
