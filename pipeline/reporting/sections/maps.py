"""The maps: one forecast beside the truth."""

from __future__ import annotations

from pipeline.reporting.cases import MapCase
from pipeline.reporting.elements import Section, empty
from pipeline.reporting.fields import instant
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.maps import map_definitions, map_section

__all__ = ["maps_section"]


def maps_section(case: MapCase | None) -> Section:
    """Return the maps of one forecast, or a sentence where there is none."""
    return Section("maps", "Maps", "One forecast on the map", _content(case))


def _content(case: MapCase | None) -> Html:
    if case is None:
        return empty("No forecast has a valid time for which the truth is known.")
    member = "" if case.member is None else f", member {case.member}"
    about = (
        f"The forecast from {instant(case.initial)}{member}, nearest the middle of the test period; "
        "it was not chosen for its score. Equal Earth projection; values are interpolated between grid points for display."
    )
    return join(map_definitions(), tag("p", about, class_="note"), map_section(case))
