"""Maps as still pictures in SVG, which need no script to be seen."""

from __future__ import annotations

import base64
import functools

import numpy as np

from pipeline.reporting.colours import encode_png
from pipeline.reporting.html import Html, tag
from pipeline.reporting.projections import EqualEarth, Orthographic, Projection, coastlines, sample, svg_path
from pipeline.reporting.scales import Scale
from transforms.grids import Grid

__all__ = ["SPACING", "WIDTH", "arrow_path", "arrows", "globe_picture", "map_definitions", "map_picture"]

WIDTH = 840
"""Of the drawing of a map, in the units of its SVG."""
SPACING = 35
"""Between arrows, and the length of one at the reference speed, in the same units."""
_GLOBE_WIDTH = 460


def map_definitions() -> Html:
    """Return the coastlines and outlines that all maps share, as a hidden SVG."""
    projection = EqualEarth()
    meridians = [np.stack([np.full(61, lon), np.linspace(-90, 90, 61)], axis=-1) for lon in range(-120, 180, 60)]
    parallels = [np.stack([np.linspace(-180, 179.99, 91), np.full(91, lat)], axis=-1) for lat in (-60, -30, 0, 30, 60)]
    side = np.linspace(-90, 90, 91)
    edge = np.concatenate(
        [np.stack([np.full(91, 179.999), side], axis=-1), np.stack([np.full(91, -180.0), side[::-1]], axis=-1)]
    )
    x, y = projection.forward(edge[:, 0], edge[:, 1])
    outline = (
        "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in zip(*_pixels(x, y, projection, WIDTH), strict=True)) + "Z"
    )
    return tag(
        "svg",
        tag(
            "defs",
            tag("path", id="coast", d=svg_path(coastlines(), projection, WIDTH)),
            tag("path", id="graticule", d=svg_path(meridians + parallels, projection, WIDTH)),
            tag("path", id="outline", d=outline),
        ),
        class_="definitions",
        aria_hidden="true",
        width="0",
        height="0",
    )


def map_picture(
    values: np.ndarray, grid: Grid, scale: Scale, label: str, vector: np.ndarray | None = None, reference: float = 1.0
) -> Html:
    """Return a map in Equal Earth projection.

    Args:
        values: shape (latitude, longitude).
        grid: its grid.
        label: what the map shows, in words.
        vector: a wind to draw as arrows, shape (component, latitude, longitude).
        reference: the speed of an arrow of length `SPACING`.
    """
    projection = EqualEarth()
    return tag(
        "svg",
        tag("title", label),
        tag("use", href="#outline", class_="ground"),
        _image(values, grid, projection, scale, WIDTH),
        tag("use", href="#graticule", class_="graticule"),
        tag("use", href="#coast", class_="coast"),
        None if vector is None else tag("path", d=arrows(vector, grid, reference), class_="arrows"),
        tag("use", href="#outline", class_="rim"),
        viewBox=f"-2 -2 {WIDTH + 4} {_height(projection, WIDTH) + 4}",
        role="img",
        aria_label=label,
    )


def globe_picture(values: np.ndarray, grid: Grid, scale: Scale, label: str) -> Html:
    """Return a field, shape (latitude, longitude), on a globe seen from above the North Atlantic."""
    centre = Orthographic(-30.0, 38.0)
    meridians = [np.stack([np.full(91, lon), np.linspace(-90, 90, 91)], axis=-1) for lon in range(-180, 180, 30)]
    parallels = [np.stack([np.linspace(-180, 179, 181), np.full(181, lat)], axis=-1) for lat in (-60, -30, 0, 30, 60)]
    half = _GLOBE_WIDTH / 2
    shade = tag(
        "radialGradient",
        tag("stop", offset="0.55", stop_color="#fff", stop_opacity="0"),
        tag("stop", offset="1", stop_color="#04101f", stop_opacity="0.5"),
        id="globe-shade",
        cx="0.44",
        cy="0.4",
        r="0.62",
    )
    return tag(
        "svg",
        tag("title", label),
        tag("defs", shade),
        _image(values, grid, centre, scale, _GLOBE_WIDTH),
        tag("path", d=svg_path(meridians + parallels, centre, _GLOBE_WIDTH), class_="graticule"),
        tag("path", d=svg_path(coastlines(), centre, _GLOBE_WIDTH), class_="coast"),
        tag("circle", cx=half, cy=half, r=half - 0.5, fill="url(#globe-shade)"),
        class_="globe",
        viewBox=f"0 0 {_GLOBE_WIDTH} {_GLOBE_WIDTH}",
        role="img",
        aria_label=label,
    )


def arrows(vector: np.ndarray, grid: Grid, reference: float) -> str:
    """Return a path of arrows for a wind, evenly spread over a map in Equal Earth projection.

    Args:
        vector: eastward and northward, shape (component, latitude, longitude).
        reference: the speed of an arrow of length `SPACING`.
    """
    projection = EqualEarth()
    half_width, half_height = projection.extent
    rows, columns = _height(projection, WIDTH) // SPACING, WIDTH // SPACING
    scale = 2 * half_width / WIDTH
    px = (np.arange(columns) + 0.5) * WIDTH / columns
    py = (np.arange(rows) + 0.5) * _height(projection, WIDTH) / rows
    x, y = np.meshgrid(px * scale - half_width, half_height - py * scale)
    longitude, latitude = (a.ravel() for a in projection.inverse(x, y))
    inside = np.isfinite(longitude) & (np.abs(latitude) < 84)
    longitude, latitude = longitude[inside], latitude[inside]
    east, north = (sample(component, grid, longitude, latitude) for component in vector)
    speed = np.hypot(east, north)
    # A short step along the wind, projected: the map turns and stretches directions.
    step = 0.5 / np.where(speed > 0, speed, 1)
    ahead = longitude + step * east / np.cos(np.deg2rad(latitude)), latitude + step * north
    start = np.array(_pixels(*projection.forward(longitude, latitude), projection, WIDTH))
    towards = np.array(_pixels(*projection.forward(*ahead), projection, WIDTH)) - start
    length = np.hypot(*towards)
    reach = SPACING * np.minimum(speed / reference, 1.5)
    shown = np.flatnonzero(np.isfinite(speed) & (reach > 3) & (length > 0) & (length < SPACING))
    return "".join(arrow_path(start[:, i], towards[:, i] / length[i] * reach[i]) for i in shown)


def arrow_path(middle: np.ndarray, along: np.ndarray) -> str:
    """Return the path of one arrow about its middle; x to the right, y downwards."""
    (dx, dy), (x0, y0) = along, middle - along / 2
    x1, y1 = x0 + dx, y0 + dy
    hx, hy = dx * 0.34, dy * 0.34
    return (
        f"M{x0:.0f} {y0:.0f}L{x1:.0f} {y1:.0f}M{x1 - hx - hy * 0.6:.0f} {y1 - hy + hx * 0.6:.0f}"
        f"L{x1:.0f} {y1:.0f}L{x1 - hx + hy * 0.6:.0f} {y1 - hy - hx * 0.6:.0f}"
    )


def _image(values: np.ndarray, grid: Grid, projection: Projection, scale: Scale, width: int) -> Html:
    indices = scale.indices(sample(values, grid, *_pixel_positions(projection, width)))
    data = base64.b64encode(encode_png(indices, scale.palette)).decode()
    return tag("image", href=f"data:image/png;base64,{data}", width=width, height=_height(projection, width))


@functools.lru_cache(maxsize=4)
def _pixel_positions(projection: Projection, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of every pixel, NaN outside the map, shape (row, column)."""
    half_width, half_height = projection.extent
    height = _height(projection, width)
    x = (np.arange(width) + 0.5) / width * 2 * half_width - half_width
    y = half_height - (np.arange(height) + 0.5) / height * 2 * half_height
    return projection.inverse(*np.meshgrid(x, y))


def _height(projection: Projection, width: int) -> int:
    half_width, half_height = projection.extent
    return round(width * half_height / half_width)


def _pixels(x: np.ndarray, y: np.ndarray, projection: Projection, width: int) -> tuple[np.ndarray, np.ndarray]:
    half_width, half_height = projection.extent
    scale = width / (2 * half_width)
    return (x + half_width) * scale, (half_height - y) * scale
