"""The one exception that means "what you gave cannot be used, and here is the mend"."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Data, configuration or arguments that cannot be used.

    The message names the variable or key, what was got, what was expected and how to mend it, for example
    ``temperature: level 925 hPa is missing; the source has 500, 850. Remove it from data.levels or choose another
    source.`` The command line prints it without a traceback and leaves with status 2.
    """
