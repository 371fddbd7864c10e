"""Maps of scores: mean error, root mean square error and skill at each point, from a run's ``metrics/maps.nc``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.reporting.cases import drawing_grid, redrawn
from pipeline.reporting.colours import colours
from pipeline.reporting.fields import Field, duration
from pipeline.reporting.html import Html
from pipeline.reporting.packing import pack, quantise
from pipeline.reporting.pictures import map_picture
from pipeline.reporting.scales import Scale, bar, centred_scale, difference_units, rising_scale
from pipeline.reporting.viewers import Panel, Viewer, viewer
from pipeline.stores.axes import HORIZONTAL, grid_of
from transforms.grids import Grid

__all__ = ["TITLES", "ErrorMaps", "error_map_section", "read_error_maps", "score_scale"]

TITLES = {
    "bias": "Mean error",
    "rmse": "RMSE",
    "mse_skill_score_vs_persistence": "Skill against persistence",
    "mse_skill_score_vs_climatology": "Skill against climatology",
}
"""Scores that are drawn, in this order, by name in the metrics."""

_MOST_FIELDS = 40


@dataclass(frozen=True)
class ErrorMaps:
    """Scores at each point of the globe.

    Attributes:
        leads: lead times, hours.
        grid: what they are drawn on, see `pipeline.reporting.cases.drawing_grid`.
        scores: names of the scores, as in the metrics.
        fields: fields that have them.
        values: by field, shape (score, lead, latitude, longitude), float64, errors in units of the maps, skill without;
            NaN where there is none.
        samples: forecasts that entered, by lead.
    """

    leads: list[float]
    grid: Grid
    scores: list[str]
    fields: list[Field]
    values: dict[Field, np.ndarray]
    samples: list[int]

    def drawn(self, field: Field) -> list[bool]:
        """Return which of the scores a field has at any point and lead; a wind vector, e.g., has no mean error."""
        return np.isfinite(self.values[field]).any(axis=(1, 2, 3)).tolist()


def read_error_maps(path: Path, headline: Sequence[Field] = ()) -> ErrorMaps | None:
    """Read a netCDF of score maps.

    Args:
        path: as `pipeline.evaluate.score_store` writes it, axes (metric, lead_time, [level], latitude, longitude).
        headline: fields that come first.

    Returns:
        Scores of the leads that have any; None where there is no such file, or nothing in it that is drawn.
    """
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as opened:
        dataset = opened.sortby("lead_time").load()
    scores = [name for name in TITLES if name in dataset["metric"].values.tolist()]
    fields = [
        Field(str(name), level)
        for name, array in dataset.data_vars.items()
        if set(HORIZONTAL) <= set(array.dims)
        for level in ([int(level) for level in array["level"].values] if "level" in array.dims else [None])
    ]
    fields = [field for field in fields if _array(dataset, field, scores).notnull().any()]
    first = [field for field in headline if field in fields]
    fields = [*first, *(field for field in fields if field not in first)][:_MOST_FIELDS]
    if not scores or not fields:
        return None
    # A lead that no forecast reaches within the data has no map.
    scored = [
        bool(np.any([_array(lead, field, scores).notnull().any() for field in fields]))
        for lead in (dataset.isel(lead_time=number) for number in range(dataset.sizes["lead_time"]))
    ]
    dataset = dataset.isel(lead_time=np.flatnonzero(scored))
    stored = grid_of(dataset)
    grid = drawing_grid(stored)
    values = {
        field: redrawn(_in_map_units(dataset, field, scores)[:, :, None], stored, grid)[:, :, 0] for field in fields
    }
    counts = dataset["valid_samples"].values.tolist() if "valid_samples" in dataset else []
    leads = (dataset["lead_time"].values / np.timedelta64(1, "h")).tolist()
    return ErrorMaps(leads, grid, scores, fields, values, counts)


def error_map_section(maps: ErrorMaps) -> Html:
    """Return the maps of all fields and lead times, with their controls."""
    packed, payloads = [], []
    for field in maps.fields:
        scales = [score_scale(maps, field, number) for number in range(len(maps.scores))]
        quantised = [quantise(values) for values in maps.values[field]]
        packed.append(pack([each.codes for each in quantised]))
        payloads.append(
            {
                "label": field.label,
                "wind": False,
                "units": [scale.units for scale in scales],
                "scales": [scale.payload() for scale in scales],
                "references": [None] * len(scales),
                "drawn": maps.drawn(field),
                "arrays": [
                    {"name": name, "low": [each.low], "step": [each.step]}
                    for name, each in zip(maps.scores, quantised, strict=True)
                ],
            }
        )
    data: dict[str, Any] = {
        "kind": "scores",
        "panels": [TITLES[name] for name in maps.scores],
        "shape": [1, len(maps.leads), *maps.grid.shape],
        "fields": payloads,
        "samples": maps.samples,
    }
    shown = len(maps.leads) // 2
    names = [field.label for field in maps.fields]
    view = Viewer(
        "error-maps",
        names,
        [],
        maps.leads,
        (0, shown),
        _ahead(maps, shown),
        _panels(maps, shown),
        [],
        maps.grid,
        data,
        packed,
    )
    return viewer(view)


def score_scale(maps: ErrorMaps, field: Field, score: int) -> Scale:
    """Return the scale of a score of a field, alike at all leads."""
    name, values = maps.scores[score], maps.values[field][score]
    if name.startswith("mse_skill"):
        # As in the scorecard, blue is better.
        return Scale(-1.1, 0.2, colours("difference", 11)[::-1], "")
    units = difference_units(field.map_units[2])
    return centred_scale(values, units) if name == "bias" else rising_scale(values, units, "strength")


def _ahead(maps: ErrorMaps, lead: int) -> str:
    """Return what follows a lead time in the heading, as ``maps.js`` does for others."""
    if not maps.samples:
        return " ahead"
    return f" ahead, {maps.samples[lead]} forecast{'' if maps.samples[lead] == 1 else 's'}"


def _panels(maps: ErrorMaps, lead: int) -> list[Panel]:
    field = maps.fields[0]
    panels = []
    for number, name in enumerate(maps.scores):
        values, scale = maps.values[field][number, lead], score_scale(maps, field, number)
        shown = values[np.isfinite(values)]
        extent = f"{shown.min():.3g} to {shown.max():.3g} {scale.units}".rstrip() if shown.size else "no values"
        label = f"{TITLES[name]}: {field.label}, {duration(maps.leads[lead])} ahead; {extent}"
        scales = [score_scale(maps, each, number) for each in maps.fields]
        bars = [bar(each, _legend(name, each)) for each in scales]
        picture = map_picture(values, maps.grid, scale, label)
        panels.append(Panel(TITLES[name], extent, picture, bars, hidden=not maps.drawn(field)[number]))
    return panels


def _legend(name: str, scale: Scale) -> str:
    if name.startswith("mse_skill"):
        return "1 − MSE / MSE of the baseline; 1 is perfect, 0 no better"
    return f"{'mean of forecast minus truth' if name == 'bias' else 'root mean square error'}, {scale.units}"


def _array(dataset: xr.Dataset, field: Field, scores: list[str]) -> xr.DataArray:
    array = dataset[field.variable].sel(metric=scores)
    return array if field.level is None else array.sel(level=field.level)


def _in_map_units(dataset: xr.Dataset, field: Field, scores: list[str]) -> np.ndarray:
    """Return (score, lead, latitude, longitude); errors have the factor of the maps' units, and no offset."""
    array = _array(dataset, field, scores).transpose("metric", "lead_time", *HORIZONTAL)
    factor = np.array([1.0 if name.startswith("mse_skill") else field.map_units[0] for name in scores])
    return array.values.astype(np.float64) * factor[:, None, None, None]
