"""A canonical source on the pressure levels asked for, selected or interpolated, lazily."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from transforms.errors import InputError

__all__ = ["VERTICAL", "at_levels"]

VERTICAL = ("select", "interpolate")


def at_levels(dataset: xr.Dataset, levels: Sequence[int] | None, vertical: str = "select") -> xr.Dataset:
    """Return the dataset on pressure levels; nothing is read.

    Args:
        dataset: canonical, see `pipeline.sources.open_source`.
        levels: hPa, in the order wanted; None keeps those of the source.
        vertical: ``select`` takes levels of the source.

    Raises:
        InputError: a level cannot be had, naming the first variable that needs it.
    """
    if vertical not in VERTICAL:
        raise InputError(f"vertical: {vertical!r} is unknown; expected one of {', '.join(VERTICAL)}.")
    names = [str(name) for name, variable in dataset.data_vars.items() if "level" in variable.dims]
    if levels is None or not names:
        return dataset
    present = [int(level) for level in dataset["level"].values]
    missing = [int(level) for level in levels if int(level) not in present]
    if missing:
        raise InputError(
            f"{names[0]}: level {missing[0]} hPa is missing; the source has {', '.join(map(str, present))}. Remove it "
            "from data.levels, choose another source, or set data.vertical to interpolate."
        )
    return dataset.sel(level=[int(level) for level in levels])
