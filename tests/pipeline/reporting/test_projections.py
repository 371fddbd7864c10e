from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.reporting.projections import EqualEarth, Orthographic, coastlines, sample, svg_path
from transforms.grids import Grid


def _points(seed: int = 0, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.uniform(-179, 179, count), np.rad2deg(np.arcsin(generator.uniform(-0.999, 0.999, count)))


def test_equal_earth_is_true_to_area():
    longitude, latitude = _points()
    small = 1e-4
    x_east, y_east = (
        np.subtract(*pair)
        for pair in zip(
            EqualEarth().forward(longitude + small, latitude),
            EqualEarth().forward(longitude - small, latitude),
            strict=True,
        )
    )
    x_north, y_north = (
        np.subtract(*pair)
        for pair in zip(
            EqualEarth().forward(longitude, latitude + small),
            EqualEarth().forward(longitude, latitude - small),
            strict=True,
        )
    )
    area = (x_east * y_north - x_north * y_east) / (2 * np.deg2rad(small)) ** 2 / np.cos(np.deg2rad(latitude))
    np.testing.assert_allclose(area, 1.0, rtol=1e-5)


def test_equal_earth_has_its_published_extent():
    # Savric, Patterson & Jenny (2018): the equator is 2.05458 times as long as the central meridian.
    half_width, half_height = EqualEarth().extent
    assert half_width / half_height == pytest.approx(2.05458, abs=1e-5)


@pytest.mark.parametrize("projection", [EqualEarth(), Orthographic(-30.0, 38.0)])
def test_inverse_undoes_forward(projection):
    longitude, latitude = _points()
    x, y = projection.forward(longitude, latitude)
    seen = np.isfinite(x)
    assert seen.sum() > 100
    back = projection.inverse(x[seen], y[seen])
    turn = (back[0] - longitude[seen] + 180) % 360 - 180
    np.testing.assert_allclose(turn, 0, atol=1e-6)
    np.testing.assert_allclose(back[1], latitude[seen], atol=1e-6)


@pytest.mark.parametrize("projection", [EqualEarth(), Orthographic(10.0, -20.0)])
def test_corners_of_the_picture_lie_outside(projection):
    width, height = projection.extent
    longitude, latitude = projection.inverse(np.array([-width, width]) * 0.999, np.array([height, -height]) * 0.999)
    assert np.isnan(longitude).all()
    assert np.isnan(latitude).all()


def test_globe_hides_the_far_side():
    x, y = Orthographic(0.0, 0.0).forward(np.array([0.0, 180.0]), np.array([0.0, 0.0]))
    assert (x[0], y[0]) == (0, 0)
    assert np.isnan(x[1])


def test_coastlines_lie_where_they_should():
    points = np.concatenate(coastlines())
    assert len(points) > 5000
    assert np.abs(points[:, 0]).max() <= 180
    assert -86 < points[:, 1].min() < -84
    for name, place in {"Gibraltar": (-5.6, 36.0), "Cape Agulhas": (20.0, -34.8), "North Cape": (25.8, 71.1)}.items():
        assert np.hypot(*(points - place).T).min() < 1.0, name


def test_paths_are_upright_and_break_at_the_date_line():
    line = np.array([[170.0, 10.0], [179.0, 10.0], [-179.0, 10.0], [-170.0, 40.0]])
    path = svg_path([line], EqualEarth(), 800)
    pieces = [[tuple(map(float, pair.split())) for pair in piece.split("L")] for piece in path.split("M")[1:]]
    assert [len(piece) for piece in pieces] == [2, 2]
    assert pieces[0][0][0] > 700
    assert pieces[1][0][0] < 100
    assert pieces[1][1][1] < pieces[1][0][1]  # North is up, and SVG counts downwards.
    assert not re.search("nan", path)


@pytest.mark.parametrize("poles", [True, False])
def test_sampling_returns_the_values_at_grid_points(poles):
    grid = Grid.equiangular(17, 32, poles=poles)
    field = np.random.default_rng(0).standard_normal(grid.shape)
    if poles:
        field[[0, -1]] = field[[0, -1], :1]
    longitude, latitude = np.meshgrid(grid.longitude - 180, grid.latitude)
    np.testing.assert_allclose(sample(field, grid, longitude, latitude), np.roll(field, 16, axis=1), atol=1e-6)


@pytest.mark.parametrize("poles", [True, False])
def test_sampling_follows_a_smooth_field_across_the_poles(poles):
    grid = Grid.equiangular(33, 64, poles=poles)

    def field(longitude, latitude):
        phi = np.deg2rad(latitude)
        return np.cos(phi) * np.cos(np.deg2rad(longitude)) + np.sin(phi) ** 2

    longitude, latitude = _points()
    latitude[:50] = np.linspace(88, 90, 50)
    values = sample(field(*np.meshgrid(grid.longitude, grid.latitude)), grid, longitude, latitude)
    np.testing.assert_allclose(values, field(longitude, latitude), atol=2e-5)


def test_sampling_keeps_a_gap_as_large_as_it_is():
    grid = Grid.equiangular(16, 32, poles=False)
    field = np.ones(grid.shape)
    field[8, 16] = np.nan
    longitude, latitude = np.meshgrid(np.linspace(0, 359, 90), np.linspace(-85, 85, 45))
    missing = np.isnan(sample(field, grid, longitude, latitude))
    assert 0 < missing.sum() < 60
    assert np.isnan(sample(field, grid, np.array([np.nan]), np.array([np.nan]))).all()
