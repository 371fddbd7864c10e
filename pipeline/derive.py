"""Derived variables added to a source, lazily."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

__all__ = ["with_derived"]


def with_derived(dataset: xr.Dataset, names: Sequence[str], step_hours: int | None = None) -> xr.Dataset:
    """Return the dataset with those of `names` that it lacks and that can be derived from what it has. Lazy."""
    return dataset
