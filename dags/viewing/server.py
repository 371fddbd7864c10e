"""The server of `spherecast view`: what it answers, to whom, and with which headers.

It answers GET and HEAD with pages of its own, reports, and what it knows of runs as JSON. No address is turned into a
path: its parts are compared with the names of runs and a few fixed words, and everything else is not found.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dags.viewing import pages
from dags.viewing.comparisons import MOST_RUNS, Comparisons
from dags.viewing.library import Library, address_of
from transforms.errors import InputError

__all__ = ["Server", "make_server"]

_log = logging.getLogger(__name__)

_HTML, _JSON = "text/html; charset=utf-8", "application/json; charset=utf-8"
_OWN = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        # Charts set the height of what holds them.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_REPORT = "; ".join(
    (
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        # A report may come from anywhere: it has no origin, and so cannot read what else is served here.
        "sandbox allow-scripts allow-downloads",
    )
)
_AGAIN = "1"
"""Seconds after which a browser asks again for a page that is being written."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serves one library; `address` is where."""

    daemon_threads = True

    def __init__(self, address: Any, root: Path) -> None:
        """Bind to `address` to serve the runs in `root`."""
        self.library = Library(root)
        self.comparisons = Comparisons(self.library)
        super().__init__(address, _Handler)

    @property
    def address(self) -> str:
        """The address of the index, as a browser takes it."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.server_name).is_loopback

    def server_bind(self) -> None:
        """Bind without asking the name service for the machine's name, as the base does."""
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def server_close(self) -> None:
        """Stop, and remove what was written for comparisons."""
        super().server_close()
        self.comparisons.close()


def make_server(root: Path, host: str = "127.0.0.1", port: int = 0) -> Server:
    """Return a server of the runs in `root`, bound but not yet serving.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: the host is not known here, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        kind = type("Server", (Server,), {"address_family": family})
        return kind(address[:2], root)
    except OSError as error:
        raise InputError(
            f"{host}:{port}: cannot listen there ({error.strerror or error}). Choose another --port or --host."
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Spherecast", ""
    timeout = 60

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The base looks for a method do_METHOD for each method of HTTP, known to it or not.
        if name.startswith("do_"):
            return self._answer if name in ("do_GET", "do_HEAD") else self._refuse_method
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base finds wrong with a request as all else is answered."""
        self.close_connection = True
        self._problem(HTTPStatus(code), "")

    def _refuse_method(self) -> None:
        self.close_connection = True  # What it may bring along is not read.
        self._problem(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.", {"Allow": "GET, HEAD"})

    def _answer(self) -> None:
        try:
            if not self._is_for_us():
                self._problem(HTTPStatus.MISDIRECTED_REQUEST, f"Open {self.server.address} instead.")
            else:
                self._route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception:  # noqa: BLE001  One page that fails must not end the others.
            _log.exception("%s", self.path)
            self.close_connection = True
            self._problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The log of `spherecast view` says more.")

    def _is_for_us(self) -> bool:
        """Whether the request names this machine.

        A page elsewhere may have its own name point to 127.0.0.1 and then read what is answered; the browser still sends
        that name.
        """
        if not self.server.is_local:
            return True
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def _route(self) -> None:
        path, _, query = self.path.partition("?")
        match [unquote(part, errors="surrogateescape") for part in path.split("/")]:
            case ["", ""]:
                self._send(pages.index(self.server.library.index()), _HTML, _OWN)
            case ["", "runs.json"]:
                self._send_json(self.server.library.index())
            case ["", "compare"]:
                self._compare(query)
            case ["", "assets", name] if name in pages.ASSETS:
                self._send(pages.asset(name), pages.ASSETS[name], _OWN)
            case ["", "runs", name] if name in self.server.library.runs():
                self._problem(HTTPStatus.PERMANENT_REDIRECT, "", {"Location": address_of(name)})
            case ["", "runs", name, *rest] if name in self.server.library.runs():
                self._run(name, rest)
            case _:
                self._not_found()

    def _run(self, name: str, rest: list[str]) -> None:
        library = self.server.library
        try:
            match rest:
                case [""]:
                    self._send(pages.run(name, library.status(name)), _HTML, _OWN)
                case ["status.json"]:
                    self._send_json(library.status(name))
                case ["training.json"]:
                    self._send_json(library.training(name))
                case ["report.html"] if (report := library.report(name)) is not None:
                    self._send(report.read_bytes(), _HTML, _REPORT)
                case _:
                    self._not_found()
        except InputError as error:
            self._problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    def _compare(self, query: str) -> None:
        # A page elsewhere may not have this machine work.
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            self._problem(HTTPStatus.FORBIDDEN, f"Open {self.server.address} and choose runs there.")
            return
        try:
            names = parse_qs(query, errors="surrogateescape", max_num_fields=2 * MOST_RUNS).get("run", [])
            page = self.server.comparisons.page(names)
            if page is None:
                self._send(pages.waiting(list(dict.fromkeys(names))), _HTML, _OWN, headers={"Refresh": _AGAIN})
            else:
                self._send(page, _HTML, _REPORT)
        except (InputError, ValueError) as error:
            self._problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    def _not_found(self) -> None:
        self._problem(HTTPStatus.NOT_FOUND, "There is no such page here.")

    def _problem(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        self._send(pages.problem(f"{status.value} {status.phrase}", text), _HTML, _OWN, status, headers)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(_finite(value), allow_nan=False).encode(), _JSON, _OWN)

    def _send(
        self,
        body: bytes,
        kind: str,
        policy: str,
        status: HTTPStatus = HTTPStatus.OK,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        about = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        for name, value in {**_HEADERS, **about, **(headers or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _finite(value: Any) -> Any:
    """Return JSON-like values with None for numbers that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
