"""What every stage does to an opened source before it takes values: the levels asked for, and variables derived."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from pipeline.derive import with_derived
from transforms.derived import levels_of
from transforms.errors import InputError

__all__ = ["prepare"]


def prepare(
    dataset: xr.Dataset,
    *,
    variables: Sequence[str] | None = None,
    statics: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    vertical: str = "select",
    step_hours: int | None = None,
) -> xr.Dataset:
    """Return the dataset on the levels asked for, with the derived variables among those asked for. Lazy.

    Args:
        dataset: canonical, from `pipeline.sources.open_source`.
        variables, statics: what will be taken; nothing is derived by default. Others stay as they are.
        levels: hPa, in this order; those of the source by default.
        vertical: ``select`` or ``interpolate``; see `pipeline.levels.at_levels`.
        step_hours: step of the times that will be taken; see `pipeline.derive.with_derived`.

    Returns:
        A dataset with the same times.

    Raises:
        InputError: a level or the input of a derived variable is missing.
    """
    wanted = [name for name in (*(variables or ()), *(statics or ())) if name not in dataset]
    result = dataset if levels is None else _at_levels(dataset, levels, vertical)
    # Made of levels of their own, which need not be among those kept.
    for name in [name for name in wanted if levels_of(name)]:
        made = with_derived(_at_levels(dataset, levels_of(name), vertical), [name], step_hours)
        if name in made:
            result = result.assign({name: made[name]})
    return with_derived(result, wanted, step_hours)


def _at_levels(dataset: xr.Dataset, levels: Sequence[int], vertical: str) -> xr.Dataset:
    if "level" not in dataset.dims:
        return dataset
    try:
        from pipeline.levels import at_levels
    except ImportError:
        present = [int(level) for level in dataset["level"].values]
        absent = [level for level in levels if level not in present]
        if absent:
            raise InputError(
                f"level: {absent[0]} hPa is missing; the source has {', '.join(map(str, present))}. "
                "Remove it from data.levels or choose another source."
            ) from None
        return dataset.sel(level=list(levels))
    return at_levels(dataset, levels, vertical)
