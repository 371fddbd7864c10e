"""Sums over longitude: between nodal rows and the waves of every order m.

Waves are pairs (cosine, sine), each (order, latitude, batch, channel), in one or two groups of orders. A field is
``sum amplitude(m) (cosine cos(m longitude) + sine sin(m longitude))`` with amplitude 1 for m = 0 and sqrt(2) else;
`FourierTransform.project` is the transpose of `FourierTransform.evaluate`, so it needs a factor 1 / N to be its inverse.

Three methods give the same numbers to rounding. ``fft`` is the library's real transform. ``matmul`` is one matrix product
with cosines and sines. ``folded`` first adds and subtracts the four quarters of the circle, on which cosines and sines
of even and of odd orders repeat up to sign, and leaves four matrix products a quarter as long and half as high: a quarter
of the work of ``matmul``, in the layout that the sums over latitude need, which an FFT reaches only by transposition.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.products import Table, constant, product

__all__ = ["FourierTransform", "Waves"]

_METHODS = ("fft", "folded", "matmul")

_FOLDED_FROM = 64
"""Longitudes from which folding is quicker on CPUs; below, a third of the operations takes no longer and compiles faster."""


class Waves(NamedTuple):
    """Cosine and sine amplitudes of a group of orders, each (order, latitude, batch, channel)."""

    cosine: jax.Array
    sine: jax.Array


class FourierTransform(nnx.Module):
    """The transform pair over longitude for chosen orders."""

    def __init__(
        self,
        longitude: np.ndarray,
        orders: np.ndarray,
        *,
        method: str = "auto",
        platform: str | None = None,
        dtype=jnp.float32,
    ) -> None:
        """Build the matrices.

        Args:
            longitude: degrees east, evenly spaced over the circle, (longitude,).
            orders: orders m wanted, each below half the number of longitudes.
            method: ``fft``, ``folded``, ``matmul``, or ``auto``: ``folded`` on CPUs for 64 longitudes and more where
                the grid allows, ``fft`` on GPUs, else ``matmul``.
            platform: what ``auto`` chooses for; JAX's default backend by default.

        Raises:
            ValueError: an unknown method, or ``folded`` where it does not apply.
        """
        nlon = longitude.size
        self.nlon, self.dtype = nlon, dtype
        # Steps are even by definition; a store that keeps longitudes in float32 rounds them.
        longitude = longitude[0] + np.arange(nlon) * (360.0 / nlon)
        # Quarters mirror each other where the first longitude is 0 or half a step; at 0 both ends belong to each.
        start = longitude[0] * nlon / 360.0
        aligned, centred = abs(start) < 1e-6, abs(start - 0.5) < 1e-6
        foldable = nlon % 4 == 0 and (aligned or centred)
        method = _method(method, foldable, longitude, platform or jax.default_backend())
        self.method = method
        amplitude = np.where(orders > 0, np.sqrt(2.0), 1.0)
        self._groups: tuple[tuple[int, ...], ...] = (tuple(orders.tolist()),)
        if method == "fft":
            phase = np.deg2rad(longitude[0]) * orders
            self.turn = nnx.List(constant(amplitude * part(phase), dtype) for part in (np.cos, np.sin))
            # An inverse real FFT counts each order but 0 twice, and divides by N.
            self.scale = constant(nlon * np.where(orders > 0, 0.5, 1.0), dtype)
            self.rows = Table(jnp.asarray(orders))
            return
        if method == "matmul":
            angle = np.deg2rad(longitude) * orders[:, None]
            matrix = np.concatenate([amplitude[:, None] * np.cos(angle), amplitude[:, None] * np.sin(angle)])
            self.matrix, self.transposed = constant(matrix, dtype), constant(matrix.T, dtype)
            return
        self._groups = tuple(tuple(orders[orders % 2 == parity].tolist()) for parity in (0, 1))
        self.shared_ends = bool(aligned)
        quarter = nlon // 4 + int(aligned)
        angle = np.deg2rad(longitude[:quarter]) * orders[:, None]
        shares = np.ones(quarter)
        if aligned:
            shares[[0, -1]] = 0.5
        rows = [
            amplitude[chosen, None] * part(angle[chosen])
            for part in (np.cos, np.sin)
            for chosen in (orders % 2 == 0, orders % 2 == 1)
        ]
        self.matrices = nnx.List(constant(row * shares, dtype) for row in rows)
        self.transposes = nnx.List(constant(row.T, dtype) for row in rows)

    @property
    def groups(self) -> tuple[np.ndarray, ...]:
        """Orders m of each group of waves: even and odd ones for ``folded``, else one group."""
        return tuple(np.array(group) for group in self._groups)

    def project(self, nodal: jax.Array) -> list[Waves]:
        """Sum nodal rows (longitude, latitude, batch, channel) against cosines and sines."""
        if self.method == "fft":
            spectrum = jnp.fft.rfft(nodal.astype(jnp.promote_types(nodal.dtype, jnp.float32)), axis=0)
            spectrum = jnp.take(spectrum, self.rows[...], axis=0, mode="clip")
            cosine, sine = (table[...][:, None, None, None] for table in self.turn)
            real, imaginary = spectrum.real.astype(self.dtype), spectrum.imag.astype(self.dtype)
            return [Waves(cosine * real + sine * imaginary, sine * real - cosine * imaginary)]
        if self.method == "matmul":
            waves = product("kn,njbc->kjbc", self.matrix[...], nodal)
            return [Waves(*jnp.split(waves, 2))]
        folded = self._fold(nodal)
        products = [
            product("kn,njbc->kjbc", matrix[...], rows) for matrix, rows in zip(self.matrices, folded, strict=True)
        ]
        return [Waves(products[0], products[2]), Waves(products[1], products[3])]

    def evaluate(self, waves: list[Waves]) -> jax.Array:
        """Evaluate waves on every longitude; the transpose of `project`."""
        if self.method == "fft":
            (group,) = waves
            cosine, sine = (table[...][:, None, None, None] for table in self.turn)
            scale = self.scale[...][:, None, None, None]
            real = scale * (cosine * group.cosine + sine * group.sine)
            imaginary = scale * (sine * group.cosine - cosine * group.sine)
            wide = jnp.promote_types(self.dtype, jnp.float32)
            values = jax.lax.complex(real.astype(wide), imaginary.astype(wide))
            spectrum = jnp.zeros((self.nlon // 2 + 1, *values.shape[1:]), values.dtype)
            spectrum = spectrum.at[self.rows[...]].add(values, mode="drop")
            return jnp.fft.irfft(spectrum, n=self.nlon, axis=0).astype(self.dtype)
        if self.method == "matmul":
            return product("nk,kjbc->njbc", self.transposed[...], jnp.concatenate(waves[0]))
        inputs = (waves[0].cosine, waves[1].cosine, waves[0].sine, waves[1].sine)
        quarters = [
            product("nk,kjbc->njbc", matrix[...], wave) for matrix, wave in zip(self.transposes, inputs, strict=True)
        ]
        return self._unfold(*quarters)

    def _fold(self, nodal: jax.Array) -> list[jax.Array]:
        """Return what cosines of even and odd and sines of even and odd orders see of the circle, on its first quarter.

        With x the longitude these functions are, up to sign, the same at x, pi - x, pi + x and -x.
        """
        half, quarter, extra = self.nlon // 2, self.nlon // 4, int(self.shared_ends)
        first = nodal[: quarter + extra]
        second = nodal[quarter : half + extra][::-1]
        third = nodal[half : half + quarter + extra]
        fourth = nodal[half + quarter :]
        if extra:
            fourth = jnp.concatenate([fourth, nodal[:1]])
        fourth = fourth[::-1]
        return [
            first + second + third + fourth,
            first - second - third + fourth,
            first - second + third - fourth,
            first + second - third - fourth,
        ]

    def _unfold(self, even_cosine, odd_cosine, even_sine, odd_sine) -> jax.Array:
        """Return the whole circle from the first quarter's sums; the transpose of `_fold`."""
        first = even_cosine + odd_cosine + even_sine + odd_sine
        second = (even_cosine - odd_cosine - even_sine + odd_sine)[::-1]
        third = even_cosine - odd_cosine + even_sine - odd_sine
        fourth = (even_cosine + odd_cosine - even_sine - odd_sine)[::-1]
        quarter = self.nlon // 4
        return jnp.concatenate([part[:quarter] for part in (first, second, third, fourth)])


def _method(method: str, foldable: bool, longitude: np.ndarray, platform: str) -> str:
    """Return what ``auto`` stands for, or the method asked for, once it is found to apply."""
    if method == "auto":
        worthwhile = foldable and longitude.size >= _FOLDED_FROM
        quickest = {"cpu": "folded" if worthwhile else "matmul", "gpu": "fft", "cuda": "fft", "rocm": "fft"}
        method = quickest.get(platform, "matmul")
    if method not in _METHODS:
        raise ValueError(f"fourier: got {method!r}, expected 'auto' or one of {', '.join(map(repr, _METHODS))}")
    if method == "folded" and not foldable:
        raise ValueError(
            f"fourier: 'folded' needs a multiple of 4 longitudes that start at 0 or half a step, got {longitude.size} from "
            f"{longitude[0]:g} degrees; use 'matmul' or 'auto'"
        )
    return method
