"""Plans: what they say of memory is what running takes, and what does not divide or fit is said so."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config import Config
from pipeline.config_files import load_config
from pipeline.planning.plan import Plan, assemble, plan
from pipeline.planning.tables import print_plan
from pipeline.processes.topologies import Topology
from transforms.errors import InputError

_STAGE = "{{steps: {}, updates: 100, learning_rate: 1.0e-3}}"
TINY = ["training.stages=[{steps: 3, updates: 10, learning_rate: 1.0e-3}]", "forecast.lead_hours=24"]


def main() -> None:
    """On four host devices: compile as a plan does, then train for real, and compare what each device holds."""
    import jax
    import numpy as np
    from flax import nnx
    from jax.sharding import NamedSharding

    from model.sharding import STATES, make_mesh, present
    from model.training import Batch, loss_weights, replicated
    from pipeline.config import RolloutStage
    from pipeline.planning.programs import measure, specification, training_program
    from pipeline.training.curriculum import configured_trainer

    config = load_config("tiny", TINY)
    mesh = make_mesh(jax.devices(), 2)
    spec = specification(config)
    lowered, parts = training_program(spec, config, mesh, 4, 3)
    planned = measure(lowered)
    settings = config.training
    model = spec.build(0, mesh=mesh)
    graph, state = nnx.split(model)
    model = nnx.merge(graph, replicated(state, mesh))
    weights = replicated(loss_weights(spec.grid.latitude_weights(), np.ones(len(spec.layout.fields))), mesh)
    stage = RolloutStage(steps=3, updates=10, learning_rate=1e-3)
    trainer = configured_trainer(model, weights, settings, stage, mesh)
    shapes = [leaf.shape for leaf in jax.tree.leaves(lowered.args_info[0][1])]
    sharding = NamedSharding(mesh, present(mesh, STATES))
    batch = Batch(*(jax.device_put(np.zeros(shape, np.float32), sharding) for shape in shapes))
    trained, metrics = trainer.update(trainer.init(nnx.state(model, nnx.Param)), batch)
    assert float(metrics["loss"]) == 0.0

    def held(tree) -> int:
        device = jax.devices()[0]
        leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
        return sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards if s.device == device)

    constants = nnx.split(model, nnx.Param, nnx.BatchStat, ...)[3]
    live = held((trained, batch, constants, weights))
    assert abs(sum(parts.values()) - live) <= 0.02 * live, (parts, live)
    assert abs(planned["memory"]["arguments"] - live) <= 0.1 * live, (planned["memory"], live)
    ran = trainer.lower(batch).compile().memory_analysis()
    temporaries = planned["memory"]["temporaries"]
    assert abs(temporaries - ran.temp_size_in_bytes) <= 0.1 * ran.temp_size_in_bytes, (temporaries, ran)


@pytest.mark.slow
def test_planned_memory_is_that_of_a_training_that_ran():
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    folder = {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    result = subprocess.run(
        [sys.executable, __file__], env={**os.environ, **settings, **folder}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("tiny", TINY)


def _check(made: Plan, devices: int) -> None:
    """Assert what holds for a plan of TINY for any devices, a sphere split in two."""
    assert made.mesh == {"data": devices // 2, "sphere": 2}
    training, forecast = made.programs
    assert (training.name, forecast.name) == ("train, 3 steps", "forecast, 4 steps")
    for program in made.programs:
        parts = {key: value for key, value in program.memory.items() if key != "total"}
        assert sum(parts.values()) == program.memory["total"] == program.needed > program.memory["parameters"] > 0
        assert program.operations > 0
        assert program.seconds > 0
        assert {each["kind"] for each in program.collectives} <= {"all-to-all", "all-reduce"}
    # AdamW keeps two moments.
    assert training.memory["optimiser"] == pytest.approx(2 * training.memory["parameters"], rel=0.01)
    (stage,) = made.stages
    assert made.days == pytest.approx(10 * training.seconds / 86400)
    assert made.chip_hours == pytest.approx(made.days * 24 * devices)
    assert stage.compiled
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_plan(made, console)
    text = console.export_text()
    assert "train, 3 steps" in text
    assert "all-to-all" in text


def test_plan_for_host_devices(config):
    told = []
    made = plan(config, devices=4, sphere=2, report=told.append)
    assert told == ["compiling train, 3 steps, batch 4", "compiling forecast, 4 steps, batch 4"]
    _check(made, 4)
    assert made.memory is None
    assert made.programs[0].seconds_from == "roofline"
    assert made.to_dict()["programs"][0]["memory"]["total"] == made.programs[0].needed


@pytest.mark.slow
def test_gradients_are_summed_once_an_update(config):
    made = plan(config, devices=4, forecast=False).programs[0]
    assert made.steps == 3
    sums = [each for each in made.collectives if each["kind"] == "all-reduce" and each["size"] > 1000]
    assert [each["count"] for each in sums] == [1]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed (pip install '.[tpu]')"
)
def test_plan_for_a_tpu_slice_that_is_not_here(config):
    made = plan(config, topology="v5e:2x2", sphere=2)
    _check(made, 4)
    assert made.fits
    assert made.memory == 16e9
    assert made.programs[0].seconds_from == "cycles"


def test_batch_that_does_not_divide_lets_devices_share_a_sphere(config, monkeypatch):
    requests = []
    monkeypatch.setattr("pipeline.planning.plan._compile", lambda request, *_: requests.append(request) or _findings())
    made = plan(config, topology="v4:2x2x2")
    assert made.mesh == {"data": 4, "sphere": 2}
    assert any("training.sphere=2" in note for note in made.notes)
    assert [(each["kind"], each["batch"]) for each in requests[0]["programs"]] == [("train", 4), ("forecast", 4)]


def test_the_longest_stage_and_the_single_step_are_compiled_or_every_stage(config, monkeypatch):
    requests = []
    monkeypatch.setattr("pipeline.planning.plan._compile", lambda request, *_: requests.append(request) or _findings())
    config = load_config("tiny", [f"training.stages=[{', '.join(_STAGE.format(steps) for steps in (1, 2, 3))}]"])
    for every_stage in (False, True):
        plan(config, topology="v4:2x2x2", every_stage=every_stage, forecast=False)
    compiled = [[program["steps"] for program in request["programs"]] for request in requests]
    assert compiled == [[3, 1], [3, 2, 1]]


def test_a_direct_forecast_has_a_call_for_every_lead(monkeypatch):
    requests = []
    monkeypatch.setattr("pipeline.planning.plan._compile", lambda request, *_: requests.append(request) or _findings())
    overrides = [f"training.stages=[{_STAGE.format(1)}]", "model.leads_hours=[24, 72, 240]"]
    plan(load_config("tiny", overrides), topology="v4:2x2x2")
    # Leads past forecast.lead_hours, 120, are not forecast.
    assert [program["steps"] for program in requests[0]["programs"] if program["kind"] == "forecast"] == [2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"devices": 8, "sphere": 1}, "--batch 8"),
        ({"devices": 6, "sphere": 4}, "divisor of their number"),
        ({"devices": 12, "sphere": 6, "batch": 4}, "latitudes"),
        ({}, "either --topology"),
        ({"devices": 8, "topology": "v4:2x2x2"}, "either --topology"),
        ({"devices": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(config, arguments, reason):
    with pytest.raises(InputError, match=reason):
        plan(config, **arguments)


def test_stages_between_are_estimated_by_their_steps(config):
    stages = [{"steps": steps, "updates": 100, "learning_rate": 1e-3} for steps in (1, 2, 3)]
    config = Config.model_validate(
        config.model_dump() | {"training": config.training.model_dump() | {"stages": stages}}
    )
    made = assemble(config, Topology.parse("v4:2x2x2"), 8, 2, _findings(), [])
    single, double, triple = made.stages
    assert [stage.compiled for stage in made.stages] == [False, False, True]
    # One step outside of the loop takes 1e6 cycles and each within it 1e9.
    clock = Topology.parse("v4:2x2x2").chip.clock
    assert triple.seconds == pytest.approx(3.001e9 / clock, rel=1e-6)
    assert double.seconds == pytest.approx(2.001e9 / clock, rel=1e-6)
    assert single.seconds == pytest.approx(1.001e9 / clock, rel=1e-6)


def test_negative_estimates_of_the_compiler_are_named_and_not_used(config):
    made = assemble(config, Topology.parse("v4:2x2x2"), 8, 2, _findings(seconds=-3.0), [])
    assert any("optimal_seconds is negative" in note for note in made.notes)
    assert made.programs[0].seconds > 0


def test_what_does_not_fit_gets_a_suggestion(config):
    found = _findings()
    (program,) = found["programs"]
    found["programs"] = [
        {key: program[key] for key in ("kind", "batch", "steps", "parts", "seconds")}
        | {"out_of_memory": {"needed": 60e9, "available": 32e9}}
    ]
    made = assemble(config, Topology.parse("v4:2x2x2"), 8, 1, found, [])
    assert not made.fits
    assert made.stages == []
    assert "does not fit" in made.suggestions[0]
    assert any("--sphere" in line for line in made.suggestions[1:])


def _findings(seconds: float | None = 1.0) -> dict:
    """What compiling one training of three steps might find."""
    counts = {"operations": 1e12, "traffic": 1e9, "cycles": 1.001e9}
    return {
        "device_kind": "TPU v4",
        "programs": [
            {
                "kind": "train",
                "batch": 4,
                "steps": 3,
                "seconds": 1.0,
                "parts": {
                    "parameters": 10**9,
                    "optimiser": 2 * 10**9,
                    "average": 10**9,
                    "tables": 10**7,
                    "batch": 10**8,
                },
                "memory": {
                    "arguments": 4.2e9,
                    "outputs": 4.0e9,
                    "reused": 4.0e9,
                    "temporaries": 6e9,
                    "code": 1e7,
                    "carried": 1e9,
                },
                "once": counts,
                "total": {"operations": 3e12, "traffic": 3e9, "cycles": 3.001e9},
                "loops": {"while": 3},
                "unknown_loops": [],
                "collectives": [],
                "analysis": {"operations": 1e12, "traffic": 1e9, "seconds": seconds},
            }
        ],
    }


if __name__ == "__main__":
    main()
