"""What every benchmark shares: its options, the line that tells the machine, the table of rows and the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["machine", "main", "row"]


def row(name: str, value: float, unit: str, peer: float | None, bar: float | None = None) -> dict:
    """Return one measurement.

    Args:
        name: what was measured.
        value: the figure of this project, in `unit`.
        peer: the figure it is compared with, in the same unit, or None.
        bar: the largest ratio ``value / peer`` that passes, or None where nothing is asked.
    """
    ratio = None if peer is None else value / peer
    return {"name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "bar": bar}


def main(
    measure: Callable[[argparse.Namespace], list[dict]],
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    packages: Sequence[str] = ("numpy", "jax"),
) -> None:
    """Parse the command line, measure, print the rows and write them where `--json` says.

    Args:
        measure: takes the parsed arguments and returns rows.
        description: the text of `--help`.
        add_arguments: adds the options of this benchmark to the parser.
        packages: distributions whose versions belong to the result.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows of name, value, unit, peer, ratio, bar")
    if add_arguments is not None:
        add_arguments(parser)
    arguments = parser.parse_args()
    print(machine(packages), flush=True)
    rows = measure(arguments)
    _print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def machine(packages: Sequence[str] = ()) -> str:
    """Return one line: processor, cores, Python and the versions of those packages that are installed."""
    parts = [_processor(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    for package in packages:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} not installed")
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0]}" if names else platform.machine()


def _print_table(rows: list[dict]) -> None:
    if not rows:
        return
    width = max(len(r["name"]) for r in rows)
    units = max(len(r["unit"]) for r in rows)
    print(f"{'':<{width}}  {'value':>10} {'unit':<{units}}  {'peer':>10}  {'ratio':>7}")
    for r in rows:
        peer = "" if r["peer"] is None else f"{r['peer']:10.4g}"
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.3f}"
        verdict = ""
        if r["bar"] is not None and r["ratio"] is not None:
            verdict = f"{'pass' if r['ratio'] <= r['bar'] else 'FAIL'} (at most {r['bar']:.3g})"
        print(
            f"{r['name']:<{width}}  {r['value']:10.4g} {r['unit']:<{units}}  {peer:>10}  {ratio:>7}  {verdict}".rstrip()
        )
