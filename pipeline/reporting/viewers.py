"""A viewer of maps: still pictures, the controls that change them, and the data that a script draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.fields import duration
from pipeline.reporting.html import Html, data_script, tag
from pipeline.reporting.projections import coastline_lines
from transforms.grids import Grid

__all__ = ["Panel", "Viewer", "coastline_data", "viewer"]

_PROJECTIONS = (
    ("equal-earth", "Equal Earth (area-true)"),
    ("hemispheres", "Two hemispheres (area-true)"),
    ("plate-carree", "Latitude and longitude"),
)


@dataclass(frozen=True)
class Panel:
    """One map of a viewer.

    Attributes:
        title: e.g. Forecast.
        note: beside the title, of the still picture; a script replaces it.
        picture: the still picture.
        bars: colour bars of each field, where the map has its own.
        hidden: whether the first field has no such map at any time; a script asks the same of others.
    """

    title: str
    note: str
    picture: Html
    bars: Sequence[Html] = ()
    hidden: bool = False


@dataclass(frozen=True)
class Viewer:
    """What a viewer shows.

    Attributes:
        identifier: of its element; those of its parts begin with it.
        fields: names of the fields, in words.
        starts: initial times in words; none where there is no choice.
        leads: lead times, hours.
        shown: positions of start and lead of the still pictures, which are of the first field.
        valid: what follows field and lead in the heading of the still pictures.
        panels: maps, side by side.
        bars: colour bars and remarks of each field, that are not a single map's.
        grid: of the packed fields.
        data: for the script, see ``assets/maps.js``.
        packed: of each field, from `pipeline.reporting.packing.pack`.
    """

    identifier: str
    fields: list[str]
    starts: list[str]
    leads: list[float]
    shown: tuple[int, int]
    valid: str
    panels: list[Panel]
    bars: Sequence[Html]
    grid: Grid
    data: dict[str, Any]
    packed: list[str]


def viewer(view: Viewer) -> Html:
    """Return the viewer's element; without a script its still pictures and their bars are seen."""
    start, lead = view.shown
    heading = tag("h3", view.fields[0], tag("span", f"{duration(view.leads[lead])}{view.valid}"), class_="pane-title")
    figures = [
        tag(
            "figure",
            tag("figcaption", tag("strong", panel.title), " ", tag("span", panel.note)),
            tag("div", panel.picture, class_="picture"),
            *_of_fields(panel.bars),
            class_="map",
            hidden=panel.hidden,
        )
        for panel in view.panels
    ]
    maps = tag("div", *figures, class_="maps", data_count=sum(not panel.hidden for panel in view.panels))
    reading = tag("p", class_="map-reading scripted", id=f"{view.identifier}-reading", aria_live="polite")
    data = view.data | {
        "leads": view.leads,
        "shown": [start, lead],
        "latitude": [round(float(value), 6) for value in view.grid.latitude],
        "longitude": round(float(view.grid.longitude[0]), 6),
        "poles": view.grid.has_poles,
    }
    scripts = [data_script(f"{view.identifier}-data", data)]
    scripts += [
        tag("script", Html(text), type="text/plain", id=f"{view.identifier}-{number}")
        for number, text in enumerate(view.packed)
    ]
    return tag(
        "div",
        _controls(view),
        heading,
        maps,
        reading,
        *_of_fields(view.bars),
        *scripts,
        class_="map-viewer",
        id=view.identifier,
    )


def coastline_data() -> Html:
    """Return the coastlines for the script, once for all viewers of a page."""
    return data_script("coastlines", coastline_lines())


def _of_fields(parts: Sequence[Html]) -> list[Html]:
    """Return parts that each belong to a field; those of the first are seen."""
    return [
        tag("div", html, class_="of-field", hidden=number > 0, data_field=number) for number, html in enumerate(parts)
    ]


def _controls(view: Viewer) -> Html:
    start, lead = view.shown
    name = view.identifier
    chooser = [_select(f"{name}-field", "Field", list(enumerate(view.fields)), 0)]
    if len(view.starts) > 1:
        chooser.append(_select(f"{name}-start", "Forecast from", list(enumerate(view.starts)), start))
    chooser.append(_select(f"{name}-projection", "Projection", list(_PROJECTIONS), "equal-earth"))
    slider = tag(
        "div",
        tag("button", "Play", type="button", class_="play", id=f"{name}-play", aria_label="Play the lead times"),
        tag(
            "label",
            tag("span", "Lead time"),
            tag("input", type="range", id=f"{name}-lead", min=0, max=len(view.leads) - 1, step=1, value=lead),
        ),
        tag("output", duration(view.leads[lead]), for_=f"{name}-lead", aria_live="off"),
        class_="lead-slider",
        hidden=len(view.leads) < 2,
    )
    return tag("div", *chooser, slider, class_="controls scripted map-controls")


def _select(identifier: str, label: str, options: list[tuple[Any, str]], chosen: Any) -> Html:
    choices = [tag("option", text, value=value, selected=value == chosen) for value, text in options]
    return tag("label", tag("span", label), tag("select", *choices, id=identifier))
