"""What a stage computes on, for those who ask later what its time was spent with."""

from __future__ import annotations

import collections
import contextlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import jax

__all__ = ["hardware"]


def hardware(devices: Iterable[jax.Device]) -> dict[str, str]:
    """Return ``devices`` (number and kind, of all processes together), ``processor`` and ``memory`` of this host in words.

    Args:
        devices: those that the work is on.
    """
    kinds = collections.Counter("CPU" if each.platform == "cpu" else each.device_kind for each in devices)
    hosts = f" on {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    found = {
        "devices": " and ".join(f"{count} {kind} device{'s' * (count > 1)}" for kind, count in kinds.items()) + hosts
    }
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found["processor"] = f"{_processor()} ({allowed} core{'s' * (allowed > 1)})"
    with contextlib.suppress(OSError, ValueError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{total / 1e9:.0f} GB of memory"
    return found


def _processor() -> str:
    """Return the model of the processor, its architecture where nothing tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.machine() or "unknown processor"
