"""Even steps: subsampling, gaps, and every fault by name."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.timeaxis import as_datetime64, as_slice, even_times


def series(*hours: float, start: str = "2001-01-01T00") -> np.ndarray:
    return np.datetime64(start, "ns") + (np.array(hours) * 3600e9).astype("timedelta64[ns]")


def test_an_even_series_is_taken_whole():
    chosen = even_times(series(0, 6, 12, 18), 6)
    assert chosen.positions.tolist() == [0, 1, 2, 3]
    assert chosen.gaps == ()
    assert chosen.source_step_hours == 6


def test_hourly_data_give_the_synoptic_times():
    chosen = even_times(series(*range(4, 40)), 6)
    assert chosen.times.tolist() == series(*range(6, 40, 6)).tolist()
    assert (chosen.source_step_hours, chosen.step_hours) == (1, 6)


def test_times_off_the_synoptic_hours_count_from_the_first():
    assert even_times(series(1, 4, 7, 10, 13), 6).positions.tolist() == [0, 2, 4]


def test_gaps_are_named_and_kept_apart_from_uneven_steps():
    times = series(0, 6, 24, 30)
    assert even_times(times, 6).gaps == ((times[1], times[2]),)


def test_a_hole_that_is_stepped_over_is_no_gap():
    assert even_times(series(0, 3, 6, 12, 15, 18), 6).gaps == ()


def test_one_time_is_enough():
    chosen = even_times(series(5), 6)
    assert (chosen.positions.tolist(), chosen.gaps) == ([0], ())


def test_period_is_cut_before_steps_are_judged():
    times = series(0, 6, 12, 13.5, 24)
    chosen = even_times(times, 6, (datetime(2001, 1, 1), datetime(2001, 1, 1, 12)))
    assert chosen.positions.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        ((0, 6, 6, 12), r"each time once; 2001-01-01T06:00 at position 1 is followed by 2001-01-01T06:00.*duplicates"),
        ((0, 12, 6), r"ascending.*2001-01-01T12:00 at position 1 is followed by 2001-01-01T06:00.*Sort"),
        ((0, 7, 15, 22), r"7 h \(2 times\), 8 h \(1 times\).*00:00 to 2001-01-01T07:00 \(7 h\) then .*\(8 h\)"),
        ((0, 12, 24), r"step of 12 h, coarser than data.time_step_hours, 6 h.*data.time_step_hours=12"),
        ((0, 4, 8), r"step of 4 h, not a divisor of data.time_step_hours, 6 h"),
    ],
)
def test_faults(hours, message):
    with pytest.raises(InputError, match=message):
        even_times(series(*hours), 6)


def test_times_that_are_missing_are_counted_and_placed():
    times = series(0, 6, 12, 18)
    times[2:] = np.datetime64("NaT")
    with pytest.raises(InputError, match=r"time: 2 of 4 values are no time \(NaT\), the first at position 2"):
        even_times(times, 6)


def test_times_within_a_second_are_refused():
    times = np.datetime64("2001-01-01T00", "ms") + np.array([0, 250, 500]).astype("timedelta64[ms]")
    with pytest.raises(InputError, match=r"time: expected steps of whole seconds, got .*00\.000 and .*00\.250"):
        even_times(times, 6)


def test_an_empty_period_names_its_key_and_the_source():
    with pytest.raises(InputError, match=r"periods.test: no time within 2002.*source has 2001-01-01T00:00 to"):
        even_times(series(0, 6), 6, (datetime(2002, 1, 1), datetime(2002, 2, 1)), key="periods.test")


def test_time_zones_are_converted():
    east = datetime(2001, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert as_datetime64(east) == np.datetime64("2001-01-01T00")


@pytest.mark.parametrize("positions", [[3], [0, 1, 2], [1, 5, 9], [0, 2, 3, 6], [4, 5, 9]])
def test_slices_select_the_same_positions(positions):
    chosen = as_slice(np.array(positions))
    assert np.arange(12)[chosen].tolist() == positions
    assert isinstance(chosen, slice) == (positions not in ([0, 2, 3, 6], [4, 5, 9]))
