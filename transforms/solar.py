"""Solar radiation at the top of the atmosphere: computed, never read, so that forecasts reach past the data.

The Sun's place in the sky follows the low-precision formulas of the Astronomical Almanac, good to 0.01 degrees from
1950 to 2050. The accumulation over an interval is integrated in closed form, with the Sun's declination and distance
held at the middle of the interval.
"""

from __future__ import annotations

import numpy as np

from transforms.errors import InputError
from transforms.grids import Grid

__all__ = ["TOTAL_SOLAR_IRRADIANCE", "solar_position", "toa_incident_solar"]

TOTAL_SOLAR_IRRADIANCE = 1360.8
"""W m-2 at one astronomical unit: Kopp & Lean (2011), doi:10.1029/2010GL045777."""

_J2000 = np.datetime64("2000-01-01T12:00", "ns")
_DAY = np.timedelta64(1, "D")
_DAY_SECONDS = 86_400.0


def solar_position(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the Sun is seen from the Earth's centre.

    Args:
        times: datetime64, UTC, any shape.

    Returns:
        declination (radians), equation of time (apparent minus mean solar time, radians: pi is 12 hours) and distance
        (astronomical units), each of the shape of `times`.

    Formula: "Low precision formulas for the Sun's coordinates", Astronomical Almanac, section C; also Michalsky (1988),
    Solar Energy 40, 227-235.
    """
    days = (np.asarray(times, dtype="datetime64[ns]") - _J2000) / _DAY
    mean_longitude = np.deg2rad(280.460 + 0.9856474 * days)
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    ecliptic_longitude = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    declination = np.arcsin(np.sin(obliquity) * np.sin(ecliptic_longitude))
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(ecliptic_longitude), np.cos(ecliptic_longitude))
    equation_of_time = np.mod(mean_longitude - right_ascension + np.pi, 2 * np.pi) - np.pi
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    return declination, equation_of_time, distance


def toa_incident_solar(times: np.ndarray, grid: Grid, accumulation_hours: float = 1.0) -> np.ndarray:
    """Return the solar energy that fell on a horizontal plane at the top of the atmosphere.

    Args:
        times: datetime64, UTC, shape (time,): the ends of the intervals, as in ERA5.
        grid: where.
        accumulation_hours: length of each interval; 1 is ERA5's.

    Returns:
        J m-2, shape (time, latitude, longitude), float32, never negative.

    Raises:
        InputError: `accumulation_hours` is not positive.

    The cosine of the zenith angle is a + b cos(h) with a = sin(latitude) sin(declination), b = cos(latitude)
    cos(declination) and hour angle h. The Sun is up for abs(h) < H, cos(H) = -a / b, so the energy since noon is
    proportional to a c + b sin(c) with c = h clipped to [-H, H], and every whole turn adds 2 (a H + b sin(H)).
    """
    if not accumulation_hours > 0:
        raise InputError(f"accumulation_hours: expected a positive number of hours, got {accumulation_hours}.")
    ends = np.asarray(times, dtype="datetime64[ns]")
    half = np.timedelta64(round(accumulation_hours * 1.8e12), "ns")
    declination, equation_of_time, distance = solar_position(ends - half)

    day_fraction = (ends - ends.astype("datetime64[D]")) / _DAY
    angle = (2 * np.pi * day_fraction + equation_of_time)[:, None] + np.deg2rad(grid.longitude)  # From midnight.
    turns_end, end = np.divmod(angle, 2 * np.pi)
    turns_start, start = np.divmod(angle - 2 * np.pi * accumulation_hours / 24.0, 2 * np.pi)
    turns = (turns_end - turns_start)[:, None, :]

    latitude = np.deg2rad(grid.latitude)
    beam = (TOTAL_SOLAR_IRRADIANCE * _DAY_SECONDS / (2 * np.pi) / distance**2)[:, None]
    a = np.sin(latitude) * np.sin(declination)[:, None]
    b = np.maximum(np.cos(latitude), 1e-12) * np.cos(declination)[:, None]  # Keeps a / b finite at the poles.
    sunset = np.arccos(np.clip(-a / b, -1.0, 1.0))
    whole_turn = 2 * beam * (a * sunset + b * np.sin(sunset))

    # Only what follows has all three axes; single precision halves its cost in a training loader.
    single = [x.astype(np.float32)[:, :, None] for x in (beam * a, beam * b, sunset, whole_turn)]
    beam_a, beam_b, sunset, whole_turn = single
    end = np.clip((end - np.pi).astype(np.float32)[:, None, :], -sunset, sunset)
    start = np.clip((start - np.pi).astype(np.float32)[:, None, :], -sunset, sunset)
    energy = beam_a * (end - start)
    energy += beam_b * (np.sin(end) - np.sin(start))
    energy += whole_turn * turns.astype(np.float32)
    return np.maximum(energy, 0.0, out=energy)
