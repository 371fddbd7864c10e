"""What two runs hold, compared; `differences` is also a fixture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dags.stages import STAGES
from dags.state import published
from pipeline.config_files import load_config


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of published files that are not the same, byte for byte, in both runs.

    Of a checkpoint the arrays and the position count: Orbax dates its files and names them at random.
    """
    different = []
    artefacts = dict.fromkeys(
        name for run in (one, other) for stage in STAGES.values() for name in published(run, stage)
    )
    for artefact in artefacts:
        names = {path.relative_to(run) for run in (one, other) for path in _files(run / artefact)}
        for name in sorted(names):
            if _in_checkpoint(name):
                continue
            if name.name == "training.jsonl":
                same = _training(one / name) == _training(other / name)
            else:
                same = (one / name).is_file() and (other / name).is_file()
                same = same and (one / name).read_bytes() == (other / name).read_bytes()
            if not same:
                different.append(str(name))
    last = sum(stage.updates for stage in load_config("tiny").training.stages)
    trees = [_checkpoint(run / "checkpoints" / str(last)) for run in (one, other)]
    if trees[0].keys() != trees[1].keys():
        different.append("checkpoints: names of arrays")
    else:
        different += [key for key in trees[0] if not np.array_equal(trees[0][key], trees[1][key], equal_nan=True)]
    return different


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]


def _in_checkpoint(name: Path) -> bool:
    return len(name.parts) > 2 and name.parts[0] == "checkpoints" and name.parts[1].isdigit()


def _training(path: Path) -> list[dict]:
    """Return the training record without the speed of the machine."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {key: value for key, value in record.items() if key not in ("samples_per_second", "waiting")}
        for record in records
    ]


def _checkpoint(path: Path) -> dict[str, np.ndarray]:
    import jax
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointer().restore(path / "state")
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(key): np.asarray(value) for key, value in leaves}
