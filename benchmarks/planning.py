"""Plans beside what they foretell: memory of a configuration trained on host devices, and scaling over TPU slices.

``memory`` plans a configuration for host devices, then builds and updates it for real on as many, in a process of its own:
bytes that the arrays on a device hold, and the growth of the process's peak memory during an update, which the temporaries
of all devices and the new state account for. ``slices`` compiles a configuration's longest stage for TPU slices, with one
window a chip (no TPU needed, but libtpu and minutes a slice).

    python benchmarks/planning.py memory quickstart --devices 8 --sphere 4
    python benchmarks/planning.py slices keisler22-256 v5e:4x4 v5e:8x8 v5e:16x16
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from common import main, row

from pipeline.config_files import load_config
from pipeline.planning.plan import plan
from pipeline.processes.topologies import Topology

_BAR = 1.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("what", choices=("memory", "slices", "run"))
    parser.add_argument("config")
    parser.add_argument("slices", nargs="*", help="for slices: TPU slices, smallest first")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--sphere", type=int, default=1)
    parser.add_argument("--batch", type=int, help="default: the configuration's")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return the rows of one comparison."""
    if arguments.what == "slices":
        return _slices(arguments)
    config = load_config(arguments.config)
    batch = arguments.batch or config.training.batch_size
    if arguments.what == "run":
        return _run(config, batch, arguments.sphere)
    made = plan(config, devices=arguments.devices, sphere=arguments.sphere, batch=batch, forecast=False)
    planned = made.programs[0].memory
    arrays = sum(planned[key] for key in ("parameters", "optimiser", "average", "tables", "batch"))
    flags = f"--xla_force_host_platform_device_count={arguments.devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, __file__, "run", arguments.config, "--batch", str(batch)]
    command += ["--sphere", str(arguments.sphere), "--json", "/dev/stderr"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = {each["name"]: each["value"] for each in json.loads(result.stderr[result.stderr.index("[") :])}
    growth = (planned["activations"] + planned["temporaries"] + planned["outputs"]) * arguments.devices / 1e6
    return [
        row("arrays on a device, planned / held", arrays / 1e6, "MB", found["held"], _BAR),
        row("temporaries on a device, planned / compiled", growth / arguments.devices, "MB", found["temporary"], _BAR),
        row("temporaries of all devices, planned / growth of peak", growth, "MB", found["growth"], None),
    ]


def _run(config, batch: int, sphere: int) -> list[dict]:
    """Make updates for real and return what they hold."""
    import jax
    import numpy as np
    from flax import nnx

    from model.sharding import make_mesh
    from model.training import Batch, loss_weights, replicated
    from pipeline.config import RolloutStage
    from pipeline.planning.programs import specification, training_program
    from pipeline.training.curriculum import configured_trainer

    mesh = make_mesh(jax.devices(), sphere)
    spec, settings = specification(config), config.training
    steps = max(stage.steps for stage in settings.stages)
    lowered, _ = training_program(spec, config, mesh, batch, steps)
    graph, state = nnx.split(spec.build(0, mesh=mesh))
    model = nnx.merge(graph, replicated(state, mesh))
    weights = replicated(loss_weights(spec.grid.latitude_weights(), np.ones(len(spec.layout.fields))), mesh)
    stage = RolloutStage(steps=steps, updates=10, learning_rate=1e-3)
    trainer = configured_trainer(model, weights, settings, stage, mesh)
    batch_shapes = lowered.args_info[0][1]
    shardings = lowered.compile().input_shardings[0][1]
    generator = np.random.default_rng(0)

    def field(leaf, sharding) -> jax.Array:
        return jax.device_put(generator.normal(size=leaf.shape).astype(np.float32), sharding)

    fields = Batch(*map(field, jax.tree.leaves(batch_shapes), jax.tree.leaves(shardings)))
    compiled = trainer.lower(fields).compile()
    constants = nnx.split(model, nnx.Param, nnx.BatchStat, ...)[3]
    train_state = trainer.init(nnx.state(model, nnx.Param))
    before = _reset_peak()
    train_state, metrics = compiled(train_state, fields, constants, weights)
    jax.block_until_ready((train_state, metrics))
    growth = _memory("VmHWM") - before
    device = jax.devices()[0]
    leaves = [
        leaf for leaf in jax.tree.leaves((train_state, fields, constants, weights)) if isinstance(leaf, jax.Array)
    ]
    held = sum(part.data.nbytes for leaf in leaves for part in leaf.addressable_shards if part.device == device)
    memory = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return [
        row("held", held / 1e6, "MB", None),
        row("temporary", temporary / 1e6, "MB", None),
        row("growth", growth / 1e6, "MB", None),
    ]


def _reset_peak() -> int:
    """Start the kernel's count of peak memory anew and return the memory in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _slices(arguments: argparse.Namespace) -> list[dict]:
    config, rows, first = load_config(arguments.config), [], None
    for name in arguments.slices:
        chips = Topology.parse(name).chips // arguments.sphere
        made = plan(config, topology=name, sphere=arguments.sphere, batch=arguments.batch or chips, forecast=False)
        program = made.programs[0]
        exchanging = sum(each["seconds"] for each in program.collectives)
        first = first or program.seconds
        rows += [
            row(f"{name}: memory of a chip", program.needed / 1e9, "GB", made.memory / 1e9, 1.0),
            row(f"{name}: {program.name}", program.seconds, "s", None),
            row(f"{name}: exchanges", exchanging, "s", None),
            row(f"{name}: weak scaling, time / the first slice's", program.seconds, "s", first, 1 / 0.9),
            row(f"{name}: training", made.days, "days", None),
            row(f"{name}: compiler's optimal_seconds as given", program.optimal_seconds, "s", None),
        ]
    return rows


if __name__ == "__main__":
    main(measure, __doc__, add_arguments)
