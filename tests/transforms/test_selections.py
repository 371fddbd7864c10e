"""Times and lead times as a person writes them."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.selections import parse_leads, parse_times

TIMES = np.arange("2020-02-25T00", "2020-03-03T00", 6, dtype="datetime64[h]").astype("datetime64[ns]")
LEADS = np.arange(0, 11 * 24, 6) * np.timedelta64(1, "h")


@pytest.mark.parametrize(
    ("text", "first", "last", "count"),
    [
        ("2020-02-26", "2020-02-26T00", "2020-02-26T00", 1),
        ("2020-02-26:2020-02-29", "2020-02-26T00", "2020-02-29T18", 16),
        ("2020-02-26T06:2020-02-29T12:00", "2020-02-26T06", "2020-02-29T12", 14),
        ("2020-02-26T06:2020-02-29:12h", "2020-02-26T06", "2020-02-29T18", 8),
        ("2020-02-25T18:00,2020-03-01:2020-03-01", "2020-02-25T18", "2020-03-01T18", 5),
    ],
)
def test_times(text, first, last, count):
    chosen = TIMES[parse_times(text).positions(TIMES)]
    assert (chosen[0], chosen[-1], len(chosen)) == (np.datetime64(first), np.datetime64(last), count)
    np.testing.assert_array_equal(parse_times(text).values(np.timedelta64(6, "h")), chosen)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("24", [24]),
        ("0h:24h", [0, 6, 12, 18, 24]),
        ("0:2d:12h", [0, 12, 24, 36, 48]),
        ("3d, 1d", [24, 72]),
        ("0.5d:720min", [12]),
        ("6h:30h:24h,1d", [6, 24, 30]),
    ],
)
def test_leads(text, hours):
    chosen = LEADS[parse_leads(text).positions(LEADS)] / np.timedelta64(1, "h")
    assert chosen.tolist() == hours
    assert (parse_leads(text).values(np.timedelta64(6, "h")) / np.timedelta64(1, "h")).tolist() == hours


@pytest.mark.parametrize("text", ["", "x", "6h:", "6h:12h:0h", "12h:6h", "6h;12h", "1w"])
def test_bad_leads_are_refused(text):
    with pytest.raises(InputError, match=r"--leads .* expected lead times or FIRST:LAST"):
        parse_leads(text)


@pytest.mark.parametrize("text", ["", "2020", "2020-02-30", "2020-03-01:2020-02-01", "2020-03-01:6h"])
def test_bad_times_are_refused(text):
    with pytest.raises(InputError, match=r"--times .*expected"):
        parse_times(text, "--times")


def test_what_is_not_there_is_named():
    with pytest.raises(InputError, match=r"--leads '7h': nothing there; there is 0 h to 258 h"):
        parse_leads("7h").positions(LEADS)
    with pytest.raises(InputError, match=r"nothing there; there is 2020-02-25T00:00 to 2020-03-02T18:00"):
        parse_times("2021-01-01:2021-02-01").positions(TIMES)
