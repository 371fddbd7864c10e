"""What spectra by degree of spherical harmonics say of a forecast: coherence, lost power, effective resolution.

Spectra have the axes (..., degree), degree l from 0 on. Power and cross spectra are sums of products of coefficients
and so may be averaged over times, members and chunks; take these ratios of the averages. `pipeline.scoring.spectra` makes them.
"""

from __future__ import annotations

import numpy as np

from transforms.errors import InputError

__all__ = ["blur_ratio", "coherence", "cross_spectrum", "effective_resolution", "power_ratio", "wavelength"]

_EARTH_RADIUS = 6.371e6


def cross_spectrum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the sum over part and m of products of real coefficients, by degree; with itself, the power.

    Args:
        first, second: coefficients (part, m, l, ...) of orthonormal harmonics of mean square 1 over the sphere, so that
            the sum over degrees is the mean product over the sphere (Parseval).

    Returns:
        Array (..., l), float64.
    """
    return np.einsum("pml...,pml...->...l", first, second, dtype=np.float64)


def coherence(cross: np.ndarray, forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return cross / sqrt(forecast * truth), the correlation of the patterns of each degree, -1 to 1.

    Amplitude plays no part: it is 1 for a forecast that is too weak or too strong by a factor. NaN where either has no
    power.

    Args:
        cross: average cross spectrum of forecast and truth.
        forecast, truth: their average powers.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(cross, np.float64) / (np.sqrt(forecast) * np.sqrt(truth))


def power_ratio(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the average power of forecasts over that of truth by degree; below 1 they are blurred. NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(forecast, np.float64) / truth


def blur_ratio(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean square gradient of forecasts over that of truth: the sum of l (l + 1) times the power of degree l.

    Small scales weigh most in it. Below 1 forecasts are blurred; shape (...), NaN for 0 / 0.
    """
    degree = np.arange(forecast.shape[-1], dtype=np.float64)
    weight = degree * (degree + 1)
    return power_ratio(forecast @ weight, truth @ weight)


def effective_resolution(measure: np.ndarray, level: float = 0.5, *, first: int = 1) -> np.ndarray:
    """Return the lowest degree at which a measure is below a level (after Skamarock 2004, Mon. Weather Rev. 132, 3019).

    Args:
        measure: `power_ratio` or `coherence`, (..., degree); NaN counts as not below.
        level: half the power by default.
        first: lowest degree to look at; the fewest patterns are in the lowest, whose ratio strays most.

    Returns:
        Integers (...); the number of degrees where the measure nowhere falls below.

    Raises:
        InputError: `first` is none of the degrees.
    """
    degrees = measure.shape[-1]
    if not 0 <= first < degrees:
        raise InputError(f"first: expected a degree from 0 to {degrees - 1}, got {first}.")
    below = measure[..., first:] < level
    return np.where(below.any(axis=-1), first + below.argmax(axis=-1), degrees)


def wavelength(degree: np.ndarray, radius: float = _EARTH_RADIUS) -> np.ndarray:
    """Return 2 pi a / sqrt(l (l + 1)), the wavelength of a degree in m (Jeans 1923); infinite for degree 0."""
    degree = np.asarray(degree, np.float64)
    with np.errstate(divide="ignore"):
        return 2 * np.pi * radius / np.sqrt(degree * (degree + 1))
