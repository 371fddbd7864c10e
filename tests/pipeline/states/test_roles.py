"""Which fields a configuration gives the network, which it predicts, and what drives it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.config import ModelConfig
from pipeline.states.layout import FieldsKept, StateLayout, normalisation
from pipeline.states.roles import Forcings, roles_of
from transforms.errors import InputError
from transforms.forcings import forcing_fields
from transforms.grids import Grid
from transforms.variables import field_name

LAYOUT = StateLayout(("geopotential", "u_component_of_wind", "v_component_of_wind", "2m_temperature"), (500, 850))
LEVELS = [{"band_limit": 4, "scalars": 2, "vectors": 1, "blocks": 1}]
HOUR = np.timedelta64(1, "h")


def model(**values) -> ModelConfig:
    return ModelConfig.model_validate({"levels": LEVELS, **values})


def test_fields_that_are_not_given_are_diagnosed():
    roles = roles_of(LAYOUT, model(inputs=["geopotential", "u_component_of_wind@850", "v_component_of_wind@850"]))
    assert roles.given == (0, 1, 3, 5)
    assert roles.predicted == tuple(range(7))
    assert roles.whole == (2, 4, 6)
    assert not roles.direct


def test_direct_forecasts_predict_the_values_asked_for():
    roles = roles_of(LAYOUT, model(leads_hours=[72, 120], outputs=["2m_temperature", "geopotential@500"]))
    assert roles.given == tuple(range(7))
    assert roles.predicted == roles.whole == (0, 6)
    assert roles.direct


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"inputs": ["geopotential@700"]},
            "model.inputs: geopotential@700 is no field of the state, which has geopoten",
        ),
        (
            {"inputs": ["u_component_of_wind", "geopotential"]},
            "model.inputs: u_component_of_wind@500 without v_component_of_wind@500; winds are one vector",
        ),
        ({"leads_hours": [24], "outputs": ["rain"]}, "model.outputs: rain is no field of the state"),
    ],
)
def test_wrong_fields_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        roles_of(LAYOUT, model(**values))


def test_values_are_measured_in_their_own_spread():
    values = {"mean": 3.0, "std": 2.0, "minimum": 0.0, "maximum": 9.0, "tendency_mean": 0.0, "tendency_std": 0.5}
    fields = {}
    for scale, name in enumerate(LAYOUT.variables, start=1):
        column = scale * np.array(list(values.values()))
        pressure = name != "2m_temperature"
        shape = column[:, None] * np.array([1.0, 10.0]) if pressure else column
        fields[name] = (("statistic", "level") if pressure else ("statistic",), shape)
    statistics = xr.Dataset(fields, {"statistic": list(values), "level": [500, 850]})
    constants = normalisation(LAYOUT, statistics, unified=True, whole=(1, 6))
    np.testing.assert_allclose(constants.tendency_std[[0, 1, 6]], [0.5, 20.0, 8.0])
    np.testing.assert_allclose(constants.std[[0, 1]], np.sqrt((2.0**2 + 20.0**2) / 2))


def test_forcings_of_leads_are_those_of_both_times_and_the_lead():
    grid = Grid.equiangular(6, 12, poles=False)
    initial = np.array(["2020-01-30T06", "2020-07-01T18"], "datetime64[ns]")
    leads = np.array([24, 72]) * HOUR
    forcings = Forcings(model(leads_hours=[24, 72]), grid)
    fields = forcings.of_leads(initial[:, None], initial[:, None] + leads)
    assert fields.shape == (2, 2, forcings.count, 6, 12)
    for i, time in enumerate(initial):
        for k, lead in enumerate(leads):
            both = forcing_fields(np.array([time, time + lead]), grid, solar=True, clock=True)
            np.testing.assert_array_equal(fields[i, k, :-1], both.reshape(-1, 6, 12))
            np.testing.assert_allclose(fields[i, k, -1], [1 / 3, 1.0][k], rtol=1e-6)
    single = Forcings(model(leads_hours=[72], solar=False), grid)
    assert single.count == 8
    assert single.of_leads(initial, initial + leads[1]).shape == (2, 8, 6, 12)


def test_fields_kept_have_one_axis_of_levels():
    kept = FieldsKept([("geopotential", 500), ("temperature", 850), ("2m_temperature", None)], (500, 850))
    states = np.arange(3.0 * 4).reshape(3, 2, 2)
    unpacked = kept.unpack(states)
    assert list(unpacked) == ["geopotential", "temperature", "2m_temperature"]
    np.testing.assert_array_equal(unpacked["geopotential"], [states[0], np.full((2, 2), np.nan)])
    np.testing.assert_array_equal(unpacked["temperature"], [np.full((2, 2), np.nan), states[1]])
    np.testing.assert_array_equal(unpacked["2m_temperature"], states[2])
    assert [field_name(*field) for field in kept.fields] == ["geopotential@500", "temperature@850", "2m_temperature"]
