"""Jobs that were stopped, stores that were damaged, targets elsewhere: what is sound is kept, the rest is made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.objects import Objects
from pipeline.regrid import regrid_store
from pipeline.stores.writing import StoredArray, verify_store
from transforms.errors import InputError
from transforms.grids import Grid

TARGET, FINE = Grid.equiangular(12, 24, poles=True), Grid.equiangular(8, 16, poles=False)
SETTINGS = {"shard_times": 2, "levels": [500, 850]}

KILLED = """
import sys, time
from pipeline import regrid
from pipeline.stores.writing import StoredArray
from tests.pipeline.test_regrid_resume import SETTINGS, TARGET
encode = StoredArray.encode
def slow(self, values):
    time.sleep(0.1)
    return encode(self, values)
StoredArray.encode = slow
regrid.regrid_store(sys.argv[1], sys.argv[2], TARGET, **SETTINGS)
"""


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


def shards(store: Path) -> dict[Path, int]:
    """Files of data by the time they were put in place."""
    return {file: file.stat().st_mtime_ns for file in store.glob("*/c/*/0/**/0") if file.is_file()}


@pytest.fixture
def source(era5_like, tmp_path) -> Path:
    era5_like(times=16, nlat=16).to_zarr(tmp_path / "source.zarr", zarr_format=2)
    return tmp_path / "source.zarr"


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """Keys of the shards written in this process, in the order of their writing."""
    keys: list[str] = []
    write = Objects.write

    def counting(self, key, data):
        if "/c/" in key and not key.startswith(("valid", "time", "level", "latitude", "longitude")):
            keys.append(key)
        write(self, key, data)

    monkeypatch.setattr(Objects, "write", counting)
    return keys


def test_a_killed_job_goes_on_and_ends_the_same(source, tmp_path, written):
    regrid_store(source, tmp_path / "whole.zarr", TARGET, **SETTINGS)
    total = len(written)
    partial = tmp_path / ".partial-out.zarr"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "out.zarr")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(shards(partial)) < total // 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = shards(partial)
    assert total // 3 <= len(before) < total
    written.clear()
    regrid_store(source, tmp_path / "out.zarr", TARGET, **SETTINGS)
    kept = {tmp_path / "out.zarr" / file.relative_to(partial): when for file, when in before.items()}
    rewritten = [file for file, when in kept.items() if file.stat().st_mtime_ns != when]
    assert len(rewritten) < 0.1 * len(kept)
    assert len(written) <= total - len(before)
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


def _stop_after(monkeypatch, count: int) -> None:
    encode, left = StoredArray.encode, [count]

    def failing(self, values):
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the disk is full")
        return encode(self, values)

    monkeypatch.setattr(StoredArray, "encode", failing)


def _fail(source, target, monkeypatch, count=10, **keywords) -> None:
    with monkeypatch.context() as context:
        _stop_after(context, count)
        with pytest.raises((OSError, RuntimeError), match="the disk is full"):
            regrid_store(source, target, TARGET, **{**SETTINGS, **keywords})


def test_damaged_and_foreign_files_of_a_partial_store_are_not_kept(source, tmp_path, monkeypatch, written):
    regrid_store(source, tmp_path / "whole.zarr", TARGET, **SETTINGS)
    _fail(source, tmp_path / "out.zarr", monkeypatch)
    partial = tmp_path / ".partial-out.zarr"
    done = sorted(shards(partial))
    data = bytearray(done[0].read_bytes())
    data[len(data) // 2] ^= 4
    done[0].write_bytes(data)
    (done[1].parent / ".writing-host-1-1").write_bytes(b"half")
    (partial / "latitude" / "c" / "0").write_bytes(b"no")
    written.clear()
    regrid_store(source, tmp_path / "out.zarr", TARGET, **SETTINGS)
    assert str(done[0].relative_to(partial)) in written
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


@pytest.mark.parametrize("other", [{"method": "nearest"}, {"zarr_format": 2}])
def test_a_partial_store_of_other_settings_is_discarded(source, tmp_path, monkeypatch, other):
    regrid_store(source, tmp_path / "whole.zarr", TARGET, **SETTINGS)
    _fail(source, tmp_path / "out.zarr", monkeypatch, **other)
    regrid_store(source, tmp_path / "out.zarr", TARGET, **SETTINGS)
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


def test_what_changes_no_value_discards_nothing(source, tmp_path, monkeypatch, written):
    regrid_store(source, tmp_path / "whole.zarr", TARGET, fingerprint="two", **SETTINGS)
    total = len(written)
    written.clear()
    _fail(source, tmp_path / "out.zarr", monkeypatch, count=20, fingerprint="one")
    regrid_store(source, tmp_path / "out.zarr", TARGET, fingerprint="two", memory_mb=500, retries=9, **SETTINGS)
    assert len(written) < total + 5
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_repair_rewrites_what_is_damaged(source, tmp_path, written, zarr_format):
    settings = {**SETTINGS, "zarr_format": zarr_format, "keep_bits": {"temperature": 9}}
    target = tmp_path / "out.zarr"
    regrid_store(source, target, TARGET, **settings)
    whole = contents(target)
    damaged = [key for key in whole if key.startswith(("temperature/", "2m_temperature/")) and "z" not in key]
    for key in (damaged[0], "latitude/c/0" if zarr_format == 3 else "latitude/0"):
        data = bytearray(whole[key])
        data[len(data) // 2] ^= 1
        (target / key).write_bytes(data)
    (target / damaged[-1]).unlink()
    assert len(verify_store(target)) == 3
    written.clear()
    regrid_store(source, target, TARGET, repair=True, **settings)
    assert contents(target) == whole
    assert verify_store(target) == []
    assert len(written) <= 2


def test_a_damaged_flag_is_repaired(source, tmp_path):
    regrid_store(source, tmp_path / "out.zarr", TARGET, **SETTINGS)
    whole = contents(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "valid" / "c" / "3").unlink()
    regrid_store(source, tmp_path / "out.zarr", TARGET, repair=True, **SETTINGS)
    assert contents(tmp_path / "out.zarr") == whole


def test_missing_values_are_refused_and_the_rest_is_kept(era5_like, tmp_path, written):
    data = era5_like(times=16, nlat=16)
    data["temperature"][[3, 9], 1, 4, 4] = np.nan
    data.to_zarr(tmp_path / "source.zarr", zarr_format=2)
    source, target = tmp_path / "source.zarr", tmp_path / "out.zarr"
    message = (
        r"^temperature: missing values at 2 of 16 times: 2016-12-30T18:00, 2017-01-01T06:00; expected none\. .*skipna"
    )
    with pytest.raises(InputError, match=message):
        regrid_store(source, target, TARGET, **SETTINGS)
    assert not target.exists()
    written.clear()
    regrid_store(source, target, TARGET, skipna=True, **SETTINGS)
    assert sorted(written) == ["temperature/c/1/0/0/0", "temperature/c/4/0/0/0"]
    regrid_store(source, tmp_path / "whole.zarr", TARGET, skipna=True, **SETTINGS)
    assert contents(target) == contents(tmp_path / "whole.zarr")
    with xr.open_zarr(target) as out:
        assert np.flatnonzero(~out["valid"].values).tolist() == [3, 9]


def test_several_targets_are_each_as_if_alone(source, tmp_path):
    also = [(tmp_path / "fine", FINE, "bilinear"), (tmp_path / "spectral", FINE, "nearest")]
    regrid_store(source, tmp_path / "one", TARGET, also=also, **SETTINGS)
    for path, grid, method in also:
        regrid_store(source, tmp_path / "alone", grid, method=method, **SETTINGS)
        assert contents(tmp_path / "alone") == contents(path)
    regrid_store(source, tmp_path / "alone", TARGET, **SETTINGS)
    assert contents(tmp_path / "alone") == contents(tmp_path / "one")
    with pytest.raises(InputError, match="one: named twice"):
        regrid_store(source, tmp_path / "one", TARGET, also=[(tmp_path / "one", FINE, "nearest")])


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_an_address_is_written_in_place_and_gone_on_with(source, tmp_path, monkeypatch, written, zarr_format):
    url = f"memory://{uuid.uuid4().hex}/out.zarr"
    settings = {**SETTINGS, "zarr_format": zarr_format}
    regrid_store(source, tmp_path / "here.zarr", TARGET, **settings)
    _fail(source, url, monkeypatch, zarr_format=zarr_format)
    assert read_description(url) is None
    assert len(Objects(url).find("u_component_of_wind")) > 3
    regrid_store(source, url, TARGET, **settings)
    objects = Objects(url)
    try:
        there = {key: objects.read(key) for key in objects.find()}
        assert read_description(url)["kind"] == "training store"
        del there["_SUCCESS.json"]
        assert there == contents(tmp_path / "here.zarr")
        assert verify_store(url) == []
        key = next(key for key in there if key.startswith("temperature/") and not key.endswith(("json", "y", "s")))
        objects.write(key, there[key][:-9])
        assert [fault.split()[1] for fault in verify_store(url)] == [key]
        regrid_store(source, url, TARGET, repair=True, **settings)
        assert objects.read(key) == there[key]
    finally:
        objects.remove()


def test_rounding_and_its_error_are_recorded(source, tmp_path):
    regrid_store(source, tmp_path / "exact.zarr", TARGET, **SETTINGS)
    bits = {"temperature": 7, "land_sea_mask": 4}
    regrid_store(source, tmp_path / "rounded.zarr", TARGET, keep_bits=bits, **SETTINGS)
    with xr.open_zarr(tmp_path / "exact.zarr") as exact, xr.open_zarr(tmp_path / "rounded.zarr") as rounded:
        for name, kept in bits.items():
            error = rounded[name].values.astype(np.float64) - exact[name].values
            attributes = rounded[name].attrs
            assert attributes["keep_bits"] == kept
            assert attributes["rounding_largest_error"] == np.abs(error).max() > 0
            assert attributes["rounding_rms_error"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
        assert np.abs(error).max() <= 2.0**-5
        xr.testing.assert_identical(
            exact.drop_vars(bits).drop_attrs(deep=False).load(), rounded.drop_vars(bits).drop_attrs(deep=False).load()
        )
    size = {
        name: sum(map(len, contents(tmp_path / f"{name}.zarr" / "temperature").values()))
        for name in ("exact", "rounded")
    }
    assert size["rounded"] < 0.7 * size["exact"]
