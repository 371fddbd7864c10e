"""Colour scales: bands of values with a colour each, and the bar that explains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.reporting.colours import colours, hex_colour
from pipeline.reporting.fields import Field
from pipeline.reporting.html import Html, tag

__all__ = [
    "Scale",
    "bar",
    "centred_scale",
    "difference_units",
    "field_scale",
    "magnitude",
    "nice",
    "rising_scale",
    "tick_labels",
]

_BANDS = 14
_COLOUR_MAPS = {
    "geopotential": "field",
    "temperature": "heat",
    "2m_temperature": "heat",
    "sea_surface_temperature": "heat",
}


@dataclass(frozen=True)
class Scale:
    """Bands of equal width from `start`, each with one colour; what lies beyond takes the last.

    Attributes:
        start, step: lower edge of the first band, and width.
        palette: colours, uint8, shape (band, rgb).
        units: of the values.
    """

    start: float
    step: float
    palette: np.ndarray
    units: str

    @property
    def labelled(self) -> list[int]:
        """Positions of the edges that a bar has numbers at.

        The outermost bound nothing: values beyond them take the end colours. A scale about 0 is labelled alike on both
        sides.
        """
        count = len(self.palette)
        centred = np.isclose(self.edges[0], -self.edges[-1])
        if not centred:
            return [i for i in range(1, count) if count <= 8 or i % 2]
        # The two about 0 are a band apart: with more between others too, their numbers would touch.
        return [i for i in range(1, count) if count <= 8 or min(i, count - i) % 2 != count // 2 % 2]

    @property
    def edges(self) -> np.ndarray:
        return self.start + self.step * np.arange(len(self.palette) + 1)

    def indices(self, values: np.ndarray) -> np.ndarray:
        """Return 1 + band, and 0 where values are missing, uint8."""
        missing = np.isnan(values)
        band = np.floor((np.where(missing, self.start, values) - self.start) / self.step)
        return np.where(missing, 0, np.clip(band, 0, len(self.palette) - 1) + 1).astype(np.uint8)

    def payload(self) -> dict[str, Any]:
        """Return the scale for the page's script."""
        return {"start": self.start, "step": self.step, "colours": [hex_colour(colour) for colour in self.palette]}


def field_scale(field: Field, values: np.ndarray) -> Scale:
    """Return the scale of a field by the range of `values`, (..., component, latitude, longitude), all but its ends."""
    units = field.map_units[2]
    if field.components:
        return rising_scale(magnitude(values), units, "strength")
    shown = values[np.isfinite(values)]
    low, high = np.quantile(shown, [0.002, 0.998]) if shown.size else (0.0, 1.0)
    high = high if high > low else low + 1
    step = nice((high - low) / _BANDS)
    start = step * np.floor(low / step)
    count = int(np.clip(np.ceil((high - start) / step), 2, 15))
    return Scale(float(start), step, colours(_COLOUR_MAPS.get(field.variable, "field"), count), units)


def rising_scale(values: np.ndarray, units: str, name: str) -> Scale:
    """Return a scale from 0 for values that have no sign, in the colours `name`."""
    shown = values[np.isfinite(values)]
    high = float(np.quantile(shown, 0.998)) if shown.size else 1.0
    step = nice(high / _BANDS)
    return Scale(0.0, step, colours(name, int(np.clip(np.ceil(high / step), 2, 15))), units)


def centred_scale(values: np.ndarray, units: str) -> Scale:
    """Return a scale alike on both sides of 0.

    An odd number of bands, so that the middle one, without colour, means "nothing to speak of".

    Args:
        values: whose size sets the range, but for the largest 0.5 %.
        units: of the values.
    """
    size = np.abs(values[np.isfinite(values)])
    largest = float(np.quantile(size, 0.995)) if size.size else 1.0
    step = nice(largest / 6.5)
    return Scale(-6.5 * step, step, colours("difference", 13), units)


def bar(scale: Scale, legend: str, kind: str = "") -> Html:
    """Return the bar of a scale with the values at the edges of its bands."""
    count = len(scale.palette)
    cells = [tag("i", style=f"background:{hex_colour(colour)}") for colour in scale.palette]
    ticks = [
        tag("span", text, style=f"left:{100 * i / count:.2f}%")
        for i, text in zip(scale.labelled, tick_labels(scale.edges[scale.labelled]), strict=True)
    ]
    return tag(
        "div",
        tag("div", *cells, class_="cells", aria_hidden="true"),
        tag("div", *ticks, class_="ticks", aria_hidden="true"),
        tag("p", legend),
        class_=f"bar {kind}".strip(),
    )


def magnitude(values: np.ndarray) -> np.ndarray:
    """Return the speed of a wind, or the one component of a scalar, dropping the component axis (third from last)."""
    if values.shape[-3] == 1:
        return values[..., 0, :, :]
    return np.sqrt(np.sum(values**2, axis=-3))


def difference_units(units: str) -> str:
    """Return the units of differences of values in `units`."""
    return "K" if units == "°C" else units


def nice(step: float) -> float:
    """Return the least of 1, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten that is at least `step`."""
    if not np.isfinite(step) or step <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(m * power for m in (1, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= step * (1 - 1e-9)))


def tick_labels(values: np.ndarray) -> list[str]:
    """Return numbers as text, all with as many decimals as the one that needs most."""
    tolerance = 1e-6 * np.abs(values).max()
    decimals = next((d for d in range(9) if (np.abs(np.round(values, d) - values) <= tolerance).all()), 9)
    return [f"{value + 0.0:.{decimals}f}".replace("-", "−") for value in np.round(values, decimals)]
