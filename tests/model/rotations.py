"""Rotating band-limited fields exactly: an oracle for equivariance."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from model.harmonics import Transform
from model.legendre import legendre_table, vector_tables
from transforms.grids import Grid


def evaluate(modal: np.ndarray, scalars: int, latitude: np.ndarray, longitude: np.ndarray):
    """Evaluate one sample's coefficients (part, m, l, channel) at points, in float64.

    Returns:
        scalars (point, channel) and Cartesian vectors (point, channel, 3).
    """
    band_limit = modal.shape[1]
    order = np.arange(band_limit)[:, None]
    angle = order * np.deg2rad(longitude)
    amplitude = np.where(order > 0, np.sqrt(2), 1)
    cosine, sine = amplitude * np.cos(angle), amplitude * np.sin(angle)
    vectors = (modal.shape[-1] - scalars) // 2
    divergent, rotational = modal[..., scalars : scalars + vectors], modal[..., scalars + vectors :]

    def series(table, a, b):
        # sum over m, l of table (a cos + b sin)
        return np.einsum("mlp,mlc,mp->pc", table, a, cosine) + np.einsum("mlp,mlc,mp->pc", table, b, sine)

    field = series(legendre_table(band_limit, latitude), modal[0, ..., :scalars], modal[1, ..., :scalars])
    slope, quotient = vector_tables(band_limit, latitude)
    # d/dlongitude turns (cos, sin) coefficients (a, b) into (b, -a).
    u = series(quotient, divergent[1], -divergent[0]) - series(slope, rotational[0], rotational[1])
    v = series(slope, divergent[0], divergent[1]) + series(quotient, rotational[1], -rotational[0])
    east, north = _frame(latitude, longitude)
    return field, u[..., None] * east[:, None] + v[..., None] * north[:, None]


def rotate(modal, scalars: int, rotation: Rotation):
    """Return the coefficients (part, m, l, batch, channel) of the rotated fields ``f(R^-1 x)``, vectors turned along."""
    modal = np.asarray(modal, np.float64)
    band_limit = modal.shape[1]
    grid = Grid.gaussian(band_limit + band_limit % 2 + 2)
    longitude, latitude = (axis.ravel() for axis in np.meshgrid(grid.longitude, grid.latitude, indexing="ij"))
    _, _, up = _frame(latitude, longitude, with_up=True)
    source = rotation.inv().apply(up)
    source_latitude = np.rad2deg(np.arcsin(np.clip(source[:, 2], -1, 1)))
    source_longitude = np.rad2deg(np.arctan2(source[:, 1], source[:, 0]))
    east, north = _frame(latitude, longitude)
    transform = Transform(grid, band_limit)
    shape = (*grid.shape[::-1], 1, -1)
    result = []
    for sample in range(modal.shape[3]):
        field, vector = evaluate(modal[:, :, :, sample], scalars, source_latitude, source_longitude)
        turned = np.einsum("xy,pcy->pcx", rotation.as_matrix(), vector)
        u, v = np.einsum("pcx,px->pc", turned, east), np.einsum("pcx,px->pc", turned, north)
        parts = [
            transform.scalars_to_modal(jnp.asarray(field.reshape(shape), jnp.float32)),
            *transform.vectors_to_modal(*(jnp.asarray(w.reshape(shape), jnp.float32) for w in (u, v))),
        ]
        result.append(jnp.concatenate(parts, axis=-1))
    return jnp.concatenate(result, axis=3)


def _frame(latitude, longitude, *, with_up: bool = False):
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    east = np.stack([-np.sin(lam), np.cos(lam), 0 * lam], -1)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], -1)
    up = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], -1)
    return (east, north, up) if with_up else (east, north)
