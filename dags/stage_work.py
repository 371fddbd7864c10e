"""What happens in a stage's own process, whoever started it: the runner, another scheduler or a person."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from dags import processes, sharing
from dags.damage import refuse_damaged
from dags.failures import disk_message, may_pass
from dags.fingerprints import graph
from dags.machine import require_address_space
from dags.plan import expected_of, upstream_faults
from dags.stages import STAGES, Stage
from dags.state import State, holds
from pipeline.processes.membership import find_membership
from pipeline.runs import Run
from pipeline.stages import load
from transforms.errors import InputError

__all__ = ["follow", "work"]

_FOLLOW_SECONDS = 300.0

Function = Callable[[str], Callable[[Run, str, dict[str, str]], None]]


def work(
    name: str,
    directory: Path,
    *,
    force: bool = False,
    stages: dict[str, Stage] = STAGES,
    function: Function = load,
) -> None:
    """Do the work of one stage in this process, unless its artefacts match already or another run has the same.

    Args:
        force: work although the artefacts match.

    Raises:
        InputError: an upstream artefact is missing, damaged or does not match, the stage is worked on already, or a limit
            leaves too little address space.
    """
    require_address_space()
    run = Run.open(directory)
    with contextlib.ExitStack() as stack:
        if not processes.inherited_lock():
            stack.enter_context(processes.hold(directory, shared=True))
            stack.enter_context(processes.hold(directory, f".lock-{name}"))
        nodes = graph(run.config, stages)
        if name not in nodes:
            raise InputError(f"stage {name!r} is not part of this run; its stages are {', '.join(nodes)}.")
        expected = expected_of(run.config, State(directory), stages)
        upstream = [nodes[up] for up in nodes[name].upstream]
        faults = upstream_faults(directory, upstream, expected)
        if faults:
            raise InputError(f"{name}: cannot start, since\n{faults}\nRun `spherecast run {directory}` to make them.")
        fingerprint = expected[name].fingerprint
        if not force and holds(directory, nodes[name], fingerprint) is None:
            logging.getLogger(__name__).info("%s is up to date", name)
            return
        # Processes that train beside this one have begun already and wait for it.
        if run.config.execution.share_results and not force and find_membership(os.environ).processes == 1:
            stack.enter_context(sharing.making(directory, nodes[name], fingerprint))
            if sharing.take_over(directory, nodes[name], fingerprint):
                return
        refuse_damaged(directory, name, upstream, objects=False)
        if not processes.inherited_lock():
            State(directory).forget(name)
        try:
            function(name)(run, fingerprint, expected[name].inputs)
        except Exception as error:
            # What a library says of damaged data seldom names the file.
            _explain_by_damage(error, directory, name, upstream)
            raise


def follow(
    name: str,
    directory: Path,
    *,
    timeout: float = _FOLLOW_SECONDS,
    stages: dict[str, Stage] = STAGES,
    function: Function = load,
) -> None:
    """Do a stage's work beside the process that leads it, which holds the locks, keeps the record and publishes.

    Args:
        timeout: seconds to wait until the leading process has started the stage.

    Raises:
        InputError: it did not start.
    """
    limit = time.monotonic() + timeout
    while True:
        if (directory / "config.yaml").is_file():
            config, state = Run.open(directory).config, State(directory)
            if state.stages.get(name, {}).get("state") == "running":
                break
            if holds(directory, stages[name], expected_of(config, state, stages)[name].fingerprint) is None:
                return
        if time.monotonic() > limit:
            raise InputError(
                f"{directory}: process 0 has not started {name} within {timeout:g} s. All processes need the same "
                "folder of runs, on a file system they share."
            )
        time.sleep(0.5)
    expected = expected_of(config, state, stages)[name]
    function(name)(Run.open(directory), expected.fingerprint, expected.inputs)


def _explain_by_damage(error: Exception, directory: Path, name: str, upstream: list[Stage]) -> None:
    """Raise an error that names what is damaged of the artefacts a stage has failed on, where anything is.

    A full disk, an unreachable server and the like say themselves what they are.
    """
    if disk_message(error, directory) or may_pass(error, directory):
        return
    try:
        refuse_damaged(directory, name, upstream, objects=True)
    except InputError as damaged:
        raise damaged from error
