"""The processes of a training and their devices: who takes part, how they find each other, and the mesh over them all.

A training may span processes: one for each host of a TPU slice, node of a Slurm job, pod of a Kubernetes job, or
several on one machine. Each runs the same command and calls `initialise` before anything touches a device.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh

from model.sharding import make_mesh
from pipeline.processes.membership import COORDINATOR, PROCESS, PROCESSES, Membership, find_membership
from transforms.errors import InputError

__all__ = ["any_process", "barrier", "initialise", "is_lead", "leave", "training_mesh"]


def initialise(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int = 300,
) -> Membership:
    """Join the other processes of this training; do nothing where there is one only, or when called again.

    An argument goes before its environment variable, and both before what Slurm, Kubernetes or a TPU slice tell (see
    `pipeline.processes.membership`). Call it before anything touches a device.

    JAX would keep SIGTERM to itself for a preemption service that Spherecast does not use; it is switched off, so that
    a handler of this program sees the signal.

    Args:
        timeout: seconds to wait for the others.

    Raises:
        InputError: something is missing or contradictory, or process 0 did not answer in time. Where it is others that
            did not come, the process ends with a message and status 2.
    """
    jax.config.update("jax_enable_preemption_service", False)
    if jax.distributed.is_initialized():
        return Membership(jax.process_index(), jax.process_count(), coordinator, None, "joined before")
    told = any(variable in os.environ for variable in (COORDINATOR, PROCESSES, PROCESS))
    if coordinator is None and processes is None and process is None and not told and _on_tpu():
        jax.distributed.initialize(initialization_timeout=timeout)
        return Membership(jax.process_index(), jax.process_count(), "worker 0", None, "TPU")
    found = find_membership(os.environ, coordinator, processes, process)
    if found.processes == 1:
        return found
    advice = f"Check that all {found.processes} processes run and that {found.coordinator} can be reached from all."
    if found.process > 0:
        _await_coordinator(found, timeout, advice)
    with _ending_after(timeout, f"{found}: the others have not all come within {timeout} s. {advice}"):
        jax.distributed.initialize(
            found.coordinator,
            found.processes,
            found.process,
            local_device_ids=found.devices,
            # Its own detection takes one device a process on Slurm, however many the process was given.
            cluster_detection_method="deactivate",
            initialization_timeout=timeout + 60,
        )
    return found


def training_mesh(sphere: int = 1) -> Mesh | None:
    """Return the mesh (`data`, `sphere`) over the devices of all processes, or None where there is one device only.

    Devices that share a sphere are neighbours in the interconnect of a TPU slice, and never in two slices.

    Raises:
        InputError: `sphere` does not divide the number of devices (of each slice, where there are several).
    """
    devices = jax.devices()
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        # Elsewhere than on TPU a slice is only a guess at what is near.
        index = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(index or 0, []).append(device)
    for members in slices.values():
        if sphere < 1 or len(members) % sphere:
            where = " of a slice" if len(slices) > 1 else ""
            raise InputError(
                f"training.sphere: got {sphere} for {len(members)} devices{where}, expected a divisor of their number."
            )
    if len(devices) == 1:
        return None
    ordered = [_neighbours(members, sphere) for _, members in sorted(slices.items())]
    return make_mesh(np.concatenate(ordered).tolist(), sphere)


def is_lead() -> bool:
    """Return whether this process writes logs, progress and records for all; call it after `initialise`."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes have come here; do nothing in a single one.

    It runs on the devices: whatever was started on them must be ready (`jax.block_until_ready`).

    Raises:
        AssertionError: another process waits under another name.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Return, on all processes alike, whether `flag` holds on any; all must call it.

    A signal reaches some processes before others; this makes them stop at the same step. It runs on the devices, like
    `barrier`.
    """
    if jax.process_count() == 1:
        return bool(flag)
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def leave(status: int) -> None:
    """End this process at once with `status`, without the wait for the others that a usual exit begins with.

    A process that failed would keep them, and whoever waits for its status, for minutes. Does nothing in a single one.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _await_coordinator(found: Membership, timeout: float, advice: str) -> None:
    """Wait until process 0 listens.

    Raises:
        InputError: it does not, or its host is unknown.
    """
    host, _, port = str(found.coordinator).rpartition(":")
    limit = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=max(1.0, timeout / 10)).close()
            return
        except OSError as error:
            # A name may become known only when its pod has started.
            if time.monotonic() > limit:
                raise InputError(f"{found}: no answer within {timeout} s ({error}). {advice}") from error
        time.sleep(0.2)


@contextlib.contextmanager
def _ending_after(seconds: float, message: str) -> Iterator[None]:
    """End the process with `message` and status 2 if the block takes longer; JAX would abort with a stack trace."""

    def end() -> None:
        print(message, file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _neighbours(devices: list[jax.Device], sphere: int) -> np.ndarray:
    shape = (len(devices) // sphere, sphere)
    # Elsewhere than on TPU the order of the devices is that of their processes.
    if devices[0].platform != "tpu":
        return np.asarray(devices)
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True).ravel()


def _on_tpu() -> bool:
    """Whether this host has TPU chips that JAX will use."""
    from jax._src import cloud_tpu_init  # Nothing public tells without starting the devices.

    platforms = jax.config.jax_platforms or "tpu"  # type: ignore[attr-defined]  # JAX adds it at run time
    return bool(getattr(cloud_tpu_init, "running_in_cloud_tpu_vm", False)) and "tpu" in platforms.split(",")
