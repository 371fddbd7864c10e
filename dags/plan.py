"""Which stages of a run have to work, and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dags.damage import Damage, told, unlike_record
from dags.fingerprints import SOURCE_CONTENTS, Expectation, expectations, graph, source_contents
from dags.stages import STAGES, Stage, ancestors
from dags.state import State, holds
from pipeline.config import Config
from transforms.errors import InputError

__all__ = ["Step", "descendants", "expected_of", "nothing_to_do", "plan", "upstream_faults"]


@dataclass(frozen=True)
class Step:
    """What will be done about one stage.

    Attributes:
        work: whether the stage has to run.
        why: the reason, for a person.
        forced: whether it runs although its artefacts match.
        anew: whether what an earlier attempt left unfinished is thrown away first.
        damages: what is damaged of its artefacts, which are put aside first.
    """

    stage: Stage
    expected: Expectation
    work: bool
    why: str
    forced: bool = False
    anew: bool = False
    damages: tuple[Damage, ...] = ()


def expected_of(config: Config, state: State, stages: dict[str, Stage] = STAGES) -> dict[str, Expectation]:
    """Return what each stage must be made from.

    Once the source has been regridded it may be away: then it is taken to be what the run recorded, which is enough for
    the stages after `regrid`.

    Raises:
        InputError: the source cannot be read and was never recorded.
    """
    try:
        contents = source_contents(config.source)
    except InputError:
        contents = state.parts("regrid").get(SOURCE_CONTENTS)
        recorded = expectations(config, contents, stages)
        if contents is None or recorded["regrid"].parts != state.parts("regrid"):
            raise
        return recorded
    return expectations(config, contents, stages)


def plan(
    config: Config,
    directory: Path,
    *,
    start: str | None = None,
    until: Collection[str] = (),
    force: Collection[str] = (),
    stages: dict[str, Stage] = STAGES,
) -> list[Step]:
    """Return a step for every stage asked for, in running order.

    Args:
        start: leave out all stages but this one and those after it; what they need must be there and match.
        until: leave out the stages that none of these needs; all stages by default.
        force: run these and everything after them although they match.

    Raises:
        InputError: a stage is not known, is not part of this run, or needs what is not there.
    """
    nodes = graph(config, stages)
    for name in [*([start] if start else []), *until, *force]:
        if name not in nodes:
            reason = "does nothing where source.kind is store" if name in stages else "is not known"
            raise InputError(f"stage {name!r} {reason}; the stages of this run are {', '.join(nodes)}.")
    state = State(directory)
    expected = expected_of(config, state, stages)
    chosen = set(nodes)
    if until:
        chosen &= {above for name in until for above in ancestors([name], nodes)}
    if start:
        chosen &= descendants(nodes, [start])
        if not chosen:
            raise InputError(f"nothing to run: {start} does not come before {' or '.join(until)}.")
    outside = {up for name in chosen for up in nodes[name].upstream} - chosen
    needed = [nodes[name] for name in nodes if name in outside]
    faults = upstream_faults(directory, needed, expected)
    faults = faults or told(
        [each for stage in needed for each in _damages(directory, state, stage, expected[stage.name])]
    )
    if faults:
        raise InputError(
            f"{', '.join(name for name in nodes if name in chosen)}: cannot start, since\n{faults}\n"
            f"Run `spherecast run {directory}` to make what is missing."
        )
    for name in force:
        if name not in chosen:
            raise InputError(
                f"--force {name}: not among the stages asked for ({', '.join(n for n in nodes if n in chosen)})."
            )
    forced = descendants(nodes, force) & chosen
    steps = []
    for name in nodes:
        if name in chosen:
            stage, wanted = nodes[name], expected[name]
            why, work = _reason(directory, state, stage, wanted, name in force, name in forced)
            is_forced = work and holds(directory, stage, wanted.fingerprint) is None
            found = () if is_forced or name in force else _damages(directory, state, stage, wanted)
            if found and not work:
                why, work = f"damaged: {found[0]}", True
            steps.append(Step(stage, wanted, work, why, is_forced, name in force, found))
    _check_needs(config, steps)
    return steps


def upstream_faults(directory: Path, upstream: list[Stage], expected: dict[str, Expectation]) -> str:
    """Return one line for each of these stages whose artefacts are missing or do not match, or an empty text."""
    faults = []
    for stage in upstream:
        fault = holds(directory, stage, expected[stage.name].fingerprint)
        if fault:
            faults.append(f"  {stage.name}: {fault}")
    return "\n".join(faults)


def nothing_to_do(directory: Path, name: str, config: Config, stages: dict[str, Stage] = STAGES) -> bool:
    """Whether a stage is not part of a run, or its artefacts match already.

    Raises:
        InputError: the source cannot be read and was never recorded.
    """
    nodes = graph(config, stages)
    if name not in nodes:
        return name in stages
    expected = expected_of(config, State(directory), stages)
    return holds(directory, nodes[name], expected[name].fingerprint) is None


def descendants(nodes: dict[str, Stage], names: Collection[str]) -> set[str]:
    """Return `names` and every stage that runs after one of them; `nodes` are in running order."""
    found = set(names)
    for name, stage in nodes.items():
        if found.intersection(stage.upstream):
            found.add(name)
    return found


def _reason(
    directory: Path, state: State, stage: Stage, expected: Expectation, asked: bool, forced: bool
) -> tuple[str, bool]:
    if asked:
        return "forced", True
    fault = holds(directory, stage, expected.fingerprint)
    if fault is None:
        if forced:
            return "comes after a forced stage", True
        if state.stages.get(stage.name, {}).get("stale"):
            return "comes after a stage that was forced earlier", True
        return "up to date", False
    if "missing" in fault:
        return fault, True
    before = state.parts(stage.name)
    recorded = state.stages.get(stage.name, {})
    if expected.parts.keys() != before.keys():
        return fault, True
    changed = [key for key in expected.parts if expected.parts[key] != before[key]]
    reasons = []
    if SOURCE_CONTENTS in changed:
        changed.remove(SOURCE_CONTENTS)
        reasons.append("the data at source.path changed")
    if changed:
        reasons.append(f"configuration changed: {', '.join(changed)}")
    moved = [up for up, mark in expected.inputs.items() if recorded.get("inputs", {}).get(up) not in (None, mark)]
    if moved:
        reasons.append(f"upstream changed: {', '.join(moved)}")
    return "; ".join(reasons) or fault, True


def _damages(directory: Path, state: State, stage: Stage, expected: Expectation) -> tuple[Damage, ...]:
    """Return what is damaged of the artefacts that `stage` is known to have made as expected."""
    if state.stages.get(stage.name, {}).get("fingerprint") != expected.fingerprint:
        return ()
    if not all((directory / name).exists() for name in stage.artefacts):
        return ()
    return tuple(unlike_record(directory, stage, state))


def _check_needs(config: Config, steps: list[Step]) -> None:
    """Refuse, before hours of work, what a later stage would refuse."""
    for step in steps:
        if step.stage.name == "forecast" and step.work and config.periods.test is None:
            raise InputError(
                "periods.test: not set, and forecasts start from its times. Give periods.train and periods.test, or "
                "stop earlier with `spherecast preprocess` or --until train."
            )
