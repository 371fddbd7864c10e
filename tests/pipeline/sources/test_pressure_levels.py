"""Levels selected and interpolated: closed forms, model levels, laziness, refusals."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from pipeline.sources import pressure_levels as levels_module
from pipeline.sources.pressure_levels import at_levels
from transforms.errors import InputError
from transforms.vertical import GAS_CONSTANT, GRAVITY, LAPSE_RATE

EXPONENT = GAS_CONSTANT * LAPSE_RATE / GRAVITY
SEA_LEVEL, SEA_TEMPERATURE = 101_300.0, 288.0
SHAPE = (5, 6, 8)


def coordinates(**more) -> dict:
    times = np.datetime64("2020-01-01", "ns") + np.arange(SHAPE[0]) * np.timedelta64(6, "h")
    latitude, longitude = np.linspace(-75.0, 75.0, SHAPE[1]), np.arange(SHAPE[2]) * 45.0
    return {"time": times, "latitude": latitude, "longitude": longitude, **more}


def pressure_source(levels=(1000, 300, 500, 850)) -> xr.Dataset:
    """Two fields linear in ln(pressure), one field and a mask without levels."""
    axes = ("time", "level", "latitude", "longitude")
    slope = np.random.default_rng(0).normal(size=(SHAPE[0], 1, *SHAPE[1:]))
    values = 250.0 + slope * np.log(np.array(levels, float))[:, None, None]
    return xr.Dataset(
        {
            "temperature": (axes, values.astype(np.float32), {"units": "K"}),
            "u_component_of_wind": (axes, (-values).astype(np.float32)),
            "2m_temperature": (("time", "latitude", "longitude"), values[:, 0].astype(np.float32)),
            "slope": (("latitude", "longitude"), slope[0, 0]),
        },
        coordinates(level=np.array(levels, np.int32)),
    ).chunk(time=2)


def model_source(sigma: bool = False, count: int = 60) -> tuple[xr.Dataset, np.ndarray]:
    """An atmosphere of constant lapse rate over hills, and the height of the ground."""
    b = np.linspace(0.02, 1.0, count) if sigma else np.linspace(0.0, 1.0, count) ** 2
    a = np.zeros(count) if sigma else 30_000.0 * np.linspace(0.05, 1.0, count) * (1.0 - np.linspace(0.0, 1.0, count))
    a = a if sigma else a + 500.0 * (1.0 - np.linspace(0.0, 1.0, count))
    height = np.abs(np.random.default_rng(1).normal(0.0, 900.0, SHAPE[1:]))
    surface = SEA_LEVEL * (1 - LAPSE_RATE * height / SEA_TEMPERATURE) ** (1 / EXPONENT) * np.ones(SHAPE)
    pressure = a[:, None, None] + b[:, None, None] * surface[:, None]
    axes = ("time", "level", "latitude", "longitude")
    values = {
        "temperature": (axes, SEA_TEMPERATURE * (pressure / SEA_LEVEL) ** EXPONENT, {"units": "K"}),
        "v_component_of_wind": (axes, 3.0 - 2.0 * np.log(pressure)),
        "surface_pressure": (("time", "latitude", "longitude"), surface),
        "geopotential_at_surface": (("latitude", "longitude"), GRAVITY * height),
    }
    dataset = xr.Dataset(values, coordinates(level=np.arange(1, count + 1, dtype=np.int32))).astype(np.float32)
    return dataset.assign_coords(hybrid_a=("level", a), hybrid_b=("level", b)).chunk(time=2), height


def test_selected_levels_come_in_the_order_asked_for():
    source = pressure_source()
    result = at_levels(source, [500, 1000])
    np.testing.assert_array_equal(result["level"], [500, 1000])
    np.testing.assert_array_equal(result["temperature"], source["temperature"].values[:, [2, 0]])
    assert at_levels(source, None).identical(source)


def test_pressure_levels_are_linear_in_log_pressure_and_those_there_are_copied():
    source = pressure_source()
    result = at_levels(source, [850, 400, 925], "interpolate")
    assert result["temperature"].dims == source["temperature"].dims
    assert result["temperature"].dtype == np.float32
    assert result["temperature"].attrs == {"units": "K"}
    assert result["level"].values.tolist() == [850, 400, 925]
    np.testing.assert_array_equal(result["temperature"][:, 0], source["temperature"].sel(level=850))
    wanted = pressure_source((850, 400, 925))
    for name in ("temperature", "u_component_of_wind"):
        np.testing.assert_allclose(result[name], wanted[name], rtol=1e-6)
    for name in ("2m_temperature", "slope"):
        assert result[name].identical(source[name])


def test_a_missing_value_reaches_the_levels_made_of_it():
    source = pressure_source().compute()
    source["temperature"][1, 1, 2, 3] = np.nan  # 300 hPa
    result = at_levels(source, [400, 500, 700], "interpolate")["temperature"]
    assert np.isnan(result.values).sum() == 1
    assert np.isnan(result[1, 0, 2, 3])


@pytest.mark.parametrize("sigma", [False, True])
@pytest.mark.parametrize("logarithm", [False, True])
def test_model_levels_reach_the_closed_form(sigma, logarithm):
    source, _ = model_source(sigma)
    if logarithm:
        source = source.assign(lnsp=np.log(source["surface_pressure"])).drop_vars("surface_pressure")
    levels = [1000, 850, 500, 200]
    # Model levels may be stored from the ground upwards.
    result = at_levels(source.isel(level=slice(None, None, -1)), levels, "interpolate")
    assert not {"hybrid_a", "hybrid_b"} & set(result.coords)
    pressure = 100.0 * np.array(levels)[:, None, None]
    temperature = SEA_TEMPERATURE * (pressure / SEA_LEVEL) ** EXPONENT
    shape = (SHAPE[0], len(levels), *SHAPE[1:])
    np.testing.assert_allclose(result["temperature"], np.broadcast_to(temperature, shape), rtol=5e-4)
    geopotential = GRAVITY * (SEA_TEMPERATURE - temperature) / LAPSE_RATE
    np.testing.assert_allclose(result["geopotential"], np.broadcast_to(geopotential, shape), atol=25.0)
    wind = result["v_component_of_wind"].values
    surface = model_source(sigma)[0]["surface_pressure"].values[:, None]
    inside = pressure < surface
    expected = 3.0 - 2.0 * np.log(np.minimum(pressure, surface))
    assert (~inside).any()
    np.testing.assert_allclose(wind, expected, rtol=1e-5)


def test_humid_air_is_thicker():
    source, _ = model_source()
    dry = at_levels(source, [500, 850], "interpolate")["geopotential"]
    source["specific_humidity"] = 0.01 * xr.ones_like(source["temperature"])
    humid = at_levels(source, [500, 850], "interpolate")
    thickness = (humid["geopotential"] - dry).diff("level").values / dry.diff("level").values
    np.testing.assert_allclose(thickness, 0.00609133, rtol=1e-3)
    np.testing.assert_allclose(humid["specific_humidity"], 0.01)


def test_geopotential_without_ground_is_left_out():
    source, _ = model_source()
    source["geopotential"] = source["temperature"]
    result = at_levels(source.drop_vars("geopotential_at_surface"), [500], "interpolate")
    assert "geopotential" not in result
    assert "temperature" in result


def test_nothing_is_read_and_blocks_do_not_matter(monkeypatch):
    source, _ = model_source()
    read = []

    def note(block):
        read.append(block.shape)
        return block

    source["temperature"] = source["temperature"].copy(
        data=source["temperature"].data.map_blocks(note, meta=np.empty(0))
    )
    result = at_levels(source, [500, 850], "interpolate")
    assert not read
    assert result["temperature"].chunks[0] == (2, 2, 1)
    expected = result.compute(scheduler="threads")
    monkeypatch.setattr(levels_module, "_BLOCK_BYTES", 1)
    other = at_levels(source.chunk(time=1, level=7), [500, 850], "interpolate")
    with dask.config.set(scheduler="synchronous"):
        assert other.compute().identical(expected)


def test_what_cannot_be_had_is_named():
    source = pressure_source()
    with pytest.raises(
        InputError, match=r"temperature: level 925 hPa is missing; the source has 1000, 300.*interpolate"
    ):
        at_levels(source, [500, 925])
    with pytest.raises(InputError, match=r"temperature: level 250 hPa is outside .*300 to 1000"):
        at_levels(source, [500, 250], "interpolate")
    with pytest.raises(InputError, match=r"'cubic'.*select, interpolate"):
        at_levels(source, [500], "cubic")
    model, _ = model_source()
    with pytest.raises(InputError, match=r"temperature: .*model levels.*interpolate"):
        at_levels(model, [500])
    with pytest.raises(InputError, match=r"temperature: .*needs surface_pressure.*source.rename"):
        at_levels(model.drop_vars("surface_pressure"), [500], "interpolate")
