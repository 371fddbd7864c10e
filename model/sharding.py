"""Running a function on every device of a mesh, on the parts of nodal and modal arrays that lie there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

__all__ = [
    "DATA_AXIS",
    "MODAL",
    "NODAL",
    "SPHERE_AXIS",
    "STATES",
    "WHOLE",
    "make_mesh",
    "on_shards",
    "platform_of",
    "present",
    "shards_of",
    "shares_of",
]

DATA_AXIS = "data"
"""Mesh axis over which batches are split."""

SPHERE_AXIS = "sphere"
"""Mesh axis over which nodal latitudes and modal orders are split."""

NODAL = PartitionSpec(None, SPHERE_AXIS, DATA_AXIS)
"""(longitude, latitude, batch, ...)."""

MODAL = PartitionSpec(None, SPHERE_AXIS, None, DATA_AXIS)
"""(part, m, l, batch, ...), m device-major."""

STATES = PartitionSpec(DATA_AXIS, None, None, SPHERE_AXIS)
"""(batch, time, channel, latitude, longitude)."""

WHOLE = PartitionSpec()
"""The same on all devices."""


def shards_of(mesh: Mesh | None) -> int:
    """Return over how many devices latitudes and orders are split."""
    return 1 if mesh is None else mesh.shape.get(SPHERE_AXIS, 1)


def make_mesh(devices: Sequence[jax.Device], sphere: int = 1) -> Mesh:
    """Return a mesh of the axes ``data`` and ``sphere`` over all `devices`, those that share a sphere side by side.

    Raises:
        ValueError: the number of devices is not a multiple of `sphere`.
    """
    if sphere < 1 or len(devices) % sphere:
        raise ValueError(f"sphere: got {sphere} for {len(devices)} devices, expected a divisor of their number")
    grid = np.asarray(devices).reshape(len(devices) // sphere, sphere)
    # The compiler places what is not placed by hand.
    return Mesh(grid, (DATA_AXIS, SPHERE_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


def platform_of(mesh: Mesh | None) -> str:
    """Return what programs on a mesh are compiled for (``cpu``, ``gpu``, ``tpu``); without a mesh, for JAX's default.

    The devices of a mesh may be those of a machine that is not here.
    """
    return mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else jax.default_backend()


def present(mesh: Mesh, spec: PartitionSpec) -> PartitionSpec:
    """Return `spec` without the axes that the mesh lacks."""
    return PartitionSpec(*(axis if axis in mesh.shape else None for axis in spec))


def shares_of(mesh: Mesh | None) -> int:
    """Return over how many devices a batch is still to be split, which is one where that has been done."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return 1 if mesh is None or DATA_AXIS in manual else mesh.shape.get(DATA_AXIS, 1)


def on_shards(function: Callable, mesh: Mesh | None, in_specs: tuple, out_specs: Any) -> Callable:
    """Return a function that calls `function` on the parts of its arguments on each device.

    Within it, axes may be merged and permuted freely; left to the compiler, merging a split axis would gather it, and
    batches would be gathered around every all-to-all.

    Args:
        mesh: with axes ``data`` and ``sphere``, or one of them; None leaves the function as it is.
        in_specs, out_specs: how arguments and results are split: trees of partitions, as in `jax.shard_map`.
    """
    if mesh is None:
        return function
    within = jax.sharding.get_abstract_mesh()
    split = frozenset(mesh.shape) - frozenset(within.manual_axes)
    in_specs, out_specs = jax.tree.map(
        lambda spec: PartitionSpec(*(axis if axis in split else None for axis in spec)),
        (in_specs, out_specs),
        is_leaf=lambda spec: isinstance(spec, PartitionSpec),
    )
    if within.manual_axes:
        # Batches are split already; what is left to split is the sphere.
        return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, axis_names=split, check_vma=False)
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
