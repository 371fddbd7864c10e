"""Objects of stores: encoded as readers expect, checked to the last bit, rounded as said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline.objects import Objects
from pipeline.stores.writing import (
    arrays_of,
    build_template,
    round_mantissa,
    set_attributes,
    shard_span,
    verify_store,
)
from transforms.errors import InputError

TIMES, SPAN = 10, 4


@pytest.fixture(params=[3, 2])
def store(request, tmp_path):
    """A finished store; returns its path, values and arrays."""
    time = np.arange(TIMES).astype("datetime64[D]").astype("datetime64[ns]")
    values = np.random.default_rng(0).normal(size=(TIMES, 3, 4, 8)).astype(np.float32)
    axes = ("time", "level", "latitude", "longitude")
    dataset = xr.Dataset(
        {
            "temperature": (axes, values, {"units": "K"}),
            "orography": (axes[2:], np.zeros((4, 8), np.float32)),
            "valid": ("time", np.zeros(TIMES, bool)),
        },
        {"time": time, "level": np.arange(3), "latitude": np.arange(4.0), "longitude": np.arange(8.0)},
        {"spherecast": {"kind": "test"}},
    )
    template = build_template(dataset, {"temperature": SPAN, "valid": TIMES}, request.param)
    arrays, objects = arrays_of(template), Objects(str(tmp_path / "store"))
    for key, data in template.items():
        objects.write(key, data)
    for number in range(3):
        part = values[number * SPAN : (number + 1) * SPAN]
        objects.write(arrays["temperature"].key(number), arrays["temperature"].encode(part))
    objects.write(arrays["valid"].key(0), arrays["valid"].encode(np.ones(TIMES, bool)))
    return tmp_path / "store", values, arrays


def test_readers_see_what_was_written(store, recwarn):
    path, values, _ = store
    with xr.open_zarr(path, consolidated=True) as out:
        np.testing.assert_array_equal(out["temperature"], values)
        assert out["valid"].dtype == bool
        assert out["valid"].values.all()
        assert str(out["time"].values[-1]) == "1970-01-10T00:00:00.000000000"
        assert out["temperature"].attrs == {"units": "K"}
        assert dict(out.attrs["spherecast"]) == {"kind": "test"}
    assert [str(warning.message) for warning in recwarn] == []
    array = zarr.open_group(path, mode="r")["temperature"]
    if array.metadata.zarr_format == 3:
        assert (array.shards, array.chunks) == ((4, 3, 4, 8), (1, 3, 4, 8))
        inner = json.loads((path / "temperature" / "zarr.json").read_text())["codecs"][0]["configuration"]
        names = [codec["name"] for codec in inner["codecs"]], [codec["name"] for codec in inner["index_codecs"]]
        assert names == (["bytes", "blosc", "crc32c"], ["bytes", "crc32c"])
        blosc = inner["codecs"][1]["configuration"]
        assert (blosc["cname"], blosc["shuffle"], blosc["typesize"]) == ("zstd", "bitshuffle", 4)
    else:
        assert (path / ".zmetadata").is_file()
        assert array.chunks == (4, 3, 4, 8)


def test_every_flipped_bit_is_found_and_named(store):
    path, _, arrays = store
    assert verify_store(path) == []
    for name in ("temperature", "time", "orography", "valid"):
        key = arrays[name].all_keys()[-1]
        sound = (path / key).read_bytes()
        for place in range(0, len(sound), 1 + len(sound) // 8):
            broken = bytearray(sound)
            broken[place] ^= 1 << (place % 8)
            (path / key).write_bytes(broken)
            (fault,) = verify_store(path)
            assert fault.startswith(f"{name}: {key} is damaged")
        (path / key).unlink()
        assert verify_store(path) == [f"{name}: {key} is missing"]
        (path / key).write_bytes(sound)
    document = next(path.glob("temperature/*zar*"))
    document.write_text(document.read_text()[:-5])
    assert "the metadata document is damaged" in verify_store(path)[0]


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no zarr store is there"):
        verify_store(tmp_path / "none")


def test_attributes_reach_the_consolidated_metadata(store):
    path, _, _ = store
    documents = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for key, data in set_attributes(documents, "temperature", {"keep_bits": 7}).items():
        (path / key).write_bytes(data)
    for consolidated in (True, False):
        with xr.open_zarr(path, consolidated=consolidated) as out:
            assert out["temperature"].attrs == {"units": "K", "keep_bits": 7}


@pytest.mark.parametrize("bits", [1, 7, 16, 23])
def test_rounding_is_to_the_nearest_with_ties_to_even(bits):
    exact = np.random.default_rng(3).normal(0, 1e3, 2000).astype(np.float32)
    step = np.exp2(np.floor(np.log2(np.abs(exact.astype(np.float64)))) - bits)
    # numpy's rint takes ties to even; scaling by powers of two is exact.
    np.testing.assert_array_equal(round_mantissa(exact, bits), np.rint(exact / step) * step)
    ties = (np.float32(1) + (2 * np.arange(8, dtype=np.float32) + 1) * np.float32(2.0**-4)).astype(np.float32)
    np.testing.assert_array_equal(round_mantissa(ties, 3), np.rint(ties.astype(np.float64) * 8) / 8)


def test_rounding_leaves_what_is_not_a_number():
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
    np.testing.assert_array_equal(round_mantissa(special, 5), special)
    with pytest.raises(InputError, match="keep_bits: 0; expected 1 to 23"):
        round_mantissa(special, 0)


def test_objects_stay_small_and_divide_the_times():
    assert shard_span(128, 4 * 13 * 64 * 32, 3) == 128
    assert shard_span(128, 4 * 13 * 1440 * 721, 3) == 2
    assert shard_span(128, 4 * 37 * 2880 * 1441, 3) == 1
    assert shard_span(100, 4 * 13 * 64 * 32, 2) == 25
