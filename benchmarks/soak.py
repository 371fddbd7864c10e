"""Forecasts and scores made over and over for half an hour while their processes are killed at random: nothing may grow.

One process runs the stages `forecast` and `evaluate` of a run again and again, as a service that forecasts every few hours
would, and in half of the rounds the stage at work is killed (SIGKILL, now and then SIGTERM) at a random time. Every round
must end with the forecast and scores of an undisturbed run, byte for byte. Memory and open files of the process, and the
files that lie in the run's folder, are noted after every round; the rows compare the medians of the last third with those
of the first.

    python benchmarks/soak.py --minutes 30
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from common import main, row
from rich.console import Console

from dags import local
from dags.schedule import Patience
from dags.state import State
from pipeline.config import Config
from pipeline.config_files import load_config

_STAGES = ("forecast", "evaluate")
_KILLED, _STOPPED = 0.4, 0.1
"""Share of rounds in which a stage is killed, and in which it is told to stop."""
_MEMORY_BAR, _FILES_BAR = 1.05, 1.0


@dataclass(frozen=True)
class Sample:
    """What the process held after a round: resident memory, MB, open files, threads, and files of the run."""

    memory: float
    descriptors: int
    threads: int
    files: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of the soak.

    Raises:
        RuntimeError: a round did not end, or not with the results of an undisturbed run.
    """
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config("tiny", ["execution.share_results=false"])
        directory = Path(folder) / "runs" / config.name
        _round(config, directory, force=[])
        began = time.monotonic()
        _round(config, directory, force=["forecast"])
        usual, expected = time.monotonic() - began, _digests(directory)
        samples, kills, latest = [_sample(directory)], 0, time.monotonic()
        deadline = latest + 60.0 * arguments.minutes
        while (now := time.monotonic()) < deadline:
            drawn = chance.random()
            number = signal.SIGKILL if drawn < _KILLED else signal.SIGTERM if drawn < _KILLED + _STOPPED else None
            kills += _disturbed_round(config, directory, number, chance.uniform(0.0, usual))
            found = _digests(directory)
            if other := [name for name in {**expected, **found} if found.get(name) != expected.get(name)]:
                raise RuntimeError(
                    f"round {len(samples)} ended with other results than an undisturbed run: {other[:5]}"
                )
            samples.append(_sample(directory))
            if now > latest + 60.0:
                latest = now
                print(f"{(now - deadline) / 60 + arguments.minutes:5.1f} min, {kills} kills, {samples[-1]}", flush=True)
    third = max(1, len(samples) // 3)

    def grown(name: str, unit: str, bar: float) -> dict:
        early, late = (
            statistics.median(getattr(sample, name) for sample in part) for part in (samples[:third], samples[-third:])
        )
        return row(f"{name}, last third over first", late, unit, early, bar)

    return [
        row("rounds", len(samples) - 1, "", None),
        row("stages killed or stopped", kills, "", None),
        grown("memory", "MB", _MEMORY_BAR),
        grown("descriptors", "", _FILES_BAR),
        grown("threads", "", _FILES_BAR),
        grown("files", "", _FILES_BAR),
    ]


def _disturbed_round(config: Config, directory: Path, number: int | None, after: float) -> int:
    """Run the stages anew, send a signal to the one at work after a while, go on until all is done; return the kills."""
    if number is None:
        _round(config, directory, force=["forecast"])
        return 0
    killer = _Killer(directory, number, after)
    killer.start()
    try:
        status = _run(config, directory, ["forecast"])
    finally:
        killer.cancel()
        killer.join()
    if status != 0:
        _round(config, directory, force=[])
    return killer.sent


class _Killer(threading.Timer):
    """Sends a signal to the stage that is at work after some seconds."""

    def __init__(self, directory: Path, number: int, after: float) -> None:
        super().__init__(after, self._send)
        self._directory, self._number, self.sent = directory, number, 0

    def _send(self) -> None:
        for entry in State(self._directory).stages.values():
            if entry.get("state") == "running" and entry.get("pid"):
                try:
                    os.killpg(entry["pid"], self._number)
                    self.sent += 1
                except ProcessLookupError:
                    pass


def _round(config: Config, directory: Path, force: list[str]) -> None:
    if status := _run(config, directory, force):
        raise RuntimeError(f"a round ended with status {status}")


def _run(config: Config, directory: Path, force: list[str]) -> int:
    console = Console(file=io.StringIO())
    return local.run(
        config, directory, force=force, until=["evaluate"], patience=Patience(pause=0.1), console=console, jobs=1
    )


def _digests(directory: Path) -> dict[str, str]:
    files = [path for top in ("forecast.zarr", "metrics") for path in (directory / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _sample(directory: Path) -> Sample:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Sample(
        memory=resident / 1e6,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        files=sum(path.is_file() for path in directory.rglob("*")),
    )


if __name__ == "__main__":
    main(measure, __doc__, add_arguments, packages=("jax", "zarr"))
