"""The server of `spherecast view`: what it shows of runs, and what it refuses to whom."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from dags import processes
from dags.viewing.library import Library, _columns, address_of
from dags.viewing.server import Server, make_server
from pipeline.config_files import load_config
from transforms.errors import InputError

ATTACK = "<script>alert(1)<"
SECRET = "hunter2-of-the-store"
REPORT = "<!doctype html><html lang=en><title>A report</title><p>the whole report</p></html>"


def make_run(directory, stages=None, *, report=True, **changes):
    """A run directory with a record of its stages, by name, and nothing that took work."""
    directory.mkdir(parents=True)
    config = load_config("tiny", [f"{key}={value}" for key, value in changes.items()])
    (directory / "config.yaml").write_text(config.to_yaml())
    (directory / "logs").mkdir()
    entries = {name: {"state": state} if isinstance(state, str) else state for name, state in (stages or {}).items()}
    (directory / "state.json").write_text(json.dumps({"stages": entries}))
    if report:
        (directory / "report.html").write_text(REPORT)
    return directory


@pytest.fixture
def runs(tmp_path):
    """A folder of runs in various states, beside a file that is nobody's business."""
    folder = tmp_path / "runs"
    make_run(folder / "one", description=json.dumps(ATTACK))
    make_run(folder / ATTACK, report=False)
    (tmp_path / "outside.html").write_text("outside")
    make_run(tmp_path / "elsewhere" / "run")
    return folder


@pytest.fixture
def served(runs):
    """Ask a server of `runs`: (path, method, headers) to its answer."""
    server = make_server(runs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        # http.client would refuse some of the addresses that are asked for here.
        connection._validate_path = lambda url: None
        connection._encode_request = lambda request: request.encode("latin-1")
        connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return SimpleNamespace(status=answer.status, body=body, headers=answer.headers)

    ask.server = server
    yield ask
    server.shutdown()
    server.server_close()
    thread.join()


def test_pages_and_reports_are_served(served):
    index = served("/")
    assert index.status == 200
    assert index.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "/assets/index.js" in index.body
    report = served("/runs/one/report.html")
    assert (report.status, report.body) == (200, REPORT)
    page = served("/runs/one/")
    assert "<h1>one</h1>" in page.body
    assert served("/runs/one").headers["Location"] == "/runs/one/"
    for name in ("view.css", "index.js", "run.js"):
        assert served(f"/assets/{name}").status == 200
    head = served("/runs/one/report.html", "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, "", str(len(REPORT)))


def test_names_stay_text(served):
    for address in ("/", address_of(ATTACK), "/runs/one/"):
        page = served(address)
        assert page.status == 200
        assert "<script>alert" not in page.body
    assert "&lt;script&gt;alert(1)&lt;" in served(address_of(ATTACK)).body
    assert ATTACK in [run["name"] for run in json.loads(served("/runs.json").body)["runs"]]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_only_get_and_head_are_answered(served, method):
    answer = served("/", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.html",
        "/runs/../outside.html",
        "/runs/one/../../../outside.html",
        "/runs/%2e%2e/outside.html",
        "/runs/..%2foutside.html",
        "/runs/%252e%252e%252foutside.html",
        "/runs/one/..%2f..%2f..%2foutside.html",
        "/runs/one%2freport.html",
        "/runs/one/%2e%2e/one/report.html",
        "/runs/one\\report.html",
        "/runs/..\\..\\outside.html",
        "/runs/one/report.html%00",
        "/runs/one%00/report.html",
        "/runs//one/report.html",
        "/runs/./one/report.html",
        "/etc/passwd",
        "/%2fetc%2fpasswd",
        "file:///etc/passwd",
        "/runs/one/config.yaml",
        "/runs/one/state.json",
        "/runs/one/logs/train.log",
        "/runs/one/.lock",
        "/runs/one/training.zarr/zarr.json",
        "/runs/",
        "/assets/",
        "/assets/../server.py",
        "/assets/shared.js",
        "/assets/%2e%2e%2fserver.py",
        "/runs/elsewhere/report.html",
        "/favicon.ico",
    ],
)
def test_nothing_else_is_found(served, path):
    for method in ("GET", "HEAD"):
        answer = served(path, method)
        assert answer.status == 404, answer.body
        assert "outside" not in answer.body


def test_links_out_of_the_folder_are_not_followed(served, runs, tmp_path):
    (runs / "one" / "report.html").unlink()
    (runs / "one" / "report.html").symlink_to(tmp_path / "outside.html")
    (runs / "one" / "logs" / "train.log").symlink_to(tmp_path / "outside.html")
    (runs / "one" / "checkpoints").mkdir()
    (runs / "one" / "checkpoints" / "training.jsonl").symlink_to(tmp_path / "outside.html")
    (runs / "one" / "state.json").write_text('{"stages": {"train": {"state": "failed"}}}')
    (runs / "away").symlink_to(tmp_path / "elsewhere" / "run")
    (runs / "inside").symlink_to(runs / ATTACK)
    assert served("/runs/one/report.html").status == 404
    assert served("/runs/away/").status == 404
    assert served("/runs/away/report.html").status == 404
    status = json.loads(served("/runs/one/status.json").body)
    assert (status["log"], status["training"], status["report"]) == (None, None, False)
    names = [run["name"] for run in json.loads(served("/runs.json").body)["runs"]]
    assert sorted(names) == sorted(["one", ATTACK, "inside"])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.1", "", "[", "a@b"]
)
def test_another_name_for_this_machine_is_refused(served, host):
    answer = served("/runs.json", Host=host)
    assert answer.status == 421
    assert ATTACK not in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8000", "LOCALHOST", "[::1]:80"])
def test_names_of_this_machine_are_answered(served, host):
    assert served("/", Host=host).status == 200


def test_headers_keep_pages_apart(served):
    for path in ("/", "/runs.json", "/runs/one/", "/runs/one/report.html", "/nothing", "/assets/run.js"):
        headers = served(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "Access-Control-Allow-Origin" not in headers
    assert "script-src 'self';" in served("/").headers["Content-Security-Policy"]
    report = served("/runs/one/report.html").headers["Content-Security-Policy"]
    # A report that is not what it seems reaches neither the network nor what else is served.
    assert "connect-src" not in report
    assert report.endswith("sandbox allow-scripts allow-downloads")


def test_a_broken_request_is_answered(served):
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=10) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert b"400" in connection.recv(4096)
    assert served("/").status == 200


def test_states_of_runs(runs):
    chain = list(json.loads(json.dumps(Library(runs).status("one")))["stages"])
    names = [stage["name"] for stage in chain]
    done = dict.fromkeys(names, "done")
    make_run(runs / "done", done | {"train": "skipped"})
    make_run(
        runs / "failed",
        done
        | {
            "train": {"state": "failed", "error": f"{ATTACK} is missing"},
            "report": {"state": "pending", "seconds": 9.0, "bytes": {"report.html": 7}},
        },
    )
    make_run(runs / "killed", done | {"train": "running"})
    make_run(runs / "working", done | {"train": {"state": "running"}})
    (runs / "working" / "progress.json").write_text(
        json.dumps(
            {
                "remaining": 50.0,
                "stages": {
                    "train": {"task": "train", "fraction": 0.25, "note": "loss 1", "elapsed": 9.0, "remaining": 27.0}
                },
            }
        )
    )
    (runs / "killed" / "progress.json").write_text((runs / "working" / "progress.json").read_text())
    (runs / "odd").mkdir()
    (runs / "odd" / "config.yaml").write_text("name: [odd")
    library = Library(runs)
    with processes.hold(runs / "working"):
        found = {run["name"]: run for run in library.index()["runs"]}
        status = library.status("working")
    states = {name: run["state"] for name, run in found.items()}
    assert states == {
        "one": "incomplete",
        ATTACK: "incomplete",
        "done": "done",
        "failed": "failed",
        "killed": "interrupted",
        "working": "running",
        "odd": "unreadable",
    }
    assert (found["done"]["done"], found["done"]["total"]) == (len(names), len(names))
    assert "odd" in found["odd"]["fault"]
    train = next(stage for stage in status["stages"] if stage["name"] == "train")
    assert (train["fraction"], train["remaining"], train["note"], status["remaining"]) == (0.25, 27.0, "loss 1", 50.0)
    killed = library.status("killed")
    assert "fraction" not in next(stage for stage in killed["stages"] if stage["name"] == "train")
    failed = library.status("failed")
    assert [stage["error"] for stage in failed["stages"] if stage["error"]] == [f"{ATTACK} is missing"]
    # What waits to be done again does not show what it took the last time.
    assert {(stage["seconds"], stage["bytes"]) for stage in failed["stages"] if stage["name"] == "report"} == {
        (None, None)
    }
    assert failed["resume"] == f"spherecast run {runs / 'failed'}"


def test_credentials_are_not_shown(served, runs):
    options = json.dumps({"key": SECRET})
    run = make_run(
        runs / "secret",
        {"regrid": {"state": "failed", "error": f"no access with {SECRET}"}},
        **{
            "source.kind": "store",
            "source.path": f"https://ann:{SECRET}@store.example/era5.zarr",
            "source.storage_options": options,
        },
    )
    (run / "logs" / "regrid.log").write_text(f"opening with {SECRET}\n")
    for path in ("/", "/runs.json", "/runs/secret/", "/runs/secret/status.json"):
        answer = served(path)
        assert answer.status == 200
        assert "secret" in answer.body
        assert SECRET not in answer.body
    assert "opening with ***" in served("/runs/secret/status.json").body


def test_scores_are_those_of_the_metrics(tiny_run):
    from pipeline.scoring.table import LEAD_HOURS, headline_rmse

    index = Library(tiny_run.parent).index()
    (run,) = (run for run in index["runs"] if run["name"] == tiny_run.name)
    assert index["leads"] == list(LEAD_HOURS)
    assert index["fields"]
    for line in ("model", "persistence"):
        wanted = headline_rmse(tiny_run / "metrics" / f"{line}.nc")
        for field in index["fields"]:
            assert run["scores"][field["id"]][line] == wanted[field["id"]]
    assert run["state"] == "done"
    assert run["simulated"] is True
    assert Library(tiny_run.parent).training(tiny_run.name)["train"]


def test_every_run_has_a_score_among_the_columns():
    others = ["geopotential@500", "temperature@850", "wind_vector@850", "2m_temperature"]
    assert _columns([others, []]) == others[:3]
    assert _columns([others, ["10m_wind_vector", "a@3"], ["ozone", "rain"]]) == [
        *others[:3],
        "10m_wind_vector",
        "ozone",
    ]
    assert _columns([["b", "a"], ["c"]]) == ["a", "b", "c"]
    assert len(_columns([others, *([str(number)] for number in range(9))])) == 6


def test_a_comparison_is_written_once_and_only_for_pages_of_this_server(served, runs, tiny_run):
    for name in ("a", ATTACK + "2"):
        shutil.copytree(tiny_run, runs / name, ignore=shutil.ignore_patterns("source.zarr", "checkpoints", ".lock*"))
    query = f"/compare?run=a&run={quote(ATTACK)}2"
    assert served(query, Sec_Fetch_Site="cross-site").status == 403
    page = waiting = served(query, Sec_Fetch_Site="same-origin")
    assert (waiting.status, waiting.headers["Refresh"]) == (200, "1")
    assert "<h1>Writing the comparison</h1>" in waiting.body
    assert "<script>alert" not in waiting.body
    deadline = time.monotonic() + 300
    while page.headers["Refresh"] and time.monotonic() < deadline:
        time.sleep(0.1)
        page = served(query, Sec_Fetch_Site="same-origin")
    assert page.status == 200, page.body
    assert f"a, {ATTACK.replace('<', '&lt;').replace('>', '&gt;')}2: comparison of forecasts" in page.body
    assert page.headers["Content-Security-Policy"].endswith("sandbox allow-scripts allow-downloads")
    assert served(query).body == page.body
    assert len(list(served.server.comparisons._folder.iterdir())) == 1


def test_a_comparison_that_cannot_be_written_says_why_and_is_tried_again(served, runs, monkeypatch):
    make_run(runs / "two")
    tried = []

    def write(directories):
        tried.append(directories)
        raise InputError("two: is broken.")

    monkeypatch.setattr(served.server.comparisons, "_write", write)
    for attempt in (1, 2):
        deadline = time.monotonic() + 20
        while (answer := served("/compare?run=one&run=two")).status == 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert answer.status == 422
        assert "two: is broken." in answer.body
        assert tried == attempt * [[runs / "one", runs / "two"]]


@pytest.mark.parametrize(
    "query", ["", "run=one", "run=one&run=one", "run=one&run=..", f"run=one&run={quote(ATTACK)}x", "run=one&" * 50]
)
def test_a_comparison_needs_runs_of_the_folder(served, query):
    answer = served(f"/compare?{query}")
    assert answer.status == 422
    assert "<script>alert" not in answer.body


def test_a_port_that_is_taken_is_told(served, runs):
    with pytest.raises(InputError, match="Choose another --port"):
        make_server(runs, port=served.server.server_port)


def test_the_command_refuses_what_is_no_folder_of_runs(say, tmp_path):
    status, text = say("view", "nothing-here", "--no-browser")
    assert status == 2
    assert "neither a run nor a folder of runs" in text


def test_the_command_says_and_opens_the_address_it_listens_at(say, runs, monkeypatch):
    opened, asked = [], threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda address: (opened.append(address), asked.set()))
    # Bound as asked for, and interrupted at once.
    monkeypatch.setattr(Server, "serve_forever", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status, text = say("view", runs / "one", "--browser", "--port", port)
    assert status == 0
    assert f"Serving {runs} at http://127.0.0.1:{port}/runs/one/" in text
    assert "Anyone" not in text
    assert asked.wait(10)
    assert opened == [f"http://127.0.0.1:{port}/runs/one/"]
    status, text = say("view", "--runs-dir", runs, "--host", "0.0.0.0", "--no-browser")
    assert f"Serving {runs} at http://0.0.0.0:" in text
    assert "Anyone who reaches 0.0.0.0 can read these runs." in text
    assert len(opened) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_on_this_machine_until_it_is_interrupted(runs, number):
    command = [sys.executable, "-m", "dags", "view", "one", "--runs-dir", str(runs), "--no-browser"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "300"},
        # A shell starts what runs in the background deaf to interrupts, tests included.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = process.stdout.readline()
        address = line.split(" at ")[1].strip()
        host, port = address.removeprefix("http://").split("/")[0].split(":")
        assert host == "127.0.0.1"
        assert address.endswith("/runs/one/")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", "/runs/one/report.html")
        assert connection.getresponse().read().decode() == REPORT
        process.send_signal(number)  # With a connection still open.
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")
