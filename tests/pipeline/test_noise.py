"""Networks with noise: training goes on bit for bit, and a member's noise depends on seed, time, number and step alone."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import train
from pipeline.artefacts import read_description
from pipeline.config import PerturbationConfig
from pipeline.config_files import load_config
from pipeline.forecast import forecast_store
from pipeline.forecasting.noise import ForecastNoise
from pipeline.runs import Run
from pipeline.training.checkpoints import Choice, ForecasterSpec
from tests.pipeline.test_train import events, make_run, parameters, train_with_a_stop
from transforms.errors import InputError

NOISY = ("model.noise=2", "model.noise_length_km=3000", "training.loss=crps", "training.members=2")
STAGE = "training.stages=[{steps: 2, updates: 5, learning_rate: 0.003}]"
TIMES = [datetime(2001, 1, 31), datetime(2001, 2, 1, 6)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("noise") / "run", *NOISY, STAGE)
    train.run_stage(run, "f", {"regrid": "t"})
    return run


def make(run: Run, target: Path, **settings) -> xr.Dataset:
    settings = {"initial_times": TIMES, "leads": [0, 6, 18], "batch_size": 3, "members": 3, **settings}
    forecast_store([Choice(run.checkpoints)], run.training_store, target, **settings)
    return xr.open_zarr(target, decode_timedelta=True).load()


@pytest.fixture(scope="module")
def whole(trained: Run) -> xr.Dataset:
    return make(trained, trained.directory / "whole.zarr")


def assert_close(got: xr.Dataset, expected: xr.Dataset) -> None:
    for name, values in got.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5 * float(np.abs(expected[name]).max()), rtol=0)


@pytest.mark.slow
def test_resumed_training_equals_uninterrupted(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(tmp_path / "run", *NOISY, STAGE)
    train_with_a_stop(run, 3, monkeypatch)
    for got, expected in zip(parameters(run), parameters(trained), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert events(run) == events(trained)
    losses = [event["loss"] for event in events(run) if event["event"] in ("train", "validation")]
    assert np.isfinite(losses).all()


def test_members_differ_by_their_noise_alone(trained, whole):
    states = xr.open_zarr(trained.training_store, consolidated=False).load().sel(time=whole.time)
    for name in whole:
        start = whole[name].isel(prediction_timedelta=0)
        for number in range(3):
            np.testing.assert_array_equal(start.sel(number=number), states[name])
        spread = whole[name].isel(prediction_timedelta=1).std("number").mean(("level", "latitude", "longitude"))
        assert (spread > 0).all()
    about = read_description(trained.directory / "whole.zarr")
    assert about["members"] == [0, 1, 2]
    assert about["perturbation"] is None
    assert about["noise"] == {"fields": 2, "seed": 0}


@pytest.mark.slow
def test_batches_and_blocks_do_not_change_a_member(trained, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.forecasting.integration.block_length", lambda *arguments: 2)
    got = make(trained, tmp_path / "out.zarr", initial_times=TIMES[1:], numbers=[2], batch_size=1)
    assert_close(got, whole.sel(time=got.time, number=[2]))
    # A single forecast is member 0.
    assert_close(make(trained, tmp_path / "one.zarr", members=1), whole.sel(number=0, drop=True))


def test_perturbations_are_added_where_an_amplitude_is_given(trained, whole, tmp_path):
    settings = PerturbationConfig(amplitude=0.1, seed=0)
    got = make(trained, tmp_path / "out.zarr", members=2, perturbation=settings)
    start = got.geopotential.isel(prediction_timedelta=0)
    assert not np.array_equal(start.sel(number=1), start.sel(number=0))
    assert_close(got.sel(number=0), whole.sel(number=0))
    assert read_description(tmp_path / "out.zarr")["perturbation"]["amplitude"] == 0.1


def test_each_member_time_step_and_field_has_its_own_noise(trained):
    spec = ForecasterSpec.load(trained.checkpoints)
    noise, times = ForecastNoise(spec, 0), np.array(TIMES, "datetime64[ns]")
    draws = np.concatenate([noise.of(time, number, [1, 2]) for time in times for number in (0, 1)])
    assert draws.shape == (8, 2, 8, 16)
    assert len(np.unique(draws[..., 0, 0])) == 16
    np.testing.assert_array_equal(noise.of(times[1], 1, [2])[0], draws[7])
    assert not np.array_equal(ForecastNoise(spec, 1).of(times[1], 1, [2])[0], draws[7])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.members=2"], r"training.members: 2, but training.loss is mse.* Set training.loss to crps"),
        (["model.noise=1"], r"model.noise: 1, but training.loss is mse.* expected 0. Set training.loss to crps"),
        (["training.loss=crps", "model.noise=1"], "training.members: 1, but .* needs 2 or more. Set it to 2"),
        (["training.loss=crps", "training.members=2"], "model.noise: 0, but .* expected 1 or more. Set it to 1"),
        (["training.loss=mae"], "training.loss: .* got 'mae'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        load_config("tiny", overrides)


@pytest.mark.slow
def test_a_network_with_noise_runs_to_a_report(tmp_path):
    stages = (
        "training.stages=[{steps: 1, updates: 60, learning_rate: 0.003}, {steps: 2, updates: 20, learning_rate: 0.001}]"
    )
    command = [sys.executable, "-m", "dags", "run", "tiny", *NOISY, stages, "forecast.members=4"]
    result = subprocess.run([*command, "--runs-dir", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout
    run = tmp_path / "tiny"
    assert (run / "report.html").stat().st_size > 10_000
    with xr.open_dataset(run / "metrics" / "model.nc", engine="netcdf4") as metrics:
        scores = metrics["geopotential"].sel(region="global", level=500)
        for name in ("crps", "spread_skill_ratio"):
            assert bool((scores.sel(metric=name) > 0).all())
