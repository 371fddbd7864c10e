"""Forcing fields: what the network is told about the time, known for all times past and future."""

from __future__ import annotations

import numpy as np

from transforms.grids import Grid
from transforms.solar import TOTAL_SOLAR_IRRADIANCE, toa_incident_solar

__all__ = ["forcing_fields", "forcing_names"]

_CLOCK = ("sin_of_year", "cos_of_year", "sin_of_local_day", "cos_of_local_day")
_HOUR = 3600.0


def forcing_names(*, solar: bool, clock: bool) -> list[str]:
    """Return the names of the fields that `forcing_fields` makes, in its order."""
    return [*(["toa_incident_solar_radiation"] if solar else []), *(_CLOCK if clock else [])]


def forcing_fields(times: np.ndarray, grid: Grid, *, solar: bool, clock: bool) -> np.ndarray:
    """Return normalised forcings.

    Args:
        times: datetime64, UTC, shape (time,).
        solar: include the solar energy of the hour that ends at each time, as a fraction of what an overhead Sun gives.
        clock: include sine and cosine of the time of year and of the local mean solar time.

    Returns:
        (time, forcing, latitude, longitude), float32.
    """
    nlat, nlon = grid.shape
    names = forcing_names(solar=solar, clock=clock)
    fields = np.empty((len(times), len(names), nlat, nlon), np.float32)
    if solar:
        fields[:, 0] = toa_incident_solar(times, grid) / np.float32(TOTAL_SOLAR_IRRADIANCE * _HOUR)
    if clock:
        times = np.asarray(times, "datetime64[s]")
        year = times.astype("datetime64[Y]")
        year_length = ((year + 1).astype("datetime64[s]") - year.astype("datetime64[s]")).astype(float)
        of_year = 2 * np.pi * (times - year.astype("datetime64[s]")).astype(float) / year_length
        of_day = 2 * np.pi * (times - times.astype("datetime64[D]")).astype(float) / 86_400.0
        local = of_day[:, None, None] + np.deg2rad(grid.longitude)
        first = int(solar)
        fields[:, first] = np.sin(of_year)[:, None, None]
        fields[:, first + 1] = np.cos(of_year)[:, None, None]
        fields[:, first + 2] = np.sin(local)
        fields[:, first + 3] = np.cos(local)
    return fields
