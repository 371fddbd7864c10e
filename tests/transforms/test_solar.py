"""Top-of-atmosphere solar radiation against almanac values and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.grids import Grid
from transforms.solar import TOTAL_SOLAR_IRRADIANCE, solar_position, toa_incident_solar

GRID = Grid.equiangular(33, 64, poles=True)


def _times(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


def _minutes(equation_of_time: np.ndarray) -> np.ndarray:
    return equation_of_time / (2 * np.pi) * 1440


def test_declination_at_published_equinoxes_and_solstices():
    times = _times("2001-03-20T13:31", "2001-06-21T07:38", "2001-09-22T23:04", "2001-12-21T19:21", "2024-03-20T03:06")
    declination, _, _ = solar_position(times)
    np.testing.assert_allclose(np.rad2deg(declination), [0, 23.44, 0, -23.44, 0], atol=0.012)


def test_equation_of_time_has_its_four_known_extremes():
    times = np.arange("2001-01-01", "2002-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    minutes = _minutes(solar_position(times)[1])
    assert minutes.max() == pytest.approx(16.45, abs=0.1)
    assert minutes.min() == pytest.approx(-14.25, abs=0.1)
    assert str(times[minutes.argmax()])[:7] == "2001-11"
    assert str(times[minutes.argmin()])[:7] == "2001-02"
    crossings = times[1:][np.diff(np.sign(minutes)) != 0].astype("datetime64[D]")
    expected = np.array(["2001-04-15", "2001-06-13", "2001-09-01", "2001-12-25"], dtype="datetime64[D]")
    assert np.abs((crossings - expected).astype(int)).max() <= 1


def test_distance_at_perihelion_and_aphelion():
    _, _, distance = solar_position(_times("2001-01-04T09:00", "2001-07-04T14:00"))
    np.testing.assert_allclose(distance, [0.98329, 1.01664], atol=1e-4)


@pytest.mark.parametrize("hours", [1.0, 6.0, 24.0, 30.0])
def test_global_mean_is_a_quarter_of_the_beam(hours):
    grid = Grid.gaussian(120)
    times = _times("2001-01-04T00:00", "2001-03-20T18:00", "2001-07-01T07:00")
    _, quadrature = np.polynomial.legendre.leggauss(120)
    energy = toa_incident_solar(times, grid, hours).astype(np.float64)
    mean = (energy.mean(axis=2) * quadrature).sum(axis=1) / 2
    middle = times - np.timedelta64(round(hours * 1800), "s")
    expected = TOTAL_SOLAR_IRRADIANCE / 4 * hours * 3600 / solar_position(middle)[2] ** 2
    np.testing.assert_allclose(mean, expected, rtol=3e-4)


def test_closed_form_equals_a_fine_sum():
    times = _times("2001-02-03T00:00", "2001-02-03T06:00", "2001-06-21T13:00")
    hours, parts = 6.0, 2000
    ends = toa_incident_solar(times, GRID, hours)
    width = hours * 3600 / parts
    declination, equation_of_time, distance = solar_position(times - np.timedelta64(3, "h"))
    latitude = np.deg2rad(GRID.latitude)[None, :, None]
    total = np.zeros(ends.shape)
    for part in range(parts):
        seconds = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "s") - (part + 0.5) * width
        hour_angle = (2 * np.pi * seconds / 86400 + equation_of_time - np.pi)[:, None, None] + np.deg2rad(
            GRID.longitude
        )
        sine, cosine = np.sin(declination)[:, None, None], np.cos(declination)[:, None, None]
        zenith = np.sin(latitude) * sine + np.cos(latitude) * cosine * np.cos(hour_angle)
        total += np.maximum(zenith, 0) * width
    total *= TOTAL_SOLAR_IRRADIANCE / distance[:, None, None] ** 2
    np.testing.assert_allclose(ends, total, atol=1e-5 * total.max())


def test_intervals_add_up():
    end = _times("2001-10-05T06:00")
    hourly = toa_incident_solar(end - np.arange(6) * np.timedelta64(1, "h"), GRID).sum(axis=0)
    np.testing.assert_allclose(toa_incident_solar(end, GRID, 6.0)[0], hourly, atol=2e-3 * hourly.max())


def test_noon_is_at_the_right_longitude():
    times = np.array("2001-04-15T00:30", dtype="datetime64[ns]") + np.arange(0, 24, 3) * np.timedelta64(1, "h")
    energy = toa_incident_solar(times, Grid.equiangular(33, 360, poles=True))
    noon = energy[:, 16].argmax(axis=1)
    middle_hour = np.arange(0, 24, 3)  # The hour ends half past, so its middle is the full hour.
    np.testing.assert_allclose((noon - (180 - 15 * middle_hour) + 180) % 360 - 180, 0, atol=1)


def test_polar_night_polar_day_and_equinox_symmetry():
    energy = toa_incident_solar(_times("2001-12-21T12:00", "2001-06-21T12:00"), GRID)
    assert (energy[0, -4:] == 0).all()
    assert (energy[1, :4] == 0).all()
    assert (energy[0, :4] > 0).all()
    expected = TOTAL_SOLAR_IRRADIANCE * 3600 * np.sin(np.deg2rad(23.44)) / 1.0163**2
    np.testing.assert_allclose(energy[1, -1], expected, rtol=1e-3)
    equinox = toa_incident_solar(_times("2001-03-20T14:00"), GRID)[0]
    np.testing.assert_allclose(equinox, equinox[::-1], atol=1e-3 * equinox.max())


def test_result_is_float32_and_an_empty_interval_is_refused():
    energy = toa_incident_solar(_times("2001-01-01"), GRID)
    assert energy.dtype == np.float32
    assert energy.shape == (1, 33, 64)
    with pytest.raises(InputError, match="accumulation_hours"):
        toa_incident_solar(_times("2001-01-01"), GRID, 0.0)
