"""Long rollouts in blocks of steps: one compiled program of a fixed length, its state carried on the devices.

Memory does not grow with the number of steps, and what a block gave is written while the next is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.sharding import DATA_AXIS, WHOLE
from transforms.errors import InputError

__all__ = ["Block", "Program", "block_length", "block_program"]

_BLOCK_BYTES = 16e6
_IN_FLIGHT = 3
"""Blocks at once: one computed, one waiting, one being written."""


@dataclass(frozen=True)
class Block:
    """What a block of steps gives, on the devices.

    Attributes:
        states: the chosen channels, (batch, step, channel, latitude, longitude).
        finite: whether each field of the whole state is finite, (batch, step, channel).
    """

    states: jax.Array
    finite: jax.Array


Program = Callable[[nnx.State, np.ndarray | jax.Array, np.ndarray], tuple[jax.Array, Block]]
"""Takes the arrays of a forecaster, the history and the forcings of a block's steps, and returns the history for the next
block and the block."""


def block_length(steps: int, step_bytes: float, memory: float) -> int:
    """Return how many steps a block has, for `steps` in all: few left over in the last block, but not many blocks.

    Args:
        step_bytes: of the states and forcings of a batch at one step.
        memory: bytes that the blocks in flight may take.

    Raises:
        InputError: there is no room for one of two steps; one step would be another program, with other rounding.
    """
    least = min(2, steps)
    if _IN_FLIGHT * least * step_bytes > memory:
        raise InputError(
            f"memory_mb: {memory / 1e6:.0f} are left for the states of a batch, which take "
            f"{math.ceil(_IN_FLIGHT * least * step_bytes / 1e6)}. Give more, or a smaller batch_size."
        )
    largest = min(steps, max(least, int(min(_BLOCK_BYTES, memory / _IN_FLIGHT) / step_bytes)))
    lengths = range(largest, max(least, math.ceil(largest / 2)) - 1, -1)
    return min(lengths, key=lambda length: -steps % length)


def block_program(graph: nnx.GraphDef, channels: np.ndarray | None, mesh: Mesh | None = None) -> Program:
    """Return the compiled program of a block.

    Its history are the states up to t, ascending in time, (batch, input_steps, channel, latitude, longitude), its
    forcings those of its steps, (batch, step, forcing, latitude, longitude).

    Args:
        graph: of a forecaster built without a mesh.
        channels: of the states that are returned; None for all.
        mesh: devices over which the batch, a multiple of their number, is split. Each works on its share as one device
            does on a batch of that size, and nothing is exchanged.
    """

    def work(state: nnx.State, history: jax.Array, forcings: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        kept = history.shape[1]
        model = nnx.merge(graph, state)
        states = model.rollout(history, forcings)
        if model.roles.direct:
            recent = history
        else:
            recent = states if kept <= states.shape[1] else jnp.concatenate([history, states], axis=1)
        finite = jnp.isfinite(states).all(axis=(3, 4))
        return recent[:, -kept:], states if channels is None else states[:, :, channels], finite

    if mesh is None:
        program, place = jax.jit(work), lambda fields: fields
    else:
        split = PartitionSpec(DATA_AXIS)
        program = jax.jit(
            jax.shard_map(work, mesh=mesh, in_specs=(WHOLE, split, split), out_specs=split, check_vma=False)
        )
        place = partial(jax.device_put, device=NamedSharding(mesh, split))

    def run(state: nnx.State, history: np.ndarray | jax.Array, forcings: np.ndarray) -> tuple[jax.Array, Block]:
        following, states, finite = program(state, place(history), place(forcings))
        return following, Block(states, finite)

    return run
