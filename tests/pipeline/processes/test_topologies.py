"""TPU slices: their names, sizes and the time of exchanges on their links."""

from __future__ import annotations

import pytest

from pipeline.processes.topologies import CHIPS, Topology
from transforms.errors import InputError


def test_slices_are_read_from_their_names():
    topology = Topology.parse("v4:2x4x4")
    assert (topology.kind, topology.shape, topology.chips, str(topology)) == ("v4", (2, 4, 4), 32, "v4:2x4x4")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v4", "shape of a slice"),
        ("v9:2x2", "expected a chip"),
        ("v5e:4x4x4", "expected 2 extents"),
        ("v4:0x4x4", "expected 3 extents"),
        ("v5e:32x16", "more than the 256"),
    ],
)
def test_other_names_are_refused(text, reason):
    with pytest.raises(InputError, match=reason):
        Topology.parse(text)


def test_an_all_reduce_moves_the_array_twice_over_all_axes():
    link, size = CHIPS["v5e"].link, 1e9
    # 16 x 16 closes to rings, both directions of which carry a part; 8 x 8 is made of lines.
    assert Topology.parse("v5e:16x16").all_reduce_seconds(size, 256) == pytest.approx(2 * size * 255 / 256 / (4 * link))
    assert Topology.parse("v5e:8x8").all_reduce_seconds(size, 64) == pytest.approx(2 * size * 63 / 64 / (2 * link))
    assert Topology.parse("v5e:8x8").all_reduce_seconds(size, 1) == 0.0


def test_an_all_to_all_of_two_crosses_one_link_with_half():
    topology = Topology.parse("v5e:8x8")
    assert topology.all_to_all_seconds(1e9, 2) == pytest.approx(0.5e9 / CHIPS["v5e"].link)
    assert topology.all_to_all_seconds(1e9, 1) == 0.0
