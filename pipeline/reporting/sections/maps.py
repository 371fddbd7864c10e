"""The maps: forecasts beside the truth, and where they err."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.reporting.cases import MapCase
from pipeline.reporting.elements import Section, empty, first_run
from pipeline.reporting.error_maps import ErrorMaps, error_map_section
from pipeline.reporting.fields import instant
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.maps import map_section
from pipeline.reporting.pictures import map_definitions
from pipeline.reporting.viewers import coastline_data

__all__ = ["maps_section"]


def maps_section(case: MapCase | None, errors: ErrorMaps | None = None, *, of: str | None = None) -> Section:
    """Return the maps of some forecasts and those of mean scores, or a sentence where there are none.

    Args:
        of: name of the run that they are of, on a page of several.
    """
    shared = join(map_definitions(), coastline_data()) if case or errors else None
    return Section(
        "maps", "Maps", "Forecasts on the map", join(shared, first_run(of), _forecasts(case), *_errors(errors))
    )


def _forecasts(case: MapCase | None) -> Html:
    if case is None:
        return empty("No forecast has a valid time for which the truth is known.")
    count = len(case.initials)
    which = (
        f"The forecast from {instant(case.initials[0])}, the middle one of those with truth at the most lead times"
        if count == 1
        else f"{'Two' if count == 2 else 'Three'} forecasts, evenly spread over the test period"
    )
    member = "" if case.member is None else f" Member {case.member} of the ensemble is drawn."
    grid = (
        ", which are means of the stores' values over cells of 2 degrees" if case.grid is not case.stored_grid else ""
    )
    about = (
        f"{which}, not chosen for any score.{member} Colours and arrows have the same scale at all lead times; "
        f"between grid points{grid}, values are interpolated for display."
    )
    return join(tag("p", about, class_="note"), map_section(case))


def _errors(errors: ErrorMaps | None) -> list[Html]:
    heading = tag("h2", "Where forecasts err", id="error-maps-heading")
    if errors is None:
        without = empty(
            "There are no maps of mean error and skill. They are made when evaluation.map_hours names lead times of the "
            "forecast, e.g. evaluation.map_hours=[24,72,120]."
        )
        return [heading, without]
    about = f"Averages at each point{_over(errors.samples)}. Few forecasts leave chance in such maps."
    return [heading, tag("p", about, class_="note"), error_map_section(errors)]


def _over(samples: Sequence[int]) -> str:
    """Return over how many forecasts maps are averages, by the numbers of the leads that are drawn."""
    if not samples:
        return " over the forecasts of the test period"
    most, fewest = max(samples), min(samples)
    text = f" over {'the only forecast' if most == 1 else f'{most} forecasts'} of the test period"
    return (
        text if fewest == most else f"{text}, over fewer at lead times that reach beyond the data (at least {fewest})"
    )
