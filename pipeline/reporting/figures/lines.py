"""Spectra and the curve of a training."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pipeline.reporting.colours import colours, hex_colour
from pipeline.reporting.fields import duration
from pipeline.reporting.figures.style import INK, LINES, PAGE, SOFT, figure
from pipeline.reporting.spectra import FieldSpectra, Spectra, axis_number

__all__ = ["field_spectra", "training"]

_HALF = 0.5


def field_spectra(spectra: Spectra, field: FieldSpectra) -> Figure:
    """Return power against degree, and its ratio to that of truth with the effective resolution marked."""
    drawn = figure(PAGE, 62 / 25.4)
    power, ratio = drawn.subplots(1, 2)
    degrees = np.arange(field.forecast.shape[-1])[1:]
    shades = [hex_colour(c) for c in colours("heat", 101)[np.linspace(15, 70, len(spectra.leads)).round().astype(int)]]
    power.plot(degrees, field.truth[-1][1:], color=INK, linestyle=(0, (1, 1.2)), label="truth", zorder=3)
    for number, (lead, shade) in enumerate(zip(spectra.leads, shades, strict=True)):
        power.plot(degrees, field.forecast[number][1:], color=shade, label=duration(lead))
        ratio.plot(degrees, field.ratio[number][1:], color=shade)
        mark = field.resolution[number]
        if np.isfinite(mark) and mark < field.ratio.shape[-1]:
            ratio.plot(mark, field.ratio[number][int(mark)], "o", color=shade, markersize=4)
    power.set_yscale("log")
    power.yaxis.set_major_formatter(lambda value, _: axis_number(value))
    power.set_title(f"Power{f', {field.units}' if field.units else ''}")
    power.legend(loc="lower left")
    ratio.axhline(1, color=SOFT, linewidth=0.7)
    ratio.axhline(_HALF, color=SOFT, linewidth=0.7, linestyle=(0, (1, 3)))
    ratio.set_ylim(bottom=0)
    ratio.set_title("Forecast over truth")
    for axes in (power, ratio):
        axes.set_xscale("log")
        axes.set_xlabel("degree of spherical harmonics")
        ticks = [d for d in (1, 2, 5, 10, 20, 50, 100, 200, 500) if d <= degrees[-1]]
        axes.set_xticks(ticks, [str(d) for d in ticks])
        axes.minorticks_off()
    drawn.suptitle(field.label, x=0.01, ha="left", fontsize=8.5, color=INK)
    return drawn


def training(curve: dict[str, Any]) -> Figure:
    """Return loss against updates; `curve` as `pipeline.reporting.training_log.training_curve` gives it."""
    drawn = figure(PAGE / 2, 62 / 25.4)
    axes = drawn.subplots()
    shown: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("training", curve["train"], {"color": LINES[0], "linewidth": 0.9}),
        ("validation", curve["validation"], {"color": LINES[1], "marker": "o", "markersize": 3}),
    ]
    for name, points, look in shown:
        known = [(update, loss) for update, loss in points if loss is not None and loss > 0]
        for number, part in enumerate(_by_stage(known, [first for first, _ in curve["stages"]])):
            axes.plot(*zip(*part, strict=True), label=None if number else name, **look)
    for first, steps in curve["stages"][1:]:
        axes.axvline(first, color=SOFT, linewidth=0.6, linestyle=(0, (1, 3)))
        axes.annotate(
            f" {steps} steps", (first, 1), xycoords=("data", "axes fraction"), fontsize=6.5, va="top", color=SOFT
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: axis_number(value))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("updates")
    axes.set_title("Loss")
    axes.legend(loc="best")
    return drawn


def _by_stage(points: list[tuple[float, float]], firsts: list[float]) -> list[list[tuple[float, float]]]:
    """Return the points of each stage that has any: losses of different stages do not compare."""
    bounds = [-np.inf, *firsts[1:], np.inf]
    parts = [[point for point in points if low <= point[0] < high] for low, high in itertools.pairwise(bounds)]
    return [part for part in parts if part]
