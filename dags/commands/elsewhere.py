"""Commands about trainings on machines that are not here: what starts them, and what they would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dags.commands.options import STEPS, Configuration, Overrides
from pipeline.config_files import load_config
from transforms.errors import InputError

__all__ = ["app"]

app = typer.Typer()


@app.command(**STEPS)
def launch(
    configuration: Configuration,
    overrides: Overrides = None,
    to: Annotated[str, typer.Option("--to", help="gke, slurm or tpu-vm.")] = "slurm",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What the place needs to know; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the files; printed otherwise.")] = None,
) -> None:
    """Write what starts a training on a cluster: a Slurm script, a GKE JobSet, or commands for a TPU VM.

    Reads nothing but the configuration. docs/distributed.md lists the settings of each place.

    Example: `spherecast launch keisler22-256 --to slurm --set nodes=4 --set gpus_per_node=8 --set partition=gpu`
    """
    from pipeline.processes.launch import render

    values = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r}: expected KEY=VALUE.")
        values[key] = value
    files = render(load_config(configuration, overrides or []), to, **values)  # type: ignore[arg-type]  # render checks the word
    for name, text in files.items():
        if output is None:
            print(text if len(files) == 1 else f"# {name}\n{text}")
        else:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text)
            Console().print(f"Wrote {output / name}", markup=False, highlight=False, soft_wrap=True)


@app.command(**STEPS)
def plan(
    configuration: Configuration,
    overrides: Overrides = None,
    topology: Annotated[
        str | None, typer.Option(metavar="KIND:SHAPE", help="A TPU slice, e.g. v4:2x4x4; needs the extra tpu, no TPU.")
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Plan for so many host devices instead.")] = None,
    sphere: Annotated[int | None, typer.Option(min=1, help="Devices that share a sphere; the configuration's.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows of an update, over all; the configuration's.")
    ] = None,
    every_stage: Annotated[bool, typer.Option("--every-stage", help="Compile every stage, not the longest.")] = False,
    target: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.")] = None,
) -> None:
    """Compile a training for devices that are not here; say what fits, how fast it is and what it costs.

    Reads nothing but the configuration. The real training and forecast steps are compiled, which takes minutes for a
    large network. Status 1 when they do not fit.

    Example: `spherecast plan keisler22-256 --topology v4:2x4x4 --batch 32`
    """
    from pipeline.planning.plan import plan as make_plan
    from pipeline.planning.tables import print_plan

    console = Console()
    with Console(stderr=True).status("Compiling") as status:
        made = make_plan(
            load_config(configuration, overrides or []),
            topology=topology,
            devices=devices,
            sphere=sphere,
            batch=batch,
            every_stage=every_stage,
            report=status.update,
        )
    print_plan(made, console)
    if target is not None:
        target.write_text(json.dumps(made.to_dict(), indent=1) + "\n")
    if not made.fits:
        raise typer.Exit(1)
