"""A short table of scores for the terminal, read straight from the metrics files with netCDF4, which is fast to import."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    import numpy as np

__all__ = ["HEADLINE_FIELDS", "headline_rmse", "score_table"]

LEAD_HOURS = (24, 72, 120)
_FORECASTS = ("model", "persistence", "climatology")
HEADLINE_FIELDS = (
    "geopotential@500",
    "temperature@850",
    "wind_vector@850",
    "2m_temperature",
    "10m_wind_vector",
    "mean_sea_level_pressure",
)
"""Fields shown first, those that are there, when ``report.headline`` is empty."""
_MOST = 6
_HOURS = {"day": 24.0, "hour": 1.0, "minute": 1 / 60, "second": 1 / 3600, "nanosecond": 1 / 3.6e12}


def headline_rmse(path: Path, leads: tuple[int, ...] = LEAD_HOURS) -> dict[str, list[float | None]]:
    """Return the global RMSE of every field in a metrics file at lead times in hours, None where it has no such lead.

    A field is named ``variable`` or ``variable@level``. Without a global RMSE in the file there is none.
    """
    import netCDF4
    import numpy as np

    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_mask(False)
        metrics, regions = list(dataset["metric"][:]), list(dataset["region"][:])
        if "rmse" not in metrics or "global" not in regions:
            return {}
        metric, region = metrics.index("rmse"), regions.index("global")
        lead = dataset["lead_time"]
        hours = lead[:].astype(np.float64) * _HOURS[lead.units.split(" ")[0].rstrip("s")]
        at = [int(np.argmin(np.abs(hours - wanted))) for wanted in leads]
        found = [abs(hours[i] - wanted) < 1e-6 for i, wanted in zip(at, leads, strict=True)]
        fields: dict[str, list[float | None]] = {}
        for name, variable in dataset.variables.items():
            if not {"metric", "region", "lead_time"} <= set(variable.dimensions):
                continue
            axes = [axis for axis in variable.dimensions if axis in ("lead_time", "level")]
            # Along an axis that another metric has of its own, ranks or quantiles, this one repeats.
            chosen = {"metric": metric, "region": region, **dict.fromkeys(axes, slice(None))}
            values = np.asarray(variable[tuple(chosen.get(axis, 0) for axis in variable.dimensions)])
            values = np.moveaxis(values, axes.index("lead_time"), 0)
            columns = {name: values}
            if "level" in axes:
                columns = {f"{name}@{level:g}": values[:, k] for k, level in enumerate(dataset["level"][:])}
            for field, column in columns.items():
                if not np.isnan(column).all():
                    fields[field] = [_number(column[i]) if there else None for i, there in zip(at, found, strict=True)]
    return fields


def score_table(metrics: Path, headline: list[str]) -> Table | None:
    """Return a table of the RMSE of the headline fields beside the baselines', or None where there are none.

    Args:
        metrics: folder of ``model.nc``, ``persistence.nc`` and ``climatology.nc``.
        headline: fields as ``variable`` or ``variable@level``; the usual ones when empty.
    """
    if not all((metrics / f"{name}.nc").is_file() for name in _FORECASTS):
        return None
    scores = {name: headline_rmse(metrics / f"{name}.nc") for name in _FORECASTS}
    known = list(scores["model"])
    if not known:
        return None
    chosen = [name for name in headline or HEADLINE_FIELDS if name in known] or known[:_MOST]
    table = Table(title="Global RMSE", box=None, pad_edge=False, title_justify="left")
    for heading in ("field", "lead", "model", "persistence", "ratio", "climatology", "ratio"):
        table.add_column(heading, justify="left" if heading == "field" else "right", no_wrap=True)
    for field in chosen:
        for k, hours in enumerate(LEAD_HOURS):
            values = [scores[name].get(field, [None] * len(LEAD_HOURS))[k] for name in _FORECASTS]
            if values[0] is None:
                continue
            numbers = ["" if value is None else f"{value:.4g}" for value in values]
            ratios = [f"{values[0] / other:.2f}" if other else "" for other in values[1:]]
            cells = (numbers[0], numbers[1], ratios[0], numbers[2], ratios[1])
            table.add_row(field if k == 0 else "", f"{hours} h", *cells)
    return table


def _number(value: np.floating) -> float | None:
    return None if math.isnan(value) else float(value)
