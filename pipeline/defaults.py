"""The configuration that data gets when it comes without one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config_data import WEATHERBENCH_LEVELS
from pipeline.config_files import apply_override, load_config, parse_config
from transforms.errors import InputError
from transforms.variables import VARIABLES

__all__ = ["data_config", "is_store"]

_SUFFIXES = (".zarr", ".nc", ".nc4", ".grib", ".grib2", ".grb", ".grb2")
_TEMPLATE = "quickstart"
"""Shipped configuration whose grid (32 x 64 points), network and training are taken over."""


def is_store(argument: str) -> bool:
    """Return whether a command-line argument means data rather than a configuration or a run.

    Data are named by their suffix, or are a folder of netCDF files.
    """
    folder = Path(argument)
    named = argument.rstrip("/").lower().endswith(_SUFFIXES)
    return named or (not (folder / "config.yaml").exists() and any(folder.glob("*.nc")))


def data_config(path: str, overrides: Iterable[str] = (), name: str | None = None) -> Config:
    """Return a configuration that prepares all that is known of the data at `path`.

    It takes the prognostic variables and statics that the source has, those of WeatherBench's 13 levels that it has,
    all its times, and a step of 6 h, or the source's where that is a larger multiple.

    Args:
        overrides: ``a.b=value`` strings, as for a configuration.
        name: of the run; the file's by default.

    Raises:
        InputError: the source cannot be read or holds no known variable.
    """
    from pipeline.sources.opening import (
        open_source,
        reading_options,
    )  # Imports xarray, which the commands without data do not need.

    if "://" not in path:
        path = str(Path(path).expanduser().absolute())
    template = load_config(_TEMPLATE).model_dump(mode="json")
    overrides = list(overrides)
    options = load_config(_TEMPLATE, [change for change in overrides if change.startswith("source.")])
    dataset = open_source(path, **reading_options(options))
    data = {"grid": template["data"]["grid"], **_data_in(dataset, path)}
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path.rstrip("/")).stem).lstrip("._-")
    values = {
        "name": name or stem or "data",
        "description": f"prepared from {Path(path).name}",
        "source": {"kind": "store", "path": path},
        "data": data,
        "model": template["model"],
        "training": {**template["training"], "variable_weights": {}, "level_weights": {}},
        "forecast": {"lead_hours": 20 * data["time_step_hours"], "every_hours": 2 * data["time_step_hours"]},
    }
    for override in overrides:
        apply_override(values, override)
    values["model"]["levels"] = _fitting(values["model"]["levels"], values["data"]["grid"])
    return parse_config(values, path)


def _data_in(dataset, path: str) -> dict[str, Any]:
    """Return variables, statics, levels and time step of a canonical source as keys of ``data``."""
    known = [variable for variable in VARIABLES.values() if variable.name in dataset and variable.usual]
    prognostic = [v.name for v in known if v.kind != "static" and (v.partner is None or v.partner in dataset)]
    if not prognostic:
        raise InputError(
            f"source.path: {path} has none of the usual variables; it has {', '.join(map(str, dataset.data_vars))}. "
            "Name them under source.rename, in a configuration of your own."
        )
    on_levels = [variable for variable in prognostic if VARIABLES[variable].kind == "pressure"]
    if on_levels and "level" not in dataset.coords:
        axes = ", ".join(map(str, dataset[on_levels[0]].dims))
        raise InputError(
            f"{on_levels[0]}: has axes ({axes}), expected (time, level, latitude, longitude). Give the source a level "
            "axis, of one pressure in hPa at least."
        )
    present = {int(level) for level in dataset["level"].values} if on_levels else set()
    return {
        "variables": prognostic,
        "statics": [variable.name for variable in known if variable.kind == "static"],
        "levels": [level for level in WEATHERBENCH_LEVELS if level in present] or sorted(present),
        "time_step_hours": _step_hours(dataset["time"].values),
    }


def _fitting(levels: list[dict], grid: dict) -> list[dict]:
    """Return the levels of a network that the grid determines, at least one; a grid that is no grid is left to parsing."""
    try:
        limit = min(grid["latitude"] - bool(grid.get("poles")), grid["longitude"] // 2)
        return [level for level in levels if level["band_limit"] <= limit] or [{**levels[-1], "band_limit": limit}]
    except (KeyError, TypeError):
        return levels


def _step_hours(times) -> int:
    """Return 6, or the most frequent interval where that is a larger multiple of it."""
    import numpy as np

    if times.size < 2:
        return 6
    intervals, counts = np.unique(np.diff(times), return_counts=True)
    hours = intervals[np.argmax(counts)] / np.timedelta64(1, "h")
    return int(hours) if hours > 6 and hours % 6 == 0 else 6
