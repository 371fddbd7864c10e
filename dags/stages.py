"""The stages of Spherecast: what each runs after, reads and makes. One table for every way of running it.

Standard library only: a scheduler parses this file often.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PREPROCESS_END", "STAGES", "Stage", "ancestors", "order"]


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
        name: also the name of its command (``spherecast stage NAME RUN``) and of its log.
        upstream: stages whose artefacts it reads.
        reads: sections of the configuration, or ``section.key``, that change its result.
        artefacts: what it publishes, relative to the run directory.
        summary: one line for a person.
        gates: those of `upstream` that only have to succeed. Their results hold nothing that this stage's other
            inputs do not determine, so they do not enter its fingerprint.
        accelerator: whether it computes on the machine's accelerator, which one process at a time can have.
    """

    name: str
    upstream: tuple[str, ...]
    reads: tuple[str, ...]
    artefacts: tuple[str, ...]
    summary: str
    gates: tuple[str, ...] = ()
    accelerator: bool = False

    def command(self, run_directory: str) -> list[str]:
        """Return the command line that runs this stage of the run in `run_directory`."""
        return ["spherecast", "stage", self.name, run_directory]


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "simulate",
            (),
            ("source.kind", "simulation"),
            ("source.zarr",),
            "make a simulated atmosphere",
            accelerator=True,
        ),
        Stage(
            "validate",
            ("simulate",),
            ("source", "data", "periods"),
            ("validation.json",),
            "check the source: schema, units, times, missing values",
        ),
        Stage(
            "regrid",
            ("simulate", "validate"),
            ("source", "data"),
            ("training.zarr",),
            "regrid the source onto the training grid",
            gates=("validate",),
        ),
        Stage(
            "statistics",
            ("regrid",),
            ("periods.train",),
            ("statistics.nc",),
            "mean and spread of states and tendencies",
        ),
        Stage(
            "climatology",
            ("regrid",),
            ("periods.train", "climatology"),
            ("climatology.zarr",),
            "mean and spread by hour and day of year",
        ),
        Stage(
            "train",
            ("regrid", "statistics"),
            ("periods.train", "periods.validation", "model", "training"),
            ("checkpoints",),
            "train the spherical network",
            accelerator=True,
        ),
        Stage(
            "forecast",
            ("regrid", "train"),
            ("periods.test", "forecast"),
            ("forecast.zarr",),
            "forecast from every initial time of the test period",
            accelerator=True,
        ),
        Stage(
            "evaluate",
            ("regrid", "climatology", "forecast"),
            ("evaluation",),
            ("metrics/model.nc", "metrics/persistence.nc", "metrics/climatology.nc"),
            "score the forecasts and the baselines",
        ),
        Stage(
            "report",
            ("regrid", "climatology", "train", "forecast", "evaluate"),
            ("name", "description", "report"),
            ("report.html",),
            "write the verification report",
        ),
    )
}

PREPROCESS_END = ("statistics", "climatology")
"""Where the preprocessing DAG ends."""


def ancestors(names: Iterable[str], stages: dict[str, Stage] = STAGES) -> set[str]:
    """Return `names` and every stage that runs before one of them."""
    names = set(names)
    return names.union(*(ancestors(stages[name].upstream, stages) for name in names))


def order(stages: dict[str, Stage] = STAGES) -> list[str]:
    """Return the stage names so that each comes after its upstream stages."""
    return list(graphlib.TopologicalSorter({name: stage.upstream for name, stage in stages.items()}).static_order())
