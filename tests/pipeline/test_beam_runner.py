"""Running Beam jobs: progress, options and quiet."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from pipeline.beam_runner import beam, count_done, run_job
from pipeline.progress import FD_VARIABLE


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
    with pytest.raises(ValueError, match="SlowRunner"):
        run_job("counting", 1, lambda pipeline: pipeline | beam.Create([1]), ["--runner=SlowRunner"])


def test_options_are_not_taken_from_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["spherecast", "--runner=SlowRunner"])
    run_job("counting", 1, lambda pipeline: pipeline | beam.Create([1]), [])


def test_import_says_nothing_and_leaves_logging_alone():
    code = "import logging, pipeline.beam_runner; print(len(logging.root.handlers), logging.root.manager.disable)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["0", str(logging.NOTSET)], "")
