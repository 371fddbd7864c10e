"""All figures of a report as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.reporting.cases import MapCase
from pipeline.reporting.error_maps import ErrorMaps
from pipeline.reporting.figures.lines import field_spectra, training
from pipeline.reporting.figures.maps import error_maps, forecast_maps
from pipeline.reporting.figures.scores import curves, scorecard
from pipeline.reporting.figures.style import save, style
from pipeline.reporting.scores import Scores
from pipeline.reporting.spectra import Spectra

__all__ = ["save_figures"]

_DAYS = (24, 72, 120, 168, 240)


def save_figures(
    directory: Path,
    formats: Sequence[str],
    *,
    scores: Scores | None,
    case: MapCase | None,
    errors: ErrorMaps | None,
    spectra: Spectra | None,
    trained: dict[str, Any] | None,
) -> list[Path]:
    """Write the figures of what is there; the same inputs give the same files, byte for byte.

    Args:
        directory: is made where it is not there.
        formats: ``png``, ``pdf``.
        scores: curves of the headline fields, and the scorecard.
        case, errors: maps of the headline fields, at up to five leads of whole days, and at the longest where there is none.
        spectra: of all fields.
        trained: the training's curve.

    Returns:
        Paths written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with style():
        for name, drawn in _figures(scores, case, errors, spectra, trained):
            written += save(drawn, directory, name, tuple(formats))
    return written


def _figures(
    scores: Scores | None,
    case: MapCase | None,
    errors: ErrorMaps | None,
    spectra: Spectra | None,
    trained: dict[str, Any] | None,
) -> Iterator[tuple[str, Figure]]:
    headline = scores.headline if scores else []
    if scores:
        card = scorecard(scores)
        yield from [("scorecard", card)] if card else []
        for field in headline:
            drawn = curves(scores, field)
            yield from [(f"curves-{_plain(field.identifier)}", drawn)] if drawn else []
    if case:
        for field in (field for field in case.fields if field in headline):
            for lead in _chosen(case.leads):
                yield f"map-{_plain(field.identifier)}-{case.leads[lead]:g}h", forecast_maps(case, field, lead)
    if errors:
        for field in (field for field in errors.fields if field in headline):
            for lead in _chosen(errors.leads):
                yield f"errors-{_plain(field.identifier)}-{errors.leads[lead]:g}h", error_maps(errors, field, lead)
    if spectra:
        for spectrum in spectra.fields:
            yield f"spectra-{_plain(spectrum.label)}", field_spectra(spectra, spectrum)
    if trained:
        yield "training", training(trained)


def _chosen(leads: Sequence[float]) -> list[int]:
    return [i for i, lead in enumerate(leads) if lead in _DAYS] or [len(leads) - 1]


def _plain(name: str) -> str:
    """Return a name that any file system takes."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")
