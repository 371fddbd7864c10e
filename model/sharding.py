"""Running a function on every device of a mesh, on the parts of nodal and modal arrays that lie there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

__all__ = ["DATA_AXIS", "MODAL", "NODAL", "SPHERE_AXIS", "WHOLE", "on_shards", "shards_of"]

DATA_AXIS = "data"
"""Mesh axis over which batches are split."""

SPHERE_AXIS = "sphere"
"""Mesh axis over which nodal latitudes and modal orders are split."""

NODAL = PartitionSpec(None, SPHERE_AXIS, DATA_AXIS)
"""(longitude, latitude, batch, ...)."""

MODAL = PartitionSpec(None, SPHERE_AXIS, None, DATA_AXIS)
"""(part, m, l, batch, ...), m device-major."""

WHOLE = PartitionSpec()
"""The same on all devices."""


def shards_of(mesh: Mesh | None) -> int:
    """Return over how many devices latitudes and orders are split."""
    return 1 if mesh is None else mesh.shape.get(SPHERE_AXIS, 1)


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

    def present(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(axis if axis in mesh.shape else None for axis in spec))

    in_specs, out_specs = jax.tree.map(
        present, (in_specs, out_specs), is_leaf=lambda spec: isinstance(spec, PartitionSpec)
    )
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
