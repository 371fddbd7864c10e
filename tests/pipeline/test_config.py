"""Configurations: every shipped one is valid, and every fault is told with its key, value and mend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from model.nonlinearities import NONLINEARITIES
from pipeline.config_files import list_configs, load_config, names_run
from pipeline.presets import PRESETS
from transforms.errors import InputError
from transforms.latitudes import FAMILIES


@pytest.mark.parametrize("name", list_configs())
def test_shipped_configurations_are_valid_and_survive_a_round_trip(name: str, tmp_path: Path):
    config = load_config(name)
    assert config.name == name
    assert config.description
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("source.preset", PRESETS),
        ("model.nonlinearity", NONLINEARITIES),
        ("data.grid.family", FAMILIES),
        ("simulation.grid.family", FAMILIES),
    ],
)
def test_what_a_table_holds_and_nothing_else_can_be_chosen(key: str, table: Mapping[str, object]):
    for name in table:
        value: object = load_config("tiny", [f"{key}={name}", "simulation.grid.poles=false"])
        for part in key.split("."):
            value = getattr(value, part)
        assert value == name
    with pytest.raises(InputError, match=rf"{key}: .*'{next(iter(table))}'.* got 'other'"):
        load_config("tiny", [f"{key}=other"])


def test_overrides_reach_into_sections_and_lists():
    config = load_config("tiny", ["training.stages.0.updates=3", "data.levels=[500]", "report.title=Mine"])
    assert config.training.stages[0].updates == 3
    assert config.data.levels == [500]
    assert config.report.title == "Mine"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.levls=3", "model.levls: unknown key. Did you mean levels?"),
        ("data.grid.lat=3", "data.grid.lat: unknown key. Known keys: latitude, longitude, poles"),
        ("training.stages.0.step=3", "training.stages.0.step: unknown key. Did you mean steps?"),
        ("training.batch_size=many", "training.batch_size: .* got 'many'"),
        ("data.variables=[geopotentail]", "variable 'geopotentail' is not known"),
        ("data.variables=[u_component_of_wind]", "its partner v_component_of_wind is missing"),
        ("data.variables=[land_sea_mask]", "land_sea_mask does not change in time; move it to data.statics"),
        ("data.statics=[temperature]", "temperature changes in time; move it to data.variables"),
        (
            "data.grid={latitude: 16, longitude: 32, family: gaussian, poles: true}",
            "gaussian has no rows there; set poles",
        ),
        ("data.levels=[500, 500]", "names something twice"),
        ("data.levels=[]", "levels: empty, but some variables are on pressure levels"),
        ("periods.train=[2001-02-01, 2001-01-01]", "starts 2001-02-01 00 UTC after it ends"),
        ("periods.test=[2001-01-05, 2001-02-05]", "test: .* overlaps train.* Move one of them"),
        ("model.levels.0.band_limit=17", "17 is more than the data grid of 16 x 32 determines; use at most 16"),
        (
            "model.levels=[{band_limit: 6, scalars: 4, vectors: 2, blocks: 1}, "
            "{band_limit: 12, scalars: 4, vectors: 2, blocks: 1}]",
            r"expected band limits that decrease, got \[6, 12\]",
        ),
        ("forecast.lead_hours=125", "125 h is not a whole number of 6 h model steps"),
        ("forecast.variables=[2m_temperature]", "2m_temperature is not among data.variables"),
        (
            "model.inputs=[geopotential@700]",
            "model.inputs: geopotential@700 is no field of the state, which has geopotential",
        ),
        (
            "model.inputs=[geopotential, u_component_of_wind@850]",
            "model.inputs: u_component_of_wind@850 without v_component_of_wind@850; winds are one vector",
        ),
        ("model.outputs=[geopotential]", "outputs: a forecast step by step needs all fields .* give leads_hours"),
        ("model.leads_hours=[72, 24]", r"leads_hours: expected ascending lead times, got \[72, 24\]"),
        ("model.leads_hours=[9]", "model.leads_hours: 9 h is not a whole number of 6 h steps of the data"),
        (
            "model.leads_hours=[24]",
            "training.stages: 2 steps, but with model.leads_hours every forecast is one call; use 1",
        ),
        ("training.variable_weights={2m_temperature: 2}", "2m_temperature is not among data.variables"),
        ("climatology.window_days=60", "window_days: expected an odd number, got 60"),
        ("source.path=/somewhere", "remove source.path"),
        ("nonsense", "expected section.key=value"),
        ("training.stages.7.updates=3", "7 is not an index of a list of 2"),
        ("name.first=x", "name is a value, not a section"),
    ],
)
def test_faults_are_explained(override: str, message: str):
    with pytest.raises(InputError, match=message):
        load_config("tiny", [override])


def test_all_faults_are_told_at_once():
    with pytest.raises(InputError) as caught:
        load_config("tiny", ["training.batch_size=0", "data.method=spline"])
    assert "training.batch_size" in str(caught.value)
    assert "'bilinear', 'nearest' or 'spectral', got 'spline'" in str(caught.value)


def test_unknown_configuration():
    with pytest.raises(InputError, match=r"'quickstrat': neither .* Did you mean quickstart\?"):
        load_config("quickstrat")
    with pytest.raises(InputError, match="no such file"):
        load_config("missing.yaml")


def test_a_folder_may_share_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    changed = load_config("tiny", ["training.seed=7"])
    for name in ("tiny", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(changed.to_yaml())
    monkeypatch.chdir(tmp_path)
    assert load_config("tiny").training.seed == 0
    assert load_config("mine").training.seed == 7
    assert load_config(tmp_path / "tiny").training.seed == 7
    assert [names_run(name) for name in ("tiny", "mine", "./mine", "other")] == [False, True, True, False]


def test_a_file_that_is_no_configuration(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="expected a mapping of sections, got list"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        load_config(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"name": "c"}))
    with pytest.raises(InputError, match=r"data: missing, and it has no default"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["forecast.lead_hours=12"], "forecast.lead_hours: 12 h is before the first of model.leads_hours, 24 h"),
        (
            ["model.outputs=[geopotential@500]", "forecast.variables=[temperature]"],
            "forecast.variables: temperature is not among model.outputs",
        ),
        (["model.outputs=[rain]"], "model.outputs: rain is no field of the state"),
    ],
)
def test_direct_forecasts_that_do_not_fit_are_explained(overrides: list[str], message: str):
    direct = ["model.leads_hours=[24, 72]", "training.stages=[{steps: 1, updates: 4, learning_rate: 0.001}]"]
    assert load_config("tiny", direct).model.leads_hours == [24, 72]
    with pytest.raises(InputError, match=message):
        load_config("tiny", [*direct, *overrides])
