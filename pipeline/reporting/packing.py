"""Fields in bytes: what a page holds of them, and how a script gets them back."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MISSING", "Quantised", "pack", "quantise", "unpack"]

MISSING = 255
_STEPS = 254


@dataclass(frozen=True)
class Quantised:
    """Fields to the nearest of 255 evenly spaced values.

    Attributes:
        codes: uint8, any shape; `MISSING` where a value is.
        low: the value of code 0.
        step: between the values of neighbouring codes; a value is off by half of it at most.
    """

    codes: np.ndarray
    low: float
    step: float

    def values(self) -> np.ndarray:
        """Return the values that the codes stand for, float64; NaN where missing."""
        return np.where(self.codes == MISSING, np.nan, self.low + self.step * self.codes)


def quantise(values: np.ndarray) -> Quantised:
    """Return values, any shape, to the nearest of 255 that reach from the least to the greatest."""
    missing = ~np.isfinite(values)
    if missing.all():
        return Quantised(np.full(np.shape(values), MISSING, np.uint8), 0.0, 1.0)
    low, high = float(values[~missing].min()), float(values[~missing].max())
    # Seven digits reach the script, so that the codes are made with the numbers it decodes them with.
    low, step = float(f"{low:.7g}"), float(f"{(high - low) / _STEPS:.7g}") or 1.0
    codes = np.clip(np.round((np.where(missing, low, values) - low) / step), 0, _STEPS)
    return Quantised(np.where(missing, MISSING, codes).astype(np.uint8), low, step)


def pack(codes: Sequence[np.ndarray]) -> str:
    """Return arrays of uint8, one after the other, as text: differences from the western neighbour, zlib, base64.

    Args:
        codes: arrays, each with longitude as its last axis.
    """
    rows = [np.diff(array, axis=-1, prepend=np.uint8(0)).tobytes() for array in codes]
    return base64.b64encode(zlib.compress(b"".join(rows), 9)).decode()


def unpack(text: str, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Return the arrays that were packed, as the page's script does."""
    codes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(codes, ends[:-1])
    return [np.cumsum(part.reshape(shape), axis=-1, dtype=np.uint8) for part, shape in zip(parts, shapes, strict=True)]
