"""What passes is tried again, what does not is not, and all of it within bounds."""

from __future__ import annotations

import errno
import functools
import http.client
import http.server
import logging
import threading
import time
import urllib.error
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import zarr

from pipeline.config_files import load_config
from pipeline.sources.files import open_raw
from pipeline.sources.opening import open_source
from pipeline.stores import retrying
from pipeline.stores.retrying import Retry, UnreachableError, is_transient
from pipeline.validate import inspect_config
from transforms.errors import InputError

FAST = Retry(retries=3, first_wait=0.01)


class Failing:
    """Fails `times` times with `error`, then returns 1."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left, self.calls = error, times, 0

    def __call__(self) -> int:
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return 1


def with_status(code: int) -> Exception:
    return urllib.error.HTTPError("http://x", code, "", None, None)


PASSING = [
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("slow"),
    http.client.IncompleteRead(b"half"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    ValueError("UNAVAILABLE: Error reading chunk"),
    with_status(429),
    with_status(503),
]
LASTING = [
    FileNotFoundError(errno.ENOENT, "no"),
    PermissionError(errno.EACCES, "no"),
    with_status(404),
    with_status(403),
    ValueError("DATA_LOSS: checksum"),
    KeyError("x"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_tried_again(error, caplog):
    read = Failing(error, 3)
    with caplog.at_level(logging.WARNING):
        assert FAST.call(read, "field of somewhere") == 1
    assert read.calls == 4
    assert "field of somewhere: attempt 1 failed" in caplog.text


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_lasts_is_raised_at_once(error):
    read = Failing(error, 1)
    with pytest.raises(type(error)):
        FAST.call(read, "field of somewhere")
    assert read.calls == 1


def test_a_cause_counts():
    error = RuntimeError("reading failed")
    assert not is_transient(error)
    error.__cause__ = ConnectionResetError("reset")
    assert is_transient(error)


def test_waits_grow_and_are_bounded(monkeypatch):
    waits = []
    monkeypatch.setattr(retrying.time, "sleep", waits.append)
    with pytest.raises(
        UnreachableError, match=r"somewhere could not be read: 6 attempts .*TimeoutError: slow.*retries"
    ):
        Retry(retries=5, first_wait=1.0, longest_wait=5.0).call(Failing(TimeoutError("slow"), 99), "somewhere")
    longest = [1.0, 2.0, 4.0, 5.0, 5.0]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; `fails` says how often each address fails first, and how."""

    fails = 0
    how = "503"
    seen: ClassVar[Counter[str]] = Counter()
    only = ""

    def do_GET(self) -> None:
        kind = type(self)
        kind.seen[self.path] += 1
        if kind.only in self.path and kind.seen[self.path] <= kind.fails:
            if kind.how == "reset":
                self.connection.close()
                return
            if kind.how == "half":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"half")
                self.wfile.flush()
                self.connection.close()
                return
            self.send_error(int(kind.how))
            return
        super().do_GET()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def served(era5_like, tmp_path):
    """Serve a store; return (its address, the data, the handler whose failures can be set)."""
    pytest.importorskip("aiohttp", reason="fsspec reads http through it")
    data = era5_like(times=3)
    data.to_zarr(
        tmp_path / "source.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"temperature": {"chunks": (1, 3, 64, 32)}},
    )
    zarr.consolidate_metadata(tmp_path / "source.zarr")
    handler = type("Bound", (Handler,), {"seen": Counter(), "fails": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/source.zarr", data, handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(Retry, "__init__", functools.partialmethod(_quick, Retry.__init__))


def _quick(self, whole, retries=4, first_wait=0.01, longest_wait=0.05):
    whole(self, retries, first_wait, longest_wait)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["503", "429", "reset", "half"])
def test_a_server_that_fails_at_first_is_read_to_the_end(served, quick, how):
    address, data, handler = served
    handler.fails, handler.how, handler.only = 2, how, "temperature/c/"
    opened = open_source(address, retries=4)
    expected = data["temperature"].transpose("time", "level", "latitude", "longitude")
    np.testing.assert_array_equal(opened["temperature"].values, expected.values)
    assert max(count for path, count in handler.seen.items() if "temperature/c/" in path) >= 3


@pytest.mark.filterwarnings("ignore")
def test_metadata_are_tried_again_too(served, quick):
    address, data, handler = served
    handler.fails, handler.how = 1, "503"
    assert open_source(address, retries=8).sizes["time"] == data.sizes["time"]


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_always_fails_is_named_with_the_attempts(served, quick):
    address, _, handler = served
    opened = open_source(address, retries=2)
    handler.fails, handler.how = 10**6, "500"
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"temperature of {address} could not be read: 3 attempts .*500"):
        opened["temperature"].isel(time=1).values  # noqa: B018
    with pytest.raises(InputError, match=rf"{address} could not be read: 3 attempts"):
        open_source(address, retries=2)
    assert time.monotonic() - started < 20


@pytest.mark.filterwarnings("ignore")
def test_forbidden_is_not_tried_again(served, quick):
    address, _, handler = served
    opened = open_source(address)
    handler.fails, handler.how = 10**6, "403"
    handler.seen.clear()
    with pytest.raises(Exception, match="403"):
        opened["temperature"].isel(time=1).values  # noqa: B018
    assert sum(handler.seen.values()) == 1


@pytest.mark.filterwarnings("ignore")
def test_validation_names_a_server_that_fails_while_it_reads(served, quick):
    address, _, handler = served
    chosen = ["data.variables=[temperature]", "data.statics=[]", "data.levels=[500]", "periods={}"]
    settings = load_config(
        "tiny", ["source.kind=store", f"source.path={address}", "data.grid.latitude=16", "execution.retries=1", *chosen]
    )
    record, _ = inspect_config(settings)
    assert record.valid_times["count"] == 3
    handler.fails, handler.how, handler.only = 10**6, "500", "temperature/c/2"
    with pytest.raises(InputError, match=rf"temperature of {address} could not be read: 2 attempts .*500"):
        inspect_config(settings)


def test_raw_variables_carry_what_they_are(era5_like, tmp_path):
    era5_like(times=1).to_zarr(tmp_path / "source.zarr", consolidated=False, zarr_format=3)
    (raw,) = open_raw(str(tmp_path / "source.zarr"), {}, FAST)
    assert raw["temperature"].encoding["chunks"] == (1, 3, 64, 32)
