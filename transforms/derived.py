"""Variables computed from others: what each needs, and its formula."""

from __future__ import annotations

__all__ = ["levels_of"]


def levels_of(name: str) -> tuple[int, ...]:
    """Return the pressure levels, hPa, that a derived variable without levels is made of; none for others."""
    return ()
