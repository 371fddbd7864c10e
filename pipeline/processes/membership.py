"""Which process of a training this one is: by arguments, the environment, Slurm or Kubernetes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.errors import InputError

__all__ = ["COORDINATOR", "PORT", "PREEMPTED", "PROCESS", "PROCESSES", "Membership", "find_membership"]

COORDINATOR, PROCESSES, PROCESS = "SPHERECAST_COORDINATOR", "SPHERECAST_PROCESSES", "SPHERECAST_PROCESS"
"""Environment variables that stand for the arguments of `find_membership`."""

PORT = 8476
PREEMPTED = 75
"""Exit status (EX_TEMPFAIL) of a training that was told to stop and saved its work; the same command goes on there."""
_PARTS = {
    "coordinator": ("address host:port of process 0, the same for all", "--coordinator", COORDINATOR),
    "processes": ("their number, the same for all", "--processes", PROCESSES),
    "process": ("the number of this one, from 0", "--process", PROCESS),
}


@dataclass(frozen=True)
class Membership:
    """The place of this process among those of one training.

    Attributes:
        process: number of this process, from 0.
        processes: how many there are.
        coordinator: host:port at which process 0 listens; None for a single process.
        devices: local numbers of the devices of this process; None for all that it sees.
        origin: what told.
    """

    process: int = 0
    processes: int = 1
    coordinator: str | None = None
    devices: tuple[int, ...] | None = None
    origin: str = "nothing given"

    def __str__(self) -> str:
        if self.processes == 1:
            return "one process"
        return f"process {self.process} of {self.processes}, coordinator {self.coordinator} ({self.origin})"


def find_membership(
    environment: Mapping[str, str],
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> Membership:
    """Return the place of this process; a single one where nothing says otherwise.

    What is not given comes from SPHERECAST_COORDINATOR, SPHERECAST_PROCESSES and SPHERECAST_PROCESS; failing these,
    from the step of a Slurm job (`srun`), or the completion index of a Kubernetes job, whose number of processes must
    be given.

    Raises:
        InputError: a part is missing, not a number, or out of range.
    """
    given: dict[str, Any] = {"coordinator": coordinator, "processes": processes, "process": process}
    origin = "arguments" if any(value is not None for value in given.values()) else "environment"
    for part, (_, _, variable) in _PARTS.items():
        if given[part] is None and variable in environment:
            text = environment[variable]
            given[part] = text if part == "coordinator" else _number(variable, text)
    if given["processes"] == 1 and not given["process"]:
        return Membership(origin=origin)
    devices = None
    if any(value is None for value in given.values()):
        # A process that was not told its number may be one of several on a host that share the devices out.
        detected = _slurm(environment) or _kubernetes(environment)
        if detected is not None:
            origin, parts, devices = detected
            given = {part: parts[part] if value is None else value for part, value in given.items()}
    if all(value is None for value in given.values()) or (given["processes"] == 1 and not given["process"]):
        return Membership(origin=origin)
    missing = [part for part, value in given.items() if value is None]
    if missing:
        wanted = "; ".join(
            f"{part} ({_PARTS[part][0]}): give {_PARTS[part][1]} or {_PARTS[part][2]}" for part in missing
        )
        known = ", ".join(f"{part} {value}" for part, value in given.items() if value is not None)
        raise InputError(f"training in several processes: got {known} ({origin}), but not {wanted}.")
    _check(given["coordinator"], given["processes"], given["process"])
    return Membership(given["process"], given["processes"], given["coordinator"], devices, origin)


def _slurm(environment: Mapping[str, str]) -> tuple[str, dict, tuple[int, ...] | None] | None:
    """Return what a step of a Slurm job tells; None outside one, thus also in a batch script outside `srun`."""
    try:
        nodes, process = environment["SLURM_STEP_NODELIST"], int(environment["SLURM_PROCID"])
        processes = int(environment["SLURM_STEP_NUM_TASKS"])
        job = int(environment["SLURM_JOB_ID"])
    except (KeyError, ValueError):
        return None
    # Jobs that share a node must not share a port.
    address = f"{_first_node(nodes)}:{20000 + job % 10000}"
    parts = {"coordinator": address, "processes": processes, "process": process}
    return "Slurm", parts, _share_of_devices(environment)


def _first_node(nodes: str) -> str:
    """First host of a Slurm node list such as ``a[03-05,9],b7``."""
    bracket, comma = nodes.find("["), nodes.find(",")
    if bracket < 0 or 0 <= comma < bracket:
        return nodes.split(",", maxsplit=1)[0]
    number = nodes[bracket + 1 :].split("]", maxsplit=1)[0].split(",", maxsplit=1)[0].split("-", maxsplit=1)[0]
    suffix = nodes.split("]", 1)[1].split(",", maxsplit=1)[0]
    return nodes[:bracket] + number + suffix


def _share_of_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """GPUs of this task where all tasks of a node see all of the node's; None where each sees its own, or is alone."""
    if "SLURM_GPUS_PER_TASK" in environment:
        return None
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("ROCR_VISIBLE_DEVICES") or ""
    count = len([entry for entry in visible.split(",") if entry])
    # "2(x3),1": the nodes' numbers of tasks in their order.
    layout = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    tasks = _expand(layout)[int(environment.get("SLURM_NODEID", "0"))] if layout else 1
    if tasks == 1 or count <= 1:
        return None
    if count % tasks:
        raise InputError(
            f"Slurm: {tasks} tasks on this node see {count} GPUs, which cannot be shared out evenly. Ask for one task "
            "per node, or for --gpus-per-task."
        )
    first = int(environment.get("SLURM_LOCALID", "0")) * (count // tasks)
    return tuple(range(first, first + count // tasks))


def _expand(layout: str) -> list[int]:
    counts: list[int] = []
    for entry in layout.split(","):
        number, _, repeats = entry.partition("(x")
        counts += [int(number)] * int(repeats.rstrip(")") or 1)
    return counts


def _kubernetes(environment: Mapping[str, str]) -> tuple[str, dict, None] | None:
    """Return what the pod of an indexed job tells: its index, and the host name of the pod with index 0."""
    index = environment.get("JOB_COMPLETION_INDEX")
    if index is None or not index.isdigit():
        return None
    host, _, domain = environment.get("HOSTNAME", "").partition(".")
    stem, dash, last = host.rpartition("-")
    coordinator = None
    if dash and last == index:
        domain = domain or _own_domain(host)
        coordinator = f"{stem}-0{'.' + domain if domain else ''}:{PORT}"
    return "Kubernetes", {"coordinator": coordinator, "processes": None, "process": int(index)}, None


def _own_domain(host: str) -> str:
    full = socket.getfqdn()
    return full.partition(".")[2] if full.startswith(f"{host}.") else ""


def _number(variable: str, text: str) -> int:
    if not text.strip().isdigit():
        raise InputError(f"{variable}: got {text!r}, expected a whole number.")
    return int(text)


def _check(coordinator: str, processes: int, process: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"coordinator: got {coordinator!r}, expected host:port of process 0, e.g. 10.0.0.2:{PORT}.")
    if processes < 1:
        raise InputError(f"processes: got {processes}, expected 1 or more.")
    if not 0 <= process < processes:
        raise InputError(f"process: got {process} of {processes}, expected 0 to {processes - 1}.")
