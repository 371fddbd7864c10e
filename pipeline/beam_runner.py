"""Apache Beam and xarray-beam, imported and run without noise a user cannot act on.

Any Beam runner works: its options pass through unread. With DirectRunner the job runs in this process, and elements that
are done are counted on a progress bar; other runners have their own ways to show progress.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from pipeline.progress import Progress, progress


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Beam warns on import of optional Google packages through the root logger, and gives that a handler of its own."""
    handlers = list(logging.root.handlers)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
        logging.root.handlers[:] = handlers


with _silence():
    import apache_beam as beam
    import xarray_beam as xbeam
    from apache_beam.options.pipeline_options import PipelineOptions

__all__ = ["beam", "count_done", "run_job", "xbeam"]

# Beam knows its Dask runner by its full name alone.
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"

# A function that Beam has pickled cannot carry the bar of its caller; in the same process it finds it here by job.
_BARS: dict[str, Progress] = {}


def run_job(
    name: str, total: int, build: Callable[[beam.Pipeline], object], options: Sequence[str] = ("--runner=DirectRunner",)
) -> None:
    """Build and run a pipeline, and wait for its end.

    Args:
        name: of the job, by which `count_done` finds it.
        total: elements it will count.
        build: applies the transforms to the pipeline it is given.
        options: of Beam, e.g. ``--runner=DaskRunner``.
    """
    options = [f"--runner={_DASK_RUNNER}" if option == "--runner=DaskRunner" else option for option in options]
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    with progress(name, total) as bar:
        _BARS[name] = bar
        try:
            # Without flags Beam would parse the command line of the calling program.
            with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
                build(pipeline)
            # DaskRunner leaves its client behind, to which dask would then send all its work.
            client = getattr(pipeline.result, "client", None)
            if client is not None:
                client.close()
        finally:
            del _BARS[name]


def count_done(name: str, amount: float = 1.0) -> None:
    """Count elements of the job `name` as done, where it runs in this process."""
    bar = _BARS.get(name)
    if bar is not None:
        bar.advance(amount)
