"""The spectra: how much of the truth's variance forecasts keep at each scale."""

from __future__ import annotations

from pipeline.reporting.elements import Section, empty, first_run
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.spectra import Spectra, spectra_charts

__all__ = ["spectra_section"]

_ABOUT = (
    "Mean power by degree of spherical harmonics, large scales on the left. Forecasts with less power than truth are "
    "blurred, which a good RMSE hides. A dot marks the effective resolution, the lowest degree where a forecast has less "
    "than half the power of truth. Winds have the spectra of the two parts of their kinetic energy."
)


def spectra_section(spectra: Spectra | None, *, of: str | None = None) -> Section:
    """Return the spectra of all fields, or how to get them where there are none.

    Args:
        of: name of the run that they are of, on a page of several.
    """
    return Section("spectra", "Spectra", "Power against scale", join(first_run(of), _content(spectra)))


def _content(spectra: Spectra | None) -> Html:
    if spectra is None:
        return empty(
            "There are no spectra. They are made when evaluation.spectra_hours names lead times of the forecast, e.g. "
            "evaluation.spectra_hours=[24,72,120]."
        )
    return join(tag("p", _ABOUT, class_="note"), spectra_charts(spectra))
