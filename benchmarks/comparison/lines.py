"""What is compared: every line of the table, and the settings that its trials choose from.

A line is a network with its training. Each has `TRIALS` settings of learning rate, batch and width, tried for a quarter of
the budget; the best on the validation period is then trained for the whole of it, with every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABLATIONS", "FIELDS", "LEADS", "LINES", "OURS", "TRIALS", "Line", "Setting"]

LEADS = (6, 24, 72, 120, 240)
"""Hours that are scored."""

FIELDS = ("geopotential@500", "temperature@850", "wind_vector@850")
"""That are scored."""

TRIALS = 4
"""Settings tried for every line."""


@dataclass(frozen=True)
class Setting:
    """What a trial chooses.

    Attributes:
        learning_rate: peak of the schedule of 1-step training.
        batch: windows of an update.
        width: of hidden features, in the unit of the line.
    """

    learning_rate: float
    batch: int
    width: int


@dataclass(frozen=True)
class Line:
    """One network and how it is trained.

    Attributes:
        title: as tables name it.
        kind: ``spherecast`` for configurations of this project's network, else a name of `comparison.rivals.BUILDERS`.
        settings: of its trials.
        overrides: of the configuration, for the kind ``spherecast``.
        rollouts: steps of the stages of training, and the share of the budget that each gets.
        fine_tuning: learning rate of rollouts over that of single steps.
    """

    title: str
    kind: str
    settings: tuple[Setting, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    rollouts: Mapping[int, float] = field(default_factory=lambda: {1: 0.8, 8: 0.2})
    fine_tuning: float = 1 / 4

    def peak(self, setting: Setting, steps: int) -> float:
        """Return the peak learning rate of a stage."""
        return setting.learning_rate * (1.0 if steps == 1 else self.fine_tuning)


def _ours(title: str, settings: tuple[Setting, ...] | None = None, **options: Any) -> Line:
    rollouts = options.pop("rollouts", {1: 0.8, 8: 0.2})
    overrides = {key.replace("__", "."): value for key, value in options.items()}
    return Line(title, "spherecast", settings or _OURS, overrides, rollouts, fine_tuning=1 / 3)


_OURS = (Setting(2e-3, 1, 32), Setting(3e-3, 2, 32), Setting(4e-3, 4, 32), Setting(3e-3, 2, 24))
_TORCH = (Setting(1e-3, 2, 64), Setting(2e-3, 2, 64), Setting(2e-3, 4, 64), Setting(1e-3, 2, 128))
_TRANSFORMER = (Setting(5e-4, 2, 64), Setting(1e-3, 2, 64), Setting(1e-3, 4, 64), Setting(1e-3, 2, 96))
_UNET = (Setting(1e-3, 2, 32), Setting(2e-3, 2, 32), Setting(2e-3, 4, 32), Setting(1e-3, 2, 48))

OURS = "ours"

LINES: dict[str, Line] = {
    OURS: _ours("Spherecast"),
    "scalars": _ours("Spherecast, winds as scalars", model__winds="scalars"),
    "paper": _ours(
        "Spherecast as the paper has it",
        model__nonlinearity="phase_collapse",
        model__normalisation="batch",
        model__vector_gate=False,
        model__filter_knots=8,
    ),
    "sfno": Line("SFNO (torch-harmonics)", "sfno", _TORCH),
    "lsno": Line("LSNO (torch-harmonics)", "lsno", _TORCH),
    "s2unet": Line("Spherical U-Net (torch-harmonics)", "s2unet", _UNET),
    "s2transformer": Line("Spherical transformer (torch-harmonics)", "s2transformer", _TRANSFORMER),
    "resnet": Line("Planar ResNet (after Rasp & Thuerey)", "resnet", _TORCH),
}
"""The table, by name on the command line."""

ABLATIONS: dict[str, Line] = {
    "phase-collapse": _ours(
        "phase collapse and sigmoid gates in place of products", model__nonlinearity="phase_collapse"
    ),
    "magnitude": _ours("magnitude nonlinearity in place of products", model__nonlinearity="magnitude"),
    "gelu": _ours("GELU in place of products", model__nonlinearity="gelu"),
    "no-gate": _ours("vectors without a gate", model__vector_gate=False),
    "batch-norm": _ours("spectral batch norm in place of each sample's", model__normalisation="batch"),
    "no-norm": _ours("no normalisation", model__normalisation="none"),
    "no-residual": _ours("no residual connection", model__residual=False),
    "dealiased": _ours("dealiased hidden grid", model__hidden_grid="dealiased"),
    "per-degree": _ours("filters with a matrix of its own for each degree", model__filter_knots=None),
    "localised": _ours("filters of 8 knots", model__filter_knots=8),
    "equal-weights": _ours("humidity of the same weight in the loss", training__variable_weights={}),
    "per-level": _ours("standard deviation of each level", model__standardisation="per_level"),
    "nadamw": _ours("AdamW with Nesterov momentum", training__optimizer="nadamw"),
    "two-states": _ours("states of t and t - 6 h", model__input_steps=2),
    "no-ema": _ours("no average of parameters", training__ema_decay=0.0),
    "one-step": _ours("no rollout in training", rollouts={1: 1.0}),
    "four-steps": _ours("rollouts of 4 steps", rollouts={1: 0.8, 4: 0.2}),
    "twelve-steps": _ours("rollouts of 4 and 12 steps", rollouts={1: 0.8, 4: 0.1, 12: 0.1}),
}
"""Changes of `LINES[OURS]`, one switch each, trained with its chosen setting."""
