"""The report in a browser without a network: it shows, fits, can be read and can be used."""

from __future__ import annotations

import pytest

WIDTHS = [360, 1600]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_report_can_be_seen(visit, report_path, width, scheme):
    assert visit(report_path, width=width, scheme=scheme).look_faults() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_control_of_the_report_works(visit, report_path, width):
    seen = visit(report_path, width=width)
    assert seen.operate() > 10
    assert seen.checks("sideways()") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_keyboard_reaches_everything_on_the_report(visit, report_path, width):
    assert visit(report_path, width=width).unreached() == []
