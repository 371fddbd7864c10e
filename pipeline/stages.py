"""Which module does the work of which stage: the one of `pipeline` that bears its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from pipeline.runs import Run

__all__ = ["load"]


def load(stage: str) -> Callable[[Run, str, dict[str, str]], None]:
    """Import the module of `stage` and return its ``run_stage(run, fingerprint, inputs)``.

    Args:
        stage: a name of the table of stages.
    """
    return importlib.import_module(f"pipeline.{stage}").run_stage
