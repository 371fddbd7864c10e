"""The blocks of a scoring worked through by threads, their sums added up in the order of the plan.

So the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.jobs.progress import progress
from pipeline.jobs.threads import keep_freed_memory_low
from pipeline.scoring.blocks import Block, Scorer
from pipeline.scoring.tally import Tally

__all__ = ["score_here"]

_TASK = "evaluate"


def score_here(scorer: Scorer, blocks: Sequence[Block], workers: int = 1) -> Tally:
    """Return the sums of all blocks, worked on by threads.

    Args:
        workers: threads; each holds one block.
    """
    keep_freed_memory_low()
    tally = Tally()
    with progress(_TASK, len(blocks)) as bar:
        if workers == 1:
            for block in blocks:
                tally.add(scorer.score(block))
                bar.advance()
            return tally
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[Tally]] = deque()
            for block in blocks:
                waiting.append(pool.submit(scorer.score, block))
                # Added up in order, and never more held than are worked on.
                while len(waiting) > workers:
                    tally.add(waiting.popleft().result())
                    bar.advance()
            for future in waiting:
                tally.add(future.result())
                bar.advance()
    return tally
