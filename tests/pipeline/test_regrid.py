"""The regridding job: what it writes, what it marks, and that how it is split changes nothing."""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline.artefacts import read_description
from pipeline.config_files import load_config
from pipeline.regrid import regrid_store, run_stage
from pipeline.runs import Run
from pipeline.sources.opening import open_source
from pipeline.stores.axes import grid_of
from pipeline.validate import run_stage as validate_stage
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regridding import Regridder

TARGET = Grid.equiangular(12, 24, poles=True)
WEATHERBENCH_LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]


@pytest.fixture
def stored(tmp_path):
    def store(dataset: xr.Dataset, **keywords) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.to_zarr(tmp_path / "source.zarr", mode="w", **keywords)
        return tmp_path / "source.zarr"

    return store


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
def test_the_store_holds_the_regridded_source(era5_like, stored, tmp_path, method, recwarn):
    path = stored(era5_like(times=7, nlat=16))
    regrid_store(path, tmp_path / "out.zarr", TARGET, method=method, levels=[850, 250], step_hours=6, shard_times=3)
    assert [str(warning.message) for warning in recwarn] == []
    source = open_source(path)
    regridder = Regridder(grid_of(source), TARGET, method)
    with xr.open_zarr(tmp_path / "out.zarr") as out:
        assert out["temperature"].dims == ("time", "level", "latitude", "longitude")
        assert out["level"].values.tolist() == [850, 250]
        assert TARGET.matches(Grid(out["latitude"].values, out["longitude"].values))
        np.testing.assert_array_equal(out["time"], source["time"])
        for name in ("geopotential", "temperature", "2m_temperature", "land_sea_mask"):
            field = source[name].sel(level=[850, 250]) if "level" in source[name].dims else source[name]
            np.testing.assert_array_equal(out[name], regridder(field.values))
        wind = [source[f"{way}_component_of_wind"].sel(level=[850, 250]).values for way in "uv"]
        for way, component in zip("uv", regridder.wind(*wind), strict=True):
            np.testing.assert_array_equal(out[f"{way}_component_of_wind"], component)
        assert out["valid"].dtype == bool
        assert out["valid"].values.all()
        assert {out[name].dtype for name in out.data_vars} == {np.dtype("float32"), np.dtype("bool")}
        assert out["2m_temperature"].attrs["units"] == "K"
        assert out["geopotential"].attrs["long_name"] == "geopotential"


def test_one_time_in_a_chunk_and_whole_shards(era5_like, stored, tmp_path):
    regrid_store(stored(era5_like(times=7, nlat=16)), tmp_path / "out.zarr", TARGET, shard_times=3)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert (group["temperature"].chunks, group["temperature"].shards) == ((1, 3, 12, 24), (3, 3, 12, 24))
    assert group["valid"].chunks == (3,)
    assert group.metadata.zarr_format == 3
    assert np.isnan(group["temperature"].fill_value)
    assert sorted(entry.name for entry in (tmp_path / "out.zarr" / "temperature" / "c").iterdir()) == ["0", "1", "2"]


def test_description_says_what_it_is(era5_like, stored, tmp_path):
    data = era5_like(times=3, nlat=16).assign_attrs(title="Three states", spherecast={"simulated": True})
    regrid_store(
        stored(data), tmp_path / "out.zarr", TARGET, step_hours=6, fingerprint="abc", inputs={"validate": "def"}
    )
    description = read_description(tmp_path / "out.zarr")
    expected = {
        "kind": "training store",
        "fingerprint": "abc",
        "inputs": {"validate": "def"},
        "grid": "12 latitudes x 24 longitudes, equiangular, with poles",
        "levels": [250, 500, 850],
        "time_step_hours": 6,
        "period": ["2016-12-30T00:00", "2016-12-30T12:00"],
        "method": "conservative",
        "statics": ["geopotential_at_surface", "land_sea_mask"],
        "source": "Three states",
        "simulated": True,
    }
    assert {key: description[key] for key in expected} == expected


def test_the_same_input_gives_the_same_bytes_and_shards_change_no_value(era5_like, stored, tmp_path):
    path = stored(era5_like(times=7, nlat=16), encoding={"temperature": {"chunks": (2, 3, 32, 16)}})
    for name, shard in (("one", 4), ("two", 4), ("other", 7)):
        regrid_store(path, tmp_path / name, TARGET, method="bilinear", shard_times=shard)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    with xr.open_zarr(tmp_path / "one") as one, xr.open_zarr(tmp_path / "other") as other:
        xr.testing.assert_equal(one.drop_attrs().load(), other.drop_attrs().load())


def test_times_with_missing_values_are_marked(era5_like, stored, tmp_path):
    data = era5_like(times=8, nlat=16)
    data["temperature"][1, 1, 4, 4] = np.nan
    data["v_component_of_wind"][5, 0, 2, 2] = np.nan
    data["temperature"][6, 0, 4, 4] = np.nan
    encoding = {"2m_temperature": {"chunks": (1, 32, 16), "_FillValue": None}}
    path = stored(data, zarr_format=2, encoding=encoding)
    (path / "2m_temperature" / "3.0.0").unlink()
    regrid_store(path, tmp_path / "out.zarr", TARGET, levels=[500, 850], shard_times=3, skipna=True)
    with xr.open_zarr(tmp_path / "out.zarr") as out:
        # The hole at 250 hPa is on a level that is not kept, one wind component's spoils none of the kept levels.
        assert np.flatnonzero(~out["valid"].values).tolist() == [1, 3]
        assert np.isfinite(out["temperature"].values).all()
    regrid_store(path, tmp_path / "all.zarr", TARGET, shard_times=3, skipna=True)
    with xr.open_zarr(tmp_path / "all.zarr") as out:
        assert np.flatnonzero(~out["valid"].values).tolist() == [1, 3, 5, 6]


def test_whole_missing_times_are_written_as_such(era5_like, stored, tmp_path):
    data = era5_like(times=6, nlat=16)
    data["temperature"][2:4] = np.nan
    regrid_store(stored(data), tmp_path / "out.zarr", TARGET, shard_times=2, skipna=True)
    with xr.open_zarr(tmp_path / "out.zarr") as out:
        assert np.isnan(out["temperature"][2:4]).all()
        assert out["valid"].values.tolist() == [True, True, False, False, True, True]


def test_step_and_period_select_times(era5_like, stored, tmp_path):
    path = stored(era5_like(times=20, step_hours=3, nlat=16))
    period = (datetime(2016, 12, 30, 5), datetime(2016, 12, 31, 12))
    regrid_store(path, tmp_path / "out.zarr", TARGET, variables=["2m_temperature"], period=period, step_hours=6)
    with xr.open_zarr(tmp_path / "out.zarr") as out:
        hours = (out["time"].values - np.datetime64("2016-12-30")) / np.timedelta64(1, "h")
        assert hours.tolist() == [6, 12, 18, 24, 30, 36]
        source = open_source(path)
        wanted = source["2m_temperature"].sel(time=out["time"])
        np.testing.assert_array_equal(out["2m_temperature"], Regridder(grid_of(source), TARGET)(wanted.values))


def test_gaps_do_not_shift_times(era5_like, stored, tmp_path):
    path = stored(era5_like(times=12, step_hours=3, nlat=16).isel(time=[0, 2, 3, 6, 7, 8, 11]))
    regrid_store(path, tmp_path / "out.zarr", TARGET, variables=["2m_temperature"], step_hours=6)
    with xr.open_zarr(tmp_path / "out.zarr") as out:
        source = open_source(path)
        hours = (out["time"].values - np.datetime64("2016-12-30")) / np.timedelta64(1, "h")
        assert hours.tolist() == [0, 6, 18, 24]
        wanted = source["2m_temperature"].sel(time=out["time"])
        np.testing.assert_array_equal(out["2m_temperature"], Regridder(grid_of(source), TARGET)(wanted.values))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"variables": ["salinity"]}, r"salinity: missing; .*has .*temperature"),
        ({"levels": [500, 700]}, r": level 700 hPa is missing; the source has 250, 500, 850"),
        ({"variables": ["u_component_of_wind"]}, r"u_component_of_wind: its partner v_component_of_wind is missing"),
        ({"method": "cubic"}, r"'cubic' is unknown"),
        ({"beam_options": ["--runner=SlowRunner"]}, r"runner: SlowRunner is unknown; expected one of .*DaskRunner"),
        ({"memory_mb": 0}, r"memory_mb: 0 does not suffice for .*; .* Give more|memory_mb: 0 does not suffice"),
        ({"keep_bits": {"salinity": 9}}, r"keep_bits: salinity is not written"),
        ({"keep_bits": {"land_sea_mask": 40}}, r"keep_bits: 40; expected 1 to 23"),
        ({"step_hours": 4}, r"step of 6 h, coarser than"),
        ({"period": (datetime(2020, 1, 1), datetime(2020, 1, 2))}, r"period: no time within"),
    ],
)
def test_faults_are_named_before_anything_is_written(era5_like, stored, tmp_path, asked, message):
    path = stored(era5_like(times=2, nlat=16))
    with pytest.raises(InputError, match=message):
        regrid_store(path, tmp_path / "out.zarr", TARGET, **asked)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source.zarr"]


def test_a_failure_leaves_what_was_published(era5_like, stored, tmp_path):
    path = stored(era5_like(times=4, nlat=16), zarr_format=2, encoding={"temperature": {"chunks": (1, 3, 32, 16)}})
    regrid_store(path, tmp_path / "out.zarr", TARGET)
    before = contents(tmp_path / "out.zarr")
    (path / "temperature" / "2.0.0.0").write_bytes(b"not a chunk")
    with pytest.raises(RuntimeError):
        regrid_store(path, tmp_path / "out.zarr", TARGET)
    assert contents(tmp_path / "out.zarr") == before


def test_the_public_era5_configuration_runs_on_a_store_of_its_schema(era5_like, stored, tmp_path):
    data = era5_like(times=28, start="2016-12-28T00")
    levels = np.array(WEATHERBENCH_LEVELS)
    height = 44330.8 * (1 - (levels / 1013.25) ** 0.190263)
    data = data.isel(level=np.zeros(13, int)).assign_coords(level=levels)
    data["geopotential"] = data["geopotential"] + 9.80665 * (xr.DataArray(height, dims="level") - 10_360.0)
    data["specific_humidity"] = 0 * data["temperature"] + 0.005
    for name in ("10m_u_component_of_wind", "10m_v_component_of_wind"):
        data[name] = data["u_component_of_wind"].isel(level=0, drop=True)
    data["mean_sea_level_pressure"] = 0 * data["2m_temperature"] + 101_325.0
    order = ["time", "level", "longitude", "latitude"]
    path = stored(data.drop_attrs().astype(np.float32).transpose(*order), zarr_format=2, consolidated=True)
    config = load_config(
        "era5-5.625deg",
        [
            f"source.path={path}",
            "source.storage_options={}",
            "data.period=null",
            "periods.train=[2016-12-28T00:00, 2016-12-31T18:00]",
            "periods.validation=[2017-01-01T00:00, 2017-01-02T18:00]",
            "periods.test=[2017-01-03T00:00, 2017-01-03T18:00]",
        ],
    )
    run = Run(tmp_path / "run", config)
    validate_stage(run, "v", {})
    run_stage(run, "r", {"validate": "v"})
    with xr.open_zarr(run.training_store) as out:
        assert out.sizes == {"time": 28, "level": 13, "latitude": 32, "longitude": 64}
        # Its grid is the training grid already, so a conservative mean changes nothing.
        expected = data["temperature"].transpose("time", "level", "latitude", "longitude")
        np.testing.assert_allclose(out["temperature"], expected, rtol=1e-6)
        np.testing.assert_allclose(
            out["u_component_of_wind"],
            data["u_component_of_wind"].transpose("time", "level", "latitude", "longitude"),
            atol=1e-4,
        )


def test_a_source_that_changed_since_validation_is_refused(era5_like, stored, tmp_path):
    path = stored(era5_like(times=4, nlat=16))
    run = Run(
        tmp_path / "run",
        load_config("tiny", ["source.kind=store", f"source.path={path}", "data.levels=[500]", "periods={}"]),
    )
    with pytest.raises(InputError, match=r"validation record is missing; run `spherecast preprocess` first"):
        run_stage(run, "r", {})
    validate_stage(run, "v", {})
    stored(era5_like(times=6, nlat=16))
    with pytest.raises(InputError, match=r"now gives 6 times, but 4 were validated"):
        run_stage(run, "r", {})


def test_a_real_state_goes_to_13_levels(real_data, tmp_path):
    names = ["geopotential", "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity"]
    config = load_config(
        "tiny",
        [
            "source.kind=store",
            f"source.path={real_data / 'era5_tl31_19590102T00.nc'}",
            "data.grid={latitude: 32, longitude: 64}",
            f"data.variables=[{', '.join(names)}]",
            "data.statics=[]",
            f"data.levels={json.dumps(WEATHERBENCH_LEVELS)}",
            "periods={}",
        ],
    )
    run = Run(tmp_path / "run", config)
    validate_stage(run, "v", {})
    run_stage(run, "r", {})
    with xr.open_zarr(run.training_store) as out, xr.open_dataset(config.source.path) as raw:
        assert out.sizes == {"time": 1, "level": 13, "latitude": 32, "longitude": 64}
        assert out["level"].values.tolist() == WEATHERBENCH_LEVELS
        raw = raw.transpose("level", "latitude", "longitude").sel(level=500)
        weights = Grid(raw.latitude.values, raw.longitude.values).latitude_weights()
        before = np.average(raw["geopotential"].mean("longitude"), weights=weights)
        weights = Grid.equiangular(32, 64, poles=False).latitude_weights()
        after = np.average(out["geopotential"].sel(level=500)[0].mean("longitude"), weights=weights)
        assert after == pytest.approx(before, rel=1e-6)
        assert out["valid"].values.tolist() == [True]


def test_both_real_wind_blocks_are_regridded_as_vectors(real_data, tmp_path):
    config = load_config("gfs-wind", [f"source.path={real_data / 'gfs_10m_wind_f000.nc'}"])
    run = Run(tmp_path / "run", config)
    validate_stage(run, "v", {})
    run_stage(run, "r", {})
    with xr.open_zarr(run.training_store) as out:
        assert out.sizes["time"] == 37
        assert "level" not in out.dims
        gap = np.diff(out["time"].values)
        assert (gap == np.timedelta64(6, "h")).sum() == 35
        assert out["valid"].values.all()
        speed = np.hypot(out["10m_u_component_of_wind"], out["10m_v_component_of_wind"])
        assert 4.0 < float(speed.mean()) < 9.0
    assert read_description(run.training_store)["source"].startswith("NOAA/NCEP GFS")


def test_a_real_state_with_descending_latitudes(real_data, tmp_path):
    regrid_store(real_data / "eraint_1p5deg_20050123", tmp_path / "out.zarr", TARGET, levels=[500])
    with xr.open_zarr(tmp_path / "out.zarr") as out:
        warm = out["temperature"].sel(level=500)[0].mean("longitude")
        # January: the southern midlatitudes are warmer than the northern ones.
        assert float(warm.sel(latitude=-40, method="nearest")) > float(warm.sel(latitude=40, method="nearest")) + 5
