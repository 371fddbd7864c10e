"""The look of all figures: sizes, fonts, colours, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLUMN", "INK", "LINES", "PAGE", "SOFT", "figure", "lead_axis", "line_style", "save", "style"]

COLUMN, PAGE = 88 / 25.4, 180 / 25.4
"""Widths of a column and of a page, inches."""

INK, SOFT, RULE = "#16202b", "#51606f", "#e3e1da"
# Okabe & Ito's colours, apart with any colour vision, and dashes, apart without colour.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
_KINDS = {"persistence": ("#D55E00", _DASHES[1]), "climatology": ("#5d6b3a", _DASHES[2])}

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=LINES),
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    # TrueType fonts in the file, so that text stays text wherever it is opened.
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in this style, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def line_style(name: str, number: int) -> dict[str, Any]:
    """Return colour and dashes of a line: baselines have their own, others by their number."""
    if name in _KINDS:
        colour, dashes = _KINDS[name]
        return {"color": colour, "linestyle": dashes}
    free = [colour for colour in LINES if colour != "#D55E00"]
    return {"color": free[number % len(free)], "linestyle": _DASHES[(number // len(free)) % len(_DASHES)]}


def lead_axis(axes: Axes, last: float) -> None:
    """Label the horizontal axis as a lead time in days, or in hours of less than two days; values are hours."""
    days = last >= 48
    step = next((s for s in (1, 3, 6, 12, 24, 48, 72, 120, 240) if last / s <= 10 and (s >= 24 or not days)), 480)
    ticks = [step * i for i in range(int(last // step) + 1)]
    axes.set_xticks(ticks, [f"{tick / 24:g}" if days else f"{tick:g}" for tick in ticks])
    axes.set_xlim(0, last)
    axes.set_xlabel(f"lead time, {'days' if days else 'hours'}")


def save(drawn: Figure, directory: Path, name: str, formats: tuple[str, ...]) -> list[Path]:
    """Write a figure in every format, the same bytes each time; return the paths."""
    paths = []
    for kind in formats:
        path = directory / f"{name}.{kind}"
        nothing = {"pdf": {"CreationDate": None, "ModDate": None}, "png": {"Software": None}}[kind]
        drawn.savefig(path, format=kind, metadata=nothing)
        paths.append(path)
    return paths
