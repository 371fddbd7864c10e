"""Apache Beam and xarray-beam, imported and run without noise a user cannot act on.

Any Beam runner works: its options pass through unread. With DirectRunner the job runs in this process, and elements that
are done are counted on a progress bar; other runners have their own ways to show progress. What a process holds at once
is bounded by `in_flight`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.jobs.progress import Progress, progress
from transforms.errors import InputError


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
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.runner import _RUNNER_MAP

    import pipeline.jobs.beam_workers  # noqa: F401  It sees to workers that are lost.

__all__ = [
    "beam",
    "count_done",
    "in_flight",
    "require_runner",
    "run_elements",
    "run_job",
    "xbeam",
]

# Beam knows its Dask runner by its full name alone.
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
_DASK_PARTITIONS = ("--dask_npartitions", "--dask_partition_size")
_MOST_PARTITIONS = 1000

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

    Raises:
        InputError: there is no runner of that name, or it needs a package that is not installed.
    """
    require_runner(options)
    options = [f"--runner={_DASK_RUNNER}" if option == "--runner=DaskRunner" else option for option in _joined(options)]
    if _is_dask(options) and not any(option.startswith(_DASK_PARTITIONS) for option in options):
        # Beam would put 128 elements in a partition, so that a job of fewer uses one worker.
        options.append(f"--dask_npartitions={max(1, min(total, _MOST_PARTITIONS))}")
    if not any(option.startswith("--default_sdk_harness_log_level") for option in options):
        # Worker processes tell of every channel they open.
        options.append("--default_sdk_harness_log_level=ERROR")
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


def run_elements(
    name: str,
    elements: Iterable[object],
    function: beam.DoFn,
    options: Sequence[str] = ("--runner=DirectRunner",),
) -> None:
    """Apply a function that writes its own results to every element, spread over the runner's workers.

    Raises:
        InputError: see `run_job`.
    """
    elements = list(elements)

    def build(pipeline: beam.Pipeline) -> None:
        spread = pipeline | beam.Create(elements, reshuffle=False)
        if not _is_dask(options):  # Dask spreads its partitions as they are.
            spread |= beam.Reshuffle()
        _ = spread | beam.ParDo(function)

    run_job(name, len(elements), build, options)


def count_done(name: str, amount: float = 1.0) -> None:
    """Count elements of the job `name` as done, where it runs in this process."""
    bar = _BARS.get(name)
    if bar is not None:
        bar.advance(amount)


def require_runner(options: Sequence[str]) -> None:
    """Refuse a runner that cannot be found, before any work.

    Raises:
        InputError: there is no runner of that name, or it needs a package that is not installed.
    """
    name = next((o.split("=", 1)[1] for o in reversed(_joined(options)) if o.startswith("--runner=")), "DirectRunner")
    path = _DASK_RUNNER if name == "DaskRunner" else name
    path = _RUNNER_MAP.get(path.lower(), _RUNNER_MAP.get(f"{path.lower()}runner", path))
    if "." not in path:
        known = ", ".join(dict.fromkeys([*StandardOptions.KNOWN_RUNNER_NAMES, "DaskRunner"]))
        raise InputError(f"runner: {name} is unknown; expected one of {known}, or the full name of a runner's class.")
    module, _, class_name = path.rpartition(".")
    try:
        with _silence():
            found = hasattr(importlib.import_module(module), class_name)
            if path == _DASK_RUNNER:
                importlib.import_module("distributed")
    except ImportError as error:
        extra = {"Dask": " Run `pip install distributed`.", "Dataflow": " Run `pip install 'apache-beam[gcp]'`."}
        mend = next((text for word, text in extra.items() if word in class_name), "")
        raise InputError(f"runner: {name} needs a package that is not installed ({error}).{mend}") from error
    if not found:
        raise InputError(f"runner: {module} has no class {class_name}. Give the full name of a runner's class.")


@contextlib.contextmanager
def in_flight(amount: float, bound: float) -> Iterator[None]:
    """Hold `amount` bytes, after waiting until all that this process holds stays within `bound`.

    What is larger than the bound waits until it is alone.
    """
    _HELD.acquire(amount, bound)
    try:
        yield
    finally:
        _HELD.release(amount)


class _Held:
    """Bytes held by the elements that run in this process, whatever threads its runner gives them."""

    def __init__(self) -> None:
        self._changed, self._total = threading.Condition(), 0.0

    def acquire(self, amount: float, bound: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._total == 0 or self._total + amount <= bound)
            self._total += amount

    def release(self, amount: float) -> None:
        with self._changed:
            self._total -= amount
            self._changed.notify_all()


_HELD = _Held()


def _joined(options: Sequence[str]) -> list[str]:
    """Options in the form ``--name=value``, also where name and value were given apart."""
    joined: list[str] = []
    for option in options:
        if not option.startswith("-") and joined and joined[-1] == "--runner":
            joined[-1] = f"--runner={option}"
        else:
            joined.append(option)
    return joined


def _is_dask(options: Sequence[str]) -> bool:
    return any(option.startswith("--runner=") and option.endswith("DaskRunner") for option in _joined(options))
