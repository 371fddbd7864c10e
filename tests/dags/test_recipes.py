"""The recipes of docs/recipes.md run to a report on a simulated store of ERA5's schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from pipeline.config_files import load_config

SMALL = [
    "source.preset=null",
    "data.period=null",
    "data.grid={latitude: 16, longitude: 32}",
    "model.levels=[{band_limit: 12, scalars: 8, vectors: 4, blocks: 1}]",
    "training.batch_size=4",
    "training.validate_every=20",
    "training.validation_windows=4",
    "training.checkpoint_every=20",
    "forecast.batch_size=4",
    "forecast.every_hours=24",
    "periods.train=[2001-01-01T00:00, 2001-01-20T18:00]",
    "periods.validation=[2001-01-21T00:00, 2001-01-27T18:00]",
    "periods.test=[2001-01-28T00:00, 2001-02-03T18:00]",
]
RECIPES = {
    "keisler22-32": (
        ["training.stages=[{steps: 1, updates: 20, learning_rate: 1e-3}]", "forecast.lead_hours=24"],
        [24],
    ),
    "weatherbench-direct-2": (["training.stages.0.updates=20"], [72, 120]),
    "weatherbench-direct-117": (["training.stages.0.updates=20"], [72, 120]),
    "extreme-heat": (
        [
            "training.stages.0.updates=20",
            "model.leads_hours=[24, 72]",
            "forecast.lead_hours=72",
            # The first day has no 24 hours before it.
            "data.period=[2001-01-02T00:00, 2001-02-05T00:00]",
            "periods.train=[2001-01-02T00:00, 2001-01-20T18:00]",
        ],
        [24, 72],
    ),
}


@pytest.fixture(scope="module")
def atmosphere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jcm", reason="the extra simulate is not installed")
    store = tmp_path_factory.mktemp("recipes") / "atmosphere.zarr"
    command = [sys.executable, "-m", "dags", "simulate", str(store), "--days", "36", "--spinup-days", "5"]
    levels = [argument for level in load_config("keisler22-32").data.levels for argument in ("--level", str(level))]
    subprocess.run([*command, "--grid", "33x64", "--poles", *levels], check=True, capture_output=True)
    return store


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_run_to_a_report(name, atmosphere, tmp_path):
    own, leads = RECIPES[name]
    overrides = [f"source.path={atmosphere}", *SMALL, *own]
    command = [sys.executable, "-m", "dags", "run", name, *overrides, "--runs-dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout
    run, config = tmp_path / name, load_config(name)
    assert (run / "report.html").stat().st_size > 10_000
    with netCDF4.Dataset(run / "metrics" / "model.nc") as metrics:
        assert set(leads) <= set(np.asarray(metrics["lead_time"][:]).tolist())
    expected = config.model.outputs or [f"{v}@{k}" for v in config.data.variables for k in config.data.levels]
    with xr.open_zarr(run / "forecast.zarr", decode_timedelta=True) as forecast:
        assert {field.split("@")[0] for field in expected} == set(forecast.data_vars)
        for field in expected:
            variable, _, level = field.partition("@")
            values = forecast[variable].sel(level=int(level)) if level else forecast[variable]
            assert bool(np.isfinite(values).all()), field


@pytest.mark.parametrize("name", [*RECIPES, "keisler22-64", "keisler22-128", "keisler22-256"])
def test_splits_are_those_of_the_protocol(name):
    config = load_config(name)
    years = [period[0].year for period in (config.periods.train, config.periods.validation, config.periods.test)]
    assert years == ([1979, 2017, 2020] if name.startswith("keisler22") else [1979, 2016, 2017])
    if name.startswith("keisler22"):
        assert len(config.data.variables) * len(config.data.levels) == 78
        assert config.training.stages[-1].steps == 12
        assert config.forecast.lead_hours == 20 * config.data.time_step_hours


def test_the_predictors_are_117():
    config = load_config("weatherbench-direct-117")
    pressure = [name for name in config.data.variables if name not in ("2m_temperature", "total_precipitation_6hr")]
    fields = len(pressure) * len(config.data.levels) + 2
    # Radiation is computed; the third static is latitude.
    statics = len(config.data.statics) + config.model.latitude
    assert config.model.solar
    assert (fields + 1) * config.model.input_steps + statics == 117
