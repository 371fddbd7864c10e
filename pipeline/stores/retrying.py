"""Trying again where a read failed for a reason that passes: a lost connection, a busy server, a file system's hiccup."""

from __future__ import annotations

import errno
import http.client
import logging
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from transforms.errors import InputError

__all__ = ["Retry", "UnreachableError", "is_transient"]

T = TypeVar("T")

_BUSY = (408, 425, 429)
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EAGAIN", "EINTR", "EBUSY", "ESTALE", "EREMOTEIO", "ETIMEDOUT", "ECONNRESET", "ECONNABORTED"),
        *("ECONNREFUSED", "EPIPE", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    )
    if hasattr(errno, name)
)
# Clients of object stores, none of which need be installed, by the names of their classes.
_PASSING_CLASSES = frozenset(
    (
        *("ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "ServerTimeoutError"),  # aiohttp
        *("EndpointConnectionError", "ConnectionClosedError", "HTTPClientError", "IncompleteReadError"),  # botocore
        *("ProtocolError", "TimeoutError", "ChunkedEncodingError", "TransportError", "RateLimitExceeded"),
        *("SlowDown", "ServiceUnavailable"),
    )
)
# Tensorstore raises ValueError for all, netCDF-C RuntimeError; their texts tell the cause.
_PASSING_TEXTS = (
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "Input/output error", "Stale file handle", "Connection reset"),
    *("NetCDF: HDF error", "NetCDF: I/O failure"),
)

_log = logging.getLogger(__name__)


class UnreachableError(InputError):
    """A source that failed at every attempt."""


@dataclass(frozen=True)
class Retry:
    """How often and after what time a failed read is tried again.

    The wait before attempt k + 1 is drawn evenly between half of and the whole of ``first_wait`` * 2^(k-1), at most
    ``longest_wait``, so that many workers do not come back at once.

    Attributes:
        retries: attempts after the first.
        first_wait, longest_wait: seconds.
    """

    retries: int = 4
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def call(self, read: Callable[[], T], what: str) -> T:
        """Return what `read` returns.

        Args:
            what: address and part that is read, for messages.

        Raises:
            UnreachableError: it failed at every attempt, for reasons that pass.
            Exception: what `read` raised for a reason that does not pass.
        """
        started = time.monotonic()
        for attempt in range(1, self.retries + 2):
            try:
                return read()
            except Exception as error:
                if not is_transient(error):
                    raise
                found = _text(error)
                if attempt > self.retries:
                    raise UnreachableError(
                        f"source.path: {what} could not be read: {attempt} attempt{'s' * (attempt > 1)} within "
                        f"{time.monotonic() - started:.1f} s failed, the last with {found}. Check the network and the "
                        "server and run again, or raise execution.retries."
                    ) from error
                wait = min(self.longest_wait, self.first_wait * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                _log.warning("%s: attempt %d failed (%s); next in %.1f s", what, attempt, found, wait)
                time.sleep(wait)
        raise AssertionError  # The loop returns or raises.


def is_transient(error: BaseException) -> bool:
    """Whether the same read may succeed later: by HTTP status, error number, or the kind of the error or its cause."""
    for cause in _causes(error):
        status = _status(cause)
        if status is not None:
            return status in _BUSY or status >= 500
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN
        if isinstance(cause, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
            return False
        if isinstance(cause, (ConnectionError, TimeoutError, http.client.HTTPException)):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        if any(kind.__name__ in _PASSING_CLASSES for kind in type(cause).__mro__):
            return True
        if isinstance(cause, (ValueError, RuntimeError)) and any(text in str(cause) for text in _PASSING_TEXTS):
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _status(error: BaseException) -> int | None:
    """HTTP status that an error of any client carries (aiohttp, gcsfs, urllib, requests, botocore), or None."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    for value in (found, getattr(error, "status", None), getattr(error, "code", None)):
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _text(error: BaseException) -> str:
    message = str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
