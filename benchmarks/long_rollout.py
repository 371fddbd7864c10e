"""Climate of long rollouts: whether power by degree and zonal means stay within a tenth of the truth's for 60 days.

Forecasts of a training's checkpoints start through a year. Over windows of ten days, and over all forecasts, the power of
every field by degree is compared with the truth's in bands of degrees, and the zonal mean with the truth's zonal mean, its
error in units of the zonal mean's own spread over latitude. The day a field leaves is that of the first window in which
either is off by more than a tenth. Weather beyond two weeks is another draw of the same climate, so the truth of the year
before is held to the same: what that is off by, no forecast is to be blamed for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from common import main, row

from pipeline.forecast import forecast_store
from pipeline.scoring.spectra import SphericalSpectra
from pipeline.stores.reading import open_store
from pipeline.training.checkpoints import Choice
from transforms.grids import Grid
from transforms.selections import parse_times

FIELDS = {"geopotential": 500, "temperature": 850, "u_component_of_wind": 250}
BANDS = ((1, 5), (6, 12), (13, 20))
DAYS, WINDOW = 60, 10
BAR = 0.1
_YEAR = np.timedelta64(365, "D")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR", help="of a training")
    parser.add_argument("--store", type=Path, required=True, metavar="ZARR", help="initial states and truth")
    parser.add_argument("--initial-times", default="2006-01-01:2006-10-20:18d", help="dates and ranges")


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Return for every field the largest departure over all windows, and the last day of the windows before the first
    that is off by more than a tenth; and what the truth of the year before departs by."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "forecast.zarr"
        leads = [24.0 * day for day in range(1, DAYS + 1)]
        forecast_store(
            [Choice(arguments.checkpoints)],
            arguments.store,
            target,
            initial_times=parse_times(arguments.initial_times),
            leads=leads,
            variables=list(FIELDS),
            batch_size=4,
        )
        with xr.open_zarr(target, decode_timedelta=True) as forecast:
            truth = open_store(arguments.store, "truth")
            return [line for name, level in FIELDS.items() for line in _rows(forecast, truth, name, level)]


def _rows(forecast: xr.Dataset, truth: xr.Dataset, name: str, level: int) -> list[dict]:
    values = forecast[name].sel(level=level).transpose("time", "prediction_timedelta", "latitude", "longitude")
    valid = (forecast.time + forecast.prediction_timedelta).values
    reference = truth[name].sel(level=level)
    actual, earlier = (
        reference.sel(time=times.ravel()).values.reshape(values.shape) for times in (valid, valid - _YEAR)
    )
    grid = Grid(forecast.latitude.values, forecast.longitude.values)
    label, found = f"{name}@{level}", []
    pairs = zip(departures(values.values, actual, grid), departures(earlier, actual, grid), strict=True)
    for what, (by_window, of_earlier) in zip(("power by degree", "zonal mean"), pairs, strict=True):
        off = np.flatnonzero(~(by_window <= BAR))
        stays = DAYS if off.size == 0 else int(off[0]) * WINDOW
        worst = float(by_window.max()) if np.isfinite(by_window).all() else float("inf")
        found.append(row(f"{label}: {what}, largest departure", worst, "", BAR, bar=1.0))
        found.append(row(f"{label}: {what}, stays for", stays, "days", None))
        found.append(row(f"{label}: {what}, year before's truth", float(of_earlier.max()), "", None))
    return found


def departures(forecast: np.ndarray, truth: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return how far power and zonal means are off in every window, (window,).

    Args:
        forecast, truth: daily, (initial time, day, latitude, longitude).
    """
    spectra = SphericalSpectra(grid)
    pair = spectra.pair(forecast.astype(np.float64), truth.astype(np.float64))
    power = []
    for spectrum in (pair.forecast, pair.truth):
        mean = spectrum.reshape(len(spectrum), -1, WINDOW, spectrum.shape[-1]).mean(axis=(0, 2))
        power.append(np.array([mean[:, low : high + 1].sum(axis=-1) for low, high in BANDS]))
    zonal = [
        fields.astype(np.float64).mean(axis=-1).reshape(len(fields), -1, WINDOW, fields.shape[2]).mean(axis=(0, 2))
        for fields in (forecast, truth)
    ]
    weights = grid.latitude_weights() / grid.latitude_weights().sum()
    error = np.sqrt(((zonal[0] - zonal[1]) ** 2 * weights).sum(axis=-1))
    centred = zonal[1] - (zonal[1] * weights).sum(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2 * weights).sum(axis=-1))
    return np.abs(power[0] / power[1] - 1.0).max(axis=0), error / spread


if __name__ == "__main__":
    main(measure, __doc__, add_arguments)
