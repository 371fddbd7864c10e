"""Maps: a forecast beside the truth and its difference, and scores at each point."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from pipeline.reporting.cases import MapCase
from pipeline.reporting.error_maps import TITLES, ErrorMaps, score_scale
from pipeline.reporting.fields import Field, duration, instant
from pipeline.reporting.figures.style import INK, PAGE, SOFT, figure
from pipeline.reporting.projections import EqualEarth, coastlines, sample
from pipeline.reporting.scales import Scale, centred_scale, difference_units, field_scale, magnitude, tick_labels
from transforms.grids import Grid

__all__ = ["error_maps", "forecast_maps"]

_PIXELS = 700
_ARROWS = (28, 14)


def forecast_maps(case: MapCase, field: Field, lead: int) -> Figure:
    """Return forecast, truth and difference of the forecast that the page shows first, at a position of the leads."""
    start = case.first_shown[0]
    forecast, truth = case.forecast[field], case.truth[field]
    wind = field.components is not None
    scale = field_scale(field, truth)
    errors = centred_scale(magnitude(forecast) - magnitude(truth), difference_units(field.map_units[2]))
    shown = [
        ("Forecast", forecast[start, lead], magnitude(forecast[start, lead]), scale),
        ("Truth", truth[start, lead], magnitude(truth[start, lead]), scale),
        (
            "Forecast minus truth",
            forecast[start, lead] - truth[start, lead],
            magnitude(forecast[start, lead]) - magnitude(truth[start, lead]),
            errors,
        ),
    ]
    drawn = figure(PAGE, 52 / 25.4)
    for axes, (title, vector, values, bands) in zip(drawn.subplots(1, 3), shown, strict=True):
        _map(axes, values, case.grid, bands)
        if wind:
            _arrows(axes, vector, case.grid)
        axes.set_title(title)
        _bar(drawn, axes, bands, bands.units)
    text = f"{field.label}, {duration(case.leads[lead])} forecast valid {instant(case.valid_time(start, lead))}"
    drawn.suptitle(text, x=0.01, ha="left", fontsize=8.5, color=INK)
    return drawn


def error_maps(maps: ErrorMaps, field: Field, lead: int) -> Figure:
    """Return the scores that a field has, at a position of the leads, one map each."""
    shown = [number for number, drawn in enumerate(maps.drawn(field)) if drawn]
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    drawn = figure(PAGE * columns / 2, rows * 58 / 25.4)
    places = np.atleast_1d(drawn.subplots(rows, columns)).ravel()
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    for number, axes in zip(shown, places, strict=False):
        scale = score_scale(maps, field, number)
        _map(axes, maps.values[field][number, lead], maps.grid, scale)
        axes.set_title(TITLES[maps.scores[number]])
        _bar(drawn, axes, scale, scale.units)
    drawn.suptitle(f"{field.label}, {duration(maps.leads[lead])} ahead", x=0.01, ha="left", fontsize=8.5, color=INK)
    return drawn


def _map(axes: Axes, values: np.ndarray, grid: Grid, scale: Scale) -> None:
    projection = EqualEarth()
    half_width, half_height = projection.extent
    height = round(_PIXELS * half_height / half_width)
    x = ((np.arange(_PIXELS) + 0.5) / _PIXELS * 2 - 1) * half_width
    y = ((np.arange(height) + 0.5) / height * 2 - 1) * half_height
    pixels = sample(values, grid, *projection.inverse(*np.meshgrid(x, y)))
    extent = (-half_width, half_width, -half_height, half_height)
    palette, norm = _colours(scale)
    axes.imshow(np.ma.masked_invalid(pixels), origin="lower", extent=extent, cmap=palette, norm=norm)
    pieces = [
        np.stack(projection.forward(piece[:, 0], piece[:, 1]), axis=-1)
        for line in coastlines()
        for piece in np.split(line, np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180) + 1)
    ]
    axes.add_collection(LineCollection(pieces, colors=INK, linewidths=0.35))
    side = np.linspace(-90, 90, 91)
    for longitude in (-180.0, 180.0):
        axes.plot(*projection.forward(np.full(91, longitude), side), color=SOFT, linewidth=0.6)
    for latitude in (-90.0, 90.0):
        ends = projection.forward(np.array([-180.0, 180.0]), np.full(2, latitude))
        axes.plot(*ends, color=SOFT, linewidth=0.6)
    axes.set_xlim(-half_width * 1.005, half_width * 1.005)
    axes.set_ylim(-half_height * 1.01, half_height * 1.01)
    axes.set_axis_off()


def _arrows(axes: Axes, vector: np.ndarray, grid: Grid) -> None:
    projection = EqualEarth()
    half_width, half_height = projection.extent
    x = ((np.arange(_ARROWS[0]) + 0.5) / _ARROWS[0] * 2 - 1) * half_width
    y = ((np.arange(_ARROWS[1]) + 0.5) / _ARROWS[1] * 2 - 1) * half_height
    longitude, latitude = (a.ravel() for a in projection.inverse(*np.meshgrid(x, y)))
    inside = np.isfinite(longitude) & (np.abs(latitude) < 84) & (np.abs(longitude) < 178)
    longitude, latitude = longitude[inside], latitude[inside]
    east, north = (sample(component, grid, longitude, latitude) for component in vector)
    speed = np.hypot(east, north)
    step = 0.5 / np.where(speed > 0, speed, 1)
    ahead = projection.forward(longitude + step * east / np.cos(np.deg2rad(latitude)), latitude + step * north)
    here = projection.forward(longitude, latitude)
    along = np.stack([ahead[0] - here[0], ahead[1] - here[1]])
    along *= speed / np.where(np.hypot(*along) > 0, np.hypot(*along), 1)
    usual = max(float(np.nanquantile(speed, 0.97)), 1e-9) if np.isfinite(speed).any() else 1.0
    unit = 2 * half_width / _ARROWS[0] / usual
    axes.quiver(*here, *(along * unit), angles="xy", scale_units="xy", scale=1, pivot="mid", width=0.0035, color=INK)


def _bar(drawn: Figure, axes: Axes, scale: Scale, units: str) -> None:
    palette, norm = _colours(scale)
    ticks = scale.edges[scale.labelled]
    bar = drawn.colorbar(
        ScalarMappable(norm, palette),
        ax=axes,
        orientation="horizontal",
        shrink=0.85,
        aspect=28,
        pad=0.03,
        drawedges=False,
    )
    bar.set_ticks(list(ticks), labels=tick_labels(ticks))
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6.5, length=2, width=0.4)
    if units:
        bar.set_label(units, fontsize=7)


def _colours(scale: Scale) -> tuple[ListedColormap, BoundaryNorm]:
    palette = ListedColormap(scale.palette / 255)
    # What lies beyond the outermost edges has the colours at the ends.
    return palette, BoundaryNorm(scale.edges, palette.N, clip=True)
