"""What to tell of a training whose losses or gradients are no longer finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.training import Origin
from pipeline.config import TrainingConfig

__all__ = ["explain"]


def explain(
    origin: Origin, fields: Sequence[str], predicted: Sequence[str], stage: int, settings: TrainingConfig
) -> str:
    """Return which field is not finite first, at which step of the rollout, and what to change.

    Args:
        fields, predicted: names of the channels of a state, and of those that are predicted.
        stage: index of the stage of the curriculum.
    """
    steps = settings.stages[stage].steps
    advice = f"Lower training.stages[{stage}].learning_rate or training.clip_norm"
    if steps > 1:
        advice += ", or put a stage of fewer steps before it"
    for name, broken in (("states", origin.states), ("forcings", origin.forcings)):
        if broken.any():
            time, channel = np.argwhere(broken)[0]
            what = fields[channel] if name == "states" else f"forcing {channel}"
            return (
                f"{what} is not finite in the training data, at time {time} of a window. Run `spherecast validate` on the "
                "source and prepare it again; training leaves out times that are marked as missing."
            )
    if origin.forecast.any():
        step, channel = np.argwhere(origin.forecast)[0]
        return f"{predicted[channel]} is not finite first, at step {step + 1} of the {steps}-step rollout. {advice}."
    step, channel = map(int, np.unravel_index(np.argmax(origin.error), origin.error.shape))
    return (
        f"the forecast is finite but the gradient is not; {predicted[channel]} is furthest off, at step {step + 1} of the "
        f"{steps}-step rollout ({np.sqrt(origin.error[step, channel]):.3g} times its usual change in a step). {advice}."
    )
