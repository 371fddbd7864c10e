"""The blocks of a scoring worked through by an Apache Beam job.

Every block leaves its sums in a file; they are added up in the order of the plan, so that the result does not depend on
the workers, and an attempt that was cut off goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.jobs.beam_runner import beam, count_done, run_elements
from pipeline.scoring.blocks import Block, Scorer
from pipeline.scoring.request import Request
from pipeline.scoring.tally import Tally

__all__ = ["score_with_beam"]

_JOB = "evaluate"


def score_with_beam(request: Request, blocks: Sequence[Block], options: Sequence[str], folder: Path) -> Tally:
    """Return the sums of all blocks.

    Args:
        options: of Apache Beam. Workers in other processes or machines must see the stores and `folder`.
        folder: for the sums of single blocks; what is there is taken to be of the same request. Removed at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [block for block in blocks if not _file(folder, block).exists()]
    if left:
        run_elements(_JOB, left, _Score(request, folder), options)
    tally = Tally()
    for block in blocks:
        tally.add(Tally.load(_file(folder, block)))
    shutil.rmtree(folder)
    return tally


class _Score(beam.DoFn):
    """Leaves the sums of a block in a file."""

    def __init__(self, request: Request, folder: Path) -> None:
        self._request, self._folder = request, folder

    def setup(self) -> None:
        self._scorer = Scorer(self._request)

    def process(self, block: Block) -> None:
        self._scorer.score(block).save(_file(self._folder, block))
        count_done(_JOB)


def _file(folder: Path, block: Block) -> Path:
    return folder / f"{block.group}-{block.times[0]}-{block.leads[0]}.npz"
