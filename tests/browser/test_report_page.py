"""The report in a browser without a network: it shows, fits, can be read and can be used."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("width", [360, 1600])
def test_report_can_be_seen_and_reached_by_keyboard(visit, report_path, width):
    seen = visit(report_path, width=width)
    assert seen.look_faults() == []
    assert seen.unreached() == []


def test_every_control_of_the_report_works(visit, report_path):
    seen = visit(report_path, width=360)
    assert seen.operate() > 10
    assert seen.checks("sideways()") == []
