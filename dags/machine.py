"""What this machine has for stages: cores and memory that this process may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pipeline.config import Config

__all__ = ["available_memory", "cores", "default_jobs"]

_STAGE_BYTES = 1_000_000_000
"""Memory of a stage's process beside the data it may hold: its libraries, and what they compile."""


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
