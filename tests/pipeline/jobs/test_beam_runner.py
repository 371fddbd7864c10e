"""Running Beam jobs: progress, options and quiet."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from pipeline.jobs.beam_runner import beam, count_done, in_flight, require_runner, run_elements, run_job
from pipeline.jobs.progress import FD_VARIABLE
from transforms.errors import InputError


def _count(number: int) -> int:
    count_done("counting")
    return number


def test_elements_are_counted_in_this_process(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setenv(FD_VARIABLE, str(writing))
    run_job("counting", 5, lambda pipeline: pipeline | beam.Create(range(5)) | beam.Map(_count))
    os.close(writing)
    with os.fdopen(reading) as stream:
        events = [json.loads(line) for line in stream]
    assert events[-1] == {"task": "counting", "done": 5.0, "total": 5.0, "note": ""}
    count_done("counting")


def test_an_unknown_runner_is_an_error():
    with pytest.raises(
        InputError, match=r"runner: SlowRunner is unknown; expected one of .*DataflowRunner.*DaskRunner"
    ):
        run_job("counting", 1, lambda pipeline: pipeline | beam.Create([1]), ["--runner=SlowRunner"])


@pytest.mark.parametrize("name", ["DirectRunner", "direct", "FlinkRunner", "SparkRunner", "PortableRunner"])
def test_runners_of_beam_are_let_through_with_all_their_options(name):
    require_runner([f"--runner={name}", "--whatever=1", "--flag"])
    require_runner(["--runner", name, "--job_endpoint", "there:8099"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.at.all.Runner", "needs a package that is not installed"),
        ("apache_beam.runners.runner.NoRunner", "apache_beam.runners.runner has no class NoRunner"),
    ],
)
def test_a_class_that_is_not_there_is_an_error(name, message):
    with pytest.raises(InputError, match=message):
        require_runner([f"--runner={name}"])


class _Held(beam.DoFn):
    """Notes the most that was held at once in this process."""

    now, most, lock = 0, 0, threading.Lock()

    def process(self, amount):
        with in_flight(amount, 10):
            with _Held.lock:
                _Held.now += amount
                _Held.most = max(_Held.most, _Held.now)
            time.sleep(0.02)
            with _Held.lock:
                _Held.now -= amount


@pytest.mark.parametrize(("amount", "most"), [(4, 8), (30, 30)])
def test_what_is_held_at_once_is_bounded(amount, most):
    _Held.most = 0
    options = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=4"]
    run_elements("holding", [amount] * 16, _Held(), options)
    assert 0 < _Held.most <= most


def test_options_are_not_taken_from_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["spherecast", "--runner=SlowRunner"])
    run_job("counting", 1, lambda pipeline: pipeline | beam.Create([1]), [])


def test_import_says_nothing_and_leaves_logging_alone():
    code = "import logging, pipeline.jobs.beam_runner; print(len(logging.root.handlers), logging.root.manager.disable)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["0", str(logging.NOTSET)], "")
