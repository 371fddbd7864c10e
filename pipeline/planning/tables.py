"""A plan as tables for the terminal."""

from __future__ import annotations

import math
from collections import defaultdict

from rich.console import Console
from rich.table import Table

from pipeline.planning.plan import Plan, ProgramPlan

__all__ = ["print_plan"]

_MEMORY = {
    "parameters": "parameters",
    "optimiser": "optimiser",
    "average": "moving average",
    "tables": "tables and constants",
    "batch": "batch",
    "activations": "activations of the rollout",
    "temporaries": "temporaries",
    "outputs": "results",
    "padding": "padding",
    "code": "program",
    "total": "total",
}


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan: memory, work and exchanges of every program per device, time of the training, what fits."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    console.print(f"[bold]{plan.config}[/] on [bold]{plan.target}[/]: {plan.devices} devices, {mesh}")
    console.print(_memory(plan))
    console.print(_work(plan))
    for program in plan.programs:
        if program.collectives:
            console.print(_collectives(program))
    if plan.stages:
        console.print(_training(plan))
    for line in plan.suggestions:
        console.print(line, soft_wrap=True)
    for line in plan.notes:
        console.print(f"[dim]{line}[/]", soft_wrap=True)


def _memory(plan: Plan) -> Table:
    available = "" if plan.memory is None else f" (of {_bytes(plan.memory)})"
    table = Table("memory of a device" + available, title_justify="left")
    for program in plan.programs:
        table.add_column(f"{program.name}\nbatch {program.batch}", justify="right")
    for key, label in _MEMORY.items():
        values = [program.memory.get(key, program.needed if key == "total" else None) for program in plan.programs]
        if any(values):
            table.add_row(label, *("-" if value is None else _bytes(value) for value in values))
    if plan.memory is not None:
        verdicts = [
            f"{100 * program.needed / plan.memory:.0f} %"
            + (", fits" if program.needed <= plan.memory else ", [red]does not fit[/]")
            for program in plan.programs
        ]
        table.add_row("of the device", *verdicts)
    return table


def _work(plan: Plan) -> Table:
    table = Table("work of a device in one call")
    for program in plan.programs:
        table.add_column(program.name, justify="right")

    def row(label: str, value) -> None:
        table.add_row(label, *("-" if program.seconds is None else value(program) for program in plan.programs))

    row("operations of products", lambda program: _count(program.operations))
    row("main-memory traffic", lambda program: _bytes(program.traffic))
    row("exchanging", lambda program: _time(sum(each["seconds"] for each in program.collectives)))
    row("time", lambda program: f"{_time(program.seconds)} ({program.seconds_from})")
    row("share of peak", lambda program: f"{100 * program.operations / program.seconds / plan.peak:.1f} %")
    row("samples/s, all devices", lambda program: f"{program.batch / program.seconds:.3g}")
    row("optimal_seconds as given", lambda program: f"{program.optimal_seconds or float('nan'):.3g}")
    row("compiled here in", lambda program: f"{program.compile_seconds:.0f} s")
    return table


def _collectives(program: ProgramPlan) -> Table:
    table = Table(f"exchanges of {program.name}", "devices", "count", "bytes of all", "largest", "time")
    for column in table.columns[1:]:
        column.justify = "right"
    groups: dict[tuple[str, int], list[dict]] = defaultdict(list)
    for each in program.collectives:
        groups[each["kind"], each["group"]].append(each)
    for (kind, group), members in groups.items():
        table.add_row(
            kind,
            str(group),
            f"{sum(each['count'] for each in members):.0f}",
            _bytes(sum(each["count"] * each["size"] for each in members)),
            _bytes(max(each["size"] for each in members)),
            _time(sum(each["seconds"] for each in members)),
        )
    return table


def _training(plan: Plan) -> Table:
    batch = next(program.batch for program in plan.programs if program.name.startswith("train"))
    table = Table("training stage", "updates", "an update", "samples/s", "days", "chip-hours")
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in plan.stages:
        table.add_row(
            f"{stage.steps} step{'s' if stage.steps > 1 else ''}" + ("" if stage.compiled else " (estimated)"),
            f"{stage.updates}",
            _time(stage.seconds),
            f"{batch / stage.seconds:.3g}",
            f"{stage.days:.3g}",
            f"{stage.days * 24 * plan.devices:.4g}",
        )
    table.add_row("all", "", "", "", f"{plan.days:.3g}", f"{plan.chip_hours:.4g}", style="bold")
    return table


def _count(value: float) -> str:
    exponent = min(max(int(math.log10(max(value, 1.0))) // 3, 0), 5)
    return f"{value / 1000**exponent:.3g}{' kMGTP'[exponent]}".strip()


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
