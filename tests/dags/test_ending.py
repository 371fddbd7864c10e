"""A failed stage ends, whatever its libraries have left behind."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dags.stage_process import Ending

LEFT_BEHIND = """
import sys, threading
from pathlib import Path
from dags.commands import options

options._PARTING_SECONDS = 1
threading.Thread(target=threading.Event().wait).start()
with options.reporting(Path(sys.argv[1])):
    raise RuntimeError("the disk has gone")
"""


def test_a_thread_that_waits_for_ever_does_not_hold_up_a_failed_stage(tmp_path):
    command = [sys.executable, "-c", LEFT_BEHIND, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "RuntimeError: the disk has gone" in ended.stderr


@pytest.mark.parametrize(("number", "hint"), [(9, "run out of memory"), (6, "too little memory.*see the log")])
def test_a_stage_that_said_nothing_is_explained_by_its_signal(number, hint, tmp_path):
    assert re.search(hint, Ending(-number, "", transient=False, shared="").cause(tmp_path / "none.log"))
