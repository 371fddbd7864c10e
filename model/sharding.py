"""Running a function on every device of a mesh, on the parts of nodal and modal arrays that lie there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh, PartitionSpec

from model.harmonics import DATA_AXIS, SPHERE_AXIS

__all__ = ["MODAL", "NODAL", "WHOLE", "on_shards", "shards_of"]

NODAL = PartitionSpec(None, SPHERE_AXIS, DATA_AXIS)
"""(longitude, latitude, batch, ...)."""

MODAL = PartitionSpec(None, SPHERE_AXIS, None, DATA_AXIS)
"""(part, m, l, batch, ...), m device-major."""

WHOLE = PartitionSpec()
"""The same on all devices."""


def shards_of(mesh: Mesh | None) -> int:
    """Return over how many devices latitudes and orders are split."""
    return 1 if mesh is None else mesh.shape.get(SPHERE_AXIS, 1)


def on_shards(
    function: Callable, mesh: Mesh | None, in_specs: Sequence[PartitionSpec], out_specs: PartitionSpec
) -> Callable:
    """Return a function that calls `function` on the parts of its arguments on each device, without exchange.

    Within it, axes may be merged and permuted freely; left to the compiler, merging a split axis would gather it.

    Args:
        mesh: with axes ``data`` and ``sphere``, or one of them; None leaves the function as it is.
        in_specs, out_specs: how arguments are split, and every array that is returned.
    """
    if mesh is None:
        return function

    def present(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(axis if axis in mesh.shape else None for axis in spec))

    return jax.shard_map(
        function, mesh=mesh, in_specs=tuple(present(spec) for spec in in_specs), out_specs=present(out_specs)
    )
