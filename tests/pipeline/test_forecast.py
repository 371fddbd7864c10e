"""Forecasts: stopped ones go on to the same bytes; batches, blocks and parts of the output change no number."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.forecast import forecast_store
from pipeline.forecasting import rollout_blocks
from pipeline.forecasting import writing as forecast_writing
from pipeline.objects import Objects
from pipeline.runs import Run
from pipeline.stores.writing import verify_store
from tests.pipeline.test_train import make_trained_run
from transforms.errors import InputError

PERIOD = (datetime(2001, 1, 31), datetime(2001, 2, 3))
SETTINGS = {"period": PERIOD, "every_hours": 12, "lead_hours": 60, "batch_size": 2}
HOUR = np.timedelta64(1, "h")

KILLED = """
import sys, time
from pipeline.forecasting import writing as forecast_writing
from pipeline.forecasting import rollout_blocks
from pipeline.forecast import forecast_store
from pipeline.stores.writing import StoredArray
from tests.pipeline.test_forecast import SETTINGS, small_blocks
encode = StoredArray.encode
def slow(self, values):
    time.sleep(0.1)
    return encode(self, values)
StoredArray.encode = slow
small_blocks(setattr)
forecast_store(*sys.argv[1:], **SETTINGS)
"""


def small_blocks(setting) -> None:
    """Several blocks to a forecast, several chunks to a shard, several shards to an initial time."""
    setting(rollout_blocks, "_BLOCK_BYTES", 30e3)
    setting(forecast_writing, "_SHARD_BYTES", 2100)
    setting(forecast_writing, "_CHUNK_BYTES", 1100)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch.setattr)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_trained_run(tmp_path_factory.mktemp("trained") / "run", "model.input_steps=2", updates=3)


@pytest.fixture(scope="module")
def whole(trained: Run) -> Path:
    """A forecast that was not stopped."""
    target = trained.directory / "whole.zarr"
    with pytest.MonkeyPatch.context() as context:
        small_blocks(context.setattr)
        forecast_store(trained.checkpoints, trained.training_store, target, **SETTINGS)
    return target


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the forecasts written in this process."""
    keys: list[str] = []
    write = Objects.write

    def counting(self, key, data):
        if key.startswith(("geopotential/c.", "u_component_of_wind/c.", "v_component_of_wind/c.")):
            keys.append(key)
        write(self, key, data)

    monkeypatch.setattr(Objects, "write", counting)
    return keys


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


def opened(store: Path) -> xr.Dataset:
    return xr.open_zarr(store, decode_timedelta=True).load()


def make(run: Run, target: Path, **settings) -> xr.Dataset:
    forecast_store(run.checkpoints, run.training_store, target, **{**SETTINGS, **settings})
    return opened(target)


def assert_close(got: xr.Dataset, expected: xr.Dataset) -> None:
    for name, values in got.items():
        scale = float(np.abs(expected[name]).max())
        np.testing.assert_allclose(values, expected[name], atol=1e-5 * scale, rtol=0)


@pytest.mark.slow
def test_a_killed_forecast_goes_on_and_ends_the_same(trained, whole, tmp_path, written):
    target, partial = tmp_path / "out.zarr", tmp_path / ".partial-out.zarr"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(trained.checkpoints), str(trained.training_store), str(target)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    every = {key for key in contents(whole) if key.startswith(("geopotential", "u_comp", "v_comp")) and "/c." in key}

    def present() -> set[str]:
        return {key for key in Objects(str(partial)).find() if key in every}

    deadline = time.monotonic() + 120
    while len(present()) < len(every) // 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = present()
    assert len(every) // 2 <= len(before) < len(every)
    initial_times = sorted({int(key.split(".")[1]) for key in every})
    finished = [n for n in initial_times if {key for key in every if int(key.split(".")[1]) == n} <= before]
    assert finished
    make(trained, target)
    assert {int(key.split(".")[1]) for key in written} == set(initial_times) - set(finished)
    assert contents(target) == contents(whole)
    assert verify_store(target) == []


def test_damage_and_another_job_are_found(trained, whole, tmp_path, written):
    partial = tmp_path / ".partial-out.zarr"
    shutil.copytree(whole, partial)
    damaged = partial / "geopotential" / "c.3.1.0.0.0"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    make(trained, tmp_path / "out.zarr")
    assert {key.split(".")[1] for key in written} == {"3"}
    assert contents(tmp_path / "out.zarr") == contents(whole)
    shutil.copytree(whole, tmp_path / ".partial-other.zarr")
    written.clear()
    other = make(trained, tmp_path / "other.zarr", lead_hours=24)
    assert other.sizes["prediction_timedelta"] == 4
    assert len(written) == 7 * 3


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_batches_of_any_size_give_the_same(trained, whole, tmp_path, batch_size):
    assert_close(make(trained, tmp_path / "out.zarr", batch_size=batch_size), opened(whole))


@pytest.mark.parametrize("block_bytes", [1.0, 50e3, 16e6])
def test_the_length_of_blocks_changes_no_bit(trained, whole, tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(rollout_blocks, "_BLOCK_BYTES", block_bytes)
    make(trained, tmp_path / "out.zarr")
    assert contents(tmp_path / "out.zarr") == contents(whole)


def test_parts_of_the_output_are_those_of_the_whole(trained, whole, tmp_path):
    got = make(trained, tmp_path / "out.zarr", variables=["u_component_of_wind"], leads=[6, 48, 24], levels=[500])
    assert list(got.data_vars) == ["u_component_of_wind"]
    np.testing.assert_array_equal(got.prediction_timedelta / HOUR, [6, 24, 48])
    assert_close(got, opened(whole).sel(prediction_timedelta=got.prediction_timedelta))
    assert read_description(tmp_path / "out.zarr")["levels"] == [500]


def test_listed_initial_times_and_leads_past_the_end_of_the_data(trained, tmp_path):
    times = [datetime(2001, 2, 9, 18), datetime(2001, 2, 1)]
    got = make(trained, tmp_path / "out.zarr", initial_times=times, period=None, every_hours=None)
    np.testing.assert_array_equal(got.time, np.array(sorted(times), "datetime64[ns]"))
    assert all(np.isfinite(got[name]).all() for name in got)
    with pytest.raises(InputError, match="initial_times: 2001-02-01T03:00 cannot be started from"):
        make(trained, tmp_path / "no.zarr", initial_times=[datetime(2001, 2, 1, 3)])


def test_non_finite_values_stop_their_initial_time_alone(trained, whole, tmp_path, monkeypatch, caplog):
    program, length = rollout_blocks.block_program, rollout_blocks.block_length(10, 4.0 * 2 * 128 * 8, 1e9)
    assert length == 2

    def exploding(*arguments):
        run, calls = program(*arguments), []

        def block(state, history, forcings):
            # The first step of the second block of the second batch, in the second of its initial times.
            calls.append(1)
            history, block = run(state, history, forcings)
            if len(calls) == 10 // length + 2:
                block = rollout_blocks.Block(
                    block.states.at[1, 0, 2, 3, 3].set(np.inf), block.finite.at[1, 0, 2].set(False)
                )
            return history, block

        return block

    monkeypatch.setattr("pipeline.forecasting.integration.block_program", exploding)
    with caplog.at_level(logging.WARNING):
        got = make(trained, tmp_path / "out.zarr")
    text = f"v_component_of_wind at 500 hPa is not finite at lead {6 * (length + 1)} h"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"forecast of 2001-02-01T12 UTC: {text}")
    expected = opened(whole)
    for name in expected:
        expected[name][3, length:] = np.nan
    xr.testing.assert_identical(got.drop_attrs(), expected.drop_attrs())
    assert verify_store(tmp_path / "out.zarr") == []


def test_missing_values_in_an_initial_state_are_named(trained, tmp_path, caplog):
    states = xr.open_zarr(trained.training_store, consolidated=False).load().drop_vars("valid").drop_encoding()
    states.geopotential[{"time": 120, "latitude": 2, "longitude": 5}] = np.nan
    states.to_zarr(tmp_path / "states.zarr", zarr_format=2)
    times = states.time.values[[118, 120]].astype("datetime64[s]").tolist()
    forecast_store(
        trained.checkpoints, tmp_path / "states.zarr", tmp_path / "out.zarr", initial_times=times, lead_hours=24
    )
    got = opened(tmp_path / "out.zarr")
    assert np.isfinite(got.geopotential[0]).all()
    assert all(np.isnan(got[name][1]).all() for name in got)
    assert "geopotential at 500 hPa has missing values in the initial state" in caplog.text


def test_a_store_of_another_step_order_and_more_levels_serves(trained, whole, tmp_path):
    states = xr.open_zarr(trained.training_store, consolidated=False).load().drop_encoding()
    other = states.drop_vars(["valid", "land_sea_mask"]).drop_attrs().isel(latitude=slice(None, None, -1))
    between = (0 * other).assign_coords(time=other.time + 3 * HOUR)
    finer = xr.concat([other, between], "time", data_vars="all").sortby("time")
    more = xr.concat([0 * finer, finer], "level", data_vars="all").assign_coords(level=[850, 500])
    more.transpose("time", "level", "longitude", "latitude").to_zarr(tmp_path / "states.zarr", zarr_format=2)
    forecast_store(trained.checkpoints, tmp_path / "states.zarr", tmp_path / "out.zarr", **SETTINGS)
    assert_close(opened(tmp_path / "out.zarr"), opened(whole))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leads": [6, 9]}, "leads: 9; expected multiples of the checkpoint's time step, 6 h"),
        ({"lead_hours": 3}, "lead_hours: 3; expected at least"),
        ({"variables": ["temperature"]}, "variables: temperature is not forecast; the checkpoint has geopotential"),
        ({"levels": [850]}, "levels: 850 is not forecast; the checkpoint has 500"),
        ({"memory_mb": 0}, "memory_mb: .* Give more, or a smaller batch_size"),
    ],
)
def test_what_cannot_be_made_is_refused(trained, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        make(trained, tmp_path / "out.zarr", **settings)


@pytest.mark.parametrize(("leads", "lead_bytes"), [(1, 10), (41, 300), (41, 5000), (10, 1000), (7, 2000)])
def test_chunks_divide_shards(leads, lead_bytes):
    chunk, shard = forecast_writing.lead_spans(leads, lead_bytes)
    assert shard % chunk == 0
    assert shard * lead_bytes <= max(2100 + chunk * lead_bytes, lead_bytes)
    assert -(-leads // shard) * shard - leads < shard
