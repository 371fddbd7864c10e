"""Colour maps that are even to the eye, and the small palette images that carry them.

Colours are laid out in Oklab (B. Ottosson, 2020), where equal distances look equally different. Sequential maps run
through lightness at constant speed, so they read in grey and with any colour vision; the diverging map is blue to
orange, with lightness falling alike on both sides.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

__all__ = ["COLOUR_MAPS", "colours", "encode_png", "hex_colour", "oklab"]

# Anchors (lightness, chroma, hue in degrees), spaced evenly along the map.
COLOUR_MAPS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "field": (
        (0.30, 0.105, 292),
        (0.43, 0.110, 262),
        (0.56, 0.100, 225),
        (0.69, 0.105, 175),
        (0.82, 0.140, 128),
        (0.95, 0.120, 105),
    ),
    "heat": (
        (0.28, 0.110, 275),
        (0.41, 0.140, 298),
        (0.54, 0.155, 342),
        (0.67, 0.150, 28),
        (0.80, 0.125, 65),
        (0.93, 0.105, 98),
    ),
    "strength": (
        (0.97, 0.012, 210),
        (0.87, 0.060, 200),
        (0.77, 0.090, 215),
        (0.67, 0.110, 240),
        (0.57, 0.130, 268),
        (0.47, 0.150, 292),
    ),
    "difference": (
        (0.38, 0.120, 260),
        (0.58, 0.115, 248),
        (0.77, 0.070, 238),
        (0.965, 0.004, 100),
        (0.77, 0.090, 58),
        (0.58, 0.125, 48),
        (0.38, 0.095, 40),
    ),
}

_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_LAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)


def colours(name: str, count: int) -> np.ndarray:
    """Return `count` colours of the map `name` from end to end, uint8, shape (count, rgb)."""
    anchors = np.array(COLOUR_MAPS[name])
    hue = np.deg2rad(anchors[:, 2])
    lab = np.stack([anchors[:, 0], anchors[:, 1] * np.cos(hue), anchors[:, 1] * np.sin(hue)], axis=-1)
    position = np.linspace(0, len(anchors) - 1, count)
    path = np.stack([np.interp(position, np.arange(len(anchors)), lab[:, i]) for i in range(3)], axis=-1)
    linear = (path @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T
    linear = np.clip(linear, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return sRGB colours, uint8, shape (..., rgb), as Oklab lightness, a, b, shape (..., 3)."""
    encoded = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.linalg.inv(_LMS_TO_RGB).T) @ np.linalg.inv(_LAB_TO_LMS).T


def hex_colour(rgb: np.ndarray) -> str:
    """Return a colour, uint8, shape (rgb,), as ``#rrggbb``."""
    return "#" + "".join(f"{int(value):02x}" for value in rgb)


def encode_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """Return a palette PNG.

    Args:
        indices: uint8, shape (row, column); index 0 is transparent, index i is ``palette[i - 1]``.
        palette: uint8, shape (at most 15, rgb), which lets two pixels share a byte.
    """
    height, width = indices.shape
    if len(palette) > 15:
        raise ValueError(f"palette: expected at most 15 colours, got {len(palette)}")
    padded = np.pad(indices, ((0, 0), (0, width % 2))).astype(np.uint8)
    packed = (padded[:, ::2] << 4) | padded[:, 1::2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)
    entries = np.concatenate([np.zeros((1, 3), np.uint8), palette]).tobytes()
    chunks = (
        (b"IHDR", header),
        (b"PLTE", entries),
        (b"tRNS", b"\x00"),
        (b"IDAT", zlib.compress(rows, 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
