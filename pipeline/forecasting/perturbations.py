"""Perturbations of initial states, from which the members of an ensemble start.

Each field gets an isotropic Gaussian random field (`model.random_fields`), each wind a random vector. What a member gets
depends on the seed, its initial time, its number, the variable and the level, and on nothing else: any subset of initial
times and members, in batches of any size, starts from the same bits.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from model.random_fields import RandomFields, gaussian_spectrum, power_law_spectrum, resolved_degrees
from pipeline.config import PerturbationConfig
from pipeline.training.checkpoints import ForecasterSpec
from transforms.errors import InputError
from transforms.timeaxis import time_text

__all__ = ["Perturbations", "normals_of"]


class Perturbations:
    """Perturbations of the states of one forecaster."""

    def __init__(self, settings: PerturbationConfig, spec: ForecasterSpec) -> None:
        """Prepare.

        Raises:
            InputError: amplitudes of variables that are not forecast, unequal ones within a wind, or a lowest degree
                that the grid does not resolve.
        """
        settings = settings.resolved(noise=spec.model.noise > 0)
        self._seed, self._divergent = settings.seed, settings.divergent
        self._layout, self._channels = spec.layout, spec.layout.channels
        self._amplitudes = _amplitudes(settings, spec)
        degrees = resolved_degrees(spec.grid)
        if settings.lowest_degree >= degrees:
            raise InputError(
                f"forecast.perturbation.lowest_degree: {settings.lowest_degree}; {spec.grid} resolves degrees up to "
                f"{degrees - 1}. Give a lower one."
            )
        if settings.spectrum == "gaussian":
            power = gaussian_spectrum(degrees, settings.length_km, settings.lowest_degree)
        else:
            power = power_law_spectrum(degrees, settings.slope, settings.lowest_degree)
        self._fields = RandomFields(spec.grid, power)

    def of(self, time: np.datetime64, number: int) -> np.ndarray:
        """Return what is added to the state of a member, float32, (channel, latitude, longitude).

        Args:
            time: initial time.
            number: of the member.
        """
        channels, fields = self._channels, self._layout.fields
        result = np.empty((channels.count, *self._fields.grid.shape), np.float32)

        # All channels at once and one member a call: products of other shapes may round otherwise.
        def draw(chosen: tuple[int, ...], part: str = "") -> np.ndarray:
            return np.stack([self._normals(time, number, *fields[channel], part) for channel in chosen])

        if channels.scalars:
            result[list(channels.scalars)] = self._fields.scalars(draw(channels.scalars))
        if channels.eastward:
            normals = draw(channels.eastward, "rotational"), draw(channels.eastward, "divergent")
            u, v = self._fields.vectors(*normals, self._divergent)
            # A vector of unit power has components of half of it.
            result[list(channels.eastward)] = np.float32(np.sqrt(2)) * u
            result[list(channels.northward)] = np.float32(np.sqrt(2)) * v
        return result * self._amplitudes[:, None, None]

    def _normals(self, time: np.datetime64, number: int, name: str, level: int | None, part: str) -> np.ndarray:
        return normals_of([self._seed, time_text(time), number, name, level, part], self._fields.normals)


def normals_of(what: list[str | int | None], count: int) -> np.ndarray:
    """Return standard normal numbers, float64, (count,), that depend on `what` they are for and on nothing else."""
    key = int.from_bytes(hashlib.blake2b(json.dumps(what).encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(count)


def _amplitudes(settings: PerturbationConfig, spec: ForecasterSpec) -> np.ndarray:
    """Root mean square of the perturbation of every channel, float32."""
    names = [name for name, _ in spec.layout.fields]
    unknown = [name for name in settings.amplitudes if name not in names]
    if unknown:
        raise InputError(
            f"forecast.perturbation.amplitudes: {unknown[0]} is not forecast; the checkpoint has "
            f"{', '.join(spec.layout.variables)}."
        )
    fractions = np.array([settings.amplitudes.get(name, settings.amplitude) for name in names])
    channels = spec.layout.channels
    for u, v in zip(channels.eastward, channels.northward, strict=True):
        if fractions[u] != fractions[v]:
            raise InputError(
                f"forecast.perturbation.amplitudes: {names[u]} has {fractions[u]:g}, {names[v]} has {fractions[v]:g}; "
                "they are one vector. Give both the same."
            )
    constants = spec.normalisation
    spread = constants.tendency_std if settings.relative_to == "tendency" else constants.std
    return (fractions * spread).astype(np.float32)
