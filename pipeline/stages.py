"""Which module does the work of which stage."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from pipeline.runs import Run

__all__ = ["MODULES", "load"]

MODULES: dict[str, str] = {
    "simulate": "pipeline.simulate",
    "validate": "pipeline.validate",
    "regrid": "pipeline.regrid",
    "statistics": "pipeline.statistics",
    "climatology": "pipeline.climatology",
    "train": "pipeline.train",
    "forecast": "pipeline.forecast",
    "evaluate": "pipeline.evaluate",
    "report": "pipeline.report",
}


def load(stage: str) -> Callable[[Run, str, dict[str, str]], None]:
    """Import the module of `stage` and return its ``run_stage(run, fingerprint, inputs)``."""
    return importlib.import_module(MODULES[stage]).run_stage
