"""Spectra of forecasts and truth by degree and lead time: blur, coherence, kinetic energy, effective resolution.

Powers and cross spectra are averaged over initial times (and members), then ratios of the averages are taken. A wind's
spectra are those of its rotational and its divergent kinetic energy.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from pipeline.artefacts import ATTRIBUTE, describe, publishing
from pipeline.jobs.progress import progress
from pipeline.scoring.request import Request
from pipeline.scoring.spectra import PairSpectra, SphericalSpectra
from pipeline.scoring.stores import Stores, open_stores
from pipeline.stores.reading import description_of, period_of, read_times
from transforms.metrics import vector_name
from transforms.selections import Selection
from transforms.spectra import blur_ratio, coherence, effective_resolution, power_ratio, wavelength

__all__ = ["SPECTRA", "spectra_store", "spectral_scores"]

SPECTRA = ("forecast", "truth", "cross", "power_ratio", "coherence")
"""Entries of the axis spectrum: average powers, in the field's units squared (m^2 s^-2 for kinetic energy), and ratios."""


def spectra_store(
    forecast: str,
    truth: str,
    target: str | Path,
    *,
    leads: Selection | None = None,
    initial_times: Selection | None = None,
    variables: tuple[str, ...] | None = None,
    levels: tuple[float, ...] | None = None,
    most_times: int | None = None,
    fingerprint: str = "",
    inputs: dict[str, str] | None = None,
) -> None:
    """Write the spectra of a forecast store and its truth as netCDF; see `spectral_scores`."""
    request = Request(forecast, truth, leads=leads, initial_times=initial_times, variables=variables, levels=levels)
    stores = open_stores(request)
    with publishing(target) as partial:
        result = spectral_scores(stores, most_times=most_times)
        description = describe(
            "spectra",
            fingerprint,
            inputs,
            simulated=any(description_of(store).get("simulated", False) for store in (stores.model, stores.truth)),
            period=period_of(stores.model.time.values),
            grid=str(stores.grid),
        )
        result.assign_attrs({ATTRIBUTE: json.dumps(description)}).to_netcdf(partial, engine="netcdf4")


def spectral_scores(stores: Stores, *, most_times: int | None = None) -> xr.Dataset:
    """Return spectra of forecast and truth at the same valid times.

    Args:
        most_times: of more initial times so many, evenly spread, are used.

    Returns:
        For every scalar, and for winds ``wind_vector_rotational`` and ``wind_vector_divergent`` kinetic energy, the axes (spectrum,
        lead_time, [level], degree), spectrum of `SPECTRA`; ``FIELD_effective_resolution``, the lowest degree where the
        forecast has less than half the truth's power, and ``FIELD_blur_ratio``, (lead_time, [level]); ``wavelength``,
        m, (degree); ``samples`` (lead_time). NaN where a field has missing values.
    """
    spectra = SphericalSpectra(stores.grid)
    included = stores.samples.included
    count, leads = included.shape
    chosen = (
        np.arange(count)
        if most_times is None
        else np.unique(np.linspace(0, count - 1, min(most_times, count)).round()).astype(int)
    )
    sums: dict[str, np.ndarray] = {}
    with progress("spectra", len(chosen)) as bar:
        for time in chosen:
            there = np.flatnonzero(included[time])
            for group in stores.groups if there.size else ():
                for field, pair in _pairs(stores, spectra, group, time, there).items():
                    total = sums.setdefault(field, np.zeros((3, leads, *pair.forecast.shape[1:])))
                    total[:, there] += np.stack(pair)
            bar.advance()
    samples = included[chosen].sum(axis=0)
    variables: dict[str, tuple] = {}
    for field, total in sums.items():
        mean = total / np.where(samples > 0, samples, np.nan).reshape(-1, *[1] * (total.ndim - 2))
        variables |= _described(field, *mean)
    degrees = np.arange(spectra.band_limit)
    variables["wavelength"] = ("degree", wavelength(degrees), {"units": "m"})
    variables["samples"] = ("lead_time", samples)
    lead_times = stores.model.prediction_timedelta.values.astype("timedelta64[ns]")
    result = xr.Dataset(variables, {"spectrum": list(SPECTRA), "lead_time": lead_times, "degree": degrees})
    if "level" in result.dims:
        result = result.assign_coords(level=stores.model.level.values)
    result.lead_time.encoding = {"units": "hours", "dtype": "float64"}
    return result


def _described(field: str, forecast: np.ndarray, truth: np.ndarray, cross: np.ndarray) -> dict[str, tuple]:
    """Return the variables that tell of a field's average spectra, (lead, [level], degree)."""
    ratio = power_ratio(forecast, truth)
    dims = ("lead_time", "level", "degree") if forecast.ndim == 3 else ("lead_time", "degree")
    together = np.stack([forecast, truth, cross, ratio, coherence(cross, forecast, truth)])
    resolution = np.where(np.isnan(ratio[..., 1:]).all(axis=-1), np.nan, effective_resolution(ratio).astype(float))
    return {
        field: (("spectrum", *dims), together),
        f"{field}_effective_resolution": (dims[:-1], resolution),
        f"{field}_blur_ratio": (dims[:-1], blur_ratio(forecast, truth)),
    }


def _pairs(
    stores: Stores, spectra: SphericalSpectra, group: tuple[str, ...], time: int, leads: np.ndarray
) -> dict[str, PairSpectra]:
    """Return the spectra of one initial time's fields at some leads, each (lead, [level], degree)."""
    forecasts, truths = [], []
    for name in group:
        variable = stores.model[name].isel(time=time, prediction_timedelta=leads)
        forecast = variable.transpose("number", ...).values if "number" in variable.dims else variable.values[None]
        needed, at = np.unique(stores.samples.position[time, leads], return_inverse=True)
        truth = read_times(stores.truth[name], needed)[at]
        forecasts.append(forecast)
        truths.append(np.broadcast_to(truth, forecast.shape))

    def over_members(pair: PairSpectra) -> PairSpectra:
        return PairSpectra(*(values.mean(axis=0) for values in pair))

    if len(group) == 1:
        return {group[0]: over_members(spectra.pair(forecasts[0], truths[0]))}
    # Components are no scalars: what has a spectrum is the vector's energy.
    parts = spectra.kinetic_energy_pair((forecasts[0], forecasts[1]), (truths[0], truths[1]))
    kinds = zip(("rotational", "divergent"), parts, strict=True)
    return {f"{vector_name(group[0])}_{kind}": over_members(part) for kind, part in kinds}
