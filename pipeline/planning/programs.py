"""Compiling the programs of a configuration for devices that are not here, and reading what the compiler says of them.

Runs in a process of its own (``python -m pipeline.planning.programs``): the number of host devices and the TPU plugin are
fixed when JAX starts. Arguments are abstract; of full size are only the tables of the transforms.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.forecaster import Normalisation
from model.sharding import STATES, WHOLE, make_mesh, present
from model.training import LossWeights, abstract_batch, compiler_options
from pipeline.config import Config
from pipeline.config_files import parse_config
from pipeline.planning.hlo import Program
from pipeline.planning.plan import NEWS
from pipeline.processes.topologies import Topology
from pipeline.states.layout import StateLayout
from pipeline.training.checkpoints import ForecasterSpec
from pipeline.training.curriculum import configured_trainer

__all__ = ["forecast_program", "main", "measure", "specification", "training_program"]

_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm")


def main(source: str, target: str) -> None:
    """Read a request, written by `pipeline.planning.plan`, from a file, and write the findings to another."""
    request = json.loads(Path(source).read_text())
    config = parse_config(request["config"], "plan")
    devices = jax.devices() if request["topology"] is None else Topology.parse(request["topology"]).devices()
    mesh = make_mesh(devices, request["sphere"])
    findings: dict[str, Any] = {"device_kind": devices[0].device_kind, "programs": []}
    if request["topology"] is None:
        findings["host"] = _host_rates()
    spec = specification(config)
    for wanted in request["programs"]:
        steps = f"{wanted['steps']} step{'s' if wanted['steps'] > 1 else ''}"
        print(f"{NEWS}compiling {wanted['kind']}, {steps}, batch {wanted['batch']}", file=sys.stderr, flush=True)
        if wanted["kind"] == "train":
            lowered, parts = training_program(spec, config, mesh, wanted["batch"], wanted["steps"])
        else:
            lowered, parts = forecast_program(spec, config, mesh, wanted["batch"], wanted["steps"])
        found = measure(lowered, text=wanted.get("text"))
        findings["programs"].append({**wanted, "parts": parts, **found})
        Path(target).write_text(json.dumps(findings))


def specification(config: Config) -> ForecasterSpec:
    """Return what a run of `config` would train, with constants that stand for the statistics of its data."""
    layout, grid = StateLayout.of(config), config.data.grid.build()
    names = [*config.data.statics, *(["sin_latitude"] if config.model.latitude else [])]
    count = len(layout.fields)
    constants = Normalisation(np.zeros(count), np.ones(count), np.ones(count))
    fields = np.zeros((len(names), *grid.shape), np.float32)
    return ForecasterSpec(layout, grid, config.data.time_step_hours, config.model, constants, tuple(names), fields)


def training_program(
    spec: ForecasterSpec, config: Config, mesh: Mesh | None, batch: int, steps: int
) -> tuple[jax.stages.Lowered, dict[str, int]]:
    """Return an update lowered for the mesh, and the bytes that each kind of argument takes on a device."""
    settings = config.training
    model = nnx.eval_shape(lambda: spec.build(settings.seed, mesh=mesh))
    stage = next((stage for stage in settings.stages if stage.steps == steps), settings.stages[-1])
    channels, grid = len(spec.layout.fields), spec.grid.shape
    lead = _array((steps,)) if settings.lead_weights else None
    weights = LossWeights(_array(grid[:1]), _array((len(spec.predicted),)), lead)
    trainer = configured_trainer(model, weights, settings, stage, mesh)
    windows = abstract_batch(
        mesh,
        batch_size=batch,
        accumulate=settings.accumulate or 1,
        input_steps=spec.model.input_steps,
        steps=steps,
        channels=channels,
        forcings=spec.forcings.count,
        shape=grid,
    )
    lowered = trainer.lower(windows)
    (state, _, *constants), _ = lowered.args_info
    parts = {
        "parameters": _size(state.params),
        "optimiser": _size(state.opt_state),
        "average": _size(state) - _size(state.params) - _size(state.opt_state),
        "tables": _size(constants),
        "batch": _on_device(windows),
    }
    return lowered, parts


def forecast_program(
    spec: ForecasterSpec, config: Config, mesh: Mesh, batch: int, steps: int
) -> tuple[jax.stages.Lowered, dict[str, int]]:
    """Return a forecast of `steps` from `batch` initial times lowered for the mesh, and the bytes of its arguments."""

    def build() -> Any:
        model = spec.build(config.training.seed, mesh=mesh)
        model.eval()
        return model

    graph, state = nnx.split(nnx.eval_shape(build))
    channels, grid = len(spec.layout.fields), spec.grid.shape
    state = _placed(state, mesh, WHOLE)
    history = _array((batch, spec.model.input_steps, channels, *grid))
    forcings = _array((batch, steps, spec.forcings.count + spec.model.noise, *grid))
    history, forcings = _placed((history, forcings), mesh, STATES)
    parameters = nnx.filter_state(state, nnx.Param)
    parts = {
        "parameters": _on_device(parameters),
        "tables": _on_device(state) - _on_device(parameters),
        "batch": _on_device((history, forcings)),
    }
    rollout = jax.jit(
        lambda state, history, forcings: nnx.merge(graph, state).rollout(history, forcings),
        out_shardings=NamedSharding(mesh, present(mesh, STATES)),
        compiler_options=compiler_options(mesh),
    )
    return rollout.lower(state, history, forcings), parts


def measure(lowered: Any, *, text: str | None = None) -> dict[str, Any]:
    """Compile and return what the compiler and the compiled program say of one device's part.

    Keys: ``seconds`` that compiling took; ``memory`` in bytes; ``once`` and ``total``, operations, traffic, and cycles with
    bodies of loops counted once and as often as they run; ``loops``, trip counts; ``collectives``; ``analysis``, XLA's own sums; or ``out_of_memory``, bytes needed and
    available, where the compiler gives up.

    Args:
        text: file to keep the compiled program in.
    """
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = _OUT_OF_MEMORY.search(str(error))
        if found is None:
            raise
        needed, available = _scaled(found[1], found[2]), _scaled(found[3], found[4])
        return {"seconds": time.perf_counter() - start, "out_of_memory": {"needed": needed, "available": available}}
    seconds, written = time.perf_counter() - start, compiled.as_text()
    if text is not None:
        Path(text).write_text(written)
    memory, analysis = compiled.memory_analysis(), compiled.cost_analysis() or {}
    program = Program.parse(written)
    counts = {
        name: {
            "operations": program.operations(loops=loops),
            "traffic": program.traffic(loops=loops),
            "cycles": program.cycles(loops=loops),
        }
        for name, loops in (("once", False), ("total", True))
    }
    return {
        "seconds": seconds,
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "reused": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
            "carried": program.carried(),
        },
        **counts,
        "loops": program.trip_counts,
        "unknown_loops": program.unknown,
        "collectives": [vars(collective) for collective in program.collectives()],
        "analysis": {
            key: analysis.get(name)
            for key, name in (("operations", "flops"), ("traffic", "bytes accessed"), ("seconds", "optimal_seconds"))
        },
    }


def _placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Return abstract arrays split over a mesh as `spec` says, of those axes that the mesh has."""
    sharding = NamedSharding(mesh, present(mesh, spec))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _size(tree: Any) -> int:
    """Return the bytes of what is whole on every device."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _array(shape: tuple[int, ...]) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _on_device(tree: Any) -> int:
    """Return the bytes that abstract arrays take on each device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _scaled(number: str, prefix: str) -> float:
    return float(number) * 1024.0 ** ("KMGT".index(prefix) + 1)


def _host_rates() -> dict[str, float]:
    """Return what this machine does in a second: operations of a matrix product, and bytes moved, over all cores."""
    size, repeats = 1024, 5
    matrix = jnp.ones((size, size), jnp.float32)
    field = jnp.ones(2**24, jnp.float32)

    def fastest(function: Any, argument: jax.Array) -> float:
        function = jax.jit(function)
        function(argument).block_until_ready()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function(argument).block_until_ready()
            times.append(time.perf_counter() - start)
        return min(times)

    return {
        "peak": 2.0 * size**3 / fastest(lambda a: a @ a, matrix),
        "bandwidth": 2.0 * field.nbytes / fastest(lambda a: a + 1.0, field),
    }


if __name__ == "__main__":
    if sys.platform.startswith("linux"):
        # Compiling takes minutes; it must not outlive whoever asked for it. 1 is PR_SET_PDEATHSIG.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    main(*sys.argv[1:3])
