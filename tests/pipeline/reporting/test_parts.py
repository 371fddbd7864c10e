"""Markup, names, scores and facts of the report."""

from __future__ import annotations

import dataclasses
import json
import shlex

import numpy as np
import pytest
import xarray as xr

from pipeline.reporting.facts import cautions, data_notes, gather_facts, public_config, reproduce
from pipeline.reporting.fields import Field, calendar_day, duration, instant, pretty_units
from pipeline.reporting.html import Html, data_script, tag
from pipeline.reporting.pairs import pairs
from pipeline.reporting.payload import decode, scores_payload
from pipeline.reporting.scores import Scores, read_scores
from pipeline.reporting.training_log import training_curve
from pipeline.reporting.verdicts import verdict
from pipeline.stores.reading import open_store
from transforms.errors import InputError
from transforms.metrics import METRICS, vector_name
from transforms.variables import VARIABLES, wind_pairs


def _payload(scores: Scores) -> dict:
    return scores_payload(scores, pairs(scores))


def test_text_and_attributes_are_escaped_and_markup_is_not():
    assert tag("p", "a<b&c", Html("<br>"), title='"x"') == '<p title="&quot;x&quot;">a&lt;b&amp;c<br></p>'
    assert tag("input", checked=True, hidden=False, aria_label=None, class_="c") == '<input checked class="c">'


def test_data_cannot_close_their_script():
    script = data_script("x", {"name": "</script><script>alert(1)</script>"})
    assert script.count("<") == 2
    body = script.split(">", 1)[1].rsplit("<", 1)[0]
    assert json.loads(body)["name"] == "</script><script>alert(1)</script>"


def test_data_must_be_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        data_script("x", float("nan"))


@pytest.mark.parametrize(
    ("field", "short", "label", "units", "map_units"),
    [
        (Field("geopotential", 500), "Z500", "500 hPa geopotential", "m² s⁻²", "dam"),
        (Field("wind_vector", 850), "Wind 850", "850 hPa wind vector", "m s⁻¹", "m s⁻¹"),
        (Field("2m_temperature"), "T2M", "2 m temperature", "K", "°C"),
        (Field("mean_sea_level_pressure"), "MSLP", "mean sea level pressure", "Pa", "hPa"),
        (Field("brightness_of_moon"), "brightness of moon", "brightness of moon", "", ""),
    ],
)
def test_fields_are_named_as_forecasters_name_them(field, short, label, units, map_units):
    assert (field.short, field.label, field.units, field.map_units[2]) == (short, label, units, map_units)


def test_every_wind_has_a_vector_of_two_components():
    for eastward, northward in wind_pairs(VARIABLES):
        assert Field(vector_name(eastward)).store_variables == (eastward, northward)
        assert Field(vector_name(eastward)).units == "m s⁻¹"


def test_every_score_with_a_title_is_shown_by_it(make, tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, "mse", dataclasses.replace(METRICS["mse"], title="Squared", dimensionless=True))
    leads = np.array([6, 12]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    make.metrics(make.config(), leads, np.full(2, 9), "model").to_netcdf(tmp_path / "model.nc")
    payload = _payload(read_scores({"model": tmp_path / "model.nc"}))
    shown = dict(zip(payload["titles"], zip(payload["metrics"], payload["dimensionless"], strict=True), strict=True))
    assert shown.keys() == {"RMSE", "Squared", "Mean absolute error", "Bias", "Anomaly correlation"}
    assert shown["Squared"] == ("mse", True)
    assert shown["RMSE"] == ("rmse", False)


def test_geopotential_maps_are_in_decametres():
    factor, offset, _ = Field("geopotential", 500).map_units
    assert 552.0 * 10 * 9.80665 * factor + offset == pytest.approx(552.0)


def test_what_may_be_secret_is_not_shown(make):
    options = {"key": "AKIA", "client_kwargs": {"password": "hunter2"}}
    source = {"kind": "store", "path": "https://me:hunter2@data.example/era5.zarr", "storage_options": options}
    text = public_config(make.config(source=source)).to_yaml()
    assert "hunter2" not in text
    assert "AKIA" not in text
    assert "https://(hidden)@data.example/era5.zarr" in text
    assert "client_kwargs: (hidden)" in text


def test_units_durations_and_times_read_well():
    assert pretty_units("kg m**-2 s**-1") == "kg m⁻² s⁻¹"
    assert [duration(h) for h in (1, 18, 24, 102)] == ["1 hour", "18 hours", "1 day", "4.25 days"]
    assert calendar_day(np.datetime64("2001-02-03T12")) == "3 Feb 2001"
    assert instant(np.datetime64("2001-02-03T06:30")) == "3 Feb 2001 06:30 UTC"


def _scores(tmp_path, model=None, persistence=None, climatology=None, *, headline=(), counts=200):
    """Scores of Z500 and T850 at 1, 2 and 3 days from RMSE lists by line and field; ACC from `model["acc"]`."""
    paths = {}
    for line, values in {"model": model, "persistence": persistence, "climatology": climatology}.items():
        if values is None:
            continue
        lead = np.array([24, 48, 72], "timedelta64[h]").astype("timedelta64[ns]")
        array = np.full((2, 1, 3, 2), np.nan)
        array[0, 0, :, 0] = values["z"]
        array[1, 0, :, 0] = values.get("acc", np.nan)
        other = np.full((2, 1, 3, 2), np.nan)
        other[0, 0, :, 1] = values["t"]
        dims = ("metric", "region", "lead_time", "level")
        dataset = xr.Dataset(
            {
                "geopotential": (dims, array),
                "temperature": (dims, other),
                "valid_samples": ("lead_time", np.full(3, counts)),
            },
            {"metric": ["rmse", "acc"], "region": ["global"], "lead_time": lead, "level": [500, 850]},
        )
        paths[line] = tmp_path / f"{line}.nc"
        dataset.to_netcdf(paths[line], engine="netcdf4")
    return read_scores(paths, headline or ["geopotential@500", "temperature@850"])


def test_verdict_of_a_good_forecast(tmp_path):
    scores = _scores(
        tmp_path,
        {"z": [1, 2, 3], "t": [1, 2, 3], "acc": [0.9, 0.7, 0.5]},
        {"z": [2, 4, 6], "t": [2, 3, 4]},
        {"z": [5, 5, 5], "t": [2.5, 2.5, 2.5]},
    )
    assert verdict(scores) == [
        "Beats persistence at every lead to 3 days in all 2 headline fields; Z500 is useful (ACC above 0.6) to 2.5 days.",
        "Beats climatology at every lead to 3 days in 1 of 2 headline fields; in the others: T850 to 2 days.",
    ]


@pytest.mark.parametrize(
    ("acc", "words"),
    [
        ([0.9, 0.7, 0.4], "to 2.3 days"),
        ([0.9, 0.601, 0.1], "to 2 days"),
        ([0.9, 0.7, np.nan], "to 2 days, the longest lead scored"),
        ([0.9, np.nan, 0.3], "to 2 days"),
        ([0.9, 0.8, 0.61], "to 3 days, the longest lead scored"),
    ],
)
def test_useful_skill_ends_where_the_correlation_crosses_its_limit(tmp_path, acc, words):
    values = {"z": [1, 2, 3], "t": [1, 2, 3]}
    assert verdict(_scores(tmp_path, values | {"acc": acc}, values))[0].endswith(
        f"; Z500 is useful (ACC above 0.6) {words}."
    )


def test_verdict_of_a_bad_forecast(tmp_path):
    scores = _scores(
        tmp_path,
        {"z": [3, 5, 5], "t": [1, 9, 1], "acc": [0.5, 0.9, 0.9]},
        {"z": [2, 4, 6], "t": [2, 3, 4]},
        {"z": [1, 1, 1], "t": [1, 1, 1]},
    )
    assert verdict(scores) == [
        "Beats persistence for a while only: Z500 at no lead from the first on, T850 to 1 day; "
        "Z500 has no useful skill (ACC above 0.6) at the first lead.",
        "Does not beat climatology at the first lead in any headline field.",
    ]


def test_a_forecast_that_blew_up_does_not_beat_anything(tmp_path):
    scores = _scores(tmp_path, {"z": [1, np.nan, np.nan], "t": [1, 1, 1]}, {"z": [2, 4, 6], "t": [2, 3, 4]})
    assert verdict(scores) == [
        "Beats persistence at every lead to 3 days in 1 of 2 headline fields; in the others: Z500 to 1 day."
    ]
    shown = decode(_payload(scores)["lines"][0]["values"], 2, 1, 2, 3)
    np.testing.assert_array_equal(shown[0, 0, 0], [1.0, np.nan, np.nan])


def test_leads_without_truth_are_not_judged(tmp_path):
    nan = np.nan
    scores = _scores(tmp_path, {"z": [1, 2, nan], "t": [1, 2, nan]}, {"z": [2, 4, nan], "t": [2, 3, nan]})
    assert verdict(scores) == ["Beats persistence at every lead to 2 days in all 2 headline fields."]


def test_verdict_of_a_single_field_names_it(tmp_path):
    nan = np.nan
    scores = _scores(
        tmp_path,
        {"z": [1, 5, 7], "t": [nan] * 3},
        {"z": [2, 4, 6], "t": [nan] * 3},
        {"z": [9, 9, 9], "t": [nan] * 3},
        headline=["geopotential@500"],
    )
    assert verdict(scores) == [
        "Beats persistence to 1 day, but not at every lead to 3 days, for the 500 hPa geopotential.",
        "Beats climatology at every lead to 3 days for the 500 hPa geopotential.",
    ]


def test_verdict_without_baselines_says_so(tmp_path):
    assert verdict(_scores(tmp_path, {"z": [1, 2, 3], "t": [1, 2, 3]})) == [
        "No score could be compared with a baseline."
    ]


def test_headline_field_without_scores_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"report.headline: 'geopotential' has no scores; there are geopotential@500"):
        _scores(tmp_path, {"z": [1, 2, 3], "t": [1, 2, 3]}, headline=["geopotential"])


def test_an_axis_of_ranks_leaves_the_other_scores_as_they_are(make, tmp_path):
    leads = np.array([6, 12]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    plain = make.metrics(make.config(), leads, np.full(2, 9), "model")
    plain.to_netcdf(tmp_path / "plain.nc")
    plain.map(lambda field: field.expand_dims(bins=3, axis=-1) if "metric" in field.dims else field).to_netcdf(
        tmp_path / "ranks.nc"
    )
    got, expected = (_payload(read_scores({"model": tmp_path / f"{name}.nc"})) for name in ("ranks", "plain"))
    assert got == expected


def test_a_level_that_is_not_forecast_is_not_shown(make, tmp_path):
    leads = np.array([24, 72]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    metrics = make.metrics(make.config(), leads, np.full(2, 9), "model")
    without = metrics.assign(geopotential=metrics.geopotential.where(metrics.level == 500))
    without.to_netcdf(tmp_path / "model.nc")
    scores = read_scores({"model": tmp_path / "model.nc"})
    assert [field.level for field in scores.fields if field.variable == "geopotential"] == [500]
    # Unless it is asked for, or there is nothing else.
    assert Field("geopotential", 850) in read_scores({"model": tmp_path / "model.nc"}, ["geopotential@850"]).headline
    nothing = metrics.map(lambda field: field * np.nan if "region" in field.dims else field)
    nothing.to_netcdf(tmp_path / "nothing.nc")
    assert len(read_scores({"model": tmp_path / "nothing.nc"}).fields) == len(scores.fields) + 2


def test_facts_of_direct_forecasts_name_leads_and_fields(make, finished_run):
    model = {"levels": [{"band_limit": 12, "scalars": 8, "vectors": 4, "blocks": 1}], "leads_hours": [24, 120]}
    config = make.config(model=model | {"outputs": ["geopotential@500", "2m_temperature"]})
    scores = read_scores({"model": finished_run.metrics / "model.nc"})
    stores = open_store(finished_run.training_store, "truth"), open_store(finished_run.forecast, "forecast")
    rows = dict(gather_facts(config, *stores, scores).rows)
    assert rows["Lead times"] == "to 5 days, 2 leads each forecast directly"
    assert rows["Fields"].endswith("; geopotential@500 and 2m_temperature forecast")


def test_baseline_with_other_leads_and_regions_is_aligned_by_name(make, tmp_path):
    config = make.config()
    leads = np.arange(1, 5) * np.timedelta64(6, "h").astype("timedelta64[ns]")
    make.metrics(config, leads, np.full(4, 9), "model").to_netcdf(tmp_path / "model.nc")
    other = make.metrics(config, leads, np.full(4, 9), "persistence")
    other.isel(lead_time=[3, 1], region=[1, 0]).drop_vars("temperature").to_netcdf(tmp_path / "persistence.nc")
    scores = read_scores({name: tmp_path / f"{name}.nc" for name in ("model", "persistence", "climatology")})
    field = Field("geopotential", 500)
    wanted = other.geopotential.sel(metric="rmse", region="global", level=500).values
    np.testing.assert_array_equal(scores.curve("persistence", "rmse", field), [np.nan, wanted[1], np.nan, wanted[3]])
    assert np.isnan(scores.curve("persistence", "rmse", Field("temperature", 850))).all()
    assert scores.names == ["model", "persistence"]


def test_short_forecasts_have_a_scorecard_of_their_last_leads(make, tmp_path):
    config = make.config()
    leads = np.arange(4) * np.timedelta64(3, "h").astype("timedelta64[ns]")
    make.metrics(config, leads, np.full(4, 9), "model").to_netcdf(tmp_path / "model.nc")
    scores = read_scores({"model": tmp_path / "model.nc"})
    assert scores.leads[scores.scorecard_leads()].tolist() == [3, 6, 9]


def test_official_results_are_read(reference):
    results = reference / "results"
    scores = read_scores(
        {
            "model": results / "64x32p_skipna0_deterministic.nc",
            "persistence": results / "64x32p_persistence_beam_deterministic.nc",
            "climatology": results / "64x32p_climatology_deterministic.nc",
        }
    )
    with xr.open_dataset(results / "64x32p_skipna0_deterministic.nc", decode_timedelta=True) as official:
        wanted = official.geopotential.sel(metric="rmse", region="global", level=500).values
    np.testing.assert_array_equal(scores.curve("model", "rmse", Field("geopotential", 500)), wanted)
    assert scores.headline[0] == Field("geopotential", 500)
    assert np.isnan(scores.curve("model", "rmse", Field("specific_humidity", 850))[-1])


def test_few_data_are_called_few(make, finished_run):
    config = make.config(
        periods={
            "train": ["2001-01-01T00:00", "2001-01-06T00:00"],
            "validation": ["2001-11-01T00:00", "2001-11-30T18:00"],
            "test": ["2001-12-01T00:00", "2002-02-28T18:00"],
        }
    )
    run = finished_run
    scores = read_scores({"model": run.metrics / "model.nc"})
    stores = open_store(run.training_store, "truth"), open_store(run.forecast, "forecast")
    assert cautions(gather_facts(run.config, *stores, scores)) == []
    facts = gather_facts(config, *stores, scores)
    assert cautions(facts) == ["20 training samples over 5 days: this shows that the chain works, not skill."]
    scores.valid_samples[:] = 12
    assert cautions(gather_facts(config, *stores, scores))[1] == (
        "Only 12 forecasts score a lead time (fewer than 100): differences may be chance."
    )


def test_leads_that_no_forecast_scores_are_told_apart(finished_run):
    scores = read_scores({"model": finished_run.metrics / "model.nc"})
    scores.valid_samples[-4:] = 0
    stores = open_store(finished_run.training_store, "truth"), open_store(finished_run.forecast, "forecast")
    facts = gather_facts(finished_run.config, *stores, scores)
    assert facts.least_valid > 0
    assert dict(facts.rows)["Valid samples"].endswith("by lead; none beyond 4 days, where the truth ends")


def test_notes_name_gaps_and_missing_values(finished_run, tmp_path):
    notes = data_notes(finished_run.validation_record)
    assert notes == [
        "Gap between 5 Jan 2001 18 UTC and 1 Feb 2001 00 UTC; no sample or forecast crosses it.",
        "geopotential: values missing at 1 time, which are skipped: 3 Jan 2001 00 UTC.",
    ]
    assert data_notes(tmp_path / "none.json") == ["The record of the source's validation is missing."]


def test_command_that_reproduces_a_run_names_what_was_changed(make):
    from pipeline.config_files import load_config

    assert reproduce(load_config("tiny")) == "spherecast run tiny"
    changed = load_config("tiny", ["training.seed=3", "source.allow_missing=true"])
    assert reproduce(changed) == "spherecast run tiny source.allow_missing=true training.seed=3"
    assert load_config("tiny", ["source.allow_missing=true", "training.seed=3"]) == changed
    shorter = load_config("tiny", ["periods.test=[2001-02-01T00:00, 2001-02-05T00:00]"])
    command = reproduce(shorter)
    assert command == """spherecast run tiny 'periods.test=["2001-02-01T00:00:00", "2001-02-05T00:00:00"]'"""
    assert load_config("tiny", shlex.split(command)[3:]) == shorter
    assert reproduce(make.config(name="mine")) is None


def test_training_log_counts_an_update_once_and_survives_a_cut_line(tmp_path):
    log = tmp_path / "training.jsonl"
    events = [
        {"event": "train", "update": 1, "stage": 0, "rollout_steps": 1, "loss": 9.0},
        {"event": "train", "update": 2, "stage": 0, "rollout_steps": 1, "loss": 0.5},
        {"event": "validation", "update": 2, "stage": 0, "loss": 0.6},
        {"event": "train", "update": 3, "stage": 1, "rollout_steps": 4, "loss": float("nan")},
        {"event": "train", "update": 1, "stage": 0, "rollout_steps": 1, "loss": 1.0},
        {
            "event": "forecast",
            "update": 2,
            "lead_hours": [24, 72],
            "rmse": {"geopotential@500": [3.0, None]},
            "persistence": {"geopotential@500": [12.0, 20.0]},
        },
    ]
    log.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "tra')
    curve = training_curve(log)
    assert curve["train"] == [[1.0, 1.0], [2.0, 0.5], [3.0, None]]
    assert curve["validation"] == [[2, 0.6]]
    assert curve["stages"] == [[1, 1], [3, 4]]
    assert curve["forecasts"] == [[2, [["geopotential@500", 24, 0.25]]]]
    assert training_curve(log, most=1)["averaged"] == 3
    log.write_text("")
    assert training_curve(log) is None
