"""Credentials kept out of what people see: logs, messages, reports and configurations that are shown.

Credentials come in ``source.storage_options`` and in addresses, as ``user:password@`` or in a query string that is signed.
A configuration may name an environment variable instead, as ``${NAME}``, and then holds none.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO, TypeVar

from transforms.errors import InputError

__all__ = ["expand", "guard_streams", "hide", "redact", "remember"]

T = TypeVar("T")

MASK = "***"
_SHORTEST = 6
"""Letters of the shortest value that is hidden wherever it stands; shorter ones would take half the words of a text."""
_HARMLESS_KEYS = frozenset(
    (
        *("access", "anon", "cache_type", "consistency", "default_block_size", "default_cache_type", "endpoint_url"),
        *("project", "protocol", "region_name", "requester_pays", "timeout", "use_ssl"),
    )
)
_HARMLESS_VALUES = frozenset(("anonymous", "browser", "google_default", "read_only"))
_USER = re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]+(?=@)")
_QUERY = re.compile(
    r"(?i)([?&][\w.-]*(?:signature|credential|security-token|token|secret|password|key|keyid|sig)=)[^&\s'\"#)]+"
)
_REFERENCE = re.compile(r"\$\{(\w+)\}")

_known: set[str] = set()


def remember(options: Mapping[str, Any]) -> None:
    """Have the values of storage options hidden from now on in all that `redact` is given."""
    _known.update(_credentials(options))


def redact(text: str) -> str:
    """Return `text` without passwords and signatures of addresses, and without credentials that are known.

    >>> redact("https://ann:tree@host/era5.zarr?sig=0af3&level=5")
    'https://***@host/era5.zarr?sig=***&level=5'
    """
    # The longer first: one may be part of another.
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _QUERY.sub(rf"\g<1>{MASK}", _USER.sub(MASK, text))


def hide(value: T, key: str = "") -> T:
    """Return a copy of JSON-like values, e.g. of a configuration, with credentials masked.

    Below a key ``storage_options`` all texts that may be credentials are; elsewhere those that `redact` finds.
    """
    secret = set(_credentials(value)) if key == "storage_options" and isinstance(value, Mapping) else set()
    return _hide(value, secret)


def expand(value: T, where: str) -> T:
    """Return JSON-like values with each ``${NAME}`` replaced by that environment variable.

    Args:
        where: key of the configuration, for messages.

    Raises:
        InputError: it is not set.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _variable(found[1], where), value)  # type: ignore[return-value]  # a str
    if isinstance(value, Mapping):
        return {key: expand(entry, f"{where}.{key}") for key, entry in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [expand(entry, where) for entry in value]  # type: ignore[return-value]
    return value


def guard_streams() -> None:
    """Have everything that this process prints redacted, tracebacks and warnings too."""
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, _Redacting) else _Redacting(stream) for stream in (sys.stdout, sys.stderr)
    )


class _Redacting:
    """A text stream that redacts what is written to it; whole calls of `write` at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _variable(name: str, where: str) -> str:
    found = os.environ.get(name)
    if found is None:
        raise InputError(
            f"{where}: refers to the environment variable {name}, which is not set. Set it: export {name}=..."
        )
    if len(found) >= _SHORTEST and "://" not in found:
        _known.add(found)
    return found


def _credentials(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts among storage options that may be credentials."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _credentials(entry, str(name))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _credentials(entry, key)
    elif (
        isinstance(value, str)
        and len(value) >= _SHORTEST
        and key not in _HARMLESS_KEYS
        and value not in _HARMLESS_VALUES
        and not _REFERENCE.fullmatch(value)
    ):
        yield value


def _hide(value: Any, secret: set[str]) -> Any:
    if isinstance(value, str):
        return MASK if value in secret else redact(value)
    if isinstance(value, Mapping):
        return {name: hide(entry, str(name)) if not secret else _hide(entry, secret) for name, entry in value.items()}
    if isinstance(value, list):
        return [_hide(entry, secret) for entry in value]
    return value
