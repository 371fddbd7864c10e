"""Commands on data: every option reaches the work that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from dags.cli import app


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that stands for a source, which nobody reads here."""
    path = tmp_path / "era5.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("{}")
    return path


def asked(monkeypatch: pytest.MonkeyPatch, place: str, *words: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that a command calls the function at `place` with."""
    calls = []
    monkeypatch.setattr(place, lambda *positional, **named: calls.append((positional, named)))
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    (call,) = calls
    return call


def test_regrid_passes_its_options_on(monkeypatch, source, tmp_path):
    words = ("--latitudes", 19, "--longitudes", 36, "--poles", "--method", "bilinear", "--skipna")
    words += ("--variable", "temperature", "--variable", "land_sea_mask", "--level", 500, "--vertical", "interpolate")
    words += ("--preset", "cf", "--rename", "t=temperature", "--units", "temperature=degC", "--step-hours", 12)
    words += ("--zarr-format", 2, "--keep-bits", "temperature=10", "--memory-mb", 500, "--runner", "FlinkRunner")
    words += ("--start", "2001-01-01", "--end", "2001-02-01T06", "--also", f"{tmp_path}/b.zarr=32x64")
    positional, named = asked(
        monkeypatch, "pipeline.regrid.regrid_store", "regrid", source, tmp_path / "a.zarr", *words
    )
    assert positional[0] == str(source)
    assert (positional[2].shape, positional[2].has_poles) == ((19, 36), True)
    ((_, other, method),) = named["also"]
    assert (other.shape, other.has_poles, method) == ((32, 64), False, "bilinear")
    expected = {
        "method": "bilinear",
        "skipna": True,
        "variables": ["temperature"],
        "statics": ["land_sea_mask"],
        "levels": [500],
        "vertical": "interpolate",
        "preset": "cf",
        "rename": {"t": "temperature"},
        "units": {"temperature": "degC"},
        "step_hours": 12,
        "zarr_format": 2,
        "keep_bits": {"temperature": 10},
        "memory_mb": 500,
        "beam_options": ["--runner=FlinkRunner"],
    }
    assert {key: named[key] for key in expected} == expected
    assert [f"{time:%d %H}" for time in named["period"]] == ["01 00", "01 06"]


def test_climatology_and_statistics_pass_their_options_on(monkeypatch, source, tmp_path):
    words = ("--method", "fast", "--statistics", "mean, std", "--window-days", 31, "--hour-interval", 12, "--daily")
    place = "pipeline.climatology.climatology_store"
    _, named = asked(monkeypatch, place, "climatology", source, tmp_path / "c.zarr", *words, "--memory-mb", 300)
    expected = {"method": "fast", "statistics": ["mean", "std"], "window_days": 31, "hour_interval": 12, "daily": True}
    assert {key: named[key] for key in expected} == expected
    assert named["memory_mb"] == 300
    place = "pipeline.statistics.statistics_store"
    _, named = asked(
        monkeypatch, place, "statistics", source, tmp_path / "s.nc", "--memory-mb", 200, "--end", "2001-06-30"
    )
    assert named["memory_mb"] == 200
    assert f"{named['period'][1]:%Y-%m-%d}" == "2001-06-30"


def test_verify_passes_its_options_on(monkeypatch, source):
    place = "pipeline.stores.writing.verify_store"
    assert asked(monkeypatch, place, "verify", source, "--memory-mb", 200) == ((str(source),), {"memory_mb": 200})


def test_simulate_passes_its_options_on(monkeypatch, tmp_path):
    words = ("--truncation", 31, "--days", 10, "--spinup-days", 5, "--seed", 3, "--grid", "24x48", "--no-poles")
    place = "pipeline.simulate.simulate_store"
    (_, kind, settings, _), _ = asked(monkeypatch, place, "simulate", tmp_path / "a.zarr", *words, "--level", 500)
    assert kind == "simulation"
    assert (settings.truncation, settings.days, settings.spinup_days, settings.seed) == (31, 10, 5, 3)
    assert (settings.grid.latitude, settings.grid.poles, settings.levels) == (24, False, [500])


def test_simulated_waves_differ_by_grid(tmp_path):
    for poles in ("--poles", "--no-poles"):
        path = tmp_path / f"{poles}.zarr"
        words = ["simulate", str(path), "--kind", "waves", "--days", "1", "--grid", "9x16", "--level", "500", poles]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        latitude = xr.open_zarr(path, consolidated=False).latitude.values
        assert np.isclose(np.abs(latitude).max(), 90.0) == (poles == "--poles")
