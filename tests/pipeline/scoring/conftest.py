"""Small stores in WeatherBench 2's layout to score, with all that can be odd about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.scoring.request import Request
from transforms.grids import Grid

GRID = Grid.equiangular(8, 16, poles=True)
HOUR = np.timedelta64(1, "h")
SPACE = ("level", "latitude", "longitude")


@dataclass
class Stores:
    """A truth of noise, forecasts of it whose error grows with the lead, and a climatology."""

    folder: Path
    datasets: dict[str, xr.Dataset]

    def write(self) -> Stores:
        """Write all as they now are."""
        for name, dataset in self.datasets.items():
            dataset.drop_encoding().to_zarr(self.path(name), zarr_format=3, consolidated=False, mode="w")
        return self

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.zarr")

    def request(self, forecast: str = "forecast", **options) -> Request:
        """Return a request for these stores."""
        options = {"metrics": ("rmse", "mae", "bias", "acc"), "regions": ("global", "tropics"), **options}
        return Request(self.path(forecast), self.path("truth"), self.path("climatology"), **options)


def make_stores(folder: Path, *, initial: int = 10, leads: int = 4, members: int = 5) -> Stores:
    rng = np.random.default_rng(1)
    times = np.datetime64("2003-12-27", "ns") + np.arange(initial + leads + 4) * 12 * HOUR
    coords = {"level": [500, 850], "latitude": GRID.latitude, "longitude": GRID.longitude}
    names = ("geopotential", "u_component_of_wind", "v_component_of_wind")
    truth = xr.Dataset(
        {name: (("time", *SPACE), rng.normal(0, 5, (times.size, 2, *GRID.shape)).astype("f4")) for name in names}
        | {
            "total_precipitation_24hr": (
                ("time", *SPACE[1:]),
                rng.gamma(0.3, 5e-3, (times.size, *GRID.shape)).astype("f4"),
            )
        }
        | {"land_sea_mask": (SPACE[1:], rng.random(GRID.shape).astype("f4"))},
        {"time": times, **coords},
    )
    truth["geopotential"].attrs["units"] = "m**2 s**-2"
    lead = np.arange(1, leads + 1) * 12 * HOUR
    at = truth.drop_vars("land_sea_mask").sel(
        time=xr.DataArray(times[:initial], dims="time") + xr.DataArray(lead, dims="prediction_timedelta")
    )
    at = at.drop_vars("time").assign_coords(time=times[:initial], prediction_timedelta=lead)
    growth = xr.DataArray(np.arange(1.0, leads + 1), dims="prediction_timedelta")

    def noisy(count: int | None) -> xr.Dataset:
        result = {}
        for name, values in at.items():
            scale = 1e-3 if name.startswith("total") else 1.0
            shape = values.shape if count is None else (count, *values.shape)
            noise = xr.DataArray(
                rng.normal(0, scale, shape), dims=values.dims if count is None else ("number", *values.dims)
            )
            result[name] = (values + growth * noise).astype("f4").assign_attrs(values.attrs)
        return xr.Dataset(result).transpose("time", "prediction_timedelta", ..., *SPACE[1:])

    climate = {}
    dims = ("hour", "dayofyear")
    for name in names:
        climate[name] = ((*dims, *SPACE), rng.normal(0, 1, (2, 366, 2, *GRID.shape)).astype("f4"))
        climate[f"{name}_std"] = ((*dims, *SPACE), np.full((2, 366, 2, *GRID.shape), 5, "f4"))
        levels = rng.normal(0, 1, (2, 2, 366, 2, *GRID.shape)) + np.array([-2.0, 2.0]).reshape(1, 2, 1, 1, 1, 1)
        climate[f"{name}_quantile"] = (("hour", "quantile", "dayofyear", *SPACE), levels.astype("f4"))
    rain = "total_precipitation_24hr"
    climate[rain] = ((*dims, *SPACE[1:]), np.full((2, 366, *GRID.shape), 2e-3, "f4"))
    limits = np.array([1e-4, 3e-3], "f4").reshape(1, 2, 1, 1, 1)
    climate[f"{rain}_quantile"] = (
        ("hour", "quantile", "dayofyear", *SPACE[1:]),
        np.broadcast_to(limits, (2, 2, 366, *GRID.shape)),
    )
    climate[f"{rain}_seeps_threshold"] = ((*dims, *SPACE[1:]), np.full((2, 366, *GRID.shape), 4e-3, "f4"))
    climate[f"{rain}_seeps_dry_fraction"] = (
        (*dims, *SPACE[1:]),
        np.broadcast_to(rng.uniform(0.05, 0.9, GRID.shape).astype("f4"), (2, 366, *GRID.shape)),
    )
    climatology = xr.Dataset(
        climate, {"hour": [0, 12], "dayofyear": np.arange(1, 367), "quantile": [0.3, 0.7], **coords}
    )
    datasets = {"truth": truth, "forecast": noisy(None), "ensemble": noisy(members), "climatology": climatology}
    return Stores(folder, datasets)


@pytest.fixture
def stores(tmp_path) -> Stores:
    return make_stores(tmp_path)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Stores:
    """The stores, written; read them only."""
    return make_stores(tmp_path_factory.mktemp("scoring")).write()


@pytest.fixture(scope="session")
def broken(tmp_path_factory) -> Stores:
    """The stores with missing values in forecast, truth and members, and with a truth missing altogether; written."""
    stores = make_stores(tmp_path_factory.mktemp("broken"))
    rng = np.random.default_rng(2)
    for name, axis in (("forecast", 3), ("ensemble", 3), ("truth", None)):
        values = stores.datasets[name]["geopotential"]
        values.values[rng.random(values.shape) < 0.02] = np.nan
        if axis is not None:
            values.values[4, 1] = np.nan
    stores.datasets["truth"] = stores.datasets["truth"].drop_isel(time=7)
    return stores.write()
