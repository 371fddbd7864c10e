"""What a source must be, and that every fault is named with its mend."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.artefacts import read_description
from pipeline.config import Config
from pipeline.config_files import load_config
from pipeline.runs import Run
from pipeline.sources.opening import absent_chunk_times, open_source
from pipeline.validate import inspect_config, read_record, run_stage
from transforms.errors import InputError

PERIODS = (
    "periods.train=[2016-12-30T00:00, 2016-12-31T06:00]",
    "periods.validation=[2016-12-31T12:00, 2016-12-31T18:00]",
    "periods.test=[2017-01-01T00:00, 2017-01-01T18:00]",
)


PROCESSES = ["execution.beam=[--runner=DirectRunner, --direct_running_mode=multi_processing, --direct_num_workers=2]"]


def config(path, *overrides: str, periods=PERIODS) -> Config:
    """The tiny configuration, on a store."""
    base = ["source.kind=store", f"source.path={path}", "data.levels=[250, 500, 850]", "data.grid.latitude=16"]
    if not periods:
        base.append("periods={}")
    return load_config("tiny", [*base, *periods, *overrides])


@pytest.fixture
def stored(tmp_path):
    def store(dataset: xr.Dataset, **keywords) -> Path:
        path = tmp_path / "source.zarr"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.to_zarr(path, mode="w", **keywords)
        return path

    return store


def faults_of(path, *overrides: str, periods=PERIODS) -> str:
    with pytest.raises(InputError) as caught:
        inspect_config(config(path, *overrides, periods=periods))
    return str(caught.value)


def test_a_good_source_gives_its_record(era5_like, stored, tmp_path):
    path = stored(era5_like())
    settings = config(path)
    record, rows = inspect_config(settings)
    assert record.times == {
        "first": "2016-12-30T00:00",
        "last": "2017-01-01T18:00",
        "count": 12,
        "step_hours": 6,
        "source_step_hours": 6.0,
    }
    assert (record.gaps, record.missing, record.valid_times["count"]) == ([], {}, 12)
    assert record.source["grid"] == "32 latitudes x 64 longitudes, equiangular, without poles"
    assert record.planned["periods"]["train"] == {"times": 6, "valid": 6, "runs": [6]}
    assert record.planned["training_store"]["bytes"] == 4 * 16 * 32 * (12 * 12 + 2)
    assert dict(rows)["train"] == "6 valid of 6 times, 5 windows of 1 step, 4 windows of 2 steps"
    assert dict(rows)["times"] == "12 from 2016-12-30T00:00 to 2017-01-01T18:00, every 6 h"

    published = []
    for name in ("one", "two"):
        run = Run(tmp_path / name, settings)
        run_stage(run, "abc", {})
        assert read_record(run.validation_record) == record
        assert read_description(run.validation_record)["fingerprint"] == "abc"
        published.append(run.validation_record.read_bytes())
    assert published[0] == published[1]


def test_a_single_state_is_enough_without_periods(era5_like, stored):
    record, _ = inspect_config(config(stored(era5_like(times=1)), periods=()))
    assert record.planned["periods"]["train"] == {"times": 1, "valid": 1, "runs": [1]}


def test_a_finer_source_is_subsampled_and_that_is_said(era5_like, stored):
    record, rows = inspect_config(config(stored(era5_like(times=34, step_hours=2))))
    assert (record.times["count"], record.times["source_step_hours"]) == (12, 2.0)
    assert dict(rows)["subsampled"] == "the source has a time every 2 h"


def test_all_faults_known_without_the_data_come_together(era5_like, stored):
    data = era5_like().drop_vars("land_sea_mask").isel(level=[0, 2])
    data["temperature"] = (data["temperature"] - 273.15).assign_attrs(units="degC")
    data["geopotential_at_surface"][3, 4] = np.nan
    message = faults_of(stored(data), "periods.test=[2017-01-01T00:00, 2017-02-01T00:00]")
    assert "8 faults" in message
    for part in (
        "land_sea_mask: missing; the source has",
        "temperature: level 500 hPa is missing; the source has 250, 850. Remove it from data.levels",
        "geopotential: level 500 hPa",
        "temperature: units are 'degC' (degrees Celsius), expected 'K'",
        "geopotential_at_surface: 1 of 2048 values are missing",
        "periods.test: 2017-01-01T00:00 to 2017-02-01T00:00 reaches outside the source, which has 2016-12-30T00:00",
    ):
        assert part in message


@pytest.mark.parametrize("attribute", [True, False])
@pytest.mark.parametrize(
    ("name", "change", "units", "words"),
    [
        ("temperature", lambda t: t - 273.15, "degC", ("degrees Celsius", "add 273.15")),
        ("2m_temperature", lambda t: t - 273.15, "C", ("degrees Celsius", "add 273.15")),
        ("geopotential", lambda z: z / 9.80665, "m", ("geopotential height in metres", "multiply by 9.80665")),
        ("geopotential", lambda z: z / 9.80665, "gpm", ("geopotential height in metres", "multiply by 9.80665")),
    ],
)
def test_wrong_units_are_told_by_attribute_and_by_value(era5_like, stored, attribute, name, change, units, words):
    data = era5_like()
    data[name] = change(data[name])
    data[name].attrs = {"units": units} if attribute else {}
    overrides = ["data.variables=[geopotential, temperature, 2m_temperature]"]
    message = faults_of(stored(data), *overrides)
    assert message.splitlines()[1].startswith(f"  {name}: ")
    assert all(word in message for word in words), message


def test_missing_values_are_named_with_their_times(era5_like, stored):
    data = era5_like()
    data["temperature"][3, 1, 5, 5] = np.nan
    data["temperature"][7] = np.nan
    data["v_component_of_wind"][4, 0, 0, 0] = np.nan
    path = stored(data)
    message = faults_of(path)
    assert "temperature: missing values at 2 of 12 times: 2016-12-30T18:00, 2016-12-31T18:00; expected none" in message
    assert "v_component_of_wind: missing values at 1 of 12 times: 2016-12-31T00:00" in message
    assert "source.allow_missing=true" in message

    record, _ = inspect_config(config(path, "source.allow_missing=true"))
    assert record.missing == {
        "temperature": ["2016-12-30T18:00", "2016-12-31T18:00"],
        "v_component_of_wind": ["2016-12-31T00:00"],
    }
    assert record.valid_times["count"] == 9
    assert record.planned["periods"]["train"] == {"times": 6, "valid": 4, "runs": [3, 1]}


def test_units_are_judged_where_the_first_time_is_missing(era5_like, stored):
    data = era5_like()
    data["2m_temperature"] = (data["2m_temperature"] - 273.15).assign_attrs(units="degC")
    data["2m_temperature"][0] = np.nan
    data["temperature"] = (data["temperature"] - 273.15).drop_attrs()
    data["temperature"][0] = np.nan
    chosen = ["data.variables=[temperature, 2m_temperature]", "source.allow_missing=true"]
    path = stored(data)
    assert "2m_temperature: units are 'degC'" in faults_of(path, *chosen)
    chosen[0] = "data.variables=[temperature]"
    assert "look like other units (degrees Celsius)" in faults_of(path, *chosen)


def test_missing_values_on_levels_that_are_not_used_do_not_matter(era5_like, stored):
    data = era5_like()
    data["temperature"][3, 0] = np.nan
    assert inspect_config(config(stored(data), "data.levels=[500, 850]"))[0].missing == {}


def test_chunks_that_were_never_written_are_missing_even_if_they_read_as_numbers(era5_like, stored):
    data = era5_like()
    path = stored(data, zarr_format=2, encoding={"u_component_of_wind": {"chunks": (2, 3, 64, 32), "_FillValue": None}})
    (path / "u_component_of_wind" / "1.0.0.0").unlink()
    assert not np.isnan(open_source(path)["u_component_of_wind"].values).any()
    message = faults_of(path)
    assert "u_component_of_wind: chunks that were never written at 2 of 12 times: 2016-12-30T12:00" in message
    record, _ = inspect_config(config(path, "source.allow_missing=true"))
    assert record.missing == {"u_component_of_wind": ["2016-12-30T12:00", "2016-12-30T18:00"]}


def test_a_value_that_no_atmosphere_has_is_found_wherever_it_is(era5_like, stored):
    data = era5_like()
    data["temperature"][9, 2, 7, 7] = 9e9
    message = faults_of(stored(data))
    assert "temperature: values from " in message
    assert "broken" in message
    assert "First at 2017-01-01T06:00" in message


def test_missing_values_are_counted_by_variable_and_time(era5_like, stored):
    data = era5_like()
    data["temperature"][3, 1, 5, 5] = np.nan
    data["temperature"][4, :, 5, 5] = np.nan
    data["temperature"][5, 0, 5, 5:8] = np.nan
    data["2m_temperature"][7] = np.nan
    record, rows = inspect_config(config(stored(data), "source.allow_missing=true"))
    assert record.missing_values == {
        "temperature": {"of": 3 * 2048, "runs": [["2016-12-30T18:00", 1, 1], ["2016-12-31T00:00", 2, 3]]},
    }
    assert record.ranges["temperature"] == [float(data["temperature"].min()), float(data["temperature"].max())]
    assert ("missing", "temperature: 3 times, the first 2016-12-30T18:00; 0.01% of its values") in rows
    surface, _ = inspect_config(config(stored(data), "source.allow_missing=true", "data.variables=[2m_temperature]"))
    assert surface.missing_values["2m_temperature"]["runs"] == [["2016-12-31T18:00", 1, 2048]]
    assert surface.missing == {"2m_temperature": ["2016-12-31T18:00"]}


@pytest.mark.parametrize("times", [1, 5, 12])
def test_the_record_depends_neither_on_chunks_nor_on_processes(era5_like, tmp_path, times):
    data = era5_like()
    data["temperature"][3, 1, 5, 5] = np.nan
    encoding = {name: {"chunks": (times, 3, 64, 32)} for name in ("temperature", "geopotential")}
    records = []
    for name, chunks, options in (
        ("plain", {}, []),
        ("cut", encoding, ["execution.memory_mb=64"]),
        ("spread", encoding, PROCESSES),
    ):
        if name == "spread" and times != 5:
            continue
        data.to_zarr(tmp_path / name, zarr_format=3, consolidated=False, encoding=chunks)
        settings = config(tmp_path / name, "source.allow_missing=true", *options)
        record, _ = inspect_config(settings)
        records.append({**asdict(record), "source": None})
    assert all(record == records[0] for record in records)


def test_chunks_never_written_are_counted_within_shards_too(era5_like, tmp_path):
    data = era5_like()
    data["temperature"][3] = np.nan
    encoding = {"temperature": {"chunks": (1, 3, 32, 32), "shards": (4, 3, 64, 32), "fill_value": np.nan}}
    data.to_zarr(tmp_path / "source.zarr", zarr_format=3, consolidated=False, encoding=encoding)
    (tmp_path / "source.zarr" / "temperature" / "c" / "2" / "0" / "0" / "0").unlink()
    path = str(tmp_path / "source.zarr")
    record, rows = inspect_config(config(path, "source.allow_missing=true"))
    assert record.missing_chunks == {"temperature": [["2016-12-30T18:00", 1, 2], ["2017-01-01T00:00", 4, 2]]}
    assert record.missing_values["temperature"]["runs"] == [
        ["2016-12-30T18:00", 1, 3 * 2048],
        ["2017-01-01T00:00", 4, 3 * 2048],
    ]
    assert any(what == "missing" and text.endswith("10 chunks were never written") for what, text in rows)
    # With a number for a fill value, reading does not tell.
    encoding["temperature"]["fill_value"] = np.float32(0.0)
    data["temperature"][3] = 0.0
    data.to_zarr(tmp_path / "zero.zarr", zarr_format=3, consolidated=False, encoding=encoding)
    assert absent_chunk_times(tmp_path / "zero.zarr", ["temperature"])["temperature"].tolist() == [3]


def test_derived_variables_are_validated(era5_like, stored):
    data = era5_like()
    data["u_component_of_wind"][3, 1, 5, 5] = np.nan
    data["v_component_of_wind"][7, 0, 5, 5] = np.nan
    path = stored(data)
    settings = config(path, "data.variables=[wind_speed, temperature]", "source.allow_missing=true")
    record, _ = inspect_config(settings)
    assert record.missing == {"wind_speed": ["2016-12-30T18:00", "2016-12-31T18:00"]}
    message = faults_of(stored(data.drop_vars("u_component_of_wind")), "data.variables=[wind_speed, temperature]")
    assert "wind_speed: not in the source, and u_component_of_wind to derive it from is missing" in message
    assert "the source has" in message


def test_sums_over_time_reach_back_before_the_period(era5_like, stored):
    data = era5_like(times=60, step_hours=1)
    rain = np.random.default_rng(0).uniform(0, 1e-3, data["2m_temperature"].shape).astype(np.float32)
    data["total_precipitation"] = (data["2m_temperature"].dims, rain, {"units": "m"})
    data["total_precipitation"][30, 2, 2] = np.nan
    settings = config(
        stored(data),
        "data.variables=[total_precipitation_6hr]",
        "data.period=[2016-12-30T06:00, 2017-01-01T06:00]",
        "source.allow_missing=true",
        periods=(),
    )
    record, _ = inspect_config(settings)
    assert record.missing == {"total_precipitation_6hr": ["2016-12-31T06:00"]}


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0, 1, 2, 2, 3], "each time once"),
        ([0, 2, 1, 3], "ascending"),
        ([0, 1, 5, 6], "1 gap(s) in the 6-hourly times, the first from 2016-12-30T06:00 to 2016-12-31T06:00"),
    ],
)
def test_times_out_of_order_and_gaps(era5_like, stored, times, words):
    data = era5_like().isel(time=times)
    assert words in faults_of(stored(data), periods=())


def test_a_gap_is_recorded_when_allowed(era5_like, stored):
    path = stored(era5_like().isel(time=[0, 1, 2, 6, 7]))
    record, rows = inspect_config(config(path, "source.allow_missing=true", periods=()))
    assert record.gaps == [["2016-12-30T12:00", "2016-12-31T12:00"]]
    assert record.planned["periods"]["train"]["runs"] == [3, 2]
    assert ("gap", "2016-12-30T12:00 to 2016-12-31T12:00") in rows


def test_a_source_without_any_complete_time_is_refused_even_when_missing_is_allowed(era5_like, stored):
    data = era5_like()
    data["temperature"][:, 0, 0, 0] = np.nan
    assert "no time has complete data (temperature" in faults_of(stored(data), "source.allow_missing=true")


def test_a_period_without_times_is_named(era5_like, stored):
    path = stored(era5_like())
    assert "data.period: no time within 2015-01-01T00:00" in faults_of(
        path, "data.period=[2015-01-01T00:00, 2015-02-01T00:00]"
    )


@pytest.mark.parametrize("rows", [slice(4, 28), slice(0, 16)])
def test_a_regional_grid_is_refused(era5_like, stored, rows):
    assert "latitude: expected" in faults_of(stored(era5_like().isel(latitude=rows)))


def test_another_axis_is_refused(era5_like, stored):
    data = era5_like()
    data["temperature"] = data["temperature"].expand_dims(number=3)
    message = faults_of(stored(data))
    assert "temperature: has axes (time, level, latitude, longitude, number), expected (time, level," in message


def test_data_yet_to_be_made_give_a_plan():
    record, rows = inspect_config(load_config("tiny"))
    assert record is None
    assert "160 times x 8 fields on 16 latitudes x 32 longitudes" in dict(rows)["training store"]


def test_a_store_without_a_path_is_named():
    with pytest.raises(InputError, match=r"source.path: not set"):
        inspect_config(load_config("gfs-wind"))


@pytest.mark.parametrize("name", ["era5-5.625deg", "keisler22-256", "gfs-wind"])
def test_shipped_configurations_are_valid(name):
    settings = load_config(name)
    assert settings.name == name
    assert json.loads(json.dumps(settings.model_dump(mode="json")))["periods"]["test"]


def test_the_paper_has_78_channels():
    data = load_config("keisler22-256").data
    assert len(data.variables) * len(data.levels) == 78


def test_real_celsius_is_refused(real_data):
    message = faults_of(
        real_data / "t_in_Celsius_1.nc",
        "source.rename={tC: 2m_temperature}",
        "data.variables=[2m_temperature]",
        "data.statics=[]",
        periods=(),
    )
    assert "2m_temperature: units are 'degC' (degrees Celsius), expected 'K'" in message
    assert "add 273.15" in message
    on_levels = faults_of(
        real_data / "t_in_Celsius_1.nc", "source.rename={tC: temperature}", "data.variables=[temperature]", periods=()
    )
    assert "temperature: has axes (time, latitude, longitude)" in on_levels
    assert "temperature: units are 'degC' (degrees Celsius), expected 'K'" in on_levels


def test_real_uneven_steps_are_refused(real_data):
    message = faults_of(
        real_data / "era5_surface_1deg_2026-03.zarr",
        "data.variables=[2m_temperature, mean_sea_level_pressure]",
        "data.statics=[]",
        periods=(),
    )
    assert "evenly spaced" in message
    assert "7 h (" in message
    assert "8 h (" in message
    assert "2026-03-25T21:00 to 2026-03-26T05:00 (8 h)" in message


def test_real_gap_is_refused_or_recorded(real_data):
    path = real_data / "gfs_10m_wind_f000.nc"
    settings = ["source.path=" + str(path)]
    with pytest.raises(InputError, match=r"1 gap\(s\).*2018-09-19T18:00 to 2018-10-06T18:00"):
        inspect_config(load_config("gfs-wind", [*settings, "source.allow_missing=false"]))
    record, _ = inspect_config(load_config("gfs-wind", settings))
    assert record.gaps == [["2018-09-19T18:00", "2018-10-06T18:00"]]
    assert record.times["count"] == 37
    assert record.planned["periods"] == {
        "train": {"times": 17, "valid": 17, "runs": [17]},
        "validation": {"times": 4, "valid": 4, "runs": [4]},
        "test": {"times": 16, "valid": 16, "runs": [16]},
    }
