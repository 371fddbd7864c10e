"""Ratios of spectra: coherence, lost power, effective resolution."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.errors import InputError
from transforms.spectra import coherence, cross_spectrum, effective_resolution, power_ratio, wavelength


def test_cross_spectrum_sums_over_all_but_degree_and_columns():
    a, b = np.random.default_rng(0).normal(size=(2, 2, 4, 5, 1, 3))
    spectrum = cross_spectrum(a, b)
    assert spectrum.shape == (1, 3, 5)
    for column in range(3):
        for degree in range(5):
            expected = sum(a[p, m, degree, 0, column] * b[p, m, degree, 0, column] for p in range(2) for m in range(4))
            np.testing.assert_allclose(spectrum[0, column, degree], expected, rtol=1e-12)


def test_coherence_ignores_amplitude():
    truth = np.array([4.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(coherence(-3 * truth, 9 * truth, truth), [-1, -1, -1, np.nan])
    np.testing.assert_allclose(coherence(1e-200 * truth, 1e-200 * truth, 1e-200 * truth)[:3], 1.0)
    np.testing.assert_allclose(power_ratio(9 * truth, truth), [9, 9, 9, np.nan])


def test_effective_resolution():
    measure = np.array([[0.1, 1.0, 0.9, 0.4, 0.6, 0.2], [np.nan, 1.0, 1.0, 1.0, 1.0, 1.0], [1, 0.4, 1, 1, 1, 0.3]])
    np.testing.assert_array_equal(effective_resolution(measure), [3, 6, 1])
    np.testing.assert_array_equal(effective_resolution(measure, 0.95), [2, 6, 1])
    np.testing.assert_array_equal(effective_resolution(measure, first=4), [5, 6, 5])
    with pytest.raises(InputError, match="first: expected a degree from 0 to 5"):
        effective_resolution(measure, first=6)


def test_wavelength():
    assert wavelength(0) == np.inf
    np.testing.assert_allclose(wavelength(np.array([1, 200])), [2.8306e7, 1.9965e5], rtol=1e-4)
