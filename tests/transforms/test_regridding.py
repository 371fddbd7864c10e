"""Regridding: the official definitions, conservation, vectors across the pole, missing values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr

from model.harmonics import Transform
from transforms import regridding
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.regridding import METHODS, Regridder

GRIDS = {
    "poles": Grid.equiangular(19, 36, poles=True),
    "no poles": Grid.equiangular(18, 36, poles=False),
    "gaussian": Grid.gaussian(20),
    "square": Grid.equiangular(24, 24, poles=True),
    "odd": Grid.equiangular(16, 31, poles=False),
    "shifted": Grid(Grid.equiangular(16, 32, poles=False).latitude, 5.0 + np.arange(32) * 11.25),
}


def pairs():
    return [
        pytest.param(GRIDS[a], GRIDS[b], id=f"{a} to {b}")
        for a, b in (
            ("poles", "no poles"),
            ("no poles", "poles"),
            ("gaussian", "square"),
            ("odd", "gaussian"),
            ("shifted", "poles"),
            ("no poles", "odd"),
        )
    ]


def smooth(grid: Grid) -> np.ndarray:
    """A scalar of degree 2 on the sphere."""
    x, y, z = cartesian(grid)
    return 280.0 + 20.0 * z**2 - 7.0 * x * y + 3.0 * y


def cartesian(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    return (
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude) * np.ones_like(longitude),
    )


def rotation(grid: Grid, axis: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Eastward and northward wind of a solid-body rotation about `axis`."""
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
    velocity = np.cross(axis, np.stack(cartesian(grid), axis=-1))
    east = np.stack([-np.sin(longitude), np.cos(longitude), 0 * longitude], axis=-1)[None]
    north = np.stack(
        [
            -np.sin(latitude) * np.cos(longitude),
            -np.sin(latitude) * np.sin(longitude),
            np.cos(latitude) + 0 * longitude,
        ],
        axis=-1,
    )
    return (velocity * east).sum(-1), (velocity * north).sum(-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("source", "target"), pairs())
def test_a_constant_stays_constant(source, target, method):
    result = Regridder(source, target, method)(np.full((2, *source.shape), 273.15))
    assert result.shape == (2, *target.shape)
    np.testing.assert_allclose(result, 273.15, rtol=1e-13)


@pytest.mark.parametrize(("source", "target"), pairs())
def test_conservative_keeps_the_area_mean(source, target):
    field = np.random.default_rng(0).normal(size=source.shape)
    result = Regridder(source, target)(field)
    before = np.average(field.mean(axis=-1), weights=source.latitude_weights())
    after = np.average(result.mean(axis=-1), weights=target.latitude_weights())
    assert after == pytest.approx(before, abs=1e-14)


@pytest.mark.parametrize(("source", "target"), pairs())
def test_conservative_agrees_with_areas_summed_cell_by_cell(source, target):
    field = np.random.default_rng(1).normal(size=source.shape)
    north, south = np.deg2rad(source.latitude_bounds[1:]), np.deg2rad(source.latitude_bounds[:-1])
    half, want_half = 180.0 / source.longitude.size, 180.0 / target.longitude.size
    expected = np.zeros(target.shape)
    for i in range(target.shape[0]):
        low, high = np.deg2rad(target.latitude_bounds[i : i + 2])
        height = np.maximum(np.sin(np.minimum(north, high)) - np.sin(np.maximum(south, low)), 0.0)
        for j, east in enumerate(target.longitude):
            width = sum(
                np.maximum(
                    np.minimum(source.longitude + turn + half, east + want_half)
                    - np.maximum(source.longitude + turn - half, east - want_half),
                    0.0,
                )
                for turn in (-360.0, 0.0, 360.0)
            )
            area = height[:, None] * width
            expected[i, j] = (area * field).sum() / area.sum()
    np.testing.assert_allclose(Regridder(source, target)(field), expected, atol=1e-12)


@pytest.mark.parametrize(("source", "target"), pairs())
def test_nearest_takes_a_closest_point_of_all(source, target):
    field = np.arange(np.prod(source.shape), dtype=float).reshape(source.shape)
    chosen = Regridder(source, target, "nearest")(field).astype(int)
    distance = np.stack(cartesian(target)).reshape(3, -1).T @ np.stack(cartesian(source)).reshape(3, -1)
    taken = np.take_along_axis(distance, chosen.reshape(-1, 1), axis=1)[:, 0]
    np.testing.assert_allclose(taken, distance.max(axis=1), atol=1e-14)


def test_bilinear_is_periodic_and_crosses_the_pole():
    source, target = GRIDS["no poles"], Grid.equiangular(37, 72, poles=True)
    rows = np.sin(np.deg2rad(source.latitude))[:, None] + np.zeros(36)
    pole = Regridder(source, target, "bilinear")(rows)[-1]
    np.testing.assert_allclose(pole, rows[-1, 0])
    wave = np.zeros(source.shape)
    wave[:, 0], wave[:, -1] = 1.0, 3.0
    seam = Regridder(source, target, "bilinear")(wave)[5]
    assert seam[[-2, -1, 0]] == pytest.approx([3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("source", "target"), [("no poles", "poles"), ("gaussian", "square"), ("shifted", "poles"), ("odd", "gaussian")]
)
def test_held_edges_are_plain_interpolation_with_the_last_value_beyond(source, target):
    source, target = GRIDS[source], GRIDS[target]
    field = np.random.default_rng(6).normal(size=source.shape)
    rows = np.stack([np.interp(target.latitude, source.latitude, column) for column in field.T], axis=1)
    expected = np.stack([np.interp(target.longitude, source.longitude, row) for row in rows])
    np.testing.assert_allclose(Regridder(source, target, "bilinear", edges="hold")(field), expected, atol=1e-13)


def test_scalars_at_a_pole_beyond_the_source_are_single_valued():
    source, target = GRIDS["no poles"], Grid.equiangular(37, 72, poles=True)
    field = np.random.default_rng(7).normal(size=source.shape)
    result = Regridder(source, target, "bilinear")(field)
    for end in (0, -1):
        np.testing.assert_allclose(result[end], field[end].mean(), atol=1e-14)


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.3, -0.8, 0.2)])
def test_refined_winds_are_better_as_vectors(method, axis):
    source, target = Grid.equiangular(32, 64, poles=False), Grid.equiangular(96, 192, poles=False)
    given, exact = rotation(source, axis), rotation(target, axis)
    regridder = Regridder(source, target, method)
    as_vector = regridder.wind(*given)
    as_scalars = tuple(regridder(component) for component in given)
    polar = np.abs(target.latitude) > 80

    def error(wind):
        return np.sqrt(np.mean([((got - want)[polar]) ** 2 for got, want in zip(wind, exact, strict=True)]))

    largest = max(np.abs(got - want).max() for got, want in zip(as_vector, exact, strict=True))
    assert largest < (0.004 if method == "bilinear" else 0.08)
    if axis != (0.0, 0.0, 1.0):
        assert error(as_scalars) > (5.0 if method == "bilinear" else 1.3) * error(as_vector)


def random_winds(count: int, degrees: int, *grids: Grid) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same random winds of degrees 1 .. `degrees` on every grid, each (field, latitude, longitude)."""
    divergent, rotational = np.random.default_rng(8).normal(size=(2, 2, degrees + 1, degrees + 1, count, 1))
    m, ell = np.arange(degrees + 1)[:, None], np.arange(degrees + 1)
    exists = ((ell >= m) & (ell > 0))[None, :, :, None, None]
    winds = []
    for grid in grids:
        wind = Transform(grid, degrees + 1).vectors_to_nodal(divergent * exists, rotational * exists)
        winds.append(tuple(np.asarray(component)[..., 0].transpose(2, 1, 0) for component in wind))
    return winds


def test_vectors_err_a_third_as_much_near_the_poles():
    source, target = Grid.equiangular(32, 64, poles=False), Grid.equiangular(121, 240, poles=True)
    given, exact = random_winds(20, 12, source, target)
    weights = target.latitude_weights()
    rms = np.sqrt(np.average((exact[0] ** 2 + exact[1] ** 2).mean(axis=(0, 2)), weights=weights))
    polar = np.abs(target.latitude) > 80

    def largest(wind):
        return max(np.abs(got - want)[:, polar].max() for got, want in zip(wind, exact, strict=True)) / rms

    vector = largest(Regridder(source, target, "bilinear").wind(*given))
    for edges in ("wrap", "hold"):
        scalars = Regridder(source, target, "bilinear", edges=edges)
        assert largest([scalars(component) for component in given]) > 3.0 * vector
    assert vector < 0.2


def test_coarsened_vectors_are_as_good_as_components():
    source, target = Grid.equiangular(121, 240, poles=True), Grid.equiangular(32, 64, poles=False)
    given, exact = random_winds(10, 12, source, target)
    weights = target.latitude_weights()

    def rms(wind):
        squares = sum((got - want) ** 2 for got, want in zip(wind, exact, strict=True))
        return np.sqrt(np.average(squares.mean(axis=(0, 2)), weights=weights))

    for method in ("conservative", "bilinear"):
        regridder = Regridder(source, target, method)
        assert rms(regridder.wind(*given)) < 1.01 * rms([regridder(component) for component in given])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", ["no poles", "poles", "odd"])
def test_wind_at_the_pole_is_one_vector(method, source):
    source, target = GRIDS[source], Grid.equiangular(37, 72, poles=True)
    u, v = np.random.default_rng(9).normal(size=(2, 3, *source.shape))
    if method == "conservative":
        u[0, -1, 4] = np.nan
    u, v = Regridder(source, target, method).wind(u, v)
    longitude = np.deg2rad(target.longitude)
    for end, sin_lat in ((0, -1.0), (-1, 1.0)):
        x = -u[:, end] * np.sin(longitude) - v[:, end] * sin_lat * np.cos(longitude)
        y = u[:, end] * np.cos(longitude) - v[:, end] * sin_lat * np.sin(longitude)
        for component in (x, y):
            np.testing.assert_allclose(component, np.repeat(component[:, :1], 72, axis=1), atol=1e-12)


def test_uniform_wind_across_the_pole_stays_uniform():
    source, target = Grid.equiangular(32, 64, poles=False), Grid.equiangular(121, 240, poles=True)
    given, exact = rotation(source, (1.0, 0.0, 0.0)), rotation(target, (1.0, 0.0, 0.0))
    polar = np.abs(target.latitude) > 80

    def largest(wind):
        return max(np.abs(got - want)[polar].max() for got, want in zip(wind, exact, strict=True))

    assert largest(Regridder(source, target, "bilinear").wind(*given)) < 0.0027
    held = Regridder(source, target, "bilinear", edges="hold")
    assert largest([held(component) for component in given]) > 0.013


def test_nearest_wind_on_its_own_grid_is_unchanged():
    grid = GRIDS["gaussian"]
    wind = rotation(grid, (0.2, 0.5, -0.4))
    for got, want in zip(Regridder(grid, grid, "nearest").wind(*wind), wind, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("source", "target"), pairs())
def test_neither_memory_layout_nor_pickling_changes_a_bit(source, target, method):
    field = np.random.default_rng(4).normal(size=(3, 2, *source.shape)).astype(np.float32)
    regridder = Regridder(source, target, method)
    expected = regridder(field)
    turned = np.ascontiguousarray(field.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_array_equal(regridder(turned), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(regridder))(field), expected)


@pytest.mark.parametrize("method", METHODS)
def test_slices_do_not_depend_on_their_company(method):
    source, target = GRIDS["poles"], GRIDS["no poles"]
    field = np.random.default_rng(2).normal(size=(7, 3, *source.shape)).astype(np.float32)
    field[4, 1, 3:6, 10:20] = np.nan
    regridder = Regridder(source, target, method)
    whole = regridder(field)
    assert whole.dtype == np.float32
    apart = np.stack([np.stack([regridder(level) for level in state]) for state in field])
    np.testing.assert_array_equal(whole, apart)


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_blocks_do_not_change_a_bit(method, monkeypatch):
    source, target = GRIDS["no poles"], GRIDS["poles"]
    field = np.random.default_rng(5).normal(size=(23, *source.shape)).astype(np.float32)
    field[7, 3:6, 10:20] = np.nan
    expected = Regridder(source, target, method, threads=1)(field)
    wind = Regridder(source, target, method, threads=1).wind(field, field[::-1])
    for block in (1, 2**13, 2**14):
        monkeypatch.setattr(regridding, "_BLOCK_BYTES", block)
        for threads in (1, 4):
            regridder = Regridder(source, target, method, threads=threads)
            np.testing.assert_array_equal(regridder(field), expected)
            np.testing.assert_array_equal(regridder.wind(field, field[::-1]), wind)


@pytest.mark.parametrize("method", METHODS)
def test_no_slices_give_none(method):
    source, target = GRIDS["no poles"], GRIDS["poles"]
    assert Regridder(source, target, method)(np.zeros((0, 3, *source.shape))).shape == (0, 3, *target.shape)


def test_missing_values_are_a_masked_mean():
    source, target = Grid.equiangular(8, 16, poles=False), Grid.equiangular(4, 8, poles=False)
    field = np.random.default_rng(3).normal(size=source.shape)
    field[0:2, 0:2] = np.nan
    field[4, 6] = np.nan
    result = Regridder(source, target)(field)
    cell = np.diff(np.sin(np.deg2rad(source.latitude_bounds)))
    area = np.repeat(cell[:, None], 16, axis=1)
    # Target cell 3 reaches half a source column to either side: columns 5 (half), 6 (whole) and 7 (half).
    share = area[4:6, 5:8] * [0.5, 1.0, 0.5]
    share[0, 1] = 0.0
    assert result[2, 3] == pytest.approx((share * np.nan_to_num(field[4:6, 5:8])).sum() / share.sum())
    touched = np.isnan(Regridder(source, target, "bilinear")(field))
    assert touched[0, 0]
    assert not touched[1].any()
    assert np.isnan(Regridder(source, source)(field)).sum() == 5


def test_a_missing_component_makes_the_wind_missing():
    grid = GRIDS["square"]
    u, v = rotation(grid, (0.0, 0.0, 1.0))
    u[5, 7] = np.nan
    for component in Regridder(grid, grid).wind(u, v):
        assert np.isnan(component[5, 7])
        assert np.isnan(component).sum() == 1


def test_faults_are_named():
    with pytest.raises(InputError, match=r"'cubic'.*conservative, bilinear, nearest"):
        Regridder(GRIDS["poles"], GRIDS["odd"], "cubic")
    with pytest.raises(InputError, match=r"\(\.\.\., 19, 36\).*got \(36, 19\)"):
        Regridder(GRIDS["poles"], GRIDS["odd"])(np.zeros((36, 19)))


@pytest.fixture(scope="module")
def official_source(reference, tmp_path_factory):
    """The 240 x 121 store of the reference results, made by the script that lies beside them."""
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("stores")
    environment = os.environ | {"REFERENCE_STORES": str(folder)}
    subprocess.run([sys.executable, "make_data.py", "regrid"], cwd=reference, env=environment, check=True)
    return xr.open_zarr(folder / "regrid" / "src_240x121.zarr").transpose("time", "latitude", "longitude").load()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "shape", "poles"), [("32x32_poles", (32, 32), True), ("64x32_nopoles", (32, 64), False)]
)
def test_agrees_with_weatherbench_2(reference, official_source, name, shape, poles, method):
    path = reference / "results" / "regrid" / f"{name}_{method}_f64.nc"
    with xr.open_dataset(path) as results:
        official = results.transpose("time", "latitude", "longitude").load()
    source = Grid(official_source.latitude.values, official_source.longitude.values)
    target = Grid.equiangular(*shape, poles=poles)
    assert target.matches(Grid(official.latitude.values, official.longitude.values))
    compared = slice(None)
    if method == "nearest":
        # Half-way between two source columns either is right; WeatherBench 2 leaves the choice to rounding.
        compared = (target.longitude % 1.5) != 0.75
    for variable in official_source:
        given = official_source[variable].values
        want = official[variable].values[..., compared]
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-6)):
            got = Regridder(source, target, method, edges="hold")(given.astype(dtype))[..., compared]
            np.testing.assert_allclose(got, want, rtol=tolerance)
            # Away from its edges this is the default rule too, which also keeps a value where a zero weight falls on
            # a missing point.
            got = Regridder(source, target, method)(given.astype(dtype))[..., compared]
            assert not (np.isnan(got) & ~np.isnan(want)).any()
            on_column = (target.longitude[compared] % 1.5) == 0
            assert not (np.isnan(want) & ~np.isnan(got))[..., ~on_column].any()
            both = ~np.isnan(want)
            np.testing.assert_allclose(got[both], want[both], rtol=tolerance)


def test_real_wind_survives_a_change_of_grid(real_data):
    with xr.open_dataset(real_data / "gfs_10m_wind_f000.nc") as dataset:
        state = dataset.isel(time=0, latitude=slice(None, None, -1)).load()
    source = Grid(state.latitude.values, state.longitude.values)
    target = Grid.equiangular(32, 64, poles=False)
    wind = [state[name].values for name in ("10m_u_component_of_wind", "10m_v_component_of_wind")]
    u, v = Regridder(source, target).wind(*wind)
    energy_before = np.average((wind[0] ** 2 + wind[1] ** 2).mean(axis=-1), weights=source.latitude_weights())
    energy_after = np.average((u**2 + v**2).mean(axis=-1), weights=target.latitude_weights())
    assert 0.75 * energy_before < energy_after < energy_before
    scalar = Regridder(source, target)(wind[0])
    assert np.corrcoef(u.ravel(), scalar.ravel())[0, 1] > 0.999
