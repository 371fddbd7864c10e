"""Every artefact of a real run, damaged in each way: found at planning, named by the doctor, refused by its readers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dags.damage import refuse_damaged, unlike_record
from dags.plan import plan
from dags.stages import STAGES
from dags.state import State, holds
from pipeline.runs import Run
from transforms.errors import InputError

pytestmark = pytest.mark.slow

ARTEFACTS = [(name, artefact) for name, stage in STAGES.items() for artefact in stage.artefacts]


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory) -> Path:
    """A copy of the complete run, recorded as the next plan would."""
    run = tmp_path_factory.mktemp("damaged") / "tiny"
    shutil.copytree(tiny_run, run)
    state = State(run)
    for step in plan(Run.open(run).config, run):
        assert not step.work, step.why
        state.record_done(step.stage, step.expected, "skipped")
    return run


@pytest.mark.parametrize(("name", "artefact"), ARTEFACTS, ids=[artefact for _, artefact in ARTEFACTS])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "empty-metadata"])
def test_damage_is_found_and_refused(run, damages, name, artefact, damage):
    stage, state, path = STAGES[name], State(run), run / artefact
    chosen = damages.struck(path, damage)
    kept, times = chosen.read_bytes(), chosen.stat()
    try:
        damages.DAMAGES[damage](chosen)
        missing = not path.exists()
        found = unlike_record(run, stage, state)
        assert {each.artefact for each in found} == {artefact}
        steps = {step.stage.name: step for step in plan(Run.open(run).config, run, until=[name])}
        assert [other for other, step in steps.items() if step.work] == [name]
        assert missing or steps[name].damages == tuple(found)
        for reader, other in STAGES.items():
            if name not in other.upstream or missing:
                continue
            with pytest.raises(InputError, match=rf"{reader}: what it reads is damaged:\n{artefact}"):
                refuse_damaged(run, reader, [STAGES[up] for up in other.upstream], objects=True)
    finally:
        chosen.write_bytes(kept)
        os.utime(chosen, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert holds(run, stage, state.stages[name]["fingerprint"]) is None
