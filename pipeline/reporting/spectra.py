"""Spectra of forecasts and truth as charts, from a run's ``metrics/spectra.nc``; they need no script to be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from pipeline.reporting.colours import colours, hex_colour
from pipeline.reporting.elements import scroll, table
from pipeline.reporting.fields import Field, duration
from pipeline.reporting.html import Html, join, tag
from transforms.spectra import wavelength

__all__ = ["FieldSpectra", "Spectra", "axis_number", "read_spectra", "spectra_charts"]

_ENERGY = {"_rotational": "rotational kinetic energy", "_divergent": "divergent kinetic energy"}
_MOST_FIELDS = 40
_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 470, 14, 252
_HALF = 0.5


@dataclass(frozen=True)
class FieldSpectra:
    """Spectra of one field, or of one part of the kinetic energy of a wind.

    Attributes:
        label: in words.
        units: of power.
        forecast, truth, ratio: shape (lead, degree), float64; degrees count from 0, NaN where there is none.
        resolution: lowest degree where the forecast has less than half the truth's power, shape (lead,), NaN if unknown;
            the number of degrees where there is none.
    """

    label: str
    units: str
    forecast: np.ndarray
    truth: np.ndarray
    ratio: np.ndarray
    resolution: np.ndarray


@dataclass(frozen=True)
class Spectra:
    """Spectra of a run; `leads` in hours, ascending."""

    leads: list[float]
    fields: list[FieldSpectra]


def read_spectra(path: Path, headline: Sequence[Field] = ()) -> Spectra | None:
    """Read a netCDF of spectra, axes (spectrum, lead_time, [level], degree).

    Args:
        path: as `pipeline.scoring.spectral_scores.spectra_store` writes it.
        headline: fields that come first.

    Returns:
        None where there is no such file, or no spectrum in it.
    """
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="netcdf4", decode_timedelta=True) as opened:
        dataset = opened.sortby("lead_time").load()
    wanted = {(field.variable, field.level): position for position, field in enumerate(headline)}
    found: list[tuple[int, int, FieldSpectra]] = []
    for name, array in dataset.data_vars.items():
        if "spectrum" not in array.dims:
            continue
        for level in [int(level) for level in array["level"].values] if "level" in array.dims else [None]:
            spectra = _one(dataset, str(name), level)
            if np.isfinite(spectra.forecast).any():
                base = next((str(name).removesuffix(end) for end in _ENERGY if str(name).endswith(end)), str(name))
                found.append((wanted.get((base, level), len(wanted)), len(found), spectra))
    fields = [spectra for *_, spectra in sorted(found, key=lambda entry: entry[:2])][:_MOST_FIELDS]
    leads = (dataset["lead_time"].values / np.timedelta64(1, "h")).tolist()
    return Spectra(leads, fields) if fields else None


def spectra_charts(spectra: Spectra) -> Html:
    """Return a choice of fields and, of each, power and its ratio against degree, and the effective resolution."""
    options = [tag("option", field.label, value=number) for number, field in enumerate(spectra.fields)]
    chooser = tag(
        "div",
        tag("label", tag("span", "Field"), tag("select", *options, id="spectra-field")),
        class_="controls scripted",
    )
    parts = [
        tag("div", _charts(spectra, field), class_="of-field", hidden=number > 0, data_field=number)
        for number, field in enumerate(spectra.fields)
    ]
    return tag("div", chooser, _legend(spectra), *parts, id="spectra-view")


def _one(dataset: xr.Dataset, name: str, level: int | None) -> FieldSpectra:
    def values(variable: str, spectrum: str | None = None) -> np.ndarray:
        array = dataset[variable] if spectrum is None else dataset[variable].sel(spectrum=spectrum)
        return (array if level is None else array.sel(level=level)).values.astype(np.float64)

    energy = next((end for end in _ENERGY if name.endswith(end)), None)
    field = Field(name.removesuffix(energy) if energy else name, level)
    if energy:
        height = "10 m " if name.startswith("10m_") else f"{level} hPa " if level is not None else ""
        label, units = f"{height}{_ENERGY[energy]}", "m² s⁻²"
    else:
        label, units = field.label, f"({field.units})²" if field.units else ""
    return FieldSpectra(
        label,
        units,
        values(name, "forecast"),
        values(name, "truth"),
        values(name, "power_ratio"),
        values(f"{name}_effective_resolution"),
    )


def _legend(spectra: Spectra) -> Html:
    items = [tag("li", tag("i", class_="line truth", aria_hidden="true"), "truth")]
    items += [
        tag("li", tag("i", class_="line", style=f"color:{colour}", aria_hidden="true"), f"forecast, {duration(lead)}")
        for lead, colour in zip(spectra.leads, _line_colours(len(spectra.leads)), strict=True)
    ]
    return tag("ul", *items, class_="legend", aria_label="Lines of the spectra")


def _charts(spectra: Spectra, field: FieldSpectra) -> Html:
    power = _chart(
        f"Power of {field.label}, {field.units}, by degree: forecasts at {_leads(spectra)} and truth",
        [*field.forecast, field.truth[-1]],
        [*_line_colours(len(spectra.leads)), None],
    )
    told = ", ".join(
        f"{duration(lead)} {_resolution(value, field.ratio.shape[-1])}"
        for lead, value in zip(spectra.leads, field.resolution, strict=True)
    )
    ratio = _chart(
        f"Power of forecasts over that of truth, {field.label}; falls below one half at degree: {told}",
        list(field.ratio),
        _line_colours(len(spectra.leads)),
        marks=field.resolution,
    )
    rows = [
        (duration(lead), _resolution(value, field.ratio.shape[-1]), _length(value, field.ratio.shape[-1]))
        for lead, value in zip(spectra.leads, field.resolution, strict=True)
    ]
    caption = f"Effective resolution, {field.label}: where forecasts have less than half the power of truth"
    figures = [
        tag("figure", tag("figcaption", tag("strong", title), f", {note}" if note else ""), svg, class_="spectrum")
        for title, note, svg in (("Power", field.units, power), ("Forecast over truth", "", ratio))
    ]
    resolved = table(caption, ("Lead time", "Degree", "Wavelength"), rows, "resolution")
    return join(tag("div", *figures, class_="spectra"), scroll(resolved, f"Effective resolution, {field.label}"))


def _chart(label: str, lines: list[np.ndarray], drawn: Sequence[str | None], marks: np.ndarray | None = None) -> Html:
    """Return lines against degree, both logarithmic; a colour of None is truth; marks are degrees, one of each line."""
    known = np.concatenate([line[1:] for line in lines])
    known = known[np.isfinite(known) & (known > 0)]
    if marks is not None:
        known = np.append(known, [0.4, 1.2])
    low, high = (np.log10(known.min()), np.log10(known.max())) if known.size else (0.0, 1.0)
    low, high = low - 0.04 * (high - low + 0.1), high + 0.04 * (high - low + 0.1)
    last = max(2, lines[0].shape[-1] - 1)

    def px(degree: float) -> float:
        return _LEFT + np.log(degree) / np.log(last) * (_RIGHT - _LEFT)

    def py(value: float) -> float:
        return _BOTTOM - (np.log10(value) - low) / (high - low) * (_BOTTOM - _TOP)

    parts = [_axes(low, high, last, px, py)]
    if marks is not None:
        for value, kind in ((1.0, "base"), (_HALF, "rule")):
            parts.append(tag("path", d=f"M{_LEFT} {py(value):.1f}H{_RIGHT}", class_=kind))
    for line, colour in zip(lines, drawn, strict=True):
        points = [(px(d), py(v)) for d, v in enumerate(line) if d > 0 and np.isfinite(v) and v > 0]
        if points:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            style = None if colour is None else f"stroke:{colour}"
            parts.append(
                tag("path", d=path, class_="spectrum-line truth" if colour is None else "spectrum-line", style=style)
            )
    for line, colour, mark in zip(lines, drawn, [] if marks is None else marks, strict=False):
        if np.isfinite(mark) and mark < len(line) and line[int(mark)] > 0:
            parts.append(
                tag("circle", cx=f"{px(mark):.1f}", cy=f"{py(line[int(mark)]):.1f}", r=5, style=f"fill:{colour}")
            )
    parts.append(tag("text", "degree", x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 6, text_anchor="middle"))
    return tag("svg", tag("title", label), *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)


def _axes(low: float, high: float, last: int, px: Callable[[float], float], py: Callable[[float], float]) -> Html:
    parts = [tag("path", d=f"M{_LEFT} {_BOTTOM}H{_RIGHT}", class_="base")]
    parts += [
        tag("text", degree, x=f"{px(degree):.1f}", y=_BOTTOM + 19, text_anchor="middle")
        for degree in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        if degree <= last
    ]
    decades = [10.0**e for e in range(int(np.ceil(low)), int(np.floor(high)) + 1)]
    if len(decades) < 3:
        decades = [m * 10.0**e for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in (1, 2, 5)]
        decades = [value for value in decades if low <= np.log10(value) <= high]
    for value in decades[:: max(1, len(decades) // 6)]:
        y = py(value)
        parts.append(tag("path", d=f"M{_LEFT} {y:.1f}H{_RIGHT}", class_="grid"))
        parts.append(tag("text", axis_number(value), x=_LEFT - 8, y=f"{y + 5:.1f}", text_anchor="end"))
    return join(*parts)


def axis_number(value: float) -> str:
    """Return a number on a logarithmic axis as text: 0.01, 500, 2·10⁵."""
    if 1e-3 < value < 1e4:
        return f"{value:g}"
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    power = int(np.floor(np.log10(value) + 1e-9))
    times = round(value / 10.0**power)
    return f"{'' if times == 1 else f'{times}·'}10{str(power).translate(raised)}"


def _line_colours(count: int) -> list[str]:
    """Return a colour of each lead, in order of lightness, none as pale or dark as either ground."""
    chosen = colours("heat", 101)[np.linspace(38, 72, count).round().astype(int)] if count else []
    return [hex_colour(colour) for colour in chosen]


def _leads(spectra: Spectra) -> str:
    return ", ".join(duration(lead) for lead in spectra.leads)


def _resolution(degree: float, degrees: int) -> str:
    if np.isnan(degree):
        return "–"
    return f"{degree:g}" if degree < degrees else f"none to {degrees - 1}"


def _length(degree: float, degrees: int) -> str:
    if np.isnan(degree) or degree >= degrees or degree < 1:
        return "–"
    return f"{float(wavelength(np.array(degree))) / 1000:,.0f} km"
