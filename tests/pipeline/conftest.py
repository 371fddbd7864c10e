"""A small source in the layout of the public WeatherBench 2 stores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

LEVELS = (250, 500, 850)
PLAIN = {  # mean, amplitude, units
    "geopotential": (None, 800.0, "m**2 s**-2"),
    "temperature": (265.0, 20.0, "K"),
    "u_component_of_wind": (5.0, 12.0, "m s**-1"),
    "v_component_of_wind": (0.0, 9.0, "m s**-1"),
    "2m_temperature": (284.0, 18.0, "K"),
}
HEIGHT = {250: 10_360.0, 500: 5_570.0, 850: 1_460.0}


@pytest.fixture(scope="session")
def era5_like() -> Callable[..., xr.Dataset]:
    """Make a dataset like the 64 x 32 ERA5 store: axes (time, level, longitude, latitude), no poles."""

    def make(times: int = 12, step_hours: float = 6, start: str = "2016-12-30T00", nlat: int = 32) -> xr.Dataset:
        rng = np.random.default_rng(7)
        longitude = np.arange(2 * nlat) * (180.0 / nlat)
        latitude = -90.0 + 180.0 / nlat * (np.arange(nlat) + 0.5)
        time = np.datetime64(start, "ns") + (np.arange(times) * step_hours * 3600e9).astype("timedelta64[ns]")
        variables = {}
        for name, (mean, amplitude, units) in PLAIN.items():
            surface = name == "2m_temperature"
            axes = ("time", "longitude", "latitude") if surface else ("time", "level", "longitude", "latitude")
            shape = (times, 2 * nlat, nlat) if surface else (times, len(LEVELS), 2 * nlat, nlat)
            base = mean
            if base is None:
                base = 9.80665 * np.array([HEIGHT[level] for level in LEVELS])[:, None, None]
            values = base + amplitude * rng.uniform(-1, 1, shape)
            variables[name] = (axes, values.astype(np.float32), {"units": units})
        plane = (2 * nlat, nlat)
        variables["geopotential_at_surface"] = (
            ("longitude", "latitude"),
            rng.uniform(0, 3e4, plane).astype(np.float32),
            {"units": "m**2 s**-2"},
        )
        variables["land_sea_mask"] = (
            ("longitude", "latitude"),
            rng.uniform(0, 1, plane).astype(np.float32),
            {"units": "(0 - 1)"},
        )
        coordinates = {"time": time, "level": np.array(LEVELS), "longitude": longitude, "latitude": latitude}
        return xr.Dataset(variables, coordinates)

    return make
