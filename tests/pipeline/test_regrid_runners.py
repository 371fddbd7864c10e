"""The regridding job elsewhere than in one thread: the same bytes, and every worker works."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.regrid import regrid_store
from transforms.grids import Grid

TARGET = Grid.equiangular(12, 24, poles=True)
PROCESSES = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


@pytest.fixture
def source(era5_like, tmp_path) -> Path:
    data = era5_like(times=16, nlat=16)
    data["temperature"][5, 1, 4, 4] = np.nan
    encoding = {name: {"chunks": (2, *field.shape[1:])} for name, field in data.items() if "time" in field.dims}
    data.to_zarr(tmp_path / "source.zarr", zarr_format=2, encoding=encoding)
    return tmp_path / "source.zarr"


def write(source: Path, target: Path, **keywords) -> dict[str, bytes]:
    regrid_store(source, target, TARGET, shard_times=2, skipna=True, keep_bits={"temperature": 9}, **keywords)
    return contents(target)


def test_threads_and_memory_change_no_byte(source, tmp_path):
    here = write(source, tmp_path / "here")
    threads = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=3"]
    assert write(source, tmp_path / "threads", beam_options=threads, memory_mb=1) == here


def _told_by_process(folder: Path) -> str:
    """Code for a worker's start: StoredArray.encode leaves a mark of its process."""
    return (
        "import os, pathlib\nfrom pipeline.stores.writing import StoredArray\nencode = StoredArray.encode\n"
        f"def marking(self, values):\n    pathlib.Path({str(folder)!r}, str(os.getpid())).touch()\n"
        "    return encode(self, values)\nStoredArray.encode = marking\n"
    )


def test_two_processes_write_the_same_store(source, tmp_path, monkeypatch):
    marks, site = tmp_path / "marks", tmp_path / "site"
    marks.mkdir(), site.mkdir()
    (site / "sitecustomize.py").write_text(_told_by_process(marks))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(__file__).parents[2])]))
    there = write(source, tmp_path / "there", beam_options=PROCESSES)
    assert len({mark.name for mark in marks.iterdir()} - {str(os.getpid())}) == 2
    assert there == write(source, tmp_path / "here")


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_store(source, tmp_path):
    distributed = pytest.importorskip("distributed")
    marks = tmp_path / "marks"
    marks.mkdir()
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(exec, _told_by_process(marks), {})
        options = ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}", "--dask_npartitions=8"]
        there = write(source, tmp_path / "there", beam_options=options)
        assert len(list(marks.iterdir())) == 2
    assert there == write(source, tmp_path / "here")
