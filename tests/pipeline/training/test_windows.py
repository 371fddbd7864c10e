"""Windows never cross a gap, and reading them gives what the store holds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from pipeline.states.layout import FieldsKept, StateLayout, normalisation
from pipeline.states.reading import StateReader
from pipeline.stores.reading import open_store
from pipeline.training.windows import DirectWindows, WindowSource, window_starts
from transforms.errors import InputError

STEP = np.timedelta64(6, "h")
TIMES = np.datetime64("2018-09-14T18", "ns") + np.concatenate([np.arange(8), np.arange(20, 26)]) * STEP
LAYOUT = StateLayout(("temperature", "10m_u_component_of_wind", "10m_v_component_of_wind"), (500, 850))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("windows") / "training.zarr"
    rng = np.random.default_rng(0)
    surface = ("time", "latitude", "longitude")
    fields = {name: (surface, rng.normal(size=(14, 4, 8)).astype("f4")) for name in LAYOUT.variables[1:]}
    fields["temperature"] = (("time", "level", *surface[1:]), rng.normal(size=(14, 2, 4, 8)).astype("f4"))
    axes = {"level": [500, 850], "latitude": np.arange(4.0), "longitude": np.arange(8.0)}
    dataset = xr.Dataset(fields, {"time": TIMES, **axes})
    encoding = {n: {"chunks": (1, *v.shape[1:]), "shards": (7, *v.shape[1:])} for n, v in dataset.items()}
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    return path


def source(store: Path, steps: int = 2, input_steps: int = 1) -> WindowSource:
    starts = window_starts(TIMES, np.ones(14, bool), input_steps + steps, STEP, None)
    reader = StateReader(open_store(store, "store"), LAYOUT, "store", memory_mb=10)
    return WindowSource(
        reader,
        TIMES,
        starts,
        input_steps=input_steps,
        steps=steps,
        forcing=lambda times: np.broadcast_to(
            times.astype("M8[h]").astype("f4")[:, None, None, None], (len(times), 1, 4, 8)
        ),
    )


def test_windows_stay_within_a_block():
    assert window_starts(TIMES, np.ones(14, bool), 3, STEP, None).tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert window_starts(TIMES, np.ones(14, bool), 9, STEP, None).tolist() == []
    assert window_starts(TIMES, np.ones(14, bool), 1, STEP, None).tolist() == list(range(14))


def test_windows_avoid_invalid_times_and_stay_in_the_period():
    valid = np.ones(14, bool)
    valid[3] = False
    assert window_starts(TIMES, valid, 2, STEP, None).tolist() == [0, 1, 4, 5, 6, 8, 9, 10, 11, 12]
    period = (datetime(2018, 9, 15, 0), datetime(2018, 9, 16, 0))
    assert window_starts(TIMES, valid, 2, STEP, period).tolist() == [1, 4]


def test_windows_against_brute_force():
    rng = np.random.default_rng(1)
    times = np.datetime64("2001-01-01", "ns") + np.flatnonzero(rng.random(300) < 0.8) * STEP
    valid = rng.random(times.size) < 0.9
    for length in (1, 2, 5):
        expected = [
            i
            for i in range(times.size - length + 1)
            if valid[i : i + length].all() and (np.diff(times[i : i + length]) == STEP).all()
        ]
        assert window_starts(times, valid, length, STEP, None).tolist() == expected


def test_a_window_holds_the_states_and_the_forcing_of_each_step(store: Path):
    windows = source(store, steps=2, input_steps=2)
    dataset = xr.open_zarr(store, consolidated=False)
    batch = windows[7]
    start = 10  # five windows of four fit into the first block: the eighth is the third of the second block
    assert batch.states.shape == (4, 4, 4, 8)
    np.testing.assert_array_equal(batch.states[:, :2], dataset.temperature[start : start + 4])
    np.testing.assert_array_equal(batch.states[:, 2], dataset["10m_u_component_of_wind"][start : start + 4])
    # The first step starts from the last input state.
    assert batch.forcings[:, 0, 0, 0].tolist() == TIMES[start + 1 : start + 3].astype("M8[h]").astype("f4").tolist()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_batches_are_handed_to_programs_on_cpus_without_a_copy(store: Path, count: int):
    for values in source(store).read(range(count)):
        assert np.shares_memory(np.asarray(jax.device_put(values, jax.devices("cpu")[0])), values)


def test_layout_puts_winds_together():
    assert LAYOUT.fields[:2] == [("temperature", 500), ("temperature", 850)]
    assert LAYOUT.channels.scalars == (0, 1)
    assert (LAYOUT.channels.eastward, LAYOUT.channels.northward) == ((2,), (3,))
    states = np.arange(2 * 4 * 3 * 5.0).reshape(2, 4, 3, 5)
    unpacked = FieldsKept(LAYOUT.fields, LAYOUT.levels).unpack(states)
    np.testing.assert_array_equal(unpacked["temperature"], states[:, :2])
    np.testing.assert_array_equal(unpacked["10m_v_component_of_wind"], states[:, 3])


def test_normalisation_shares_spread_within_vectors_and_over_levels():
    names = ["mean", "std", "tendency_mean", "tendency_std"]
    statistics = xr.Dataset(
        {
            "temperature": (("statistic", "level"), [[270.0, 280.0], [3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]),
            "10m_u_component_of_wind": (("statistic",), [2.0, 3.0, 0.0, 0.6]),
            "10m_v_component_of_wind": (("statistic",), [1.0, 4.0, 0.0, 0.8]),
        },
        {"statistic": names, "level": [500, 850]},
    )
    shared = normalisation(LAYOUT, statistics, unified=True)
    np.testing.assert_allclose(shared.mean, [270, 280, 0, 0])
    np.testing.assert_allclose(shared.std, [np.sqrt(12.5)] * 4)
    np.testing.assert_allclose(shared.tendency_std, [1, 2, np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(normalisation(LAYOUT, statistics, unified=False).std[:2], [3, 4])
    still = statistics.copy(deep=True)
    still["temperature"][3, 1] = 0.0
    with pytest.raises(InputError, match="temperature at 850 hPa: tendency_std is 0"):
        normalisation(LAYOUT, still, unified=True)
    with pytest.raises(InputError, match="temperature: level 850 hPa is missing"):
        normalisation(LAYOUT, statistics.sel(level=[500]), unified=True)


def test_a_store_without_shards_reads_the_same(store, tmp_path):
    with xr.open_zarr(store, consolidated=False) as dataset:
        dataset.load().drop_encoding().chunk(time=3).to_zarr(tmp_path / "v2.zarr", zarr_format=2, consolidated=False)
    readers = (StateReader(open_store(path, "store"), LAYOUT, "store") for path in (store, tmp_path / "v2.zarr"))
    expected, got = (reader.read(np.arange(2, 11)) for reader in readers)
    np.testing.assert_array_equal(got, expected)


def direct(store: Path, leads: list[int], usable: np.ndarray | None = None) -> DirectWindows:
    reader = StateReader(open_store(store, "store"), LAYOUT, "store", memory_mb=10)
    starts = window_starts(TIMES, np.ones(14, bool), 2, STEP, None)

    def forcing(initial: np.ndarray, valid: np.ndarray) -> np.ndarray:
        hours = np.stack([initial, valid], axis=1).astype("M8[h]").astype("f4")
        return np.broadcast_to(hours[..., None, None], (*hours.shape, 4, 8))

    return DirectWindows(
        reader,
        TIMES,
        starts[:, None] + np.arange(2),
        [lead * STEP for lead in leads],
        np.ones(14, bool) if usable is None else usable,
        forcing=forcing,
    )


def test_windows_of_direct_forecasts_hold_the_state_at_each_lead(store):
    source = direct(store, [2, 14])
    held = StateReader(open_store(store, "store"), LAYOUT, "store").read(np.arange(14))
    # Leads of 14 steps reach over the gap of 12 steps; those of 2 end before it.
    pairs = [(start, lead) for start in (*range(7), *range(8, 13)) for lead in (2, 14)]
    expected = [(s, np.flatnonzero(TIMES[s + 1] + lead * STEP == TIMES)) for s, lead in pairs]
    expected = [(s, int(at[0])) for s, at in expected if at.size]
    assert len(source) == len(expected) == 10
    batch = source.read(range(len(source)))
    for row, (start, target) in enumerate(expected):
        np.testing.assert_array_equal(batch.states[row], held[[start, start + 1, target]])
        hours = TIMES[[start + 1, target]].astype("M8[h]").astype("f4")
        np.testing.assert_array_equal(batch.forcings[row, 0, :, 0, 0], hours)
    assert source.shapes == (batch.states.shape[1:], batch.forcings.shape[1:])
    of_last = source.of_lead(1).read([0])
    first = next(target for start, target in expected if TIMES[target] - TIMES[start + 1] == 14 * STEP)
    np.testing.assert_array_equal(of_last.states[0, 2], held[first])


def test_a_lead_time_without_valid_data_is_left_out(store):
    usable = np.ones(14, bool)
    usable[5] = False
    everything, without = direct(store, [2]), direct(store, [2], usable)
    assert len(without) == len(everything) - 1
    part = without.read([0, 1], latitudes=slice(1, 3))
    np.testing.assert_array_equal(part.states, without.read([0, 1]).states[..., 1:3, :])
