"""Tables on disk: found again, never trusted when damaged, never in the way."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model import table_cache
from model.table_cache import cache_folder, cached

LATITUDE = np.linspace(-90, 90, 7)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHERECAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Build:
    """Counts how often it was called."""

    def __init__(self, size=100):
        self.calls, self.size = 0, size

    def __call__(self):
        self.calls += 1
        values = np.arange(self.size)
        return {"scalar": values / 7, "vector": (values / 3).astype(np.float32).reshape(2, -1)}


def get(build, **parameters):
    return cached({"kind": "test", "latitude": LATITUDE, **parameters}, build, minimum_bytes=0)


def test_builds_once_and_returns_the_same(folder):
    build = Build()
    first, second = get(build), get(build)
    assert build.calls == 1
    assert list(second) == ["scalar", "vector"]
    for name, table in first.items():
        assert second[name].dtype == table.dtype
        np.testing.assert_array_equal(second[name], table)
    assert [path.name.endswith(".tables.npz") for path in folder.iterdir()] == [True]


def test_every_parameter_and_every_bit_of_an_array_counts(folder):
    build = Build()
    nearby = LATITUDE.copy()
    nearby[3] = np.nextafter(nearby[3], 1)
    variants = [
        {},
        {"band_limit": 4},
        {"band_limit": 4.0},
        {"band_limit": "4"},
        {"band_limit": None},
        {"spin": 4},
        {"latitude": nearby},
        {"latitude": LATITUDE[:, None]},
        {"latitude": LATITUDE.astype(np.float32)},
        {"a": "x", "b": "y"},
        {"a": "xb", "c": "y"},
    ]
    for _ in range(2):
        for variant in variants:
            get(build, **variant)
    assert build.calls == len(variants)


def test_format_version_counts(folder, monkeypatch):
    build = Build()
    get(build)
    monkeypatch.setattr(table_cache, "_FORMAT", table_cache._FORMAT + 1)
    get(build)
    assert build.calls == 2


def test_refuses_what_it_cannot_keep(folder):
    with pytest.raises(TypeError, match="grid: expected a string, number, None or numeric array, got list"):
        get(Build(), grid=[1, 2])
    with pytest.raises(TypeError, match="names: expected an array of numbers"):
        cached({}, lambda: {"names": np.array([None])})


def test_small_tables_are_not_kept(folder):
    build = Build()
    for _ in range(2):
        cached({}, build, minimum_bytes=10**6)
    assert build.calls == 2
    assert not folder.exists()


def test_damaged_files_are_built_again(folder):
    build = Build()
    expected = get(build)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flips = [whole[:k] + bytes([whole[k] ^ 0x55]) + whole[k + 1 :] for k in range(0, len(whole), 5)]
    for content in (b"", b"not a table", whole[: len(whole) // 2], whole[:-1], *flips):
        path.write_bytes(content)
        result = get(build)
        assert list(result) == list(expected)
        for name, table in result.items():
            np.testing.assert_array_equal(table, expected[name])
    path.write_bytes(whole[:200])
    calls = build.calls
    get(build)
    get(build)
    assert build.calls == calls + 1


def test_pickles_are_never_loaded(folder):
    build = Build()
    get(build)
    (path,) = folder.iterdir()
    np.savez(path, scalar=np.array([{}], dtype=object))
    assert set(get(build)) == {"scalar", "vector"}
    assert build.calls == 2


@pytest.mark.parametrize("blocked", ["folder", "parent"])
def test_a_folder_that_cannot_be_made_costs_only_time(tmp_path, monkeypatch, blocked, recwarn):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPHERECAST_CACHE", str(tmp_path / "file" / ("cache" if blocked == "parent" else "")))
    build = Build()
    get(build)
    get(build)
    assert build.calls == 2
    assert not recwarn


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch):
    def fail(file, **tables):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_cache.np, "savez", fail)
    assert set(get(Build())) == {"scalar", "vector"}
    assert not list(folder.iterdir())


def test_least_recently_used_tables_make_room(folder):
    build, limit = Build(), 4000

    def fetch(number):
        cached({"number": number}, build, minimum_bytes=0, size_limit=limit)

    for number in range(2):
        fetch(number)
        for path in folder.iterdir():  # As if a while had passed.
            os.utime(path, (path.stat().st_mtime - 100,) * 2)
    stranger = folder / "notes.txt"
    stranger.write_text("x" * limit)
    fetch(0)  # Used now, so number 1 is the older.
    fetch(2)
    assert build.calls == 3
    assert sum(path.stat().st_size for path in folder.glob("*.npz")) <= limit
    fetch(0)
    assert build.calls == 3
    fetch(1)
    assert build.calls == 4
    assert stranger.exists()


def test_tables_above_the_limit_are_not_kept(folder):
    cached({}, Build(), minimum_bytes=0, size_limit=1000)
    assert not folder.exists()


def test_what_dead_writers_left_goes(folder):
    folder.mkdir()
    for name, age in (("old", 7200), ("new", 60)):
        path = folder / f"{name}.tables.tmp"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    get(Build())
    assert [path.name for path in folder.glob("*.tmp")] == ["new.tables.tmp"]


def test_many_at_once_see_whole_tables(folder):
    build = Build(size=20_000)
    expected = build()
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda number: get(build, number=number % 2), range(40)):
            for name, table in expected.items():
                np.testing.assert_array_equal(result[name], table)
    assert len(list(folder.iterdir())) == 2


def test_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SPHERECAST_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "spherecast"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "spherecast"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "spherecast"
    monkeypatch.setenv("SPHERECAST_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("SPHERECAST_CACHE", "")
    assert cache_folder() is None
    build = Build()
    get(build)
    get(build)
    assert build.calls == 2
