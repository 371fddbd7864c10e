"""What every stage does to an opened source before it takes values: the levels asked for, and variables derived."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from pipeline.sources.derive import with_derived
from pipeline.sources.pressure_levels import at_levels
from transforms.derived import levels_of

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
        dataset: canonical, from `pipeline.sources.opening.open_source`.
        variables, statics: what will be taken; nothing is derived by default. Others stay as they are.
        levels: hPa, in this order; those of the source by default.
        vertical: ``select`` or ``interpolate``; see `pipeline.sources.pressure_levels.at_levels`.
        step_hours: step of the times that will be taken; see `pipeline.sources.derive.with_derived`.

    Returns:
        A dataset with the same times.

    Raises:
        InputError: a level or the input of a derived variable is missing.
    """
    wanted = [name for name in (*(variables or ()), *(statics or ())) if name not in dataset]
    # Some are made of levels of their own, which need not be among those kept.
    between_levels = [name for name in wanted if levels_of(name)]
    made = {}
    for name in between_levels:
        column = dataset if vertical == "select" else at_levels(dataset, levels_of(name), vertical)
        made[name] = with_derived(column, [name], step_hours)[name]
    return with_derived(at_levels(dataset, levels, vertical).assign(made), wanted, step_hours)
