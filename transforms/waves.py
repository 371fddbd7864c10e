"""Travelling Rossby-Haurwitz waves in ERA5's schema: a source made in no time, whose future is known exactly.

The flow is equivalent barotropic (Charney 1949, J. Meteorol. 6, 371-385): one stream function, a solid-body rotation of
angular velocity w plus spherical harmonics of degree l and order m, times a factor that grows linearly with height in
ln(pressure). By the linear barotropic vorticity equation on the rotating sphere (Haurwitz 1940, J. Mar. Res. 3, 254-267)
each harmonic travels eastward, unchanged in shape, with the angular velocity

    c = w - 2 (Omega + w) / (l (l + 1)).

Everything else follows in closed form. The geopotential obeys the linear balance equation, Laplacian(Phi) = div(f grad
psi), whose solution for a harmonic of degree l is a sum of its neighbours of degrees l - 1 and l + 1; temperature is
hydrostatic; vertical velocity is what the adiabatic thermodynamic equation demands. The mean state is the ICAO
standard atmosphere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from transforms.grids import Grid

__all__ = ["EARTH_RADIUS", "ROTATION", "ZONAL_ANGULAR_VELOCITY", "Wave", "rossby_haurwitz", "wave_components"]

EARTH_RADIUS = 6.371e6
"""m."""
ROTATION = 7.292e-5
"""Angular velocity of the Earth, s-1."""
ZONAL_ANGULAR_VELOCITY = 16.0 / EARTH_RADIUS
"""Angular velocity of the mean flow at the reference level, s-1: 16 m s-1 at the equator."""

_GAS_CONSTANT = 287.05
_KAPPA = 2.0 / 7.0
_GRAVITY = 9.80665
_REFERENCE_LEVEL = 500.0  # hPa, where the vertical factor is 1.
_GROWTH = 0.5  # Increase of the vertical factor per unit of -ln(pressure).
_EPOCH = np.datetime64("2000-01-01", "ns")

# ICAO standard atmosphere: sea level, lapse rate, tropopause.
_T0, _P0, _LAPSE, _TROPOPAUSE = 288.15, 1013.25, 0.0065, 226.32
_EXPONENT = _GAS_CONSTANT * _LAPSE / _GRAVITY
_T_TROPOPAUSE = _T0 * (_TROPOPAUSE / _P0) ** _EXPONENT

# Degree, order and largest zonal-mean wind scale (m s-1) of each wave.
_WAVES = ((3, 1, 7.0), (4, 3, 9.0), (5, 4, 9.0), (6, 5, 8.0), (9, 6, 6.0))

# Latitude, longitude (degrees), sharpness, height (m): smooth stand-ins for continents and their highlands.
_LANDS = (
    (33.0, 88.0, 9.0, 3500.0),
    (45.0, 250.0, 9.0, 1800.0),
    (-15.0, 290.0, 10.0, 1600.0),
    (-88.0, 0.0, 14.0, 2500.0),
)


@dataclass(frozen=True)
class Wave:
    """One harmonic, psi = amplitude * P(sin latitude) cos(order (longitude - c t) + phase).

    Attributes:
        degree, order: l and m of the normalised Legendre function P (its square integrates to 1 over sin latitude).
        amplitude: m2 s-1.
        phase: radians at 2000-01-01 00 UTC.
    """

    degree: int
    order: int
    amplitude: float
    phase: float

    @property
    def angular_velocity(self) -> float:
        """c, s-1, eastward."""
        w = ZONAL_ANGULAR_VELOCITY
        return w - 2.0 * (ROTATION + w) / (self.degree * (self.degree + 1))


def wave_components(seed: int = 0) -> tuple[Wave, ...]:
    """Return the waves; the seed draws their phases."""
    phases = np.random.default_rng(seed).uniform(0.0, 2 * np.pi, len(_WAVES))
    return tuple(
        Wave(degree, order, speed * EARTH_RADIUS / degree, float(phase))
        for (degree, order, speed), phase in zip(_WAVES, phases, strict=True)
    )


def rossby_haurwitz(times: np.ndarray, grid: Grid, levels: list[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Return every variable of the simulated sources, in ERA5's names and units.

    Args:
        times: datetime64, UTC, shape (time,).
        grid: any iso-latitude grid; at the poles winds keep the basis of their row's longitudes.
        levels: hPa.
        seed: draws the phases of the waves.

    Returns:
        geopotential, temperature, u_component_of_wind, v_component_of_wind, specific_humidity and vertical_velocity
        (time, level, latitude, longitude); 2m_temperature, 10m_u_component_of_wind, 10m_v_component_of_wind,
        mean_sea_level_pressure and total_precipitation_6hr (time, latitude, longitude); geopotential_at_surface and
        land_sea_mask (latitude, longitude). All float32.

    Near the ground: 2 m temperature is that of 1000 hPa, reduced by the standard lapse rate to the height of the
    ground; 10 m winds are 0.7 times those of 1000 hPa; mean sea level pressure follows from the geopotential of 1000 hPa.
    Relative humidity is 0.7 times pressure over 1000 hPa. Precipitation falls at 4 mm a day where 500 hPa is at rest,
    more where air rises; its rate in the middle of the six hours stands for all of them.
    """
    waves = wave_components(seed)
    seconds = (np.asarray(times, dtype="datetime64[ns]") - _EPOCH) / np.timedelta64(1, "s")
    flow = _Flow(seconds, grid, waves)
    surface_geopotential, land = _land(grid)

    fields: dict[str, np.ndarray] = {}
    pressure = np.asarray(levels, dtype=np.float64)
    shape = (seconds.size, pressure.size, *grid.shape)
    names = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind")
    for name in (*names, "specific_humidity", "vertical_velocity"):
        fields[name] = np.empty(shape, dtype=np.float32)
    for index, level in enumerate(pressure):
        temperature = flow.temperature(level)
        fields["geopotential"][:, index] = flow.geopotential(level)
        fields["temperature"][:, index] = temperature
        fields["u_component_of_wind"][:, index] = _factor(level) * flow.u
        fields["v_component_of_wind"][:, index] = _factor(level) * flow.v
        fields["specific_humidity"][:, index] = 0.7 * level / 1000.0 * _saturation_humidity(temperature, level)
        fields["vertical_velocity"][:, index] = flow.vertical_velocity(level)

    surface_temperature = flow.temperature(1000.0)
    rising = -_Flow(seconds - 3 * 3600.0, grid, waves).vertical_velocity(_REFERENCE_LEVEL)
    surface = {
        "2m_temperature": surface_temperature - _LAPSE / _GRAVITY * surface_geopotential,
        "10m_u_component_of_wind": 0.7 * _factor(1000.0) * flow.u,
        "10m_v_component_of_wind": 0.7 * _factor(1000.0) * flow.v,
        "mean_sea_level_pressure": 1e5 * np.exp(flow.geopotential(1000.0) / (_GAS_CONSTANT * surface_temperature)),
        "total_precipitation_6hr": 1e-3 * np.exp(rising / 0.1),
        "geopotential_at_surface": surface_geopotential,
        "land_sea_mask": land,
    }
    fields.update({name: values.astype(np.float32) for name, values in surface.items()})
    return fields


class _Flow:
    """The reference-level flow: u, v (m s-1), balanced geopotential anomaly (m2 s-2) and its derivatives."""

    def __init__(self, seconds: np.ndarray, grid: Grid, waves: tuple[Wave, ...]) -> None:
        latitude, longitude = np.deg2rad(grid.latitude), np.deg2rad(grid.longitude)
        shape = (seconds.size, *grid.shape)
        zonal_u = EARTH_RADIUS * ZONAL_ANGULAR_VELOCITY * np.cos(latitude)[:, None]
        self.u, self.v = np.zeros(shape) + zonal_u, np.zeros(shape)
        # Linear balance of psi = -a^2 w sin(latitude), without its global mean.
        zonal = EARTH_RADIUS**2 * ROTATION * ZONAL_ANGULAR_VELOCITY
        self.anomaly = np.zeros(shape) + zonal * (1.0 / 3.0 - np.sin(latitude) ** 2)[:, None]
        self._per_second, self._east = np.zeros(shape), np.zeros(shape)
        self._north = np.zeros(shape) - (zonal * np.sin(2 * latitude))[:, None]
        for wave in waves:
            self._add(wave, seconds, latitude, longitude)

    def _add(self, wave: Wave, seconds: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> None:
        degree, order = wave.degree, wave.order
        travelled = np.mod(wave.angular_velocity * seconds, 2 * np.pi)
        angle = order * (longitude - travelled[:, None]) + wave.phase
        cosine, sine = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        value, over_cosine, slope = (x[:, None] for x in _legendre(degree, order, latitude))
        self.u -= wave.amplitude / EARTH_RADIUS * slope * cosine
        self.v -= wave.amplitude / EARTH_RADIUS * order * over_cosine * sine

        weight = 2 * ROTATION * wave.amplitude * degree / (degree + 1) * _epsilon(degree + 1, order)
        balanced = [weight * x for x in _legendre(degree + 1, order, latitude)]
        if degree > order:
            weight = 2 * ROTATION * wave.amplitude * (degree + 1) / degree * _epsilon(degree, order)
            balanced = [x + weight * y for x, y in zip(balanced, _legendre(degree - 1, order, latitude), strict=True)]
        value, over_cosine, slope = (x[:, None] for x in balanced)
        self.anomaly += value * cosine
        self._east -= order * over_cosine * sine
        self._north += slope * cosine
        self._per_second += order * wave.angular_velocity * value * sine

    def geopotential(self, level: float) -> np.ndarray:
        return _standard_geopotential(level) + _factor(level) * self.anomaly

    def temperature(self, level: float) -> np.ndarray:
        """Hydrostatic: -(p / R) d(geopotential)/dp."""
        return _standard_temperature(level) + _GROWTH / _GAS_CONSTANT * self.anomaly

    def vertical_velocity(self, level: float) -> np.ndarray:
        """Pa s-1: (dT/dt + wind . grad T) over the static stability, which makes the motion adiabatic."""
        advection = _factor(level) * (self.u * self._east + self.v * self._north) / EARTH_RADIUS
        warming = _GROWTH / _GAS_CONSTANT * (self._per_second + advection)
        lapse = _EXPONENT if level > _TROPOPAUSE else 0.0
        stability = (_KAPPA - lapse) * _standard_temperature(level) / (100.0 * level)
        return warming / stability


def _factor(level: float) -> float:
    return 1.0 + _GROWTH * math.log(_REFERENCE_LEVEL / level)


def _standard_temperature(level: float) -> float:
    return _T0 * (level / _P0) ** _EXPONENT if level > _TROPOPAUSE else _T_TROPOPAUSE


def _standard_geopotential(level: float) -> float:
    below = _GRAVITY / _LAPSE * (_T0 - _T0 * (max(level, _TROPOPAUSE) / _P0) ** _EXPONENT)
    return below + _GAS_CONSTANT * _T_TROPOPAUSE * max(0.0, math.log(_TROPOPAUSE / level))


def _saturation_humidity(temperature: np.ndarray, level: float) -> np.ndarray:
    """kg kg-1; vapour pressure over water by Bolton (1980), Mon. Wea. Rev. 108, equation 10."""
    celsius = temperature - 273.15
    vapour = 6.112 * np.exp(17.67 * celsius / (celsius + 243.5))
    return 0.622 * vapour / (level - 0.378 * vapour)


def _epsilon(degree: int, order: int) -> float:
    return math.sqrt((degree**2 - order**2) / (4.0 * degree**2 - 1.0))


def _legendre(degree: int, order: int, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return P, P / cos(latitude) and dP / dlatitude, each finite at the poles (order at least 1)."""
    polynomial = np.polynomial.Legendre.basis(degree).deriv(order)
    scale = math.sqrt((2 * degree + 1) / 2 * math.factorial(degree - order) / math.factorial(degree + order))
    sine, cosine = np.sin(latitude), np.cos(latitude)
    over_cosine = scale * cosine ** (order - 1) * polynomial(sine)
    slope = scale * cosine ** (order + 1) * polynomial.deriv()(sine) - order * sine * over_cosine
    return over_cosine * cosine, over_cosine, slope


def _land(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return geopotential at the surface (m2 s-2) and land-sea mask, both (latitude, longitude)."""
    latitude = np.deg2rad(grid.latitude)[:, None]
    longitude = np.deg2rad(grid.longitude)
    height, sea = np.zeros(grid.shape), np.ones(grid.shape)
    for centre_latitude, centre_longitude, sharpness, summit in _LANDS:
        centre = math.radians(centre_latitude)
        cosine = np.sin(latitude) * math.sin(centre) + np.cos(latitude) * math.cos(centre) * np.cos(
            longitude - math.radians(centre_longitude)
        )
        height += summit * np.exp(2 * sharpness * (cosine - 1.0))
        sea *= 1.0 - np.exp((sharpness * (cosine - 1.0)) ** 3)
    return _GRAVITY * height, 1.0 - sea
