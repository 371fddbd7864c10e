"""A disk that is full or read-only, or memory that is, loses nothing and says what to do."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dags.failures import disk_message, short_message
from dags.plan import plan
from dags.state import State
from pipeline.config_files import load_config
from transforms.errors import InputError


@pytest.fixture
def small_disk(fresh) -> Iterator[Path]:
    """A file system of its own under the run directory, a quarter of a megabyte."""
    mount = fresh.directory.parent
    mount.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount a file system here")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def remount(mount: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(mount)], check=True)


def test_a_full_disk_keeps_what_is_finished_and_the_run_resumes(fresh, small_disk, monkeypatch):
    monkeypatch.setenv("FAKE", "train=fill")
    failed = fresh.run()
    assert failed.status == 1
    assert "train failed" in failed.text
    assert "cannot be written, the disk is full. Free some space or choose another place" in failed.text
    assert (fresh.directory / "statistics.json").is_file()
    assert not (fresh.directory / "checkpoints.json").exists()
    monkeypatch.delenv("FAKE")
    remount(small_disk, "size=4m")
    again = fresh.run()
    assert (again.status, again.worked) == (0, ["train", "evaluate"])


def test_a_read_only_disk_is_refused_before_work_and_can_be_looked_at(fresh, small_disk):
    assert fresh.run(until=["statistics"]).status == 0
    remount(small_disk, "ro")
    with pytest.raises(InputError, match="cannot write there"):
        fresh.run()
    assert "checkpoints.json is missing" in fresh.run(dry_run=True).text
    assert State(fresh.directory).stages["statistics"]["state"] == "done"
    remount(small_disk, "rw")
    assert fresh.run().status == 0


def test_a_new_run_on_a_read_only_disk_is_refused(fresh, small_disk):
    remount(small_disk, "ro")
    with pytest.raises(InputError, match="cannot write there"):
        fresh.run()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_reason_is_found_however_it_is_wrapped(code):
    plain = OSError(code, os.strerror(code), "store/c/0")
    assert disk_message(plain).startswith("store/c/0: cannot be written, the disk")
    wrapped = RuntimeError("while running step 7")
    wrapped.__cause__ = plain
    assert disk_message(wrapped) == disk_message(plain)
    told = ValueError(f"Error writing store/c/0: {os.strerror(code)} [source locations]")
    assert disk_message(told).startswith("cannot be written, the disk")


def test_errors_of_other_kinds_are_not_blamed_on_the_disk(tmp_path):
    assert disk_message(OSError(errno.ENOENT, "No such file", "x"), tmp_path) is None
    assert disk_message(RuntimeError("NetCDF: HDF error"), tmp_path) is None
    assert short_message(ValueError("odd"), tmp_path) == "ValueError: odd"


def test_a_disk_without_room_explains_an_error_that_does_not(small_disk):
    (small_disk / "ballast").write_bytes(bytes(200 * 1024))
    assert "the disk is full" in disk_message(RuntimeError("NetCDF: HDF error"), small_disk)


def test_planning_needs_no_directory(tmp_path):
    steps = plan(load_config("tiny"), tmp_path / "nowhere")
    assert all(step.work for step in steps)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1073741824 bytes."),
    ],
)
def test_want_of_memory_is_called_so_and_says_what_to_do(error, tmp_path):
    assert re.search(r"^\w+: out of memory.*ulimit -v.*--jobs 1", short_message(error, tmp_path))
    wrapped = RuntimeError("the job failed")
    wrapped.__cause__ = error
    assert "out of memory (the job failed)" in short_message(wrapped, tmp_path)


def test_a_limit_too_low_for_the_libraries_is_refused(tmp_path):
    script = (
        "import resource, sys; from pathlib import Path; from dags import local; from pipeline.config_files import load_config\n"
        "resource.setrlimit(resource.RLIMIT_AS, (600_000_000, resource.RLIM_INFINITY))\n"
        "local.run(load_config('tiny'), Path(sys.argv[1]))"
    )
    run = tmp_path / "run"
    refused = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True, text=True)
    assert "InputError: ulimit -v: got 600 MB of address space, expected at least 2000 MB" in refused.stderr
    assert not run.exists()
