"""Derived variables added to a source, lazily.

`transforms.derived` says what each is made of and how. Here its functions meet data in blocks: values depend on the
times and levels a field needs and on nothing else, so the blocks they are read in make no difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import dask.array as da
import numpy as np
import xarray as xr
from dask.array.overlap import ensure_minimum_chunksize

from pipeline.stores.axes import AXES, HORIZONTAL, grid_of
from transforms.derived import Accumulation, Recipe, recipes, total_over
from transforms.errors import InputError
from transforms.grids import Grid
from transforms.timeaxis import require_ascending
from transforms.variables import known

__all__ = ["absent_times", "stored_inputs", "with_derived"]

EARTH_RADIUS = 6_371_229.0
"""m, the sphere of ECMWF's model, with which ERA5's own vorticity and divergence are made; the mean radius of the
ellipsoid, 6371.0088 km, would change both by 3.5e-5 of their value."""

_HIGHEST_BAND_LIMIT = 360
"""Of the harmonics that derivatives are taken by, where a grid determines more: their tables grow with its cube."""


def with_derived(dataset: xr.Dataset, names: Sequence[str], step_hours: int | None = None) -> xr.Dataset:
    """Return the dataset with those of `names` that it lacks and that `transforms.derived` can compute. Lazy.

    Other names, and what the dataset has, are left alone. Values that lack an input are missing; so are all values of
    a field of vorticity or divergence, and sums over times that are not all there.

    Args:
        dataset: canonical, from `pipeline.sources.opening.open_source`, on pressure levels in hPa where it has levels.
        names: variables that are wanted.
        step_hours: step of the times that will be taken. Where the dataset has finer ones, derivatives are computed in
            blocks of single times, so that those left out cost nothing. Values are the same.

    Raises:
        InputError: inputs of a derived variable, or levels it is made of, are missing; or the times, levels or grid
            do not allow it. All such faults are named.
    """
    made, faults = {}, []
    for name in dict.fromkeys(names):
        if name in dataset or not recipes(name):
            continue
        try:
            made[name] = _derived(dataset, name, step_hours)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return dataset.assign(made) if made else dataset


def stored_inputs(dataset: xr.Dataset, names: Sequence[str]) -> list[str]:
    """Return the variables of the dataset, before anything is derived, that `names` are or are made of.

    Args:
        dataset: as for `with_derived`, or only the opened source.
        names: variables, derived or not; those that cannot be had are left out.
    """
    found = []
    for name in names:
        if name in dataset:
            found.append(name)
        elif (recipe := _recipe(dataset, name)) is not None:
            found.extend(recipe.inputs)
    return list(dict.fromkeys(found))


def absent_times(dataset: xr.Dataset, names: Sequence[str], absent: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is absent of `names`, given what is absent of their inputs.

    Args:
        dataset: the source before anything is derived.
        names: variables, derived or not.
        absent: positions on the time axis by stored variable, as from `pipeline.sources.opening.absent_chunk_times`; those of
            `stored_inputs`.

    Returns:
        Positions on the time axis, ascending, by name, of names that lack any.
    """
    result = {}
    for name in names:
        recipe = None if name in dataset else _recipe(dataset, name)
        lost = [absent[part] for part in (recipe.inputs if recipe else (name,)) if part in absent]
        if not lost:
            continue
        positions = np.unique(np.concatenate(lost))
        if recipe is not None and recipe.accumulation is not None:
            stride = _stride(name, recipe, dataset["time"].values)
            reach = stride * np.arange(recipe.accumulation.count)
            positions = np.unique(positions[:, None] + reach)
            positions = positions[positions < dataset.sizes["time"]]
        result[name] = positions
    return result


def _recipe(dataset: xr.Dataset, name: str) -> Recipe | None:
    """The first recipe whose inputs are there and, for sums, come at a step that divides what they sum over."""
    fitting = [recipe for recipe in recipes(name) if all(part in dataset for part in recipe.inputs)]
    for recipe in fitting:
        if recipe.accumulation is None or not _stride_fault(name, recipe, dataset["time"].values):
            return recipe
    return fitting[0] if fitting else None


def _derived(dataset: xr.Dataset, name: str, step_hours: int | None) -> xr.DataArray:
    recipe = _recipe(dataset, name)
    if recipe is None:
        wanted = " or ".join(" and ".join(recipe.inputs) for recipe in recipes(name))
        first = recipes(name)[0]
        lacking = [part for part in first.inputs if part not in dataset]
        raise InputError(
            f"{name}: not in the source, and {' and '.join(lacking)} to derive it from "
            f"{'is' if len(lacking) == 1 else 'are'} missing; expected {wanted}, the source has "
            f"{', '.join(map(str, dataset.data_vars))}. Remove it from data.variables or choose another source."
        )
    fields = [dataset[part] for part in recipe.inputs]
    variable = known(name)
    if variable.kind == "pressure":
        flat = [field.name for field in fields if "level" not in field.dims]
        if flat:
            raise InputError(
                f"{name}: {flat[0]} has axes ({', '.join(map(str, dataset[flat[0]].dims))}), expected (time, level, "
                "latitude, longitude). Give the source a level axis."
            )
    if recipe.accumulation is not None:
        result = _gathered(name, recipe, fields[0])
    elif recipe.takes_derivatives:
        result = _differentiated(recipe, *fields, name=name, single=_finer(dataset, step_hours))
    elif recipe.levels:
        result = _between_levels(name, recipe, fields[0])
    else:
        pressure = [_pressure(name, dataset["level"])] if recipe.takes_pressure else []
        result = xr.apply_ufunc(
            partial(_in_float32, recipe.compute), *fields, *pressure, dask="parallelized", output_dtypes=[np.float32]
        )
    result = result.transpose(*fields[0].dims, missing_dims="ignore")
    result.attrs = {"units": variable.units, "long_name": name.replace("_", " ")}
    return result.rename(name)


def _in_float32(compute: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    # Humidity of missing or impossible values is missing or impossible, and needs no warning.
    with np.errstate(all="ignore"):
        return compute(*arrays).astype(np.float32)


def _pressure(name: str, level: xr.DataArray) -> xr.DataArray:
    """Pa, (level,)."""
    _require_pressure_levels(name, level)
    return 100.0 * level.astype(np.float64)


def _require_pressure_levels(name: str, level: xr.DataArray) -> None:
    if "hybrid_a" in level.coords or str(level.attrs.get("units", "hPa")) != "hPa":
        raise InputError(
            f"{name}: the source is on model levels, expected pressure levels in hPa. Set data.vertical=interpolate."
        )


def _between_levels(name: str, recipe: Recipe, field: xr.DataArray) -> xr.DataArray:
    if "level" in field.dims:
        _require_pressure_levels(name, field["level"])
    present = [int(level) for level in field["level"].values] if "level" in field.dims else []
    lacking = [level for level in recipe.levels if level not in present]
    if lacking:
        raise InputError(
            f"{name}: level {lacking[0]} hPa of {field.name} is missing; the source has "
            f"{', '.join(map(str, present)) or 'no levels'}. Name levels that it has."
        )
    chosen = field.sel(level=list(recipe.levels)).chunk({"level": -1})
    return xr.apply_ufunc(
        _over_level_last,
        chosen,
        input_core_dims=[["level"]],
        kwargs={"compute": recipe.compute},
        dask="parallelized",
        output_dtypes=[np.float32],
    )


def _over_level_last(values: np.ndarray, compute: Callable[..., np.ndarray]) -> np.ndarray:
    return _in_float32(compute, np.moveaxis(values, -1, -3))


def _gathered(name: str, recipe: Recipe, field: xr.DataArray) -> xr.DataArray:
    """Sums or maxima over time; missing where any of the times is not there."""
    times, accumulation = field["time"].values, recipe.accumulation
    assert accumulation is not None
    stride = _stride(name, recipe, times)
    reach = stride * (accumulation.count - 1)
    complete = _complete(times, accumulation, stride)
    if not complete.any():
        raise InputError(
            f"{name}: needs {accumulation.count} unbroken times of {recipe.inputs[0]}, {accumulation.hours} h apart; the "
            f"source has {times.size} times and no such series. Choose a longer source, or remove it from data.variables."
        )
    data = field.chunk({axis: -1 for axis in field.dims if axis != "time"}).data
    if reach:
        data = da.map_overlap(
            _of_block,
            data.rechunk({0: ensure_minimum_chunksize(reach, data.chunks[0])}),
            depth={0: (reach, 0)},
            boundary="none",
            trim=False,
            allow_rechunk=False,
            dtype=np.float32,
            meta=data._meta,
            compute=recipe.compute,
            reach=reach,
            stride=stride,
            count=accumulation.count,
        )
    summed = xr.DataArray(data, dims=field.dims, coords=field.coords)
    return summed.where(xr.DataArray(complete, dims="time")).astype(np.float32)


def _of_block(
    values: np.ndarray,
    *,
    compute: Callable[..., np.ndarray],
    reach: int,
    count: int,
    stride: int,
    block_id: tuple[int, ...] = (),
) -> np.ndarray:
    # All blocks but the first come with the times before them.
    first = 0 if block_id[0] == 0 else reach
    return compute(values, count, stride)[first:].astype(np.float32)


def _complete(times: np.ndarray, accumulation: Accumulation, stride: int) -> np.ndarray:
    """Which times have all the times before them that a sum needs, at the positions it takes them from."""
    complete = np.ones(times.size, dtype=bool)
    for k in range(1, accumulation.count):
        back = k * stride
        complete[:back] = False
        complete[back:] &= times[back:] - times[:-back] == np.timedelta64(k * accumulation.hours, "h")
    return complete


def _stride(name: str, recipe: Recipe, times: np.ndarray) -> int:
    """How many positions apart the summands are.

    Raises:
        InputError: times do not ascend, or their step does not divide what an input sums over.
    """
    require_ascending(times)
    fault = _stride_fault(name, recipe, times)
    if fault:
        raise InputError(fault)
    interval = np.timedelta64(_hours(recipe), "h")
    step = np.diff(times).min() if times.size > 1 else interval
    return int(interval / step)


def _hours(recipe: Recipe) -> int:
    """Hours that an input of a recipe of sums over time sums over."""
    assert recipe.accumulation is not None
    return recipe.accumulation.hours


def _stride_fault(name: str, recipe: Recipe, times: np.ndarray) -> str | None:
    interval = np.timedelta64(_hours(recipe), "h").astype("timedelta64[ns]")
    steps = np.diff(times)
    if steps.size == 0 or steps.min() <= np.timedelta64(0):
        return None
    step = steps.min()
    if interval % step == np.timedelta64(0):
        return None
    hours = float(step / np.timedelta64(1, "h"))
    return (
        f"{name}: {recipe.inputs[0]} {'is what fell in' if recipe.compute is total_over else 'is taken every'} "
        f"{_hours(recipe)} h, but the source has a step of "
        f"{hours:g} h; expected {_hours(recipe)} h or a divisor of it. Choose a source with a finer step, or "
        f"one that has {name} itself."
    )


def _finer(dataset: xr.Dataset, step_hours: int | None) -> bool:
    """Whether the dataset has times between those at a step."""
    times = dataset["time"].values if "time" in dataset.dims else np.array([])
    return step_hours is not None and times.size > 1 and np.diff(times).min() < np.timedelta64(step_hours, "h")


def _differentiated(recipe: Recipe, u: xr.DataArray, v: xr.DataArray, *, name: str, single: bool) -> xr.DataArray:
    grid = grid_of(u)
    try:
        derivatives = _Derivatives(tuple(grid.latitude), tuple(grid.longitude))
        derivatives.band_limit  # noqa: B018 Refuses a grid before any work.
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    whole = {axis: -1 for axis in u.dims if axis != "time"}
    if single and "time" in u.dims:
        whole["time"] = 1
    v = v.transpose(*u.dims)
    u, v = u.chunk(whole), v.chunk(whole)
    if u.chunks != v.chunks:
        v = v.chunk(u.chunksizes)
    data = da.map_blocks(
        _by_time, u.data, v.data, compute=recipe.compute, derivatives=derivatives, dtype=np.float32, meta=u.data._meta
    )
    return xr.DataArray(data, dims=u.dims, coords=u.coords)


def _by_time(u: np.ndarray, v: np.ndarray, compute: Callable, derivatives: _Derivatives) -> np.ndarray:
    """Levels of one time together: sums are then ordered alike whatever the block."""
    result = np.empty(u.shape, dtype=np.float32)
    axes = AXES[1:] if u.ndim == 4 else HORIZONTAL
    for index in np.ndindex(u.shape[: u.ndim - len(axes)]):
        result[index] = compute(u[index], v[index], derivatives)
    return result


@dataclass(frozen=True)
class _Derivatives:
    """`transforms.derived.WindDerivatives` by our harmonics, in float64.

    It keeps all degrees that the grid determines, up to a limit; finer detail is left out.
    """

    latitude: tuple[float, ...]
    longitude: tuple[float, ...]

    @property
    def grid(self) -> Grid:
        return Grid(np.array(self.latitude), np.array(self.longitude))

    @property
    def band_limit(self) -> int:
        from model.quadrature import band_limits

        return min(band_limits(self.grid).full, _HIGHEST_BAND_LIMIT)

    def vorticity(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return self._scalar(u, v, "vorticity")

    def divergence(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return self._scalar(u, v, "divergence")

    def _scalar(self, u: np.ndarray, v: np.ndarray, which: str) -> np.ndarray:
        import jax
        import jax.numpy as jnp

        from model import derivatives

        with jax.enable_x64(True):
            transform = _transform(self)
            shape = u.shape
            east, north = (
                jnp.asarray(np.reshape(part, (-1, *shape[-2:])).T[:, :, None, :], jnp.float64) for part in (u, v)
            )
            # Modal and nodal axes of `model.harmonics`: levels are channels.
            divergent, rotational = transform.vectors_to_modal(east, north)
            if which == "vorticity":
                modal = derivatives.vorticity(rotational, EARTH_RADIUS)
            else:
                modal = derivatives.divergence(divergent, EARTH_RADIUS)
            nodal = np.asarray(transform.scalars_to_nodal(modal))
        return nodal[:, :, 0, :].T.reshape(shape)


_BUILDING = threading.Lock()


def _transform(derivatives: _Derivatives):
    with _BUILDING:  # Tables are large: threads that arrive together must not each build their own.
        return _built(derivatives)


@lru_cache(maxsize=2)
def _built(derivatives: _Derivatives):
    from jax import numpy as jnp

    from model.harmonics import Transform

    return Transform(derivatives.grid, derivatives.band_limit, dtype=jnp.float64)
