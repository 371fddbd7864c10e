"""`spherecast forecast --output` and `spherecast baseline`: every option does what it says, or is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.runs import Run
from tests.pipeline.test_train import make_trained_run

HOUR = np.timedelta64(1, "h")
TIMES = ("--initial-times", "2001-02-01:2001-02-02:12h")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_trained_run(tmp_path_factory.mktemp("trained") / "run", "forecast.every_hours=48")


@pytest.fixture
def forecast(say, trained):
    """Run the command on the trained run; return the forecast."""

    def run(target: str, *arguments: str) -> xr.Dataset:
        status, text = say("forecast", trained.directory, "-o", target, *arguments)
        assert status == 0, text
        assert text.endswith(f"Wrote {target}\n")
        if target.endswith(".nc"):
            return xr.load_dataset(target, decode_timedelta=True)
        return xr.open_zarr(target, decode_timedelta=True).load()

    return run


def test_by_default_it_is_what_the_run_would_forecast(forecast, trained):
    got = forecast("out.zarr")
    assert got.time[0] == np.datetime64("2001-01-31")
    np.testing.assert_array_equal(np.diff(got.time) / HOUR, 48)
    np.testing.assert_array_equal(got.prediction_timedelta / HOUR, [6, 12, 18, 24])
    assert set(got) == {"geopotential", "u_component_of_wind", "v_component_of_wind"}
    assert not (trained.directory / "forecast.zarr").exists()
    assert len(forecast("more.zarr", "forecast.every_hours=24", "forecast.lead_hours=48").prediction_timedelta) == 8


def test_times_leads_and_fields_are_chosen(forecast):
    got = forecast("out.zarr", *TIMES, "--leads", "0h,12h:2d:12h", "--variable", "geopotential", "--level", "500")
    assert got.time.values.astype("datetime64[h]").astype(str).tolist() == [
        *("2001-02-01T00", "2001-02-01T12", "2001-02-02T00", "2001-02-02T12")
    ]
    np.testing.assert_array_equal(got.prediction_timedelta / HOUR, [0, 12, 24, 36, 48])
    assert list(got) == ["geopotential"]
    assert got.level.values.tolist() == [500]


def test_states_of_another_store(forecast, trained, tmp_path):
    states = xr.open_zarr(trained.training_store, consolidated=False).load().drop_encoding().drop_vars("valid")
    (states + 1).to_zarr(tmp_path / "states.zarr", zarr_format=2)
    own = forecast("own.zarr", *TIMES, "--leads", "0h,6h")
    other = forecast("other.zarr", *TIMES, "--leads", "0h,6h", "--states", "states.zarr")
    start = {"prediction_timedelta": 0}
    np.testing.assert_allclose(other.geopotential[start] - own.geopotential[start], 1, atol=0.01)


def test_members_numbers_and_checkpoints(forecast, trained):
    whole = forecast("whole.zarr", *TIMES, "--members", "3", "forecast.perturbation.seed=4")
    assert whole.number.values.tolist() == [0, 1, 2]
    about = read_description("whole.zarr")
    assert about["perturbation"]["seed"] == 4
    part = forecast("part.zarr", *TIMES, "--members=3", "--number=2", "--number=0", "forecast.perturbation.seed=4")
    xr.testing.assert_allclose(part.drop_attrs(), whole.sel(number=[0, 2]).drop_attrs(), rtol=1e-4)
    copy = shutil.copytree(trained.directory, "copy")
    runs = ("--checkpoint", "2", "--checkpoint", "best", "--checkpoint", str(copy), "--checkpoint", f"{copy}@2")
    several = forecast("several.zarr", *TIMES, *runs)
    assert several.number.values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(several.geopotential.sel(number=0), several.geopotential.sel(number=3))
    assert float(np.abs(several.geopotential.sel(number=0) - several.geopotential.sel(number=2)).max()) > 0


def test_netcdf_is_the_same(forecast, say, trained, monkeypatch):
    options = (*TIMES, "--leads=0h:24h", "--members=2")
    zarr = forecast("out.zarr", *options)
    with monkeypatch.context() as context:
        # Stopped while it is copied: the forecast is not computed again.
        context.setattr("pipeline.stores.netcdf._copy", lambda *arguments: 1 / 0)
        assert say("forecast", trained.directory, "-o", "out.nc", *options)[0] == 1
        assert not Path("out.nc").exists()
    with monkeypatch.context() as context:
        context.setattr("pipeline.commands.forecast_elsewhere.forecast_store", None)
        context.setattr("pipeline.stores.netcdf._PIECE_BYTES", 2000)
        netcdf = forecast("out.nc", *options)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["out.nc", "out.zarr"]
    xr.testing.assert_identical(netcdf.drop_attrs(), zarr.drop_attrs())
    assert netcdf.geopotential.attrs == zarr.geopotential.attrs
    assert read_description("out.nc")["members"] == [0, 1]
    assert "Nothing to do" in say("forecast", trained.directory, "-o", "out.nc", *options)[1]


def test_an_output_is_made_once_and_replaced_only_when_asked(forecast, say, trained):
    forecast("out.zarr", *TIMES)
    command = ("forecast", trained.directory, "-o", "out.zarr", *TIMES)
    assert "Nothing to do: out.zarr is up to date" in say(*command)[1]
    for change in (["--leads", "6h"], ["--members", "2"], ["--variable", "geopotential"], ["--checkpoint", "2"]):
        status, text = say(*command, *change)
        assert status == 2
        assert "made from other settings or inputs" in text
    assert forecast("out.zarr", *TIMES, "--leads", "6h", "--overwrite").sizes["prediction_timedelta"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--leads", "6h"], "--leads: needs --output. The run's own forecast.zarr is what its configuration says"),
        (["--overwrite"], "--overwrite: needs --output"),
        (["-o", "a.zarr", "--force"], "--force: is for the run's own forecast.zarr. With --output, give --overwrite"),
        (["-o", "a.txt"], "--output a.txt: expected a name that ends in .zarr or .nc"),
        (["-o", "memory://a.nc"], "netCDF can only be written to this machine's disks"),
        (
            ["-o", "a.zarr", "training.seed=1"],
            "training.seed=1: a forecast with --output takes the run as it was trained",
        ),
        (["-o", "a.zarr", "--leads", "6h", "forecast.lead_hours=12"], "--leads says the same in another way"),
        (["-o", "a.zarr", *TIMES, "forecast.every_hours=12"], "--initial-times says the same in another way"),
        (["-o", "a.zarr", "--leads", "7h"], "leads: 7; expected multiples of the checkpoint's time step, 6 h"),
        (["-o", "a.zarr", "--leads", "soon"], "--leads 'soon': expected lead times"),
        (["-o", "a.zarr", "--initial-times", "1999-01-01"], "--initial-times '1999-01-01': nothing there"),
        (["-o", "a.zarr", "--number", "1"], "--number: a single forecast has no members. Give --members N"),
        (["-o", "a.zarr", "--members", "2", "--number", "2"], "number: 2; the ensemble has members 0 to 1"),
        (["-o", "a.zarr", "--checkpoint", "3"], "no checkpoint after 3 updates is kept; there are 2, 4"),
        (["-o", "a.zarr", "--checkpoint", "nowhere"], "nowhere: not a run directory"),
        (["-o", "a.zarr", "--checkpoint", "nowhere@first"], "expected latest, best, a number of updates, RUN"),
        (["-o", "a.zarr", "--states", "nowhere.zarr"], "nothing is at nowhere.zarr"),
        (["-o", "a.zarr", "--variable", "temperature"], "variables: temperature is not forecast"),
        (["-o", "a.zarr", "--level", "850"], "levels: 850 is not forecast"),
    ],
)
def test_what_makes_no_sense_is_refused(say, trained, tmp_path, arguments, message):
    status, text = say("forecast", trained.directory, *arguments)
    assert status == 2, text
    assert message in text
    assert "Traceback" not in text
    assert not (tmp_path / "a.zarr").exists()


def test_a_run_without_test_period_needs_initial_times(say, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained.directory, copy)
    text = (copy / "config.yaml").read_text()
    start = text.index("  test:")
    (copy / "config.yaml").write_text(text[:start] + "  test: null\n" + text[text.index("\nclimatology:", start) + 1 :])
    status, text = say("forecast", copy, "-o", "a.zarr")
    assert status == 2
    assert "--initial-times: needed, since periods.test of the run is not set" in text


def test_baselines(say, trained):
    assert say("climatology", trained.training_store, "c.zarr", "--end", "2001-01-31T18", "--window-days", "5")[0] == 0
    times = ("--initial-times", "2001-02-05:2001-02-06:12h", "--leads", "6h:24h:6h")
    store = trained.training_store
    options = {
        "persistence": ("--variable", "geopotential", "--level", "500"),
        "climatology": ("--climatology", "c.zarr", "--memory-mb", "64"),
        "damped-anomaly": ("--climatology", "c.zarr", "--train-period", "2001-01-01:2001-01-20"),
    }
    for kind, more in options.items():
        status, text = say("baseline", kind, store, f"{kind}.zarr", *times, *more)
        assert status == 0, text
        with xr.open_zarr(f"{kind}.zarr", decode_timedelta=True) as made:
            assert made.geopotential.shape == (4, 4, 1, 8, 16)
            assert ("u_component_of_wind" in made) == (kind != "persistence")
        assert "Nothing to do" in say("baseline", kind, store, f"{kind}.zarr", *times, *more)[1]
    status, text = say("baseline", "climatology", store, "persistence.zarr", *times, "--climatology", "c.zarr")
    assert status == 2
    assert "--overwrite" in text
    assert say("baseline", "persistence", store, "climatology.zarr", *times, "--overwrite")[0] == 0
    for arguments, message in (
        (["persistence", "--climatology", "c.zarr"], "--climatology: persistence uses none"),
        (["climatology"], "climatology: needs a climatology. Make one with `spherecast climatology`"),
        (["climatology", "--climatology", "c.zarr", "--train-period", "2001"], "--train-period: climatology estimates"),
        (["damped-anomaly", "--climatology", "c.zarr", "--train-period", "2001"], "--train-period '2001': expected"),
    ):
        status, text = say("baseline", arguments[0], store, "no.zarr", *times, *arguments[1:])
        assert status == 2, text
        assert message in text
    assert not Path("no.zarr").exists()
