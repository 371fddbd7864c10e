"""The command line: what it prints, how it leaves, and that it does what it says on real stores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import xarray as xr
from typer.testing import CliRunner

from dags.cli import app
from dags.stages import STAGES
from pipeline.artefacts import read_description
from pipeline.config_data import WEATHERBENCH_LEVELS
from pipeline.config_files import list_configs
from pipeline.defaults import data_config, is_store
from transforms.errors import InputError


def spherecast(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "dags", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "200"})


@pytest.fixture(scope="module")
def waves(tmp_path_factory) -> Path:
    """Twelve days of waves on 12 x 24 points."""
    path = tmp_path_factory.mktemp("waves") / "waves.zarr"
    made = spherecast("simulate", path, "--kind", "waves", "--days", "12", "--grid", "13x24", "--level", "500")
    assert made.returncode == 0, made.stderr
    return path


def test_every_command_has_help():
    runner = CliRunner()
    for name in typer.main.get_command(app).commands:
        result = runner.invoke(app, [name, "--help"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tny"], "Did you mean tiny?"),
        (["run", "tiny", "training.sed=1"], "training.sed: unknown key. Did you mean seed?"),
        (["run", "tiny", "training.seed"], "expected section.key=value"),
        (["run", "tiny", "--until", "trian"], "stage 'trian' is not known"),
        (["run", "tiny", "periods.test=[2001-01-20T00:00, 2001-02-09T18:00]"], "overlaps train"),
        (["run", "tiny", "source.kind=store"], "source.path: not set"),
        (["run", "tiny", "source.kind=store", "source.path=nowhere.zarr"], "nothing is at "),
        (["train", "tiny"], "training.zarr is missing"),
        (["forecast", "tiny"], "checkpoints is missing"),
        (["status", "nothing"], "not a run directory"),
        (["stage", "train", "nothing"], "not a run directory"),
        (["preprocess", "nowhere.zarr"], "nothing is at "),
        (["statistics", "nowhere.zarr", "s.nc"], "nothing is at "),
        (["simulate", "a.zarr", "--grid", "32"], "--grid '32': expected LATITUDESxLONGITUDES"),
        (["simulate", "a.zarr", "--truncation", "63"], "--truncation: Input should be 21, 31 or 42, got 63"),
        (["climatology", "a.zarr", "b.zarr", "--window-days", "30"], "--window-days: expected an odd number, got 30"),
        (["climatology", "a.zarr", "b.zarr", "--years", "17-20"], "--years '17-20': expected FIRST-LAST"),
        (["climatology", "a.zarr", "b.zarr", "--quantiles", "0.5"], "--quantiles: give levels together with"),
        (["climatology", "a.zarr", "b.zarr", "--statistics", "mode"], "--statistics: Input should be 'mean'"),
        (["regrid", "a.zarr", "b.zarr", "c.zarr"], "'c.zarr': one argument too many"),
        (["regrid", "a.zarr", "b.zarr", "--also", "c.zarr:8x16"], "--also 'c.zarr:8x16': expected DST=LATITUDES"),
        (["regrid", "a.zarr", "b.zarr", "--keep-bits", "geopotential=30"], "expected VARIABLE=BITS with 1 to 23"),
        (["verify", "nowhere.zarr"], "no zarr store is there"),
        (["train", "tiny", "--launch", "4"], "expected local:N"),
        (["train", "tiny", "--processes", "2"], "--process"),
        (["launch", "tiny", "--to", "moon"], "--to: got 'moon'"),
        (["launch", "tiny", "--to", "slurm", "--set", "nodes"], "--set 'nodes': expected KEY=VALUE"),
        (["plan", "tiny"], "give either --topology"),
        (["statistics", "a.zarr", "s.nc", "--start", "2002-01-01", "--end", "2001-01-01"], "comes after --end"),
    ],
)
def test_bad_input_is_one_message_and_status_2(say, tmp_path, arguments, message):
    status, text = say(*arguments)
    assert status == 2, text
    assert text.startswith("Error: ")
    assert message in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_is_short_and_its_traceback_kept(say, monkeypatch, tmp_path):
    def broken() -> dict[str, str]:
        raise ZeroDivisionError("the cat is on the keyboard")

    monkeypatch.setattr("pipeline.commands.looking.list_configs", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, text = say("configs")
    assert status == 1
    assert text.startswith("Error: ZeroDivisionError: the cat is on the keyboard\nThe traceback is in ")
    assert "Traceback" not in text
    (log,) = tmp_path.glob("spherecast-*.log")
    assert "in broken" in log.read_text()


def test_configs_lists_what_is_shipped(say):
    status, text = say("configs")
    assert status == 0
    for name, description in list_configs().items():
        assert name in text
        assert description.split()[0] in text


def test_validate_says_what_would_be_computed(say):
    status, text = say("validate", "tiny")
    assert status == 0
    assert "160 times x 8 fields" in text
    assert "tiny can run." in text


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m dags configs | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in result.stderr


def test_commands_on_stores(waves, say, tmp_path):
    grid = ("--latitudes", "8", "--longitudes", "16")
    status, text = say("regrid", waves, "coarse.zarr", *grid, "--variable", "temperature", "--level", "500")
    assert status == 0, text
    assert text.endswith("Wrote coarse.zarr\n")
    with xr.open_zarr("coarse.zarr", consolidated=False) as coarse:
        assert dict(coarse["temperature"].sizes) == {"time": 48, "level": 1, "latitude": 8, "longitude": 16}
        assert "geopotential" not in coarse
    assert say("statistics", "coarse.zarr", "s.nc", "--end", "2001-01-05")[0] == 0
    assert read_description("s.nc")["period"] == ["2001-01-01T00:00", "2001-01-05T00:00"]
    options = ("--window-days", "3", "--method", "fast", "--years", "2001-2002", "--statistics", "std")
    assert say("climatology", "coarse.zarr", "c.zarr", *options)[0] == 0
    assert read_description("c.zarr")["kind"] == "climatology"
    with xr.open_zarr("c.zarr", consolidated=False) as climatology:
        assert list(climatology) == ["temperature_std"]


def test_one_read_makes_several_stores(waves, say):
    names = [f"--variable={name}" for name in ("wind_speed", "u_component_of_wind", "v_component_of_wind")]
    grid = ("--latitudes", "8", "--longitudes", "16", "--also", "fine.zarr=13x24p")
    status, text = say("regrid", waves, "coarse.zarr", *grid, *names, "--", "--direct_num_workers=1")
    assert status == 0, text
    assert text.endswith("Wrote coarse.zarr\nWrote fine.zarr\n")
    with xr.open_zarr("fine.zarr", consolidated=False) as fine:
        assert fine["latitude"][-1] == 90.0
        assert float(fine["wind_speed"].min()) >= 0.0
    assert "Nothing to do" in say("regrid", waves, "coarse.zarr", *grid, *names)[1]


def test_a_flipped_byte_is_named_and_mended(waves, say):
    command = ("regrid", waves, "coarse.zarr", "--latitudes", "8", "--longitudes", "16", "--variable", "temperature")
    assert say(*command)[0] == 0
    assert "coarse.zarr is whole" in say("verify", "coarse.zarr")[1]
    shard = next(path for path in sorted(Path("coarse.zarr/temperature/c").rglob("*")) if path.is_file())
    sound = shard.read_bytes()
    shard.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    status, text = say("verify", "coarse.zarr")
    assert status == 2
    assert str(shard.relative_to("coarse.zarr")) in text
    assert say(*command, "--repair")[0] == 0
    assert shard.read_bytes() == sound


def test_an_output_is_made_once_and_replaced_only_when_asked(waves, say):
    assert say("statistics", waves, "s.nc")[0] == 0
    made = Path("s.nc").stat().st_mtime_ns
    status, text = say("statistics", waves, "s.nc")
    assert (status, Path("s.nc").stat().st_mtime_ns) == (0, made)
    assert "Nothing to do" in text
    status, text = say("statistics", waves, "s.nc", "--end", "2001-01-05")
    assert status == 2
    assert "made from other settings or inputs" in text
    assert "--overwrite" in text
    assert Path("s.nc").stat().st_mtime_ns == made
    assert say("statistics", waves, "s.nc", "--end", "2001-01-05", "--overwrite")[0] == 0
    assert Path("s.nc").stat().st_mtime_ns != made


@pytest.mark.slow
def test_preprocess_takes_data_without_a_configuration(waves, tmp_path):
    grid = "data.grid={latitude: 10, longitude: 20}"
    done = spherecast("preprocess", waves, grid, "data.statics=[land_sea_mask]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with xr.open_zarr(tmp_path / "runs" / "waves" / "training.zarr", consolidated=False) as store:
        assert store["temperature"].shape == (48, 1, 10, 20)
        assert "10m_u_component_of_wind" in store
        assert "land_sea_mask" in store
        assert "geopotential_at_surface" not in store
    record = json.loads(spherecast("status", "waves", "--json", cwd=tmp_path).stdout)
    states = {name: entry["state"] for name, entry in record["stages"].items()}
    assert states["climatology"] == "done"
    assert states["train"] == "pending"
    assert "simulate" not in states


def test_preprocess_refuses_uneven_times(real_data, tmp_path):
    refused = spherecast("preprocess", real_data / "era5_surface_1deg_2026-03.zarr", cwd=tmp_path)
    assert refused.returncode == 2
    assert "validate failed" in refused.stderr
    assert "7 h" in refused.stderr
    assert "8 h" in refused.stderr


@pytest.mark.slow
def test_preprocess_takes_real_era5_on_37_levels_to_13(real_data, tmp_path):
    done = spherecast("preprocess", real_data / "era5_tl31_19590102T00.nc", "--name", "era5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with xr.open_zarr(tmp_path / "runs" / "era5" / "training.zarr", consolidated=False) as store:
        assert store["geopotential"].shape == (1, 13, 32, 64)


def test_data_configuration_holds_what_the_source_has(waves, real_data):
    config = data_config(str(waves))
    assert config.name == "waves"
    assert (config.data.grid.latitude, config.data.grid.longitude, config.data.grid.poles) == (32, 64, False)
    assert config.data.levels == [500]
    assert set(config.data.variables) >= {"geopotential", "10m_v_component_of_wind", "total_precipitation_6hr"}
    era5 = data_config(str(real_data / "era5_tl31_19590102T00.nc"), ["name=other"])
    assert era5.name == "other"
    assert era5.data.levels == WEATHERBENCH_LEVELS
    assert "sea_surface_temperature" not in era5.data.variables
    with pytest.raises(InputError, match=r"data\.grid"):
        data_config(str(waves), ["data.grid=7"])


@pytest.mark.slow
def test_a_complete_run(tiny_run, tmp_path):
    for stage in STAGES.values():
        for artefact in stage.artefacts:
            description = read_description(tiny_run / artefact)
            assert description["schema"] == 1, artefact
            assert description["fingerprint"], artefact
    status = spherecast("status", tiny_run).stdout
    for name in STAGES:
        assert f"{name} " in status
    copy = tmp_path / "tiny"
    shutil.copytree(tiny_run, copy)
    again = spherecast("run", copy)
    assert "Nothing to do" in again.stderr
    assert "Global RMSE" in again.stdout
    assert f"Report: {copy}/report.html" in again.stdout
    for field in ("geopotential@500", "temperature@850", "wind_vector@850"):
        assert field in again.stdout
    plan = spherecast("run", copy, "climatology.window_days=31", "--dry-run").stderr
    assert [line.split()[0] for line in plan.splitlines() if " run " in line] == ["climatology", "evaluate", "report"]


@pytest.mark.slow
def test_a_forecast_is_scored_by_itself_as_in_its_run(tiny_run, tmp_path):
    scored = spherecast(
        *("score", tiny_run / "forecast.zarr", tiny_run / "training.zarr", "-o", tmp_path / "scores.nc"),
        *(
            "--climatology",
            tiny_run / "climatology.zarr",
            "--against",
            "persistence",
            "--against",
            "climatology",
            "--bands",
        ),
    )
    assert scored.returncode == 0, scored.stderr
    with xr.open_dataset(tmp_path / "scores.nc") as one, xr.open_dataset(tiny_run / "metrics" / "model.nc") as other:
        for name in other.data_vars:
            xr.testing.assert_identical(one[name], other[name])


def test_data_are_told_from_configurations(tmp_path, real_data):
    assert is_store("gs://bucket/era5.zarr/")
    assert is_store(str(real_data / "eraint_1p5deg_20050123"))
    assert not is_store("quickstart")
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "statistics.nc").write_text("")
    assert not is_store(str(tmp_path))


def test_a_variable_without_its_level_axis_is_refused(real_data):
    celsius = str(real_data / "t_in_Celsius_1.nc")
    with pytest.raises(
        InputError, match=r"temperature: has axes \(time, latitude, longitude\), expected \(time, level"
    ):
        data_config(celsius, ["source.rename={tC: temperature}"])


def test_launch_writes_what_a_cluster_needs(say):
    options = ("--set", "nodes=2", "--set", "gpus_per_node=2", "--set", "partition=gpu", "--output", "out")
    status, text = say("launch", "tiny", "training.batch_size=4", "--to", "slurm", *options)
    assert status == 0, text
    (script,) = Path("out").glob("*.sh")
    assert "#SBATCH --nodes=2" in script.read_text()


@pytest.mark.slow
def test_plan_of_host_devices(say):
    status, text = say("plan", "tiny", "--devices", "2", "--sphere", "2", "--json", "plan.json")
    assert status == 0, text
    assert json.loads(Path("plan.json").read_text())["fits"] is True
