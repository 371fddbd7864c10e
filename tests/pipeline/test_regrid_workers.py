"""A worker of the regridding job is killed: the job fails with a word, and the same command finishes the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.regrid import regrid_store
from transforms.grids import Grid

TARGET = Grid.equiangular(12, 24, poles=True)
PROCESSES = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
JOB = """
import sys
from pipeline.regrid import regrid_store
from tests.pipeline.test_regrid_workers import PROCESSES, TARGET
regrid_store(sys.argv[1], sys.argv[2], TARGET, shard_times=2, beam_options=PROCESSES)
"""
STRICKEN = """
import os, pathlib, signal
from pipeline.stores.writing import StoredArray
encode = StoredArray.encode
def stricken(self, values):
    try:
        pathlib.Path({mark!r}).touch(exist_ok=False)
    except FileExistsError:
        return encode(self, values)
    os.kill(os.getpid(), signal.SIGKILL)
StoredArray.encode = stricken
"""


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_and_the_same_command_goes_on(era5_like, tmp_path):
    era5_like(times=16, nlat=16).to_zarr(tmp_path / "source.zarr", zarr_format=2)
    regrid_store(tmp_path / "source.zarr", tmp_path / "whole.zarr", TARGET, shard_times=2)
    site, target = tmp_path / "site", tmp_path / "out.zarr"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STRICKEN.format(mark=str(tmp_path / "struck")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])])}
    command = [sys.executable, "-c", JOB, str(tmp_path / "source.zarr"), str(target)]
    struck = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (tmp_path / "struck").exists()
    assert "LostWorkerError: a worker of the job was lost" in struck.stderr
    assert struck.returncode != 0
    assert not target.exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert contents(target) == contents(tmp_path / "whole.zarr")
