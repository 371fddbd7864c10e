"""Ensembles: what a member starts from depends on seed, time and number alone; any subset reproduces, stopped or not."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.config import PerturbationConfig
from pipeline.forecast import forecast_store
from pipeline.forecasting import rollout_blocks
from pipeline.forecasting.perturbations import Perturbations
from pipeline.objects import Objects
from pipeline.runs import Run
from pipeline.stores.writing import verify_store
from pipeline.training.checkpoints import Choice, ForecasterSpec
from tests.pipeline.test_train import make_trained_run
from transforms.errors import InputError
from transforms.selections import parse_times

TIMES = [datetime(2001, 1, 31), datetime(2001, 2, 1, 6), datetime(2001, 2, 3)]
SETTINGS = {"initial_times": TIMES, "leads": [0, 6, 24], "batch_size": 3}
WINDS = ("u_component_of_wind", "v_component_of_wind")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_trained_run(tmp_path_factory.mktemp("trained") / "run", "model.input_steps=2")


@pytest.fixture(scope="module")
def whole(trained: Run) -> xr.Dataset:
    return make(trained, trained.directory / "whole.zarr", members=4)


def make(run: Run, target: Path, which: tuple = ("latest",), **settings) -> xr.Dataset:
    choices = [Choice(run.checkpoints, choice) for choice in which]
    forecast_store(choices, run.training_store, target, **{**SETTINGS, **settings})
    return xr.open_zarr(target, decode_timedelta=True).load()


def started(forecast: xr.Dataset) -> xr.Dataset:
    return forecast.isel(prediction_timedelta=0).drop_attrs()


def assert_close(got: xr.Dataset, expected: xr.Dataset) -> None:
    for name, values in got.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5 * float(np.abs(expected[name]).max()), rtol=0)


def test_layout_and_control(trained, whole, tmp_path):
    axes = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")
    assert all(field.dims == axes for field in whole.values())
    assert whole.number.values.tolist() == [0, 1, 2, 3]
    alone = make(trained, tmp_path / "alone.zarr")
    assert "number" not in alone.dims
    assert_close(whole.sel(number=0, drop=True), alone)
    states = xr.open_zarr(trained.training_store, consolidated=False).load().sel(time=alone.time)
    for name in alone:
        np.testing.assert_array_equal(whole[name].isel(prediction_timedelta=0, number=0), states[name])
    about = read_description(trained.directory / "whole.zarr")
    assert about["members"] == [0, 1, 2, 3]
    assert about["perturbation"]["seed"] == 0
    # Members part from each other, and stay near the control.
    for name in whole:
        spread = whole[name].std("number").mean(("level", "latitude", "longitude", "time"))
        assert (spread > 0).all()
        assert float(spread.max()) < 5 * float(spread[0])


def test_any_subset_of_times_and_members_starts_from_the_same_bits(trained, whole, tmp_path):
    got = make(
        trained,
        tmp_path / "out.zarr",
        members=9,
        numbers=[3, 1],
        batch_size=2,
        initial_times=parse_times("2001-02-01T06"),
    )
    assert got.number.values.tolist() == [1, 3]
    expected = whole.sel(number=got.number, time=got.time)
    xr.testing.assert_identical(started(got), started(expected))
    assert_close(got, expected)
    other = make(trained, tmp_path / "other.zarr", members=4, perturbation=PerturbationConfig(seed=1))
    for name in other:
        differs = (started(other)[name] != started(whole)[name]).any(("level", "latitude", "longitude"))
        assert not differs.sel(number=0).any()
        assert differs.sel(number=[1, 2, 3]).all()


def test_each_member_time_variable_and_level_has_its_own_perturbation(trained):
    spec = ForecasterSpec.load(trained.checkpoints)
    made = Perturbations(PerturbationConfig(), spec)
    draws = [made.of(np.datetime64(time), number) for time in ("2001-01-01T00", "2001-01-01T06") for number in (1, 2)]
    fields = np.concatenate(draws).reshape(12, -1)
    assert np.abs(np.corrcoef(fields) - np.eye(12)).max() < 0.9
    assert len(np.unique(fields[:, 0])) == 12
    np.testing.assert_array_equal(made.of(np.datetime64("2001-01-01T06:00:00", "ns"), 1), draws[2])


def test_amplitudes_are_fractions_of_the_spread(trained):
    spec = ForecasterSpec.load(trained.checkpoints)
    area = spec.grid.latitude_weights()[:, None]
    amplitudes = {"geopotential": 0.5, **dict.fromkeys(WINDS, 0.25)}
    for relative_to, spread in (("tendency", spec.normalisation.tendency_std), ("state", spec.normalisation.std)):
        settings = PerturbationConfig(amplitudes=amplitudes, relative_to=relative_to, spectrum="power_law", slope=-0.5)
        made = Perturbations(settings, spec)
        draws = np.stack([made.of(np.datetime64("2001-01-01"), number) for number in range(300)])
        got = np.sqrt(np.mean(np.square(draws) * area, axis=(0, 2, 3)))
        np.testing.assert_allclose(got / spread, [0.5, 0.25, 0.25], rtol=0.03)


def test_a_stopped_ensemble_ends_the_same(trained, whole, tmp_path, monkeypatch):
    partial, target = tmp_path / ".partial-out.zarr", tmp_path / "out.zarr"
    shutil.copytree(trained.directory / "whole.zarr", partial)
    lost = ["geopotential/c.1.0.2.0.0.0", "u_component_of_wind/c.2.0.3.0.0.0", "v_component_of_wind/c.2.0.3.0.0.0"]
    for key in lost:
        (partial / key).unlink()
    written, write = [], Objects.write
    monkeypatch.setattr(Objects, "write", lambda self, key, data: (written.append(key), write(self, key, data))[1])
    make(trained, target, members=4)
    assert {tuple(key.split(".")[1:4:2]) for key in written if "/c." in key} == {("1", "2"), ("2", "3")}
    files = [path.relative_to(target) for path in target.rglob("*") if path.is_file()]
    assert all((target / f).read_bytes() == (trained.directory / "whole.zarr" / f).read_bytes() for f in files)
    assert verify_store(target) == []


def test_several_checkpoints_make_members(trained, tmp_path):
    both = make(trained, tmp_path / "both.zarr", (2, "latest"), members=2)
    assert both.number.values.tolist() == [0, 1, 2, 3]
    xr.testing.assert_identical(started(both).sel(number=0, drop=True), started(both).sel(number=1, drop=True))
    for number, which in ((0, 2), (1, "latest")):
        alone = make(trained, tmp_path / f"{which}.zarr", (which,))
        assert_close(both.sel(number=number, drop=True), alone)
    last = both.isel(prediction_timedelta=-1)
    assert not np.allclose(last.geopotential.sel(number=0), last.geopotential.sel(number=1), rtol=0, atol=1e-3)
    alone = make(trained, tmp_path / "part.zarr", (2, "latest"), members=2, numbers=[3])
    assert_close(alone, both.sel(number=[3]))


def test_non_finite_values_stop_their_member_alone(trained, whole, tmp_path, monkeypatch, caplog):
    program = rollout_blocks.block_program

    def exploding(*arguments):
        run, calls = program(*arguments), []

        def block(state, history, forcings):
            calls.append(1)
            history, block = run(state, history, forcings)
            if len(calls) == 2:  # Of the second batch of three the second: member 0 of the second initial time.
                block = rollout_blocks.Block(block.states.at[1, 2].set(np.nan), block.finite.at[1, 2, 0].set(False))
            return history, block

        return block

    monkeypatch.setattr("pipeline.forecasting.integration.block_program", exploding)
    with caplog.at_level(logging.WARNING):
        got = make(trained, tmp_path / "out.zarr", members=4)
    (message,) = caplog.messages
    assert message.startswith(
        "forecast of 2001-02-01T06 UTC, member 0: geopotential at 500 hPa is not finite at lead 18 h"
    )
    expected = whole.copy(deep=True)
    for name in expected:
        expected[name][1, 2:, 0] = np.nan
    xr.testing.assert_identical(got.drop_attrs(), expected.drop_attrs())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 3, "numbers": [3]}, "number: 3; the ensemble has members 0 to 2"),
        ({"leads": [0]}, "leads: 0; expected multiples .* and one above 0"),
        (
            {"members": 2, "perturbation": PerturbationConfig(amplitudes={"temperature": 1})},
            "temperature is not forecast",
        ),
        (
            {"members": 2, "perturbation": PerturbationConfig(amplitudes={WINDS[0]: 1})},
            "u_component_of_wind has 1, v_component_of_wind has 0.2; they are one vector",
        ),
        ({"members": 2, "perturbation": PerturbationConfig(lowest_degree=8)}, "lowest_degree: 8; .* up to 7"),
        ({"which": (3,)}, "no checkpoint after 3 updates is kept; there are 2, 4"),
        ({"initial_times": parse_times("2001-02-01T03")}, "--initial-times '2001-02-01T03': nothing there"),
    ],
)
def test_what_cannot_be_made_is_refused(trained, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        make(trained, tmp_path / "out.zarr", **settings)


def test_checkpoints_of_different_layouts_are_refused(trained, tmp_path):
    other = shutil.copytree(trained.checkpoints, tmp_path / "other")
    spec = (other / "forecaster.json").read_text()
    (other / "forecaster.json").write_text(spec.replace('"time_step_hours": 6', '"time_step_hours": 12'))
    with pytest.raises(InputError, match=r"other@latest: its time step differ from those of .*checkpoints@latest"):
        forecast_store(
            [Choice(trained.checkpoints), Choice(other)], trained.training_store, tmp_path / "out.zarr", **SETTINGS
        )
