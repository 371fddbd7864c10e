"""Spectra of stores: what a blurred forecast shows, by closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from model.harmonics import Transform
from pipeline.artefacts import read_description
from pipeline.scoring.spectral_scores import SPECTRA, spectra_store
from transforms.grids import Grid
from transforms.selections import parse_leads

GRID = Grid.equiangular(24, 48, poles=False)
LIMIT = 22
HOUR = np.timedelta64(1, "h")
DEGREES = np.arange(LIMIT)
KEPT = np.where(DEGREES < 8, 1.0, 0.5)
"""What the forecasts keep of the truth's coefficients: half of those from degree 8 on."""


def fields(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Return fields of truth and of blurred forecasts with power l^-3, and winds of three parts rotation, one divergence."""
    slope = np.where(DEGREES > 0, np.maximum(DEGREES, 1.0) ** -1.5, 0.0) / np.sqrt(2 * DEGREES + 1)
    there = ((np.arange(LIMIT)[:, None] <= DEGREES) * slope)[None, :, :, None, None]
    modal = [rng.normal(size=(2, LIMIT, LIMIT, 1, count)) * there for _ in range(3)]
    for values in modal:
        values[1, 0] = 0.0  # The sine of order 0.
    found = {}
    with jax.enable_x64(True):
        transform = Transform(GRID, LIMIT, dtype=jnp.float64)
        for name, keep in (("truth", np.ones(LIMIT)), ("forecast", KEPT)):
            scalar, divergent, rotational = (jnp.asarray(m * keep[:, None, None]) for m in modal)
            nodal = (
                transform.scalars_to_nodal(scalar),
                *transform.vectors_to_nodal(divergent, np.sqrt(3.0) * rotational),
            )
            for key, each in zip("zuv", nodal, strict=True):
                found[f"{name} {key}"] = np.asarray(each)[:, :, 0].transpose(2, 1, 0)
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> xr.Dataset:
    folder, rng = tmp_path_factory.mktemp("spectra"), np.random.default_rng(0)
    count = 60
    made = fields(rng, count)
    names = {"z": "mean_sea_level_pressure", "u": "10m_u_component_of_wind", "v": "10m_v_component_of_wind"}
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * 6 * HOUR
    space = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    truth = xr.Dataset(
        {name: (("time", *space), made[f"truth {key}"]) for key, name in names.items()}, {"time": times, **space}
    )
    leads = np.array([6, 12]) * HOUR
    forecast = xr.Dataset(
        {
            name: (
                ("time", "prediction_timedelta", *space),
                np.stack([made[f"forecast {key}"][1:-1], made[f"forecast {key}"][2:]], 1),
            )
            for key, name in names.items()
        },
        {"time": times[:-2], "prediction_timedelta": leads, **space},
    )
    truth.to_zarr(folder / "truth.zarr", zarr_format=3, consolidated=False)
    forecast.to_zarr(folder / "forecast.zarr", zarr_format=3, consolidated=False)
    spectra_store(str(folder / "forecast.zarr"), str(folder / "truth.zarr"), folder / "out.nc", fingerprint="f")
    assert read_description(folder / "out.nc")["kind"] == "spectra"
    spectra_store(
        str(folder / "forecast.zarr"),
        str(folder / "truth.zarr"),
        folder / "some.nc",
        leads=parse_leads("12h"),
        variables=("mean_sea_level_pressure",),
        most_times=5,
    )
    with xr.open_dataset(folder / "some.nc", decode_timedelta=True) as some:
        assert some["samples"].values.tolist() == [5]
        assert some.lead_time.values.tolist() == [12 * 3600 * 10**9]
        assert "10m_wind_vector_rotational" not in some
    return xr.load_dataset(folder / "out.nc", decode_timedelta=True).assign_attrs(truth=str(folder / "truth.zarr"))


def test_blur_shows_from_its_degree_on(result):
    assert result.spectrum.values.tolist() == list(SPECTRA)
    pressure = result.mean_sea_level_pressure.isel(lead_time=1)
    np.testing.assert_allclose(pressure.sel(spectrum="power_ratio")[1:LIMIT], KEPT[1:] ** 2, rtol=1e-9)
    np.testing.assert_allclose(pressure.sel(spectrum="coherence")[1:LIMIT], 1.0, rtol=1e-9)
    np.testing.assert_array_equal(result.mean_sea_level_pressure_effective_resolution, 8)
    np.testing.assert_array_equal(result["samples"], 58)
    power = pressure.sel(spectrum="truth").values[:LIMIT]
    weight = DEGREES * (DEGREES + 1)
    expected = (weight * KEPT**2 * power).sum() / (weight * power).sum()
    np.testing.assert_allclose(result.mean_sea_level_pressure_blur_ratio.isel(lead_time=1), expected, rtol=1e-9)
    assert result.wavelength[10] == pytest.approx(2 * np.pi * 6.371e6 / np.sqrt(110))


def test_power_adds_up_to_the_mean_square(result):
    """Parseval, of the truth at the valid times of the first lead."""
    truth = xr.open_zarr(result.attrs["truth"], consolidated=False)["mean_sea_level_pressure"][1:-1].values
    power = result.mean_sea_level_pressure.sel(spectrum="truth").isel(lead_time=0)
    # A field of degrees below the limit is known everywhere: its square is integrated on a finer Gauss grid.
    with jax.enable_x64(True):
        fine = Transform(Grid.gaussian(LIMIT, 2 * LIMIT), LIMIT, dtype=jnp.float64)
        coarse = Transform(GRID, LIMIT, dtype=jnp.float64)
        nodal = jnp.asarray(truth.transpose(2, 1, 0)[:, :, None, :])
        dense = np.asarray(fine.scalars_to_nodal(coarse.scalars_to_modal(nodal)))
    weights = np.polynomial.legendre.leggauss(LIMIT)[1] / 2
    mean_square = np.einsum("xykt,y->", dense**2, weights) / dense.shape[0] / truth.shape[0]
    assert float(power.sum()) == pytest.approx(mean_square, rel=1e-6)


def test_a_known_power_law_is_recovered(result):
    power = result.mean_sea_level_pressure.sel(spectrum="truth").isel(lead_time=0).values
    degrees = np.arange(2, LIMIT)
    slope = np.polyfit(np.log(degrees), np.log(power[2:LIMIT]), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.1)


def test_kinetic_energy_splits_in_rotation_and_divergence(result):
    rotational, divergent = (
        result[f"10m_wind_vector_{kind}"].sel(spectrum="truth").isel(lead_time=0)
        for kind in ("rotational", "divergent")
    )
    # Each degree's ratio is that of random sums; the many patterns of the higher degrees leave little chance.
    assert float((rotational / divergent).sel(degree=slice(6, LIMIT - 1)).mean()) == pytest.approx(3.0, rel=0.05)
    ratio = result["10m_wind_vector_rotational"].sel(spectrum="power_ratio").isel(lead_time=0)
    np.testing.assert_allclose(ratio[1:LIMIT], KEPT[1:] ** 2, rtol=1e-9)
    assert "10m_u_component_of_wind" not in result
