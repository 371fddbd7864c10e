"""The turn to the network's layout and back."""

from __future__ import annotations

import numpy as np

from model.layouts import columns, from_nodal, to_nodal


def test_axes_are_turned_and_turned_back():
    fields = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    nodal = to_nodal(fields)
    assert nodal.shape == (5, 4, 2, 3)
    assert nodal[4, 1, 0, 2] == fields[0, 2, 1, 4]
    np.testing.assert_array_equal(from_nodal(nodal), fields)


def test_columns_are_filled_with_zeros():
    fields = np.arange(1.0, 25.0, dtype=np.float32).reshape(2, 3, 4)
    nodal = columns(fields, 5, np.float32)
    assert nodal.shape == (4, 3, 1, 5)
    back = from_nodal(np.asarray(nodal))[0]
    np.testing.assert_array_equal(back[:2], fields)
    assert not back[2:].any()
