"""Training resumes to the same parameters, and its checkpoint alone makes forecasts."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import xarray as xr
from flax import nnx

import pipeline.training.checkpoints
from pipeline import forecast, statistics, train
from pipeline.artefacts import describe, read_description
from pipeline.config_files import load_config
from pipeline.report import write_report
from pipeline.runs import Run
from pipeline.states.layout import FieldsKept
from pipeline.training import curriculum
from tests.pipeline.reporting.test_report import Page
from transforms.errors import InputError
from transforms.grids import Grid

SETTINGS = [
    "data.grid={latitude: 8, longitude: 16}",
    "data.levels=[500]",
    "data.variables=[geopotential, u_component_of_wind, v_component_of_wind]",
    "data.statics=[land_sea_mask]",
    "model.levels=[{band_limit: 6, scalars: 3, vectors: 2, blocks: 1}]",
    "training.stages=[{steps: 1, updates: 6, learning_rate: 0.003}, {steps: 2, updates: 5, learning_rate: 0.001}]",
    "training.batch_size=2",
    "training.checkpoint_every=2",
    "training.validate_every=4",
    "forecast.lead_hours=24",
    "forecast.every_hours=12",
    "forecast.batch_size=3",
]


def make_run(directory: Path, *extra: str) -> Run:
    config = load_config("tiny", [*SETTINGS, *extra])
    directory.mkdir()
    (directory / "config.yaml").write_text(config.to_yaml())
    grid = Grid.equiangular(8, 16, poles=False)
    times = np.datetime64("2001-01-01", "ns") + np.arange(160) * np.timedelta64(6, "h")
    phase = np.arange(160)[:, None, None] * 0.4
    wave = np.cos(np.deg2rad(grid.latitude))[:, None] * np.sin(2 * np.deg2rad(grid.longitude) - phase)
    volume = ("time", "level", "latitude", "longitude")
    fields = {
        "geopotential": (volume, (5e4 + 500 * wave)[:, None].astype("f4"), {"units": "m**2 s**-2"}),
        "u_component_of_wind": (volume, (10 * np.roll(wave, 2, -1))[:, None].astype("f4")),
        "v_component_of_wind": (volume, (8 * np.roll(wave, 1, -1))[:, None].astype("f4")),
        "land_sea_mask": (volume[2:], (wave[0] > 0).astype("f4")),
        "valid": (("time",), np.ones(160, bool)),
    }
    coords = {"time": times, "level": [500], "latitude": grid.latitude, "longitude": grid.longitude}
    dataset = xr.Dataset(fields, coords, {"spherecast": describe("training store", "t", simulated=True)})
    dataset.to_zarr(directory / "training.zarr", zarr_format=3, consolidated=False)
    run = Run.open(directory)
    statistics.run_stage(run, "s", {})
    return run


def make_trained_run(path: Path, *overrides: str, updates: int = 4) -> Run:
    """Return a run with checkpoints of a few updates."""
    run = make_run(path, f"training.stages=[{{steps: 1, updates: {updates}, learning_rate: 0.003}}]", *overrides)
    train.run_stage(run, "f", {"regrid": "t"})
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("trained") / "run")
    train.run_stage(run, "f", {"regrid": "t"})
    return run


def parameters(run: Run) -> list[np.ndarray]:
    forecaster, _ = pipeline.training.checkpoints.load_forecaster(run.checkpoints)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(forecaster, nnx.Param))]


def events(run: Run) -> list[dict]:
    lines = (run.checkpoints / curriculum.TRAINING_LOG).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("samples_per_second", "waiting")} for line in lines]


def test_checkpoint_describes_itself(trained: Run):
    description = read_description(trained.checkpoints)
    assert description["kind"] == "checkpoint"
    assert description["fingerprint"] == "f"
    assert description["simulated"] is True
    assert description["parameters"] == sum(leaf.size for leaf in parameters(trained))
    assert description["training_windows"] == 27 * 4 - 1


def test_training_log_tells_the_curriculum(trained: Run):
    log = events(trained)
    updates = [event["update"] for event in log if event["event"] == "train"]
    assert updates == [1, 6, 7, 11]
    assert "forecast" in {event["event"] for event in log}
    assert [event["update"] for event in log if event["event"] == "validation"] == [4, 6, 8, 11]
    assert {event["rollout_steps"] for event in log if event["update"] > 6 and event["event"] != "forecast"} == {2}
    assert list((trained.logs / "tensorboard").iterdir())


def train_with_a_stop(run: Run, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, but fail once when `stop` updates are made, and go on."""

    class Stopped(Exception):
        pass

    def stopping(self, state, batch, update=curriculum.Trainer.update):
        if int(state.update) == stop:
            raise Stopped
        return update(self, state, batch)

    with monkeypatch.context() as patch:
        patch.setattr(curriculum.Trainer, "update", stopping)
        with pytest.raises(Stopped):
            train.run_stage(run, "f", {"regrid": "t"})
    assert not run.checkpoints.exists()
    train.run_stage(run, "f", {"regrid": "t"})


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_resumed_training_equals_uninterrupted(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
):
    run = make_run(tmp_path / "run")
    train_with_a_stop(run, stop, monkeypatch)
    for got, expected in zip(parameters(run), parameters(trained), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert events(run) == events(trained)


@pytest.mark.slow
def test_resumed_training_by_nadamw_equals_uninterrupted(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = ("training.optimizer=nadamw", "training.stages=[{steps: 1, updates: 6, learning_rate: 0.003}]")
    runs = [make_run(tmp_path / name, *options) for name in ("plain", "resumed")]
    train.run_stage(runs[0], "f", {})
    train_with_a_stop(runs[1], 3, monkeypatch)
    plain, resumed = (checkpoint(run, 6) for run in runs)
    jax.tree.map(np.testing.assert_array_equal, resumed, plain)
    # Of the first update AdamW has the same loss, and of the sixth another.
    losses, others = (
        [event["loss"] for event in events(run) if event["event"] == "train"] for run in (runs[0], trained)
    )
    assert losses[0] == others[0]
    assert losses[1] != others[1]


def test_a_signal_saves_and_leaves_with_a_status_that_says_try_again(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    run = make_run(tmp_path / "run")
    caplog.set_level(logging.INFO)

    def signalled(self, state, batch, update=curriculum.Trainer.update):
        if int(state.update) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, state, batch)

    with monkeypatch.context() as patch:
        patch.setattr(curriculum.Trainer, "update", signalled)
        with pytest.raises(SystemExit, match="stopped by SIGTERM after 7 updates, all saved") as stop:
            train.run_stage(run, "f", {"regrid": "t"})
    assert stop.value.code == 75
    assert not run.checkpoints.exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train.run_stage(run, "f", {"regrid": "t"})
    assert_same_checkpoint(run, trained)
    assert events(run) == events(trained)
    run.logs.mkdir(exist_ok=True)
    (run.logs / "train.log").write_text(f"=== train, 2001-01-01T00:00:00Z: missing\n{caplog.text}")
    page = Page(report_of(run))
    assert "7 stopped, all saved 2001-01-01 00:00:00 7 resumed from a checkpoint 2001-01-01 00:00:00" in page.words
    marks = [[7, "preempted"], [7, "resumed"]]
    assert json.loads(page.data["training-log"])[0]["events"] == marks


def report_of(run: Run) -> str:
    write_report(run.directory / "page.html", [run])
    return (run.directory / "page.html").read_text()


def test_the_hardware_is_recorded_and_shown(trained: Run):
    about = read_description(trained.checkpoints)["hardware"]
    assert about["devices"] == "1 CPU device"
    assert re.fullmatch(r".+ \(\d+ cores?\)", about["processor"])
    assert re.fullmatch(r"[1-9]\d* GB of memory", about["memory"])
    assert f"Trained on 1 CPU device, {about['processor']}, {about['memory']}." in Page(report_of(trained)).words


def checkpoint(run: Run, update: int) -> dict[str, np.ndarray]:
    tree = ocp.PyTreeCheckpointer().restore(run.checkpoints / str(update) / "state")
    return {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_checkpoint(run: Run, other: Run) -> None:
    got, expected = checkpoint(run, 11), checkpoint(other, 11)
    assert got.keys() == expected.keys()
    assert any("ema" in key for key in got)
    assert any("opt_state" in key for key in got)
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.slow
def test_killed_three_times_it_ends_as_if_it_had_not_been(trained: Run, tmp_path: Path):
    run = make_run(tmp_path / "run")
    rng = np.random.default_rng()
    stops = sorted(int(update) for update in rng.choice(np.arange(1, 11), 3, replace=False))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for stop in [*stops, None]:
        command = [sys.executable, __file__, str(run.directory), *([] if stop is None else [str(stop)])]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == (0 if stop is None else -signal.SIGKILL), (stops, result.stderr[-3000:])
    assert_same_checkpoint(run, trained)
    assert events(run) == events(trained), stops


def train_until_killed() -> None:
    """Train the run of the command line; kill this process when as many updates are made as it says."""
    directory, stop = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1

    def killing(self, state, batch, update=curriculum.Trainer.update):
        if int(state.update) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, state, batch)

    curriculum.Trainer.update = killing
    train.run_stage(Run.open(directory), "f", {"regrid": "t"})


def breaking(monkeypatch: pytest.MonkeyPatch, broken: set[int]) -> None:
    """Have the loader's batches (from 0, of all stages) hold what is not a number at the first time of channel 1."""
    count, original = iter(range(10**6)), curriculum.Loader.__next__

    def following(self):
        batch = original(self)
        return batch._replace(states=batch.states.at[:, 0, 1].set(np.nan)) if next(count) in broken else batch

    monkeypatch.setattr(curriculum.Loader, "__next__", following)


def test_updates_that_are_not_finite_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(tmp_path / "run", "training.stages=[{steps: 1, updates: 6, learning_rate: 0.003}]")
    seen = []
    original = curriculum.Trainer.update

    def watching(self, state, batch):
        seen.append([np.array(leaf) for leaf in jax.tree.leaves(state[:4])])
        return original(self, state, batch)

    monkeypatch.setattr(curriculum.Trainer, "update", watching)
    breaking(monkeypatch, {2, 3})
    train.run_stage(run, "f", {})
    same = [all(map(np.array_equal, one, other)) for one, other in itertools.pairwise(seen)]
    assert same == [False, False, True, True, False]
    skipped = [event for event in events(run) if event["event"] == "skipped"]
    assert [(event["update"], event["skipped"]) for event in skipped] == [(3, 1), (4, 2)]
    state = checkpoint(run, 6)
    assert (state["['skipped']"], state["['skipped_in_row']"]) == (2, 0)


def test_training_goes_back_after_too_many_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(
        tmp_path / "run",
        "training.stages=[{steps: 1, updates: 9, learning_rate: 0.003}]",
        "training.rollback_after=2",
    )
    breaking(monkeypatch, {5, 6, 7})
    train.run_stage(run, "f", {})
    log = events(run)
    # Read one update late: the eighth was under way when the seventh turned out to be the second in a row.
    (back,) = [event for event in log if event["event"] == "rollback"]
    assert (back["update"], back["to"], back["skipped"]) == (8, 4, 3)
    assert log[-1]["update"] == 9
    page = Page(report_of(run))
    assert "8 rolled back to update 4 after values that are not finite" in page.words
    assert [8, "rolled back"] in json.loads(page.data["training-log"])[0]["events"]


def test_what_is_not_finite_first_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(tmp_path / "run", "training.rollback_limit=1", "training.rollback_after=2")
    breaking(monkeypatch, set(range(4, 100)))
    with pytest.raises(
        FloatingPointError,
        match=r"\(1 times back .*\): u_component_of_wind@500 is not finite in the training data, at time 0 of a window",
    ):
        train.run_stage(run, "f", {})


@pytest.mark.slow
def test_batch_statistics_are_saved_resumed_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [make_run(tmp_path / name, "model.normalisation=batch") for name in ("plain", "resumed")]
    train.run_stage(runs[0], "f", {"regrid": "t"})
    train_with_a_stop(runs[1], 9, monkeypatch)
    loaded = [pipeline.training.checkpoints.load_forecaster(run.checkpoints)[0] for run in runs]
    for got, expected in zip(*(jax.tree.leaves(nnx.state(model)) for model in loaded), strict=True):
        np.testing.assert_array_equal(got, expected)
    statistics = nnx.state(loaded[0], nnx.BatchStat)["network"]["down"][0][0]["norm"]
    assert float(statistics["updates"][...]) == 11
    assert float(np.abs(statistics["variance"][...] - 1).min()) > 1e-3
    assert loaded[0].network.down[0][0].norm.use_running_average
    forecast.run_stage(runs[0], "fc", {"train": "f"})
    assert np.isfinite(xr.open_zarr(runs[0].forecast, consolidated=False).geopotential).all()


def test_another_configuration_does_not_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(tmp_path / "run", "training.stages=[{steps: 1, updates: 2, learning_rate: 0.003}]")
    started = []
    original = curriculum.CheckpointStore.latest
    monkeypatch.setattr(
        curriculum.CheckpointStore, "latest", lambda self: started.append(original(self)) or started[-1]
    )
    train.run_stage(run, "one", {})
    shutil.move(run.checkpoints, run.directory / ".partial-checkpoints")
    train.run_stage(run, "two", {})
    assert started == [None, None]


def test_a_diverging_training_stops_with_advice(tmp_path: Path):
    run = make_run(tmp_path / "run", "training.stages=[{steps: 1, updates: 4, learning_rate: 1.0e+30}]")
    with pytest.raises(
        FloatingPointError,
        match=r"at update 4, and 3 in a row were skipped \(0 times back .*\): geopotential@500 is not finite first, at step 1 "
        r".*Lower training.stages\[0\].learning_rate",
    ):
        train.run_stage(run, "f", {})


def test_a_period_too_short_for_the_rollout_is_refused_at_once(tmp_path: Path):
    run = make_run(
        tmp_path / "run",
        "training.stages=[{steps: 1, updates: 1, learning_rate: 0.1}, {steps: 400, updates: 1, learning_rate: 0.1}]",
    )
    with pytest.raises(InputError, match=r"training.stages\[1\]: 400 steps need 401 consecutive valid times"):
        train.run_stage(run, "f", {})


@pytest.fixture(scope="module")
def forecasts(trained: Run) -> xr.Dataset:
    forecast.run_stage(trained, "fc", {"train": "f"})
    return xr.open_zarr(trained.forecast, consolidated=False, decode_timedelta=True)


def test_forecast_layout(trained: Run, forecasts: xr.Dataset):
    assert forecasts.geopotential.dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
    assert forecasts.geopotential.dtype == np.float32
    assert set(forecasts.data_vars) == set(trained.config.data.variables)
    np.testing.assert_array_equal(forecasts.prediction_timedelta / np.timedelta64(1, "h"), [6, 12, 18, 24])
    hours = (forecasts.time.values - np.datetime64("2001-01-31")) / np.timedelta64(1, "h")
    assert hours.tolist() == list(range(0, 240, 12))
    assert np.isfinite(forecasts.geopotential).all()
    description = read_description(trained.forecast)
    assert (description["kind"], description["simulated"]) == ("forecast", True)


def test_forecast_is_the_forecaster_s_rollout(trained: Run, forecasts: xr.Dataset):
    from transforms.forcings import forcing_fields

    forecaster, spec = pipeline.training.checkpoints.load_forecaster(trained.checkpoints)
    truth = xr.open_zarr(trained.training_store, consolidated=False)
    # The last of 20 initial times, in a batch that is not full.
    initial = forecasts.time.values[-1]
    state = np.concatenate([truth[name].sel(time=initial).values for name in spec.layout.variables])[None]
    for lead in range(4):
        time = np.array([initial + lead * np.timedelta64(6, "h")])
        state = forecaster.step(state[:, None], forcing_fields(time, spec.grid, solar=True, clock=True))
        expected = FieldsKept(spec.layout.fields, spec.layout.levels).unpack(np.asarray(state))
        for name in spec.layout.variables:
            got = forecasts[name].isel(time=-1, prediction_timedelta=lead)
            scale = float(np.abs(expected[name]).max())
            np.testing.assert_allclose(got, expected[name][0], atol=1e-5 * scale)


def test_batching_changes_no_forecast(trained: Run, forecasts: xr.Dataset, tmp_path: Path):
    # Only the compiled program's order of summation may differ.
    other = Run(
        tmp_path,
        trained.config.model_copy(update={"forecast": trained.config.forecast.model_copy(update={"batch_size": 7})}),
    )
    for name in ("training.zarr", "checkpoints"):
        (tmp_path / name).symlink_to(trained.directory / name)
    forecast.run_stage(other, "fc", {})
    again = xr.open_zarr(other.forecast, consolidated=False, decode_timedelta=True)
    np.testing.assert_allclose(again.geopotential, forecasts.geopotential, rtol=1e-6)


def test_a_test_period_without_data_is_refused(trained: Run, tmp_path: Path):
    periods = trained.config.periods.model_copy(update={"test": (datetime(2009, 1, 1), datetime(2009, 2, 1))})
    run = Run(trained.directory, trained.config.model_copy(update={"periods": periods}))
    with pytest.raises(
        InputError, match=r"periods.test: 2009-01-01 00 to 2009-02-01 00 UTC holds no valid initial time"
    ):
        forecast.run_stage(run, "x", {})


if __name__ == "__main__":
    train_until_killed()
