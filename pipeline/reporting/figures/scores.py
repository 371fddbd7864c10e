"""Curves against lead time and the scorecard."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from pipeline.reporting.colours import colours
from pipeline.reporting.fields import Field
from pipeline.reporting.figures.style import INK, PAGE, SOFT, figure, lead_axis, line_style
from pipeline.reporting.scores import BASELINES, Scores
from transforms.metrics import METRICS

__all__ = ["curves", "scorecard"]

_USEFUL = 0.6
_EDGES = (-60, -40, -20, -5, 5, 20, 40, 60)


def curves(scores: Scores, field: Field) -> Figure | None:
    """Return RMSE and anomaly correlation of a field against lead time; None where it has neither."""
    shown = [
        name for name in ("rmse", "acc") if any(np.isfinite(scores.curve(n, name, field)).any() for n in scores.names)
    ]
    if not shown:
        return None
    drawn = figure(PAGE if len(shown) > 1 else PAGE / 2, 62 / 25.4)
    for axes, metric in zip(np.atleast_1d(drawn.subplots(1, len(shown))), shown, strict=True):
        for number, name in enumerate(scores.names):
            values = scores.curve(name, metric, field)
            if np.isfinite(values).any():
                look = line_style(name, number)
                axes.plot(scores.leads, values, label=name, **look)
                _band(axes, scores, name, metric, field, look["color"])
        if metric == "acc":
            axes.axhline(_USEFUL, color=SOFT, linewidth=0.7, linestyle=(0, (1, 3)))
            axes.set_ylim(top=1)
        else:
            axes.set_ylim(bottom=0)
        units = "" if METRICS[metric].dimensionless or not field.units else f", {field.units}"
        axes.set_title(f"{METRICS[metric].title or metric}{units}")
        lead_axis(axes, float(scores.leads[-1]))
    drawn.axes[0].legend(loc="best")
    drawn.suptitle(f"{field.label}, {scores.region}", x=0.01, ha="left", fontsize=8.5, color=INK)
    return drawn


def scorecard(scores: Scores) -> Figure | None:
    """Return the difference of RMSE from a baseline in per cent, headline fields x leads; None without a baseline."""
    leads = scores.scorecard_leads()
    others = [name for name in BASELINES if name in scores.names]
    if not leads or not others or "rmse" not in scores.metrics or not scores.headline:
        return None
    rows = len(scores.headline)
    drawn = figure(PAGE, (16 + 7 * rows) / 25.4)
    palette = ListedColormap(colours("difference", len(_EDGES) + 1) / 255)
    norm = BoundaryNorm(_EDGES, palette.N, extend="both")
    for axes, other in zip(np.atleast_1d(drawn.subplots(1, len(others), sharey=True)), others, strict=True):
        change = np.array([100 * (scores.ratio(field, other)[leads] - 1) for field in scores.headline])
        axes.imshow(np.ma.masked_invalid(change), cmap=palette, norm=norm, aspect="auto")
        for (row, column), value in np.ndenumerate(change):
            text = "–" if np.isnan(value) else f"{value:+.0f}".replace("-", "−")
            dark = np.isfinite(value) and (value < _EDGES[1] or value >= _EDGES[-2])
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else INK)
        axes.set_xticks(range(len(leads)), [f"{scores.leads[i] / 24:g}" for i in leads])
        axes.set_yticks(range(rows), [field.short for field in scores.headline])
        axes.set_title(f"RMSE, difference from {other}, %")
        axes.set_xlabel("lead time, days")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return drawn


def _band(axes: Axes, scores: Scores, name: str, metric: str, field: Field, colour: str) -> None:
    bands = scores.bands.get((name, field))
    if bands is None:
        return
    at = scores.metrics.index(metric), scores.regions.index(scores.region)
    low, high = bands[:, at[0], at[1]]
    if np.isfinite(low).any():
        axes.fill_between(scores.leads, low, high, color=colour, alpha=0.15, linewidth=0)
