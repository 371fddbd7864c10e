"""docs/reliability.md has a row for every fault, and each row names the drills that prove it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "reliability.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| fault ")
]
FAULTS = (
    *("`kill -9` of a stage", "SIGTERM of a stage", "`kill -9` of the runner", "SIGTERM of the runner"),
    *("`kill -9` of both", "SIGTERM of both", "full disk", "read-only output", "a shard truncated", "a byte flipped"),
    *("a chunk deleted", "a metadata file emptied", "source changed", "two runs at once on one directory"),
    *("time running backwards", "an artefact of another version", "out of memory", "worker"),
)


def drills() -> dict[str, ast.FunctionDef]:
    files = (ROOT / "tests").rglob("test_*.py")
    nodes = [node for path in files for node in ast.parse(path.read_text()).body]
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_a_row():
    for fault in FAULTS:
        assert any(fault in row[0] for row in ROWS), fault
    assert {row[3] for row in ROWS} == {"nothing"}


def test_every_row_names_drills_that_go_through_its_stages():
    known = drills()
    for fault, stages, _, _, named in ROWS:
        names = re.findall(r"`(test_\w+)`", named)
        assert names, fault
        for name in names:
            assert name in known, f"{fault}: no test {name}"
            decorators = " ".join(map(ast.unparse, known[name].decorator_list))
            expected = {"every stage": "EVERY_STAGE|STAGES|READERS", "every stage but simulate": "GIVEN"}.get(
                stages, ""
            )
            assert re.search(expected, decorators), f"{fault}: {name} does not go through {stages}"
