"""What is chosen of an axis of times or lead times: single values and ranges, as a person writes them.

    2020-01-01T12,2020-02-26:2020-03-01:12h      initial times
    0h:240h:6h,15d                               lead times

A range holds both ends; without a step it holds all there is between them. A date without an hour means its first hour
where a range begins, and the whole day where one ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transforms.errors import InputError
from transforms.timeaxis import time_text

__all__ = ["Selection", "parse_leads", "parse_times"]

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = rf"{_DATE}(?:[T ]\d{{2}}(?::\d{{2}})?)?"
_SPAN = r"\d+(?:\.\d+)?\s*(?:min|h|d)?"
_SECONDS = {"min": 60, "h": 3600, "": 3600, "d": 86400}
_DAY = np.timedelta64(86400, "s")


@dataclass(frozen=True)
class Selection:
    """Values of one axis.

    Attributes:
        parts: (first, last, step) of each range, datetime64 or timedelta64, both ends included; the step is None for all there is, and a single
            value has both ends equal.
        option: where it was written, for messages.
        text: as it was written.
    """

    parts: tuple[tuple[Any, Any, np.timedelta64 | None], ...]
    option: str
    text: str

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Return where the chosen ones of `values` are, ascending, shape (n,).

        Raises:
            InputError: a single value is not there, or a range holds none.
        """
        chosen = np.zeros(values.shape, bool)
        for first, last, step in self.parts:
            inside = (values >= first) & (values <= last)
            if step is not None:
                inside &= (values - first) % step == np.timedelta64(0)
            if not inside.any():
                has = f"{_text(values.min())} to {_text(values.max())}" if values.size else "none"
                raise InputError(f"{self.option} {self.text!r}: nothing there; there is {has}. Choose among these.")
            chosen |= inside
        return np.flatnonzero(chosen)

    def values(self, step: np.timedelta64) -> np.ndarray:
        """Return the chosen values, ascending and each once; `step` is that of ranges without one."""
        found = []
        for first, last, own in self.parts:
            found.append(np.arange(first, last + np.timedelta64(1, "s"), step if own is None else own))
        return np.unique(np.concatenate(found))


def parse_times(text: str, option: str = "--initial-times") -> Selection:
    """Return the times that e.g. ``2020-02-26:2020-03-01:12h`` means.

    Raises:
        InputError: it is not of this form.
    """
    expected = "dates or DATE:DATE or DATE:DATE:STEP, with commas between, e.g. 2020-01-01T12,2020-02-26:2020-03-01:12h"

    def end(part: str, option: str) -> np.datetime64:
        value = _time(part, option)
        return value + _DAY - np.timedelta64(1, "s") if re.fullmatch(_DATE, part) else value

    return _parse(text, option, _TIME, _time, end, expected)


def parse_leads(text: str, option: str = "--leads") -> Selection:
    """Return the lead times that e.g. ``0h:240h:6h`` means; ``h``, ``d`` or ``min``, hours without a unit.

    Raises:
        InputError: it is not of this form.
    """
    expected = "lead times or FIRST:LAST or FIRST:LAST:STEP, with commas between, e.g. 0h:240h:6h or 1d,3d,5d"
    return _parse(text, option, _SPAN, _span, _span, expected)


def _parse(text: str, option: str, value: str, first: Callable, last: Callable, expected: str) -> Selection:
    parts = []
    for part in text.split(","):
        match = re.fullmatch(rf"\s*({value})(?:\s*:\s*({value})(?:\s*:\s*({_SPAN}))?)?\s*", part)
        if match is None:
            raise InputError(f"{option} {text!r}: expected {expected}.")
        start, end, step = match.groups()
        low = first(start, option)
        high = low if end is None else last(end, option)
        width = None if step is None else _span(step, option)
        if high < low or (width is not None and width <= np.timedelta64(0)):
            raise InputError(
                f"{option} {text!r}: {part.strip()} ends before it starts, or has no step; expected {expected}."
            )
        parts.append((low, high, width))
    return Selection(tuple(parts), option, text)


def _time(text: str, option: str) -> np.datetime64:
    try:
        return np.datetime64(text.strip().replace(" ", "T"), "s")
    except ValueError as error:
        raise InputError(f"{option} {text!r}: no such date; expected e.g. 2020-02-29 or 2020-02-29T12:00.") from error


def _span(text: str, option: str) -> np.timedelta64:
    match = re.fullmatch(r"([\d.]+)\s*([a-z]*)", text.strip())
    number, unit = match.groups()  # type: ignore[union-attr]  # _SPAN has matched it
    return np.timedelta64(round(float(number) * _SECONDS[unit]), "s")


def _text(value: np.datetime64 | np.timedelta64) -> str:
    if isinstance(value, np.datetime64):
        return time_text(value)
    return f"{value / np.timedelta64(1, 'h'):g} h"
