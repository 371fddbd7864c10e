"""What a configuration would need of devices that are not here: memory, communication, time and cost.

`plan` compiles the training steps and the forecast of a configuration for a TPU slice or for host devices, in a process of
its own (`pipeline.planning.programs`), and adds up what the compiled programs say. Nothing is trained, and no data are read.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.processes.topologies import Topology
from transforms.errors import InputError

__all__ = ["Plan", "ProgramPlan", "StagePlan", "assemble", "plan"]

_HEADROOM = 0.95
"""Share of the memory that a suggestion fills at most: the runtime keeps some for itself."""

NEWS = "plan: "
"""How the compiling process begins the lines that are for the user."""

_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    # Compiling needs no chip, so several processes may do it at a time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class ProgramPlan:
    """One compiled program, per device.

    Attributes:
        name: what it does.
        batch: windows or initial times over all devices.
        steps: model steps of its rollout.
        memory: bytes by kind; ``total`` is what the device must hold at once. Empty where the compiler gave up.
        needed: bytes in all.
        operations: multiplications and additions of matrix products.
        traffic: bytes to and from main memory.
        collectives: kind, count, size of one in bytes, devices in a group, and seconds of all.
        seconds: time of one call.
        seconds_from: how it was found: ``cycles`` (the compiler's estimate of every instruction, times trip counts, plus
            collectives by links) or ``roofline`` (operations and traffic at the device's peak rates).
        optimal_seconds: the compiler's own sum, as given; it counts bodies of loops once and may be negative.
        compile_seconds: what compiling took here.
    """

    name: str
    batch: int
    steps: int
    memory: dict[str, float]
    needed: float
    operations: float = 0.0
    traffic: float = 0.0
    collectives: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    seconds_from: str | None = None
    optimal_seconds: float | None = None
    compile_seconds: float = 0.0


@dataclass(frozen=True)
class StagePlan:
    """One stage of the curriculum: time of an update, and of all; `compiled` tells a program from an estimate."""

    steps: int
    updates: int
    seconds: float
    compiled: bool

    @property
    def days(self) -> float:
        """Time of all updates of the stage."""
        return self.seconds * self.updates / 86400.0


@dataclass(frozen=True)
class Plan:
    """What `plan` found out.

    Attributes:
        target: the slice, or ``N host devices``.
        mesh: devices along ``data`` and ``sphere``.
        memory: bytes that a device has; None for host devices, which share the host's.
        stages: empty where no time is known.
        suggestions: batches and meshes that fit.
        notes: what was assumed, and where the compiler's figures are not usable.
    """

    config: str
    target: str
    devices: int
    mesh: dict[str, int]
    memory: float | None
    peak: float
    programs: list[ProgramPlan]
    stages: list[StagePlan]
    suggestions: list[str]
    notes: list[str]

    @property
    def fits(self) -> bool:
        """Whether every program fits a device's memory."""
        return self.memory is None or all(program.needed <= self.memory for program in self.programs)

    @property
    def days(self) -> float | None:
        """Time of the configured training."""
        return sum(stage.days for stage in self.stages) if self.stages else None

    @property
    def chip_hours(self) -> float | None:
        """The same, over all devices."""
        return None if self.days is None else self.days * 24.0 * self.devices

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, as ``--json`` writes it."""
        value = asdict(self)
        for stage, given in zip(value["stages"], self.stages, strict=True):
            stage |= {"days": given.days}
        return value | {"fits": self.fits, "days": self.days, "chip_hours": self.chip_hours}


def plan(
    config: Config,
    *,
    topology: str | None = None,
    devices: int | None = None,
    sphere: int | None = None,
    batch: int | None = None,
    every_stage: bool = False,
    forecast: bool = True,
    keep_programs: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Compile a configuration's programs for devices that are not here and say what they need.

    The longest stage is compiled, and the one of a single step, which recomputes nothing; stages between are estimated
    from the longest by their steps.

    Args:
        topology: a TPU slice, ``v4:2x4x4``; needs the extra ``tpu``, but no TPU.
        devices: plan for so many host devices instead.
        sphere: devices that share a sphere; by default the configuration's, or more where the batch does not divide.
        batch: windows of an update over all devices; the configuration's by default.
        every_stage: compile every stage.
        forecast: compile the forecast, too.
        keep_programs: folder to write the compiled programs to.
        report: is told what is being compiled, which may take minutes each.

    Raises:
        InputError: neither or both of `topology` and `devices`, a split that does not divide, or no TPU compiler.
    """
    if (topology is None) == (devices is None):
        raise InputError("plan: give either --topology, e.g. v4:2x4x4, or --devices, e.g. 8.")
    slice_ = None if topology is None else Topology.parse(topology)
    count = slice_.chips if slice_ is not None else devices or 0
    if count < 1:
        raise InputError(f"devices: got {count}, expected at least 1.")
    batch = batch or config.training.batch_size
    shared, notes = _split(config, count, batch, sphere)
    lengths = sorted({stage.steps for stage in config.training.stages}, reverse=True)
    if not every_stage:
        lengths = [lengths[0], *([1] if lengths[0] > 1 and lengths[-1] == 1 else [])]
    programs = [{"kind": "train", "batch": batch, "steps": steps} for steps in lengths]
    if forecast:
        share = count // shared
        together = -(-config.forecast.batch_size // share) * share
        direct = [lead for lead in config.model.leads_hours if lead <= config.forecast.lead_hours]
        steps = len(direct) or config.forecast.lead_hours // config.data.time_step_hours
        programs.append({"kind": "forecast", "batch": together, "steps": steps})
    if keep_programs is not None:
        keep_programs.mkdir(parents=True, exist_ok=True)
        for program in programs:
            name = f"{program['kind']}-{program['steps']}.hlo.txt"
            program["text"] = str(keep_programs.resolve() / name)
    request = {
        "config": config.shown(),
        "topology": None if slice_ is None else str(slice_),
        "sphere": shared,
        "programs": programs,
    }
    findings = _compile(request, devices, report)
    return assemble(config, slice_, count, shared, findings, notes)


def assemble(
    config: Config, topology: Topology | None, devices: int, sphere: int, findings: dict[str, Any], notes: list[str]
) -> Plan:
    """Return the plan that findings of `pipeline.planning.programs` amount to."""
    notes = list(notes)
    if topology is None:
        rates = {name: rate / devices for name, rate in findings["host"].items()}
        notes.append(
            f"Host devices share this machine, measured at {rates['peak'] * devices / 1e9:.0f} Gflop/s in matrix products "
            f"and {rates['bandwidth'] * devices / 1e9:.0f} GB/s: times are rooflines, which are never reached."
        )
        memory = None
    else:
        rates = {"peak": topology.chip.peak, "bandwidth": topology.chip.bandwidth}
        memory = topology.chip.hbm
    programs = [_program(found, topology, rates) for found in findings["programs"]]
    stages = _stages(config, findings["programs"], programs, topology, rates)
    if topology is not None:
        notes += _compiler_notes(findings["programs"])
    mesh = {"data": devices // sphere, "sphere": sphere}
    suggestions = [] if memory is None else _suggestions(config, programs, devices, sphere, memory)
    target = str(topology) if topology is not None else f"{devices} host devices"
    return Plan(config.name, target, devices, mesh, memory, rates["peak"], programs, stages, suggestions, notes)


def _split(config: Config, devices: int, batch: int, sphere: int | None) -> tuple[int, list[str]]:
    """Return how many devices share a sphere, and what is to be said of it."""
    parts = config.training.accumulate or 1
    together, chosen = batch // parts, sphere or config.training.sphere
    if batch % parts:
        raise InputError(f"batch: got {batch}, expected a multiple of training.accumulate, {parts}.")
    notes = []
    if sphere is None and devices % chosen == 0 and together % (devices // chosen):
        wanted = devices // math.gcd(devices, together)
        notes.append(
            f"A batch of {together} does not divide over {devices // chosen} devices: {wanted} devices share a sphere. Set "
            f"training.sphere={wanted}, or training.batch_size={devices * parts} for one window a device."
        )
        chosen = wanted
    if devices % chosen:
        raise InputError(f"sphere: got {chosen} for {devices} devices, expected a divisor of their number.")
    if together % (devices // chosen):
        raise InputError(
            f"batch: got {together} for {devices // chosen} shares of the batch ({devices} devices, sphere {chosen}), "
            f"expected a multiple; use --batch {devices // chosen * parts}, or another --sphere."
        )
    if config.data.grid.latitude % chosen:
        raise InputError(
            f"sphere: got {chosen} for {config.data.grid.latitude} latitudes, expected a divisor of them; use a batch of "
            f"which each device gets at least one window, --batch {devices * parts}."
        )
    return chosen, notes


def _compile(request: dict[str, Any], devices: int | None, report: Callable[[str], None]) -> dict[str, Any]:
    """Compile in a process of its own and return its findings."""
    environment = {**os.environ, **_ENVIRONMENT}
    flags = [flag for flag in environment.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    if devices is not None:
        flags.append(f"--xla_force_host_platform_device_count={devices}")
    environment["XLA_FLAGS"] = " ".join(flags)
    with tempfile.TemporaryDirectory(prefix="spherecast-plan-") as folder:
        source, target = Path(folder) / "request.json", Path(folder) / "findings.json"
        source.write_text(json.dumps(request))
        command = [sys.executable, "-m", "pipeline.planning.programs", str(source), str(target)]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            lines = []
            for line in process.stderr or ():
                if line.startswith(NEWS):
                    report(line.removeprefix(NEWS).strip())
                elif line.strip():
                    lines.append(line.rstrip())
        if process.returncode != 0:
            last = lines[-1] if lines else f"left with status {process.returncode}"
            _, refused, message = last.partition("InputError: ")
            if refused:
                raise InputError(message)
            raise RuntimeError("plan: the compiling process failed:\n" + "\n".join(lines[-20:]))
        return json.loads(target.read_text())


def _program(found: dict[str, Any], topology: Topology | None, rates: dict[str, float]) -> ProgramPlan:
    name = f"{found['kind']}, {found['steps']} step{'s' if found['steps'] > 1 else ''}"
    given = {"name": name, "batch": found["batch"], "steps": found["steps"], "compile_seconds": found["seconds"]}
    if "out_of_memory" in found:
        return ProgramPlan(memory=found["parts"], needed=found["out_of_memory"]["needed"], **given)
    memory = found["memory"]
    total = memory["arguments"] + memory["outputs"] - memory["reused"] + memory["temporaries"] + memory["code"]
    activations = min(memory["carried"], memory["temporaries"])
    parts = {
        **found["parts"],
        "activations": activations,
        "temporaries": memory["temporaries"] - activations,
        "outputs": memory["outputs"] - memory["reused"],
        "padding": memory["arguments"] - sum(found["parts"].values()),
        "code": memory["code"],
    }
    collectives = [
        {**each, "seconds": each["count"] * _exchange_seconds(each, topology)} for each in found["collectives"]
    ]
    seconds, source = _seconds(found["total"], collectives, topology, rates)
    return ProgramPlan(
        memory={**parts, "total": total},
        needed=total,
        operations=found["total"]["operations"],
        traffic=found["total"]["traffic"],
        collectives=collectives,
        seconds=seconds,
        seconds_from=source,
        optimal_seconds=found["analysis"]["seconds"],
        **given,
    )


def _seconds(
    total: dict[str, Any], collectives: list[dict[str, Any]], topology: Topology | None, rates: dict[str, float]
) -> tuple[float, str]:
    """Return the time of a call and how it was found; collectives are taken not to overlap with work."""
    moving = total["traffic"] / rates["bandwidth"]
    exchanging = sum(each["seconds"] for each in collectives)
    if topology is not None and total["cycles"] is not None:
        return max(total["cycles"] / topology.chip.clock, moving) + exchanging, "cycles"
    return max(total["operations"] / rates["peak"], moving) + exchanging, "roofline"


def _exchange_seconds(each: dict[str, Any], topology: Topology | None) -> float:
    if topology is None:
        # Host devices exchange through memory, which the traffic counts.
        return 0.0
    kind = each["kind"]
    if kind == "all-reduce":
        return topology.all_reduce_seconds(each["size"], each["group"])
    if kind in ("all-gather", "reduce-scatter"):
        return topology.all_gather_seconds(each["size"], each["group"])
    if "all-to-all" in kind:
        return topology.all_to_all_seconds(each["size"], each["group"])
    return each["size"] / topology.chip.link


def _stages(
    config: Config,
    found: list[dict[str, Any]],
    programs: list[ProgramPlan],
    topology: Topology | None,
    rates: dict[str, float],
) -> list[StagePlan]:
    """Return the stages; those not compiled take the longest's outside of its loops, and its loops by their steps."""
    compiled = {
        program.steps: program
        for each, program in zip(found, programs, strict=True)
        if each["kind"] == "train" and program.seconds is not None
    }
    if not compiled:
        return []
    longest = max(compiled)
    source = next(each for each in found if each["kind"] == "train" and each["steps"] == longest)
    stages = []
    for stage in config.training.stages:
        if stage.steps in compiled:
            stages.append(StagePlan(stage.steps, stage.updates, compiled[stage.steps].seconds or 0.0, True))
            continue
        if longest < stage.steps:
            return []
        # With n trips the loops take total - once = (n - 1) bodies.
        share = (stage.steps - 1) / (longest - 1)
        scaled = {
            key: None if value is None else source["once"][key] + share * (value - source["once"][key])
            for key, value in source["total"].items()
        }
        exchanged = [
            {**each, "seconds": each["seconds"] * (stage.steps / longest if each["count"] >= longest else 1.0)}
            for each in compiled[longest].collectives
        ]
        seconds, _ = _seconds(scaled, exchanged, topology, rates)
        stages.append(StagePlan(stage.steps, stage.updates, seconds, False))
    return stages


def _compiler_notes(found: list[dict[str, Any]]) -> list[str]:
    """Return where the compiler's own sums cannot be used."""
    notes = []
    sums = [(each, each["analysis"]["seconds"]) for each in found if "analysis" in each]
    missing = [f"{each['kind']} {each['steps']}" for each, seconds in sums if seconds is None]
    negative = [f"{each['kind']} {each['steps']} ({seconds:.3g} s)" for each, seconds in sums if (seconds or 0) < 0]
    if negative:
        notes.append(f"The compiler's optimal_seconds is negative, so not used, for: {', '.join(negative)}.")
    if missing:
        notes.append(f"The compiler gives no optimal_seconds for: {', '.join(missing)}.")
    if sums:
        notes.append(
            "Times are the compiler's estimated cycles of every instruction, times trip counts, at the chip's clock (at "
            "least the time to move the bytes), plus collectives at the links' bandwidth, not overlapped."
        )
    unknown = sorted({name for each in found for name in each.get("unknown_loops", [])})
    if unknown:
        notes.append(f"Loops of unknown trip count are counted once: {', '.join(unknown)}.")
    repeated = [
        f"{each['count']:.0f} x {each['size'] / 1e6:.0f} MB"
        for program in found
        if program["kind"] == "train" and program["steps"] > 1
        for each in program.get("collectives", [])
        if each["kind"] == "all-reduce" and each["count"] >= program["steps"] and each["size"] > 1e6
    ]
    if repeated:
        notes.append(
            f"Gradients are summed over devices in every step of the rollout, not once an update: {', '.join(repeated)}."
        )
    return notes


def _suggestions(config: Config, programs: list[ProgramPlan], devices: int, sphere: int, memory: float) -> list[str]:
    """Return batches and meshes estimated to fit, from the longest training program.

    What grows with windows a device is all but parameters, optimiser, average, tables, code and one gradient.
    """
    program = max((each for each in programs if each.name.startswith("train")), key=lambda each: each.steps)
    parts = program.memory
    fixed = sum(parts.get(key, 0) for key in ("optimiser", "average", "tables", "code")) + 2 * parts["parameters"]
    growing = max(program.needed - fixed, 1.0) / (program.batch / devices)
    room = (_HEADROOM * memory - fixed) / growing
    latitudes = config.data.grid.latitude
    if room <= 0:
        return [
            f"Parameters, optimiser and average alone take {fixed / 1e9:.1f} GB of {memory / 1e9:.1f} GB: use fewer "
            "channels, or a chip with more memory."
        ]
    if room >= 1:
        windows = 2 ** int(math.log2(room))
        found = [f"--batch {windows * devices} --sphere 1: {windows} window{'s' if windows > 1 else ''} a device"]
    else:
        found = []
        windows = room
    split = 2
    while split <= devices and 1 / split > room:
        split *= 2
    if devices % split == 0 and latitudes % split == 0:
        found.append(
            f"--batch {devices // split} --sphere {split}: the smallest batch with {split} devices to a sphere"
        )
    mark = "fits" if program.needed <= memory else "does not fit"
    head = f"{program.name}, batch {program.batch}, sphere {sphere} {mark}: {program.needed / 1e9:.1f} of {memory / 1e9:.1f} GB"
    return [head, *(f"estimated to fit: {each} (plan it to be sure)" for each in found)]
