"""The maps: which forecasts they show, and that what is drawn is what the stores hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pipeline.reporting import cases
from pipeline.reporting.cases import choose_case, field_values
from pipeline.reporting.error_maps import error_map_section, read_error_maps, score_scale
from pipeline.reporting.fields import Field
from pipeline.reporting.maps import map_section
from pipeline.reporting.packing import MISSING, Quantised, pack, quantise, unpack
from pipeline.reporting.pictures import arrows
from pipeline.reporting.projections import EqualEarth
from pipeline.reporting.scales import centred_scale, field_scale, rising_scale
from pipeline.reporting.sections.maps import maps_section
from pipeline.stores.reading import open_store
from transforms.grids import Grid

EAST, NORTH = "10m_u_component_of_wind", "10m_v_component_of_wind"
WIND = Field("10m_wind_vector")


def _stores(initial, times, leads=(24, 72), rows=16):
    """A forecast of uniform east wind and a truth of uniform north wind."""
    grid = Grid.equiangular(rows, 2 * rows, poles=False)
    coords = {"latitude": grid.latitude, "longitude": grid.longitude}
    shape = (len(initial), len(leads), *grid.shape)
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    forecast = xr.Dataset(
        {EAST: (dims, np.full(shape, 5.0)), NORTH: (dims, np.zeros(shape))},
        {"time": initial, "prediction_timedelta": np.array(leads, "timedelta64[h]").astype("timedelta64[ns]")} | coords,
    )
    shape = (len(times), *grid.shape)
    dims = ("time", "latitude", "longitude")
    truth = xr.Dataset({EAST: (dims, np.zeros(shape)), NORTH: (dims, np.full(shape, 5.0))}, {"time": times} | coords)
    return forecast, truth


def _days(*numbers):
    return np.datetime64("2001-01-01", "ns") + np.array(numbers) * np.timedelta64(1, "D")


def _payload(html: str, name: str) -> dict:
    return json.loads(re.search(rf'id="{name}-data">(.*?)</script>', html)[1])


def _decoded(html: str, name: str, number: int) -> dict[str, np.ndarray]:
    """Arrays (component, initial, lead, latitude, longitude) of a field as the page's script makes them."""
    data = _payload(html, name)
    arrays = data["fields"][number]["arrays"]
    packed = re.search(rf'id="{name}-{number}">(.*?)</script>', html)[1]
    codes = iter(unpack(packed, [tuple(data["shape"])] * sum(len(array["low"]) for array in arrays)))
    return {
        array["name"]: np.stack(
            [Quantised(next(codes), low, step).values() for low, step in zip(array["low"], array["step"], strict=True)]
        )
        for array in arrays
    }


def test_codes_are_as_near_as_their_step_and_know_what_is_missing():
    values = np.random.default_rng(0).normal(54_000, 900, (3, 4, 8))
    values[1, 2, 3] = np.nan
    quantised = quantise(values)
    assert (quantised.codes == MISSING).sum() == 1
    np.testing.assert_array_equal(np.isnan(quantised.values()), np.isnan(values))
    assert np.nanmax(np.abs(quantised.values() - values)) <= 0.501 * quantised.step
    assert quantised.step == pytest.approx(np.ptp(values[np.isfinite(values)]) / 254, rel=1e-6)
    assert np.isnan(quantise(np.full((2, 3), np.nan)).values()).all()
    np.testing.assert_array_equal(quantise(np.full((2, 3), 7.0)).values(), 7.0)


def test_packed_arrays_come_back():
    generator = np.random.default_rng(1)
    shapes = [(2, 3, 4, 8), (1, 5)]
    arrays = [generator.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    for array, back in zip(arrays, unpack(pack(arrays), shapes), strict=True):
        np.testing.assert_array_equal(array, back)


def test_three_forecasts_are_drawn_evenly_spread_over_those_with_truth_at_every_lead():
    forecast, truth = _stores(_days(*range(9)), _days(*range(12)))
    case = choose_case(forecast, truth, [WIND, Field("geopotential", 500)])
    assert case.initials.tolist() == _days(1, 4, 7).tolist()
    assert case.leads == [24, 72]
    assert case.fields == [WIND]
    assert case.member is None
    assert case.valid_time(1, 1) == _days(7)[0]
    ensemble = xr.concat([forecast, 2 * forecast], dim=xr.Variable("number", [3, 4]))
    of_member = choose_case(ensemble, truth, [WIND])
    assert of_member.member == 3
    np.testing.assert_array_equal(of_member.forecast[WIND], case.forecast[WIND])
    # Two forecasts have a truth, each at a lead of its own; then one, at one lead.
    case = choose_case(*_stores(_days(0, 1, 2), _days(3)), [WIND])
    assert (case.initials.tolist(), case.leads) == (_days(0, 2).tolist(), [24, 72])
    case = choose_case(*_stores(_days(0, 1), _days(3)), [WIND])
    assert (case.initials.tolist(), case.leads) == (_days(0).tolist(), [72])
    assert choose_case(*_stores(_days(0, 1, 2), _days(50)), [WIND]) is None


def test_leads_then_forecasts_then_fields_give_way_to_what_a_page_can_hold(monkeypatch):
    leads = range(6, 246, 6)
    stores = _stores(_days(*range(9)), _days(0)[0] + np.arange(80) * np.timedelta64(6, "h"), leads)
    east, points = Field(EAST), 16 * 32

    def drawn(maps):
        monkeypatch.setattr(cases, "_MOST_POINTS", maps * points)
        case = choose_case(*stores, [WIND], [east, Field(NORTH), WIND])
        return len(case.fields), len(case.initials), case.leads

    assert drawn(2 * 3 * 40) == (1, 3, list(leads))  # Components are in the vector, so they are not drawn too.
    assert drawn(2 * 3 * 10) == (1, 3, list(range(24, 246, 24)))
    assert drawn(2 * 10) == (1, 1, list(range(24, 246, 24)))
    assert drawn(3) == (1, 1, [240])
    monkeypatch.setattr(cases, "_MOST_POINTS", 8 * points)
    case = choose_case(*stores, [east, WIND])
    assert (case.fields, len(case.leads)) == ([east], 8)


def test_fine_grids_are_drawn_as_means_over_coarser_cells():
    case = choose_case(*_stores(_days(0), _days(1), (24,), rows=160), [WIND])
    assert case.grid.shape == (90, 180)
    assert case.stored_grid.shape == (160, 320)
    # Turned and averaged as a vector, a wind from the west along all parallels keeps its direction.
    np.testing.assert_allclose(case.forecast[WIND][0, 0, 1], 0, atol=5e-3)
    assert case.errors[WIND][0, 0] == pytest.approx(np.hypot(5, 5))


def test_what_the_page_draws_equals_the_stores(finished_run):
    forecast = open_store(finished_run.forecast, "forecast")
    truth = open_store(finished_run.training_store, "truth")
    fields = [Field("geopotential", 500), Field("wind_vector", 850), Field("2m_temperature")]
    case = choose_case(forecast, truth, fields)
    assert all(np.ptp(case.forecast[field], axis=(-2, -1)).min() > 1 for field in fields)
    html = map_section(case)
    data = _payload(html, "forecast-maps")
    assert data["shape"] == [3, 20, 16, 32]
    assert data["leads"] == list(range(6, 126, 6))
    leads = np.array(data["leads"]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    for number, field in enumerate(fields):
        drawn = _decoded(html, "forecast-maps", number)
        steps = {a["name"]: np.array(a["step"])[:, None, None, None] for a in data["fields"][number]["arrays"]}
        for i, initial in enumerate(case.initials):
            wanted = field_values(forecast.sel(time=initial, prediction_timedelta=leads), field).swapaxes(0, 1)
            known = field_values(truth.sel(time=initial + leads), field).swapaxes(0, 1)
            assert (np.abs(drawn["forecast"][:, i] - wanted) <= 0.501 * steps["forecast"]).all()
            shown = drawn["forecast"][:, i] - drawn["difference"][:, i]
            assert (np.abs(shown - known) <= 0.501 * (steps["forecast"] + steps["difference"])).all()
            assert (np.abs(drawn["difference"][:, i] - (wanted - known)) <= 0.501 * steps["difference"]).all()
            square = ((wanted - known) ** 2).sum(axis=0) @ np.ones(32) / 32 @ case.grid.latitude_weights()
            np.testing.assert_allclose(
                data["fields"][number]["errors"][i], np.sqrt(square / case.grid.latitude_weights().sum()), rtol=6e-3
            )


def test_maps_without_truth_have_no_difference():
    case = choose_case(*_stores(_days(0), _days(1), (24, 72)), [WIND])
    assert case.leads == [24]
    forecast, truth = _stores(_days(0, 2), _days(1, 3, 5), (24, 72))
    case = choose_case(forecast, truth.isel(time=[0, 1, 2]).assign_coords(time=_days(1, 5, 9)), [WIND])
    html = map_section(case)
    drawn = _decoded(html, "forecast-maps", 0)
    there = np.isfinite(drawn["difference"]).all(axis=(0, 3, 4))
    assert there.tolist() == [[True, False], [False, True]]
    assert np.isfinite(drawn["forecast"]).all()
    assert [
        [e is not None for e in row] for row in _payload(html, "forecast-maps")["fields"][0]["errors"]
    ] == there.tolist()


def _shafts(path):
    """Middle and direction of each arrow, pixels, y upwards."""
    pairs = [piece.split("L") for piece in path.split("M")[1:]][::2]
    points = np.array([[tuple(map(float, p.split())) for p in pair] for pair in pairs]) * [1, -1]
    return points.mean(axis=1), points[:, 1] - points[:, 0]


def test_arrows_point_where_the_wind_blows():
    case = choose_case(*_stores(_days(0), _days(1, 3)), [WIND])
    paths = re.findall(r'<path d="([^"]+)" class="arrows"', map_section(case))
    (_, east), (_, north), (_, error) = (_shafts(path) for path in paths)
    assert len(east) > 100
    assert (east[:, 0] > 5).all()
    assert (np.abs(east[:, 1]) <= 1).all()
    assert (north[:, 1] > 5).all()
    assert (error[:, 1] < 0).all()  # Forecast minus truth: east and south.


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (0.0, -1.0, 0.0)])
def test_arrows_of_a_rotating_earth_go_round_its_axis(axis):
    grid = Grid.equiangular(64, 128, poles=False)
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]
    zero = np.zeros(grid.shape)
    place = np.stack(
        np.broadcast_arrays(
            np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
        )
    )
    velocity = np.cross(np.broadcast_to(np.array(axis)[:, None, None], place.shape), place, axis=0)
    east = np.stack(np.broadcast_arrays(-np.sin(longitude), np.cos(longitude), zero))
    north = np.stack(
        np.broadcast_arrays(
            -np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)
        )
    )
    wind = 20 * np.stack([(velocity * east).sum(axis=0), (velocity * north).sum(axis=0)])
    middles, along = _shafts(arrows(wind, grid, 20.0))
    half_width, half_height = EqualEarth().extent
    scale = 840 / (2 * half_width)
    there = EqualEarth().inverse(middles[:, 0] / scale - half_width, half_height + middles[:, 1] / scale)
    lon, lat = np.deg2rad(there)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    # A hundredth of the way on, each point is where the arrow points.
    later = points + 0.01 * np.cross(np.array(axis)[:, None], points, axis=0)
    ahead = EqualEarth().forward(
        np.rad2deg(np.arctan2(later[1], later[0])), np.rad2deg(np.arcsin(later[2] / np.sqrt((later**2).sum(axis=0))))
    )
    now = EqualEarth().forward(*there)
    wanted = np.stack([ahead[0] - now[0], ahead[1] - now[1]], axis=-1)
    seen = (np.hypot(*along.T) > 12) & (np.hypot(*wanted.T) < 0.1)
    assert seen.sum() > 100
    cosine = (along * wanted).sum(axis=1)[seen] / np.hypot(*along.T)[seen] / np.hypot(*wanted.T)[seen]
    assert cosine.min() > 0.98
    assert np.hypot(*along.T).max() <= 36.5  # The fastest, 20 m s-1, is as long as the reference.


def test_colour_bars_are_labelled_with_the_edges_of_their_bands():
    case = choose_case(*_stores(_days(0), _days(1, 3)), [WIND])
    case.forecast[WIND][:, :, 0] += np.linspace(-6, 6, 32)  # Errors of speed up to 6 m s-1: bands of 1 m s-1.
    bars = map_section(case).split('<div class="ticks"')[1:3]
    speed, error = (
        [(float(at), float(text.replace("−", "-"))) for at, text in re.findall(r'left:([\d.]+)%">([^<]+)<', bar)]
        for bar in bars
    )
    assert [value for _, value in error] == [-5.5, -3.5, -1.5, 1.5, 3.5, 5.5]
    assert all(at == pytest.approx(100 * (value + 6.5) / 13, abs=0.01) for at, value in error)
    rate = np.diff([value for _, value in speed]) / np.diff([at for at, _ in speed])
    np.testing.assert_allclose(rate, rate[0], rtol=2e-3)


def test_scales_cover_what_they_are_made_for():
    values = np.linspace(-40.0, 35.0, 2000).reshape(1, 40, 50)
    scale = field_scale(Field("2m_temperature"), values)
    assert scale.units == "°C"
    assert scale.edges[0] <= -39.8
    assert scale.edges[-1] >= 34.8
    assert rising_scale(np.array([0.0, 28.0]), "m", "strength").edges[[0, -1]].tolist() == [0, 28]
    centred = centred_scale(values, "K")
    np.testing.assert_allclose(centred.edges, -centred.edges[::-1])
    assert field_scale(Field("geopotential", 500), np.full((1, 2, 3), np.nan)).indices(np.array([np.nan])).tolist() == [
        0
    ]


def _score_maps(path, grid):
    metrics = ["rmse", "bias", "mse_skill_score_vs_persistence"]
    leads = np.array([72, 24], "timedelta64[h]").astype("timedelta64[ns]")
    values = np.random.default_rng(3).normal(0, 50, (3, 2, 2, *grid.shape))
    values[0] = np.abs(values[0])
    values[2] /= 100
    dims = ("metric", "lead_time", "level", "latitude", "longitude")
    wind = values[:, :, 0].copy()
    wind[1] = np.nan  # A vector has no mean error.
    dataset = xr.Dataset(
        {"geopotential": (dims, values), "10m_wind_vector": (("metric", "lead_time", "latitude", "longitude"), wind)},
        {
            "metric": metrics,
            "lead_time": leads,
            "level": [500, 850],
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )
    dataset["valid_samples"] = ("lead_time", [5, 9])
    dataset.to_netcdf(path, engine="netcdf4")
    return dataset


def test_maps_of_scores_equal_the_metrics(tmp_path):
    grid = Grid.equiangular(16, 32, poles=True)
    dataset = _score_maps(tmp_path / "maps.nc", grid)
    maps = read_error_maps(tmp_path / "maps.nc", [Field("geopotential", 850)])
    assert maps.scores == ["bias", "rmse", "mse_skill_score_vs_persistence"]
    assert maps.fields == [Field("geopotential", 850), Field("geopotential", 500), WIND]
    assert (maps.leads, maps.samples) == ([24, 72], [9, 5])
    html = error_map_section(maps)
    assert _payload(html, "error-maps")["poles"] is True
    for number, field in enumerate(maps.fields):
        drawn = _decoded(html, "error-maps", number)
        for array in _payload(html, "error-maps")["fields"][number]["arrays"]:
            wanted = dataset[field.variable].sel(metric=array["name"]).sortby("lead_time")
            wanted = (wanted if field.level is None else wanted.sel(level=field.level)).values
            wanted = wanted * (1 if "skill" in array["name"] else field.map_units[0])
            shown = drawn[array["name"]][0, 0]
            np.testing.assert_array_equal(np.isnan(shown), np.isnan(wanted))
            assert (np.isnan(wanted) | (np.abs(shown - wanted) <= 0.501 * array["step"][0])).all()
    skill = score_scale(maps, WIND, 2)
    assert skill.edges[[0, -1]].tolist() == pytest.approx([-1.1, 1.1])
    assert skill.palette[-1, 2] > skill.palette[-1, 0]  # Blue is better.


def test_a_run_without_maps_of_scores_has_none(tmp_path):
    assert read_error_maps(tmp_path / "maps.nc") is None


def test_scores_and_leads_without_values_are_not_offered(tmp_path):
    dataset = _score_maps(tmp_path / "all.nc", Grid.equiangular(16, 32, poles=True))
    for name in ("geopotential", "10m_wind_vector"):
        dataset[name].loc[{"lead_time": np.timedelta64(72, "h")}] = np.nan
    dataset["valid_samples"][:] = [0, 9]
    dataset.to_netcdf(tmp_path / "maps.nc", engine="netcdf4")
    maps = read_error_maps(tmp_path / "maps.nc", [WIND])
    assert (maps.leads, maps.samples) == ([24], [9])
    assert [maps.drawn(field) for field in maps.fields[:2]] == [[False, True, True], [True, True, True]]
    html = error_map_section(maps)
    figures = re.findall(r'<figure class="map"( hidden)?><figcaption><strong>(.*?)</strong>', html)
    assert figures == [(" hidden", "Mean error"), ("", "RMSE"), ("", "Skill against persistence")]
    assert "24 hours ahead, 9 forecasts" in html or "1 day ahead, 9 forecasts" in html


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([12, 12], "over 12 forecasts of the test period."),
        (
            [12, 9, 3],
            "over 12 forecasts of the test period, over fewer at lead times that reach beyond the data (at least 3).",
        ),
        ([1, 1], "over the only forecast of the test period."),
        ([], "over the forecasts of the test period."),
    ],
)
def test_numbers_of_forecasts_are_said(tmp_path, samples, words):
    _score_maps(tmp_path / "maps.nc", Grid.equiangular(16, 32, poles=True))
    maps = read_error_maps(tmp_path / "maps.nc")
    assert words in maps_section(None, replace(maps, samples=samples)).content
