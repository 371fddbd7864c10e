"""Commands that other schedulers start: the folder of a run, and stages that say whether there was anything to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dags import processes
from dags.stages import STAGES, ancestors
from pipeline.config_files import load_config

SCRIPT = Path(processes.__file__).with_name("beam_stage.py")


def test_configure_writes_the_configuration_and_prints_the_folder(say, tmp_path):
    status, text = say("configure", "tiny", "training.seed=7", "--runs-dir", "runs", "--name", "seven")
    assert (status, text.strip()) == (0, str(tmp_path / "runs" / "seven"))
    assert load_config(tmp_path / "runs" / "seven" / "config.yaml").training.seed == 7


def test_configure_refuses_a_folder_of_somebody_else(say, tmp_path):
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "thesis.tex").touch()
    status, text = say("configure", "tiny")
    assert status == 2
    assert "is not a run directory" in text


def test_configure_changes_nothing_under_a_stage_at_work_and_may_be_tried_again(say, tmp_path):
    say("configure", "tiny")
    with processes.hold(tmp_path / "runs" / "tiny", shared=True):
        assert say("configure", "tiny")[0] == 0
        status, text = say("configure", "tiny", "training.seed=7")
    assert status == os.EX_TEMPFAIL
    assert "in use" in text


def test_a_stage_says_by_its_status_that_there_is_nothing_to_do(say):
    say("configure", "tiny")
    stage = ("stage", "simulate", "runs/tiny", "--idle-status", "99")
    assert [say(*stage)[0], say(*stage)[0]] == [0, 99]
    assert say("stage", "simulate", "runs/tiny")[0] == 0


def test_a_stage_that_a_run_does_without_is_nothing_to_do(say, tmp_path):
    (tmp_path / "era5.zarr").mkdir()
    say("configure", "tiny", "source.kind=store", f"source.path={tmp_path / 'era5.zarr'}")
    assert say("stage", "simulate", "runs/tiny", "--idle-status", "99")[0] == 99
    assert say("stage", "simulate", "runs/tiny")[0] == 2


def test_options_of_beam_go_before_those_of_the_configuration(say, tmp_path):
    say("configure", "tiny")
    say("stage", "simulate", "runs/tiny")
    status, text = say("stage", "validate", "runs/tiny", "--", "--runner=NoSuchRunner")
    assert status == 2
    assert "NoSuchRunner is unknown" in text
    words = [f"--spherecast_run={tmp_path / 'runs' / 'tiny'}", "--spherecast_stage=validate", "--runner=NoSuchRunner"]
    result = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert result.returncode == 2
    assert "NoSuchRunner is unknown" in result.stderr


@pytest.mark.parametrize("name", STAGES)
def test_ancestors_are_all_that_runs_before(name):
    found = ancestors([name])
    assert name in found
    assert all(set(STAGES[other].upstream) <= found for other in found)
    assert not any(name in STAGES[other].upstream for other in found)
