"""Real spherical-harmonic transforms of scalars and tangent vectors.

A nodal array has the axes (longitude, latitude, batch, channel). A modal array has the axes (part, m, l, batch, channel),
part 0 holding the cosine and part 1 the sine coefficients of real orthonormal harmonics, so that the mean square of a
field over the sphere is the sum of its squared coefficients.

A tangent vector (u, v), u eastward and v northward, has divergent coefficients E and rotational coefficients B:
``(u, v) = sum (E grad Y + B k x grad Y) / sqrt(l (l + 1))`` on the unit sphere, k pointing outward.

A transform is a sum over longitude (`model.fourier_transform`) and a sum over latitude (`model.legendre_transform`), both
plain matrix products in these layouts, with batch and channels as columns. `model.reference` has the same transforms
written for the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from model.fourier_transform import FourierTransform, Waves
from model.legendre_transform import BlockTables, Functions, LegendreTransform, blocks_of, build_tables
from model.products import constant
from model.quadrature import choose_analysis
from model.sharding import DATA_AXIS, MODAL, NODAL, SPHERE_AXIS, WHOLE, on_shards, platform_of, shards_of, shares_of
from model.table_cache import cached
from transforms.grids import Grid

__all__ = ["Transform"]

_TWO_LAYOUTS_TO = 64
"""Band limit up to which tables are kept by degree and by row."""

_CACHED_FROM = 2**22
"""Bytes; smaller tables are built in less time than a file is opened and checked."""


class _Constants(NamedTuple):
    """What a shard needs besides fields."""

    fourier: nnx.State
    tables: list[list[BlockTables]]
    weights: jax.Array


_CONSTANTS_SPLIT = _Constants(*cast(tuple, (WHOLE, PartitionSpec(SPHERE_AXIS), WHOLE)))
"""Tables have m in front."""


class _Geometry(NamedTuple):
    """The part of a transform that programs are compiled for."""

    fourier: nnx.GraphDef
    latitudes: LegendreTransform
    mesh: Mesh | None

    def to_orders(self, waves: list[Waves]) -> list[Waves]:
        """Exchange a shard's latitudes of all orders for its orders on all latitudes."""
        return self._exchange(waves, split_axis=1, concat_axis=2)

    def to_rows(self, waves: list[Waves]) -> list[Waves]:
        """Exchange a shard's orders on all latitudes for its latitudes of all orders."""
        return self._exchange(waves, split_axis=2, concat_axis=1)

    def _exchange(self, waves: list[Waves], **axes: int) -> list[Waves]:
        if self.mesh is None:
            return waves
        exchange: Callable = partial(jax.lax.all_to_all, axis_name=SPHERE_AXIS, tiled=True, **axes)
        return [Waves(*exchange(jnp.stack(group))) for group in waves]


class Transform(nnx.Module):
    """The transform pair between one grid and one band limit.

    Evaluation is exact. Analysis is exact for band-limited fields: by ``quadrature`` where the grid's rule integrates
    products of two harmonics, else ``full``, the area-weighted least-squares fit of every order, which needs tables of
    its own and reaches about twice the band limit on equiangular grids (docs/grids.md).

    With a mesh that has an axis ``sphere`` of P devices, nodal arrays are split over latitude and modal arrays over m (and
    batches over an axis ``data``), and each transform moves data by one all-to-all per field. The modal m axis is then
    device-major: device d holds the orders d, d + P, d + 2 P ..., so that all devices have equal work and truncation is
    local.

    All four methods can be differentiated any number of times, forward and in reverse, at the cost of a call each. Only
    `jax.vmap` of a derivative is not supported; samples belong on the batch axis.

    Attributes:
        grid, band_limit: as given; degrees are 0 .. band_limit - 1.
        analysis: ``quadrature`` or ``full``.
        dtype: of the products; sums accumulate in float32 or better.
        shards: P, 1 without a mesh.

    Example:
        >>> transform = Transform(Grid.gaussian(12), band_limit=12)
        >>> nodal = transform.scalars_to_nodal(jnp.zeros((2, 12, 12, 1, 3)))
        >>> nodal.shape
        (24, 12, 1, 3)
    """

    def __init__(
        self,
        grid: Grid,
        band_limit: int,
        *,
        analysis: str = "auto",
        fourier: str = "auto",
        weights: np.ndarray | None = None,
        dtype: Any = jnp.float32,
        mesh: Mesh | None = None,
    ) -> None:
        """Build the tables, or read them from the cache.

        Args:
            analysis: ``quadrature``, ``full``, or ``auto``, quadrature where it is exact.
            fourier: see `model.fourier_transform.FourierTransform`.
            weights: quadrature weights of an iso-latitude grid of no known family, (latitude,).
            dtype: float32, float64 (with jax_enable_x64) or bfloat16.
            mesh: devices to share the work.

        Raises:
            ValueError: the grid or the analysis does not determine that many degrees, or an option is not known.
            InputError: no usable quadrature; see `model.quadrature.quadrature`.
        """
        analysis, rule = choose_analysis(grid, band_limit, analysis, weights)
        self.dtype = jnp.dtype(dtype)
        if self.dtype == jnp.float64 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]  # JAX adds it at run time
            raise ValueError("dtype: got float64, which needs jax.config.update('jax_enable_x64', True)")
        nlat, nlon = grid.shape
        self.grid, self.band_limit, self.analysis, self.mesh = grid, band_limit, analysis, mesh
        self.shards = shards_of(mesh)
        if nlat % self.shards:
            raise ValueError(
                f"mesh: got {self.shards} devices along {SPHERE_AXIS!r} for {nlat} latitudes, expected a divisor of them"
            )
        per_shard = -(-band_limit // self.shards)
        # A tuple, so that the module's static part can be compared and hashed.
        self._orders = tuple(np.arange(per_shard * self.shards).reshape(per_shard, self.shards).T.ravel().tolist())
        method = "matmul" if self.shards > 1 and fourier in ("auto", "folded") else fourier
        self.fourier = FourierTransform(
            grid.longitude, self.orders, method=method, platform=platform_of(mesh), dtype=self.dtype
        )
        groups = self.fourier.groups
        self.latitudes = LegendreTransform(
            band_limit, nlat, tuple(blocks_of(orders, band_limit, self.shards) for orders in groups)
        )
        build = partial(self._tables, rule.latitude)
        self.tables = build(None)
        if analysis == "quadrature":
            self.analysis_tables = nnx.data(None)
            weights = rule.weights / nlon
        else:
            self.analysis_tables = build(rule.weights if rule.weights.min() > 0 else grid.latitude_weights())
            weights = np.full(nlat, 1.0 / nlon)
        self.weights = constant(weights, self.dtype)

    @property
    def orders(self) -> np.ndarray:
        """The order m of every row of modal arrays, (m,); those of `band_limit` and above only pad the last shards."""
        return np.array(self._orders)

    def _tables(self, latitude: np.ndarray, fit: np.ndarray | None) -> nnx.List:
        """Return the tables of every group and block, (order, ...) of all shards."""
        wide = np.dtype(np.float64 if self.dtype == jnp.float64 else np.float32)

        def build() -> dict[str, np.ndarray]:
            tables: dict[str, np.ndarray] = {}
            for g, (orders, blocks) in enumerate(zip(self.fourier.groups, self.latitudes.groups, strict=True)):
                local = orders.reshape(self.shards, -1)
                for b, block in enumerate(blocks):
                    chosen = local[:, block.start : block.stop].ravel()
                    built = build_tables(self.band_limit, latitude, chosen, block.lowest, fit=fit, dtype=wide)
                    tables |= {f"{name}_{g}_{b}": table for name, table in built.items()}
            return tables

        key: dict[str, Any] = {
            "band_limit": self.band_limit,
            "latitude": latitude,
            "fit": fit,
            "orders": np.concatenate(self.fourier.groups),
            "layout": repr(self.latitudes),
            "shards": self.shards,
            "dtype": wide.name,
        }
        tables = cached(key, build, minimum_bytes=_CACHED_FROM)

        def of_block(g: int, b: int) -> nnx.Dict:
            block = {name: tables[f"{name}_{g}_{b}"] for name in BlockTables._fields}
            if self.band_limit <= _TWO_LAYOUTS_TO:
                block |= {f"{name}_by_row": block[name].swapaxes(1, 2) for name in ("even", "odd", "spin")}
            return nnx.Dict({name: constant(table, self.dtype) for name, table in block.items()})

        return nnx.List(
            nnx.List(of_block(g, b) for b in range(len(blocks))) for g, blocks in enumerate(self.latitudes.groups)
        )

    def scalars_to_nodal(self, modal: jax.Array) -> jax.Array:
        """Evaluate scalars: modal (part, m, l, batch, channel) to nodal (longitude, latitude, batch, channel)."""
        self._check_modal(modal=modal)
        return self._evaluate(modal)[0]

    def scalars_to_modal(self, nodal: jax.Array) -> jax.Array:
        """Analyse scalars: nodal (longitude, latitude, batch, channel) to modal (part, m, l, batch, channel)."""
        self._check_nodal(nodal=nodal)
        return self._analyse(nodal)[0]

    def vectors_to_nodal(self, divergent: jax.Array, rotational: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Evaluate tangent vectors.

        Args:
            divergent, rotational: modal (part, m, l, batch, channel).

        Returns:
            (u, v), eastward and northward, each nodal (longitude, latitude, batch, channel).
        """
        self._check_modal(divergent=divergent, rotational=rotational)
        u, v = self._evaluate(divergent, rotational)
        return u, v

    def vectors_to_modal(self, u: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Analyse tangent vectors.

        Args:
            u, v: eastward and northward components, nodal (longitude, latitude, batch, channel).

        Returns:
            (divergent, rotational), each modal (part, m, l, batch, channel).
        """
        self._check_nodal(u=u, v=v)
        divergent, rotational = self._analyse(u, v)
        return divergent, rotational

    def _evaluate(self, *modal: jax.Array) -> tuple[jax.Array, ...]:
        constants = self._constants(self.tables, jnp.ones_like(self.weights[...]))
        fields = tuple(field.astype(self.dtype) for field in modal)
        return _linear_map(_evaluate, _project, self._geometry(), constants, fields)

    def _analyse(self, *nodal: jax.Array) -> tuple[jax.Array, ...]:
        constants = self._constants(self.analysis_tables or self.tables, self.weights[...])
        fields = tuple(field.astype(self.dtype) for field in nodal)
        return _linear_map(_project, _evaluate, self._geometry(), constants, fields)

    def _geometry(self) -> _Geometry:
        return _Geometry(nnx.graphdef(self.fourier), self.latitudes, self.mesh if self.shards > 1 else None)

    def _constants(self, tables: nnx.List, weights: jax.Array) -> _Constants:
        def block(tables: nnx.Dict) -> BlockTables:
            arrays = {name: table[...] for name, table in tables.items()}
            even, odd, spin = (
                Functions(arrays[name], arrays.get(f"{name}_by_row")) for name in ("even", "odd", "spin")
            )
            return BlockTables(even, odd, spin, arrays["sign"])

        return _Constants(nnx.split(self.fourier)[1], [[block(b) for b in group] for group in tables], weights)

    def _check_modal(self, **arrays: jax.Array) -> None:
        self._check("(part, m, l, batch, channel)", (2, self.orders.size, self.band_limit), arrays)

    def _check_nodal(self, **arrays: jax.Array) -> None:
        self._check("(longitude, latitude, batch, channel)", self.grid.shape[::-1], arrays)

    def _check(self, axes: str, expected: tuple[int, ...], arrays: dict[str, jax.Array]) -> None:
        shapes = {name: array.shape for name, array in arrays.items()}
        first = next(iter(shapes.values()))
        for name, shape in shapes.items():
            if len(shape) != len(expected) + 2 or shape[: len(expected)] != expected:
                raise ValueError(
                    f"{name}: got shape {shape}, expected {axes} = "
                    f"({', '.join(map(str, expected))}, batch, channel) for {self.grid}, band limit {self.band_limit}"
                )
            batch, shares = shape[-2], shares_of(self.mesh) if self.shards > 1 else 1
            if batch % shares:
                raise ValueError(
                    f"{name}: got a batch of {batch}, expected a multiple of the {shares} devices of {DATA_AXIS!r}"
                )
            if shape != first:
                raise ValueError(f"{' and '.join(shapes)}: got shapes {shapes}, expected the same for both")


@partial(jax.jit, static_argnums=0)
def _evaluate(geometry: _Geometry, constants: _Constants, modal: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Evaluate one modal array as scalars, or two as vectors, and weight the rows."""

    def evaluate(constants: _Constants, modal: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        fourier, latitudes = nnx.merge(geometry.fourier, constants.fourier), geometry.latitudes
        components: tuple[list[Waves], ...]
        if len(modal) == 1:
            components = (latitudes.evaluate_scalars(constants.tables, constants.weights, *modal),)
        else:
            components = latitudes.evaluate_vectors(constants.tables, constants.weights, *modal)
        return tuple(fourier.evaluate(geometry.to_rows(waves)) for waves in components)

    return on_shards(evaluate, geometry.mesh, (_CONSTANTS_SPLIT, MODAL), NODAL)(constants, modal)


@partial(jax.jit, static_argnums=0)
def _project(geometry: _Geometry, constants: _Constants, nodal: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Sum weighted rows against every function; the transpose of `_evaluate`."""

    def project(constants: _Constants, nodal: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        fourier, latitudes = nnx.merge(geometry.fourier, constants.fourier), geometry.latitudes
        components = [geometry.to_orders(fourier.project(field)) for field in nodal]
        if len(nodal) == 1:
            return (latitudes.project_scalars(constants.tables, constants.weights, *components),)
        return latitudes.project_vectors(constants.tables, constants.weights, *components)

    return on_shards(project, geometry.mesh, (_CONSTANTS_SPLIT, NODAL), MODAL)(constants, nodal)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _linear_map(
    function: Callable, transpose: Callable, geometry: _Geometry, constants: _Constants, fields: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """Return ``function(geometry, constants, fields)``, linear in the fields, with a known transpose.

    Left to itself, differentiation in reverse transposes product by product, in layouts that cost three times as much.
    """
    return function(geometry, constants, fields)


@_linear_map.defjvp
def _linear_map_jvp(
    function: Callable, transpose: Callable, geometry: _Geometry, primals: tuple, tangents: tuple
) -> tuple:
    (constants, fields), (_, tangents) = primals, tangents
    derivative = jax.custom_derivatives.linear_call(
        partial(function, geometry), partial(transpose, geometry), constants, tangents
    )
    return _linear_map(function, transpose, geometry, constants, fields), derivative
