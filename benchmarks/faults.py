"""Fault drills on the real stages of the configuration `tiny`: what is struck, what the user sees, whether all is well after.

Each drill takes a copy of a complete run, removes the results of one stage or damages one, strikes while the stage works, and
gives the same command until it has done all. It passes when that command, given once more, has nothing to do, no checksum
disagrees and every published file equals that of the undisturbed run; the report, which tells when stages worked, may differ.
tests/faults/ drills the runner in every stage with stages that take no time; this takes a minute a drill.

    python benchmarks/faults.py --stages regrid,train --faults kill-stage,flip
    python benchmarks/faults.py --run runs/tiny --json faults.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import main, row

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from damages import DAMAGES, struck  # noqa: E402  These lie beside this folder.
from run_contents import differences  # noqa: E402

from dags.stages import STAGES  # noqa: E402
from dags.verifying import verify_run  # noqa: E402

_PATIENCE = 1200.0
_MORE_MEMORY = 32 << 20
"""Bytes that a stage may still take when its address space is limited."""

_LOADED = 1_000_000_000
"""Bytes of address space of a stage that has loaded its libraries: OpenBLAS spins for ever when it loads without memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--run", type=Path, help="a complete run of `tiny`, which is only read; made when not given")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages, separated by commas; all by default")
    parser.add_argument("--faults", default=",".join(FAULTS), help="faults, separated by commas; all by default")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return a row for each drill: 1 where it passed, beside 1."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = arguments.run
        if undisturbed is None:
            undisturbed = Path(folder, "undisturbed", "tiny")
            subprocess.run(_command(undisturbed), check=True)
        for fault in arguments.faults.split(","):
            for stage in arguments.stages.split(","):
                directory = Path(folder, f"{fault}-{stage}", "tiny")
                shutil.copytree(undisturbed, directory)
                started = time.monotonic()
                said, faults = _drill(FAULTS[fault], stage, directory, undisturbed)
                seconds = time.monotonic() - started
                print(f"{fault}, {stage} ({seconds:.0f} s): {'; '.join(faults) or 'recovered'}", flush=True)
                print("".join(f"    {line}\n" for line in said.splitlines() if line.strip()), end="", flush=True)
                rows.append(row(f"{fault}, {stage}", float(not faults), "recovered", 1.0))
                shutil.rmtree(directory.parent)
    return rows


Strike = Callable[[str, Path], "contextlib.AbstractContextManager[str]"]
"""Strikes a stage of the run in a directory; yields what the user saw, with the means to finish in place."""


def _drill(strike: Strike, stage: str, directory: Path, undisturbed: Path) -> tuple[str, list[str]]:
    """Return what the user saw, and what is wrong in the end."""
    with strike(stage, directory) as said:
        finished = subprocess.run(_command(directory), capture_output=True, text=True)
        if finished.returncode:
            return said, [f"the same command ended with {finished.returncode}: {finished.stderr[-800:]}"]
        if not said:
            said = "\n".join(line for line in finished.stderr.splitlines() if not line.startswith("Report"))
        again = subprocess.run(_command(directory), capture_output=True, text=True)
        wrong = [] if "Nothing to do" in again.stderr else ["there was something left to do"]
        wrong += [f"{each.name}: {each.found}" for each in verify_run(directory) if each.level == "fault"]
        wrong += [f"{name} differs" for name in differences(directory, undisturbed) if name != "report.html"]
    return said, wrong


@contextlib.contextmanager
def _signalled(stage: str, directory: Path, *, number: int, whom: tuple[str, ...]) -> Iterator[str]:
    """Send a signal to the stage, the runner, or both."""
    _undo(stage, directory)
    with _at_work(stage, directory) as (runner, pid):
        for target in whom:
            os.kill(pid if target == "stage" else runner.pid, number)
    yield runner.said


@contextlib.contextmanager
def _without_memory(stage: str, directory: Path) -> Iterator[str]:
    """Let the stage have hardly more address space than it has."""
    _undo(stage, directory)
    with _at_work(stage, directory) as (runner, pid):
        while (taken := _address_space(pid)) < _LOADED and Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
        bound = taken + _MORE_MEMORY
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, (bound, bound))
    yield runner.said


@contextlib.contextmanager
def _on_a_full_disk(stage: str, directory: Path) -> Iterator[str]:
    """Put the run on a disk that has room for half of what the stage writes."""
    kept, room = directory.rename(directory.with_name("kept")), sum(map(_size, _files(directory.with_name("kept"))))
    written = sum(_size(path) for name in STAGES[stage].artefacts for path in _files(kept / name))
    directory.mkdir()
    size = f"size={room + room // 4 + (1 << 22)}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(directory)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(directory)], check=True)
        _undo(stage, directory)
        free = shutil.disk_usage(directory).free
        (directory / "logs" / "ballast").write_bytes(bytes(max(0, free - written // 2)))
        failed = subprocess.run(_command(directory), capture_output=True, text=True)
        (directory / "logs" / "ballast").unlink()
        yield failed.stderr if failed.returncode else "there was room enough"
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextlib.contextmanager
def _damaged(stage: str, directory: Path, *, damage: str) -> Iterator[str]:
    """Damage the stage's first result."""
    artefact = directory / STAGES[stage].artefacts[0]
    DAMAGES[damage](struck(artefact, damage))
    (fault,) = (finding for finding in verify_run(directory) if finding.level == "fault" and finding.name == stage)
    assert artefact.name in fault.found
    yield ""


def _both(number: int, *whom: str) -> Strike:
    return lambda stage, directory: _signalled(stage, directory, number=number, whom=whom)


def _with(damage: str) -> Strike:
    return lambda stage, directory: _damaged(stage, directory, damage=damage)


FAULTS: dict[str, Strike] = {
    "kill-stage": _both(signal.SIGKILL, "stage"),
    "term-stage": _both(signal.SIGTERM, "stage"),
    "kill-runner": _both(signal.SIGKILL, "runner"),
    "term-runner": _both(signal.SIGTERM, "runner"),
    "kill-both": _both(signal.SIGKILL, "runner", "stage"),
    "term-both": _both(signal.SIGTERM, "runner", "stage"),
    "full-disk": _on_a_full_disk,
    "memory": _without_memory,
    **{name: _with(name) for name in DAMAGES},
}


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "dags", "run", "tiny", "--runs-dir", str(directory.parent)]


class _AtWork:
    """A runner at work, and what it has said once it has ended."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(_command(directory), stderr=subprocess.PIPE, text=True)
        self.pid, self.said = self._process.pid, ""

    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Wait until it has ended."""
        _, self.said = self._process.communicate(timeout=_PATIENCE)
        self.said += f"ended with status {self._process.returncode}"


@contextlib.contextmanager
def _at_work(stage: str, directory: Path) -> Iterator[tuple[_AtWork, int]]:
    """Yield a runner and the process of the stage, once that works; wait for the runner's end and the stage's."""
    runner, pid = _AtWork(directory), 0
    deadline = time.monotonic() + _PATIENCE
    while not (pid and _is_deep(stage, directory)):
        assert runner.running(), f"{stage} was not seen at work"
        assert time.monotonic() < deadline, f"{stage} does not start"
        time.sleep(0.05)
        pid = _state(directory).get(stage, {}).get("pid") or 0
    yield runner, pid
    runner.end()
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.05)


def _is_deep(stage: str, directory: Path) -> bool:
    """Whether a stage has begun to write; one that writes at its end alone, whether it has begun."""
    places = [(directory / name).with_name(f".partial-{Path(name).name}") for name in STAGES[stage].artefacts]
    places += [directory / f".partial-{Path(STAGES[stage].artefacts[0]).parts[0]}"]
    if stage == "train":
        return any(path.name.isdigit() for place in places for path in place.glob("*"))
    if stage in ("simulate", "regrid", "climatology", "forecast"):
        return any(place.exists() for place in places)
    log = directory / "logs" / f"{stage}.log"
    return time.time() - log.stat().st_mtime > 1.0


def _undo(stage: str, directory: Path) -> None:
    """Remove what a stage has published."""
    for name in STAGES[stage].artefacts:
        path = directory / name
        path = path.parent if path.parent != directory else path
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _address_space(pid: int) -> int:
    """Return the bytes of a process's address space; none of one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _state(directory: Path) -> dict:
    return json.loads((directory / "state.json").read_text())["stages"]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]


def _size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("zarr", "orbax-checkpoint", "netCDF4"))
