"""Which fields of a state the network is given and which it predicts, and the forcings that tell it what to predict."""

from __future__ import annotations

import numpy as np

from model.forecaster import Roles
from pipeline.config import ModelConfig
from pipeline.states.layout import StateLayout
from transforms.forcings import forcing_fields, forcing_names
from transforms.grids import Grid
from transforms.variables import fields_named, require_whole_winds

__all__ = ["Forcings", "roles_of"]

_HOUR = np.timedelta64(1, "h")


def roles_of(layout: StateLayout, model: ModelConfig) -> Roles:
    """Return the roles of the fields of a state.

    Raises:
        InputError: the configuration names a field that a state does not have, or half a wind.
    """
    given = fields_named(layout.fields, model.inputs, "model.inputs")
    predicted = fields_named(layout.fields, model.outputs, "model.outputs")
    if layout.vectors:
        for key, chosen in (("model.inputs", given), ("model.outputs", predicted)):
            require_whole_winds((layout.fields[channel] for channel in chosen), key)
    direct = bool(model.leads_hours)
    whole = predicted if direct else tuple(channel for channel in predicted if channel not in given)
    return Roles(given, predicted, whole, direct)


class Forcings:
    """Fields that are known for all times, normalised.

    Of a step they belong to its beginning. Of a direct forecast they are those of the initial and of the valid time and,
    where there are several lead times, the lead time as a fraction of the longest.
    """

    def __init__(self, model: ModelConfig, grid: Grid) -> None:
        self._grid, self._leads = grid, tuple(model.leads_hours)
        self._options = {"solar": model.solar, "clock": model.clock}

    @property
    def count(self) -> int:
        """Number of fields of a call of the network."""
        fields = len(forcing_names(**self._options))
        return 2 * fields + (len(self._leads) > 1) if self._leads else fields

    def of_times(self, times: np.ndarray) -> np.ndarray:
        """Return those of steps that begin at `times`, datetime64: (..., forcing, latitude, longitude), float32."""
        distinct, index = np.unique(times, return_inverse=True)
        return forcing_fields(distinct, self._grid, **self._options)[index.reshape(np.shape(times))]

    def of_leads(self, initial: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Return those of direct forecasts, (..., forcing, latitude, longitude), float32.

        Args:
            initial, valid: datetime64, of shapes that broadcast to (...).
        """
        initial, valid = np.broadcast_arrays(initial, valid)
        parts = [self.of_times(initial), self.of_times(valid)]
        if len(self._leads) > 1:
            share = ((valid - initial) / (max(self._leads) * _HOUR)).astype(np.float32)
            parts.append(np.broadcast_to(share[..., None, None, None], (*initial.shape, 1, *self._grid.shape)))
        return np.concatenate(parts, axis=-3)
