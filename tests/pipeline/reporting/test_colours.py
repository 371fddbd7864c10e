from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from pipeline.reporting.colours import COLOUR_MAPS, colours, encode_png, hex_colour, oklab

SEQUENTIAL = [name for name in COLOUR_MAPS if name != "difference"]


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_sequential_maps_change_lightness_at_constant_speed(name):
    steps = np.diff(oklab(colours(name, 15))[:, 0])
    assert (np.sign(steps) == np.sign(steps[0])).all()
    assert np.abs(steps).max() < 1.15 * np.abs(steps).min()


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_neighbouring_colours_are_about_equally_different(name):
    distance = np.linalg.norm(np.diff(oklab(colours(name, 15)), axis=0), axis=1)
    assert distance.max() < 1.5 * distance.min()


def test_difference_map_is_neutral_in_the_middle_and_as_dark_on_both_sides():
    lab = oklab(colours("difference", 13))
    assert np.hypot(*lab[6, 1:]) < 0.01
    np.testing.assert_allclose(lab[:, 0], lab[::-1, 0], atol=0.01)
    assert (lab[:6, 2] < -0.02).all()
    assert (lab[7:, 2] > 0.02).all()


def test_white_has_lightness_one():
    np.testing.assert_allclose(oklab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-4)


def test_hex_colour():
    assert hex_colour(np.array([0, 128, 255], np.uint8)) == "#0080ff"


def _chunks(png: bytes) -> dict[bytes, bytes]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        found[kind] = body
        at += 12 + size
    return found


@pytest.mark.parametrize("width", [6, 7])
def test_png_holds_indices_and_palette(width):
    indices = np.random.default_rng(0).integers(0, 6, (4, width)).astype(np.uint8)
    palette = colours("heat", 5)
    chunks = _chunks(encode_png(indices, palette))
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (width, 4)
    assert chunks[b"PLTE"][3:] == palette.tobytes()
    assert chunks[b"tRNS"] == b"\x00"
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(4, -1)[:, 1:]
    np.testing.assert_array_equal(np.stack([rows >> 4, rows & 15], axis=-1).reshape(4, -1)[:, :width], indices)


def test_png_refuses_more_colours_than_four_bits_hold():
    with pytest.raises(ValueError, match="at most 15 colours, got 16"):
        encode_png(np.zeros((2, 2), np.uint8), np.zeros((16, 3), np.uint8))
