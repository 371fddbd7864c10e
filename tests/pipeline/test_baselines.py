"""Baselines against their definitions in plain numpy, whatever memory there is, stopped or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.baselines import baseline_store
from pipeline.climatology import climatology_store
from pipeline.objects import Objects
from pipeline.stores.writing import verify_store
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.selections import parse_leads, parse_times

HOUR = np.timedelta64(1, "h")
INITIAL = parse_times("2001-12-29T00:2002-01-03T12:12h,2001-11-05T06")
LEADS = parse_leads("0h,12h:3d:12h,10d")
TRAIN = parse_times("2001-01-01:2001-11-30", "--train-period")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A year and four days of an annual cycle with red noise, one time of it missing."""
    rng, grid = np.random.default_rng(3), Grid.equiangular(6, 8, poles=False)
    times = pd.date_range("2001-01-01", "2002-01-04T18", freq="6h")
    season = np.cos(2 * np.pi * times.day_of_year.to_numpy() / 365.25)[:, None, None, None]
    noise = rng.normal(size=(len(times), 2, 6, 8))
    for t in range(1, len(times)):
        noise[t] = np.array([0.95, 0.8])[:, None, None] * noise[t - 1] + 0.3 * noise[t]
    fields = {
        "temperature": (("time", "level", "latitude", "longitude"), (270 + 10 * season + noise).astype("f4")),
        "2m_temperature": (("time", "latitude", "longitude"), (280 + 8 * season[:, 0] + noise[:, 0]).astype("f4")),
        "valid": (("time",), np.arange(len(times)) != 700),
    }
    fields["temperature"][1][700] = np.nan
    coords = {"time": times, "level": [500, 850], "latitude": grid.latitude, "longitude": grid.longitude}
    path = tmp_path_factory.mktemp("baselines") / "truth.zarr"
    xr.Dataset(fields, coords).to_zarr(path, zarr_format=2)
    climatology_store(path, path.with_name("climatology.zarr"), fingerprint="c")
    return path


def made(kind: str, truth: Path, target: Path, **settings) -> xr.Dataset:
    normals = {} if kind == "persistence" else {"climatology": truth.with_name("climatology.zarr")}
    if kind == "damped-anomaly":
        normals["train_period"] = TRAIN
    options = {"initial_times": INITIAL, "leads": LEADS, **normals, **settings}
    baseline_store(kind, truth, target, **options)
    return xr.open_zarr(target, decode_timedelta=True).load()


def usual(truth: Path, times: pd.DatetimeIndex) -> xr.Dataset:
    """The climatology at some times."""
    climatology = xr.open_zarr(truth.with_name("climatology.zarr"), consolidated=False).load()
    pick = {
        "hour": xr.DataArray(times.hour.to_numpy(), dims="time"),
        "dayofyear": xr.DataArray(times.day_of_year.to_numpy(), dims="time"),
    }
    return climatology[["temperature", "2m_temperature"]].sel(pick).drop_vars(("hour", "dayofyear"))


def plain_rho(truth: Path, name: str, lead: np.timedelta64) -> np.ndarray:
    data = xr.open_zarr(truth).load().sel(time=slice("2001-01-01", "2001-11-30T23"))
    data = data.isel(time=data.valid.values)
    anomaly = (data[name] - usual(truth, data.indexes["time"])[name]).astype("f8")
    later = anomaly.assign_coords(time=anomaly.time - lead)
    a, b = xr.align(anomaly, later)
    area = xr.DataArray(Grid.equiangular(6, 8, poles=False).latitude_weights(), dims="latitude")
    over = [axis for axis in a.dims if axis != "level"]
    sums = [(area * product).sum(over) for product in (a * b, a * a, b * b)]
    return np.clip((sums[0] / np.sqrt(sums[1] * sums[2])).values, 0, 1)


def test_persistence_is_the_initial_state(truth, tmp_path):
    got = made("persistence", truth, tmp_path / "out.zarr")
    data = xr.open_zarr(truth).load()
    assert got.temperature.dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
    np.testing.assert_array_equal(got.prediction_timedelta / HOUR, [0, 12, 24, 36, 48, 60, 72, 240])
    assert got.sizes["time"] == 13
    for name in ("temperature", "2m_temperature"):
        for lead in range(8):
            np.testing.assert_array_equal(got[name][:, lead], data[name].sel(time=got.time))
    about = read_description(tmp_path / "out.zarr")
    assert (about["kind"], about["baseline"], about["levels"]) == ("forecast", "persistence", [500, 850])


def test_climatology_is_that_of_the_valid_time(truth, tmp_path):
    got = made("climatology", truth, tmp_path / "out.zarr", levels=[850])
    for i, lead in enumerate(got.prediction_timedelta.values):
        expected = usual(truth, got.indexes["time"] + pd.Timedelta(lead))
        np.testing.assert_array_equal(got.temperature[:, i], expected.temperature.sel(level=[850]))
        np.testing.assert_array_equal(got["2m_temperature"][:, i], expected["2m_temperature"])


@pytest.mark.slow
@pytest.mark.parametrize("memory_mb", [1024, 0.2])
def test_damped_anomaly_fades_by_the_lag_correlation(truth, tmp_path, memory_mb):
    got = made("damped-anomaly", truth, tmp_path / "out.zarr", memory_mb=memory_mb)
    data = xr.open_zarr(truth).load().sel(time=got.time)
    rho = read_description(tmp_path / "out.zarr")["lag_correlation"]
    for name in ("temperature", "2m_temperature"):
        anomaly = (data[name] - usual(truth, got.indexes["time"])[name]).values
        for i, lead in enumerate(got.prediction_timedelta.values):
            damping = plain_rho(truth, name, lead)
            np.testing.assert_allclose(rho[name][i], np.atleast_1d(damping), atol=6e-5)
            expected = usual(truth, got.indexes["time"] + pd.Timedelta(lead))[name].values
            np.testing.assert_allclose(got[name][:, i], expected + np.reshape(damping, (-1, 1, 1)) * anomaly, rtol=1e-6)
    assert 0 < rho["temperature"][4][1] < rho["temperature"][4][0] < 1


def test_memory_changes_no_bit_and_what_is_there_is_kept(truth, tmp_path, monkeypatch):
    whole = made("damped-anomaly", truth, tmp_path / "whole.zarr", memory_mb=1024)
    (tmp_path / "whole.zarr").rename(tmp_path / ".partial-out.zarr")
    (tmp_path / ".partial-out.zarr" / "2m_temperature" / "c.4.0.0.0").unlink()
    written, write = [], Objects.write
    monkeypatch.setattr(Objects, "write", lambda self, key, data: (written.append(key), write(self, key, data))[1])
    again = made("damped-anomaly", truth, tmp_path / "out.zarr", memory_mb=0.2)
    assert sorted(written) == ["2m_temperature/c.4.0.0.0", "temperature/c.4.0.0.0.0"]
    xr.testing.assert_identical(again, whole)
    assert verify_store(tmp_path / "out.zarr") == []


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("median", {}, "baseline 'median': expected one of persistence, climatology, damped-anomaly"),
        ("climatology", {"climatology": None}, "climatology: needs a climatology"),
        ("persistence", {"variables": ["geopotential"]}, "variable: geopotential; the truth has 2m_temperature, temp"),
        ("persistence", {"levels": [300]}, r"level: temperature is not at 300 hPa; the truth has \[500, 850\]"),
        ("persistence", {"initial_times": parse_times("2001-06-25")}, "nothing there"),
        ("climatology", {"leads": parse_leads("3h")}, r"climatology: has hours \[0, 6, 12, 18\], and not that of"),
        ("damped-anomaly", {"train_period": parse_times("2001-01-01:2001-01-05")}, "no two times 240 h apart"),
    ],
)
def test_what_cannot_be_made_is_refused(truth, tmp_path, kind, settings, message):
    with pytest.raises(InputError, match=message):
        made(kind, truth, tmp_path / "out.zarr", **settings)
    assert not (tmp_path / "out.zarr").exists()
