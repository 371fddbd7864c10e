"""One forecast beside the truth and its error, as maps that need no script to be seen."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass

import numpy as np

from pipeline.reporting.cases import MapCase
from pipeline.reporting.colours import colours, encode_png, hex_colour
from pipeline.reporting.fields import Field, duration, instant
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.projections import EqualEarth, Orthographic, Projection, coastlines, sample, svg_path
from transforms.grids import Grid

__all__ = ["globe", "map_definitions", "map_section"]

_WIDTH = 840
_GLOBE_WIDTH = 460
_BANDS = 14
_COLOUR_MAPS = {
    "geopotential": "field",
    "temperature": "heat",
    "2m_temperature": "heat",
    "sea_surface_temperature": "heat",
}


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
        "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in zip(*_pixels(x, y, projection, _WIDTH), strict=True)) + "Z"
    )
    return tag(
        "svg",
        tag(
            "defs",
            tag("path", id="coast", d=svg_path(coastlines(), projection, _WIDTH)),
            tag("path", id="graticule", d=svg_path(meridians + parallels, projection, _WIDTH)),
            tag("path", id="outline", d=outline),
        ),
        class_="definitions",
        aria_hidden="true",
        width="0",
        height="0",
    )


def map_section(case: MapCase) -> Html:
    """Return the maps with their controls; one pane for each field and lead."""
    panes = []
    for number, field in enumerate(case.fields):
        scale, error_scale = _scales(case, field)
        for position in range(len(case.leads)):
            shown = number == 0 and position == len(case.leads) // 2
            panes.append(
                tag(
                    "div",
                    _pane(case, field, position, scale, error_scale),
                    class_="pane on" if shown else "pane",
                    data_field=number,
                    data_lead=position,
                )
            )
    controls = tag(
        "div",
        _choice("Field", "map-field", [field.label for field in case.fields], 0),
        _choice("Lead time", "map-lead", [duration(lead) for lead in case.leads], len(case.leads) // 2),
        class_="controls scripted",
    )
    return tag("div", controls, join(*panes), id="map-view")


def globe(case: MapCase) -> Html:
    """Return the forecast of the first field at the last lead on a globe, for the head of the page."""
    field = case.fields[0]
    scale, _ = _scales(case, field)
    centre = Orthographic(-30.0, 38.0)
    values = _magnitude(case.forecast[field][-1])
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
    label = f"Globe with the {duration(case.leads[-1])} forecast of {field.label}, valid {_valid_time(case, -1)}"
    return tag(
        "svg",
        tag("title", label),
        tag("defs", shade),
        _image(values, case.grid, centre, scale, _GLOBE_WIDTH),
        tag("path", d=svg_path(meridians + parallels, centre, _GLOBE_WIDTH), class_="graticule"),
        tag("path", d=svg_path(coastlines(), centre, _GLOBE_WIDTH), class_="coast"),
        tag("circle", cx=half, cy=half, r=half - 0.5, fill="url(#globe-shade)"),
        class_="globe",
        viewBox=f"0 0 {_GLOBE_WIDTH} {_GLOBE_WIDTH}",
        role="img",
        aria_label=label,
    )


@dataclass(frozen=True)
class _Scale:
    """Bands of equal width from `start`, each with one colour; what lies beyond takes the last."""

    start: float
    step: float
    palette: np.ndarray
    units: str

    @property
    def edges(self) -> np.ndarray:
        return self.start + self.step * np.arange(len(self.palette) + 1)

    def indices(self, values: np.ndarray) -> np.ndarray:
        """Return 1 + band, and 0 where values are missing, uint8."""
        missing = np.isnan(values)
        band = np.floor((np.where(missing, self.start, values) - self.start) / self.step)
        return np.where(missing, 0, np.clip(band, 0, len(self.palette) - 1) + 1).astype(np.uint8)


def _scales(case: MapCase, field: Field) -> tuple[_Scale, _Scale]:
    """Return the scales of the field and of its error, the same for all leads."""
    _, _, units = field.map_units
    forecast, truth = _magnitude(case.forecast[field]), _magnitude(case.truth[field])
    low, high = _span(truth) if np.isfinite(truth).any() else (0.0, 1.0)
    low = 0.0 if field.components else low
    step = _nice((high - low) / _BANDS)
    start = step * np.floor(low / step)
    count = int(np.clip(np.ceil((high - start) / step), 2, 15))
    name = "strength" if field.components else _COLOUR_MAPS.get(field.variable, "field")
    error = np.abs(forecast - truth)
    largest = float(np.nanquantile(error, 0.995)) if np.isfinite(error).any() else 1.0
    error_step = _nice(largest / 6.5)
    return (
        _Scale(float(start), step, colours(name, count), units),
        # An odd number of bands, so that the middle one, without colour, means "no error to speak of".
        _Scale(-6.5 * error_step, error_step, colours("difference", 13), _difference_units(units)),
    )


def _pane(case: MapCase, field: Field, position: int, scale: _Scale, error_scale: _Scale) -> Html:
    forecast, truth = case.forecast[field][position], case.truth[field][position]
    error = forecast - truth
    wind = field.components is not None
    magnitude = _magnitude(forecast) - _magnitude(truth)
    weights = case.grid.latitude_weights()[:, None] * np.ones(case.grid.shape[1])
    size = float(np.sqrt(np.average(np.sum(error**2, axis=0), weights=weights)))
    lead, valid = duration(case.leads[position]), _valid_time(case, position)
    units = error_scale.units
    figures = [
        ("Forecast", f"{lead} ahead", _magnitude(forecast), scale, forecast),
        ("Truth", f"valid {valid}", _magnitude(truth), scale, truth),
        ("Error", f"RMSE of this map {size:.3g} {units}", magnitude, error_scale, error),
    ]
    panels = []
    for title, note, values, bands, vector in figures:
        what = f"{title}: {field.label}, {lead} forecast valid {valid}; {_range(values, bands.units)}"
        panels.append(
            tag(
                "figure",
                tag("figcaption", tag("strong", title), " ", tag("span", note)),
                _map(values, case.grid, bands, vector if wind else None, what),
                class_="map",
            )
        )
    name = "geopotential height" if field.variable == "geopotential" else field.group
    legend = f"{name.replace('wind vector', 'wind speed')}, {scale.units}"
    error_legend = f"forecast minus truth{', speed' if wind else ''}, {units}"
    heading = tag("h3", field.label, tag("span", f"{lead}, valid {valid}"), class_="pane-title")
    bars = tag("div", _bar(scale, legend, "wide"), _bar(error_scale, error_legend), class_="bars")
    arrows = "Arrows show the wind, and in the error map the vector error; each map has its own arrow scale."
    return join(heading, tag("div", *panels, class_="maps"), bars, tag("p", arrows, class_="note") if wind else None)


def _map(values: np.ndarray, grid: Grid, scale: _Scale, vector: np.ndarray | None, label: str) -> Html:
    projection = EqualEarth()
    height = _height(projection, _WIDTH)
    return tag(
        "svg",
        tag("title", label),
        tag("use", href="#outline", class_="ground"),
        _image(values, grid, projection, scale, _WIDTH),
        tag("use", href="#graticule", class_="graticule"),
        tag("use", href="#coast", class_="coast"),
        tag("path", d=_arrows(vector, grid, projection), class_="arrows") if vector is not None else None,
        tag("use", href="#outline", class_="rim"),
        viewBox=f"-2 -2 {_WIDTH + 4} {height + 4}",
        role="img",
        aria_label=label,
    )


def _image(values: np.ndarray, grid: Grid, projection: Projection, scale: _Scale, width: int) -> Html:
    indices = scale.indices(sample(values, grid, *_pixel_positions(projection, width)))
    data = base64.b64encode(encode_png(indices, scale.palette)).decode()
    return tag("image", href=f"data:image/png;base64,{data}", width=width, height=_height(projection, width))


@functools.cache
def _pixel_positions(projection: Projection, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of every pixel, NaN outside the map, shape (row, column)."""
    half_width, half_height = projection.extent
    height = _height(projection, width)
    x = (np.arange(width) + 0.5) / width * 2 * half_width - half_width
    y = half_height - (np.arange(height) + 0.5) / height * 2 * half_height
    return projection.inverse(*np.meshgrid(x, y))


def _arrows(vector: np.ndarray, grid: Grid, projection: EqualEarth) -> str:
    """Return a path of arrows for a wind (component, latitude, longitude), evenly spread over the map."""
    half_width, half_height = projection.extent
    spacing = 35
    rows, columns = _height(projection, _WIDTH) // spacing, _WIDTH // spacing
    scale = 2 * half_width / _WIDTH
    px = (np.arange(columns) + 0.5) * _WIDTH / columns
    py = (np.arange(rows) + 0.5) * _height(projection, _WIDTH) / rows
    x, y = np.meshgrid(px * scale - half_width, half_height - py * scale)
    longitude, latitude = (a.ravel() for a in projection.inverse(x, y))
    inside = np.isfinite(longitude) & (np.abs(latitude) < 84)
    longitude, latitude = longitude[inside], latitude[inside]
    east, north = (sample(component, grid, longitude, latitude) for component in vector)
    speed = np.hypot(east, north)
    if not np.isfinite(speed).any() or np.nanmax(speed) == 0:
        return ""
    # A short step along the wind, projected: the map turns and stretches directions.
    step = 0.5 / np.where(speed > 0, speed, 1)
    ahead = longitude + step * east / np.cos(np.deg2rad(latitude)), latitude + step * north
    start = np.array(_pixels(*projection.forward(longitude, latitude), projection, _WIDTH))
    towards = np.array(_pixels(*projection.forward(*ahead), projection, _WIDTH)) - start
    length = np.hypot(*towards)
    reach = spacing * 0.95 * np.clip(speed / np.nanquantile(speed, 0.97), 0, 1.1)
    parts = []
    for i in np.flatnonzero(np.isfinite(speed) & (reach > 3) & (length > 0) & (length < spacing)):
        dx, dy = towards[:, i] / length[i] * reach[i]
        x0, y0 = start[0, i] - dx / 2, start[1, i] - dy / 2
        x1, y1 = x0 + dx, y0 + dy
        hx, hy = dx * 0.34, dy * 0.34
        parts.append(
            f"M{x0:.0f} {y0:.0f}L{x1:.0f} {y1:.0f}M{x1 - hx - hy * 0.6:.0f} {y1 - hy + hx * 0.6:.0f}"
            f"L{x1:.0f} {y1:.0f}L{x1 - hx + hy * 0.6:.0f} {y1 - hy - hx * 0.6:.0f}"
        )
    return "".join(parts)


def _bar(scale: _Scale, legend: str, kind: str = "") -> Html:
    count = len(scale.palette)
    # The outermost edges bound nothing: values beyond them take the end colours. A scale about 0 is labelled alike on both sides.
    centred = np.isclose(scale.edges[0], -scale.edges[-1])
    labelled = [i for i in range(1, count) if count <= 8 or (min(i, count - i) if centred else i) % 2]
    cells = [tag("i", style=f"background:{hex_colour(colour)}") for colour in scale.palette]
    ticks = [
        tag("span", text, style=f"left:{100 * i / count:.2f}%")
        for i, text in zip(labelled, _tick_labels(scale.edges[labelled]), strict=True)
    ]
    return tag(
        "div",
        tag("div", *cells, class_="cells", aria_hidden="true"),
        tag("div", *ticks, class_="ticks", aria_hidden="true"),
        tag("p", legend),
        class_=f"bar {kind}".strip(),
    )


def _choice(legend: str, name: str, labels: list[str], chosen: int) -> Html:
    options = [
        tag("label", tag("input", type="radio", name=name, value=i, checked=i == chosen), tag("span", label))
        for i, label in enumerate(labels)
    ]
    return tag("fieldset", tag("legend", legend), tag("div", *options, class_="segments"))


def _magnitude(values: np.ndarray) -> np.ndarray:
    """Return the speed of a wind, or the one component of a scalar, dropping the component axis (third from last)."""
    if values.shape[-3] == 1:
        return values[..., 0, :, :]
    return np.sqrt(np.sum(values**2, axis=-3))


def _valid_time(case: MapCase, position: int) -> str:
    return instant(case.initial + np.timedelta64(round(case.leads[position] * 60), "m"))


def _range(values: np.ndarray, units: str) -> str:
    if not np.isfinite(values).any():
        return "no values"
    return f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g} {units}"


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.002, 0.998])
    return float(low), float(high if high > low else low + 1)


def _nice(step: float) -> float:
    """Return the least of 1, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten that is at least `step`."""
    if not np.isfinite(step) or step <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(m * power for m in (1, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= step * (1 - 1e-9)))


def _tick_labels(values: np.ndarray) -> list[str]:
    """Return numbers as text, all with as many decimals as the one that needs most."""
    tolerance = 1e-6 * np.abs(values).max()
    decimals = next((d for d in range(9) if (np.abs(np.round(values, d) - values) <= tolerance).all()), 9)
    return [f"{value + 0.0:.{decimals}f}".replace("-", "−") for value in np.round(values, decimals)]


def _difference_units(units: str) -> str:
    return "K" if units == "°C" else units


def _height(projection: Projection, width: int) -> int:
    half_width, half_height = projection.extent
    return round(width * half_height / half_width)


def _pixels(x: np.ndarray, y: np.ndarray, projection: Projection, width: int) -> tuple[np.ndarray, np.ndarray]:
    half_width, half_height = projection.extent
    scale = width / (2 * half_width)
    return (x + half_width) * scale, (half_height - y) * scale
