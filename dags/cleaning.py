"""What lies in a folder of runs and no run refers to: found with its size, and removed when asked.

A run refers to the artefacts of its stages, to what an unfinished stage goes on from, to the latest log of each stage,
and to the checkpoints that its configuration keeps or forecasts from. Everything else of Spherecast's making is left
over. Files of any other make are never touched, nor is anything of a run that is worked on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dags import processes
from dags.fingerprints import Expectation, graph
from dags.logs import log_path, older_logs
from dags.plan import expected_of
from dags.sharing import LOCKS, runs_in
from dags.stages import STAGES, Stage
from dags.state import State, holds, size_of
from pipeline.artefacts import DESCRIPTION_FILE
from pipeline.config import Config
from pipeline.runs import Run
from transforms.errors import InputError

__all__ = ["Leftover", "Survey", "remove", "survey"]

_WORK = (".partial-", ".sums-")
"""Prefixes of what stages build; `pipeline.artefacts` and `pipeline.climatology` give them."""
_RETIRED = ".retired-"
_CHECKPOINTS = "checkpoints"
_RECORDS = ("state.json", "config.yaml")


@dataclass(frozen=True)
class Leftover:
    """A file or folder that no run refers to.

    Attributes:
        run: the run it belongs to, or the folder of runs.
        path: where it is.
        size: bytes.
        reason: why no run refers to it.
    """

    run: Path
    path: Path
    size: int
    reason: str


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        passed_over: runs that were not looked at, each with the reason.
    """

    leftovers: list[Leftover]
    passed_over: list[tuple[Path, str]]


def survey(folder: Path, stages: dict[str, Stage] = STAGES) -> Survey:
    """Look through a folder of runs, or a single run.

    Raises:
        InputError: nothing is there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give the folder of runs, as for --runs-dir, or a run.")
    found: list[Leftover] = []
    passed_over = []
    alone = (folder / "config.yaml").is_file()
    for directory in [folder] if alone else runs_in(folder):
        try:
            if processes.in_use(directory):
                raise InputError("in use")
            found += _of_run(directory, stages)
        except InputError as error:
            passed_over.append((directory, str(error).splitlines()[0]))
    if not alone:
        found += _of_folder(folder)
    return Survey(found, passed_over)


def remove(folder: Path, stages: dict[str, Stage] = STAGES) -> Survey:
    """Remove what no run refers to; return what was removed and which runs were passed over.

    Each run is locked meanwhile and looked through again, so that nothing is removed that came into use.
    """
    before = survey(folder, stages)
    removed, passed_over = [], list(before.passed_over)
    for directory in dict.fromkeys(leftover.run for leftover in before.leftovers):
        try:
            if directory == folder and not (folder / "config.yaml").is_file():
                removed += [leftover for leftover in _of_folder(folder) if _remove_unheld(leftover.path)]
                continue
            with processes.hold(directory):
                leftovers = _of_run(directory, stages)
                for leftover in leftovers:
                    _remove(leftover.path)
                _forget_checkpoints(directory, leftovers)
                removed += leftovers
        except InputError as error:
            passed_over.append((directory, str(error).splitlines()[0]))
    return Survey(removed, passed_over)


def _of_run(directory: Path, stages: dict[str, Stage]) -> list[Leftover]:
    config = Run.open(directory).config
    nodes = graph(config, stages)
    try:
        expected = expected_of(config, State(directory), stages)
    except InputError:  # The source is away: what is unfinished may be wanted.
        expected = {}
    found = [(path, reason) for path, reason in _unfinished(directory, nodes, expected)]
    for name, stage in stages.items():
        if name not in nodes:
            paths = [*(directory / artefact for artefact in stage.artefacts), log_path(directory, name)]
            found += [(path, "no stage of this run makes it") for path in paths if path.exists()]
        found += [(path, "an older log") for path in older_logs(log_path(directory, name))]
    found += [(path, reason) for path, reason in _checkpoints(directory / _CHECKPOINTS, config)]
    return [Leftover(directory, path, size_of(path), reason) for path, reason in found]


def _unfinished(
    directory: Path, nodes: dict[str, Stage], expected: dict[str, Expectation]
) -> Iterator[tuple[Path, str]]:
    """Yield what stages were building or replacing and will not go on with."""
    makers = {directory / artefact: stage for stage in nodes.values() for artefact in stage.artefacts}
    for record in _RECORDS:
        partial = directory / f"{_WORK[0]}{record}"
        if partial.exists():
            yield partial, "a write that was cut off"
    for folder in {directory, *(artefact.parent for artefact in makers)}:
        for path in sorted(folder.glob(".*")) if folder.is_dir() else ():
            prefix = next((prefix for prefix in (*_WORK, _RETIRED) if path.name.startswith(prefix)), None)
            if prefix is None or path.name.removeprefix(prefix) in _RECORDS:
                continue
            final = path.with_name(path.name.removeprefix(prefix))
            stage = makers.get(final)
            if stage is None:
                known = {artefact for each in STAGES.values() for artefact in each.artefacts}
                if str(final.relative_to(directory)) in known:
                    yield path, "no stage of this run goes on from it"
            elif prefix == _RETIRED:
                if final.exists():
                    yield path, f"{final.name} has replaced it"
            elif stage.name in expected and holds(directory, stage, expected[stage.name].fingerprint) is None:
                yield path, f"{final.name} is finished"


def _checkpoints(folder: Path, config: Config) -> Iterator[tuple[Path, str]]:
    """Yield the checkpoints of a finished training that the configuration neither keeps nor forecasts from."""
    if not (folder / DESCRIPTION_FILE).is_file():
        return
    for path in sorted(folder.glob("*.orbax-checkpoint-tmp*")):
        yield path, "a checkpoint that was cut off"
    updates = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    training = config.training
    ranked = sorted((score, update) for update in updates if (score := _score(folder / str(update))) is not None)
    kept = set(updates[-training.keep_checkpoints :])
    kept |= {update for update in updates if training.keep_every and update % training.keep_every == 0}
    # `best` may be asked for on any command line, so that one stays in any case.
    kept |= {update for _, update in ranked[-max(1, training.keep_best) :]}
    kept |= {which for which in config.forecast.checkpoints if isinstance(which, int)}
    for update in updates:
        if update not in kept:
            yield folder / str(update), "neither kept by training.keep_* nor in forecast.checkpoints"


def _score(checkpoint: Path) -> tuple[float, float] | None:
    """Return what orders checkpoints, the best last, as `pipeline.training.checkpoints` does; None without a score."""
    try:
        metrics = json.loads((checkpoint / "metrics" / "metrics").read_text())
        return metrics["stage"], -metrics["loss"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget_checkpoints(directory: Path, removed: list[Leftover]) -> None:
    """Take removed parts of artefacts out of the run's record, against which `spherecast doctor` compares."""
    state = State(directory)
    for leftover in removed:
        for entry in state.stages.values():
            for artefact, sums in (entry.get("checksums") or {}).items():
                if leftover.path.parent == directory / artefact:
                    sums.pop(leftover.path.name, None)
    state.save()


def _of_folder(folder: Path) -> list[Leftover]:
    """Return what is left over beside the runs."""
    locks = folder / LOCKS
    return [
        Leftover(folder, path, path.stat().st_size, "a lock that nobody holds")
        for path in (sorted(locks.iterdir()) if locks.is_dir() else [])
        if not _is_held(path)
    ]


def _is_held(lock: Path) -> bool:
    with contextlib.suppress(OSError), lock.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove_unheld(lock: Path) -> bool:
    """Remove a lock unless somebody has taken it; return whether it is gone. See `dags.sharing` for who waits for it."""
    with contextlib.suppress(OSError), lock.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        lock.unlink()
        return True
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
