"""Forecasts beside the truth and their difference, on maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.reporting.cases import MapCase
from pipeline.reporting.fields import Field, duration, instant
from pipeline.reporting.html import Html, join, tag
from pipeline.reporting.packing import Quantised, pack, quantise
from pipeline.reporting.pictures import globe_picture, map_picture
from pipeline.reporting.scales import Scale, bar, centred_scale, difference_units, field_scale, magnitude, nice
from pipeline.reporting.viewers import Panel, Viewer, viewer

__all__ = ["globe", "map_section"]


def map_section(case: MapCase) -> Html:
    """Return the maps of all fields, initial times and lead times, with their controls."""
    looks = [_look(case, field) for field in case.fields]
    start, lead = case.first_shown
    packed, payloads = [], []
    for field, look in zip(case.fields, looks, strict=True):
        text, arrays = _packed(case, field)
        packed.append(text)
        payloads.append(look.payload(field, case.errors[field]) | {"arrays": arrays})
    data = {
        "kind": "forecast",
        "panels": ["Forecast", "Truth", "Difference"],
        "starts": [instant(time) for time in case.initials],
        "shape": [len(case.initials), len(case.leads), *case.grid.shape],
        "times": [[instant(case.valid_time(i, j)) for j in range(len(case.leads))] for i in range(len(case.initials))],
        "fields": payloads,
    }
    return viewer(
        Viewer(
            "forecast-maps",
            [field.label for field in case.fields],
            [instant(time) for time in case.initials],
            case.leads,
            case.first_shown,
            f", valid {instant(case.valid_time(start, lead))}",
            _panels(case, case.fields[0], looks[0]),
            [_bars(field, look) for field, look in zip(case.fields, looks, strict=True)],
            case.grid,
            data,
            packed,
        )
    )


def globe(case: MapCase) -> Html:
    """Return a forecast of the first field at the last lead on a globe, for the head of the page."""
    field, start = case.fields[0], case.first_shown[0]
    values = case.forecast[field][start, -1]
    valid = instant(case.valid_time(start, len(case.leads) - 1))
    label = f"Globe with the {duration(case.leads[-1])} forecast of {field.label}, valid {valid}"
    return globe_picture(magnitude(values), case.grid, field_scale(field, case.truth[field]), label)


@dataclass(frozen=True)
class _Look:
    """How a field is drawn, alike at all initial times and leads.

    Attributes:
        scale, error_scale: of forecast and truth, and of their difference.
        reference, error_reference: speed of an arrow of usual length; None of a scalar.
    """

    scale: Scale
    error_scale: Scale
    reference: float | None
    error_reference: float | None

    def payload(self, field: Field, errors: np.ndarray) -> dict[str, Any]:
        own, error = self.scale.payload(), self.error_scale.payload()
        return {
            "label": field.label,
            "wind": field.components is not None,
            "units": [self.scale.units, self.scale.units, self.error_scale.units],
            "scales": [own, own, error],
            "references": [self.reference, self.reference, self.error_reference],
            "errors": [[None if np.isnan(e) else float(f"{e:.3g}") for e in row] for row in errors.tolist()],
        }


def _look(case: MapCase, field: Field) -> _Look:
    forecast, truth = case.forecast[field], case.truth[field]
    error_scale = centred_scale(magnitude(forecast) - magnitude(truth), difference_units(field.map_units[2]))
    wind = field.components is not None
    return _Look(
        field_scale(field, truth),
        error_scale,
        _usual_speed(truth) if wind else None,
        _usual_speed(forecast - truth) if wind else None,
    )


def _usual_speed(vector: np.ndarray) -> float:
    speed = magnitude(vector)
    speed = speed[np.isfinite(speed)]
    return nice(float(np.quantile(speed, 0.97))) if speed.size else 1.0


def _packed(case: MapCase, field: Field) -> tuple[str, list[dict[str, Any]]]:
    """Return forecast and difference of a field in bytes, and how to read them.

    The difference has bytes of its own, so that a small one is not lost in the steps of the field; truth is forecast minus
    difference.
    """
    arrays = {"forecast": case.forecast[field], "difference": case.forecast[field] - case.truth[field]}
    codes: list[np.ndarray] = []
    described = []
    for name, values in arrays.items():
        components: list[Quantised] = [quantise(values[:, :, i]) for i in range(values.shape[2])]
        codes += [component.codes for component in components]
        described.append({"name": name, "low": [c.low for c in components], "step": [c.step for c in components]})
    return pack(codes), described


def _panels(case: MapCase, field: Field, look: _Look) -> list[Panel]:
    start, lead = case.first_shown
    forecast, truth = case.forecast[field][start, lead], case.truth[field][start, lead]
    valid, ahead = instant(case.valid_time(start, lead)), duration(case.leads[lead])
    error = case.errors[field][start, lead]
    note = f"RMSE {error:.3g} {look.error_scale.units}" if np.isfinite(error) else "no truth at this time"
    wind = field.components is not None
    shown = [
        ("Forecast", f"from {instant(case.initials[start])}", magnitude(forecast), look.scale, forecast),
        ("Truth", f"valid {valid}", magnitude(truth), look.scale, truth),
        ("Difference", note, magnitude(forecast) - magnitude(truth), look.error_scale, forecast - truth),
    ]
    panels = []
    for title, remark, values, scale, vector in shown:
        label = f"{title}: {field.label}, {ahead} forecast valid {valid}; {_range(values, scale.units)}"
        reference = look.error_reference if title == "Difference" else look.reference
        picture = map_picture(values, case.grid, scale, label, vector if wind else None, reference or 1.0)
        panels.append(Panel(title, remark, picture))
    return panels


def _bars(field: Field, look: _Look) -> Html:
    wind = field.components is not None
    name = "geopotential height" if field.variable == "geopotential" else field.group
    legend = f"{name.replace('wind vector', 'wind speed')}, {look.scale.units}"
    error_legend = f"forecast minus truth{', speed' if wind else ''}, {look.error_scale.units}"
    bars = tag("div", bar(look.scale, legend, "wide"), bar(look.error_scale, error_legend), class_="bars")
    if not wind:
        return bars
    remark = (
        f"Arrows show the wind, one of usual length {look.reference:g} {look.scale.units}, and on the map of the "
        f"difference the vector difference, {look.error_reference:g} {look.scale.units}."
    )
    return join(bars, tag("p", remark, class_="note"))


def _range(values: np.ndarray, units: str) -> str:
    if not np.isfinite(values).any():
        return "no values"
    return f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g} {units}"
