"""What this machine has for stages: cores and memory that this process may use."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from pipeline.config import Config
from transforms.errors import InputError

__all__ = ["available_memory", "cores", "default_jobs", "require_address_space"]

_STAGE_BYTES = 1_000_000_000
"""Memory of a stage's process beside the data it may hold: its libraries, and what they compile."""

_LEAST_ADDRESS_SPACE = 2_000_000_000
"""Bytes below which libraries hang (OpenBLAS) or abort (XLA) while they load, in place of raising an error."""


def cores() -> int:
    """Return the cores this process may run on, by its affinity and its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    return allowed


def available_memory() -> int | None:
    """Return the bytes that can be had without swapping, within the control group's limit; None where no one tells."""
    found = []
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found, default=None)


def default_jobs(config: Config) -> int:
    """Return how many stages may work at once: each wants a core, and memory for itself and the data in flight."""
    memory = available_memory()
    room = cores() if memory is None else memory // (config.execution.memory_mb * 1_000_000 + _STAGE_BYTES)
    return max(1, min(cores(), room))


def require_address_space() -> None:
    """Refuse to work where no message could tell what went wrong.

    Raises:
        InputError: a limit on this process's address space (``ulimit -v``) leaves too little to load the libraries.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise InputError(
            f"ulimit -v: got {limit / 1e6:.0f} MB of address space, expected at least {_LEAST_ADDRESS_SPACE / 1e6:.0f} MB, "
            "which the libraries take while they load. Raise the limit (ulimit -v unlimited), or limit the memory in "
            "use with a control group."
        )
