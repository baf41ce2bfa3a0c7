"""Requests to the HTTP service, with what Python brings along: headers, cookies, TLS, and answers that keep coming."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from http.cookies import SimpleCookie
from typing import IO, Any, Final
from urllib.parse import urlsplit

from rabbitry.exceptions import AuthenticationError

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 300.0


class TokenRefused(AuthenticationError):
    """The service does not know the token, or none was sent."""

    def __str__(self) -> str:
        return (
            f"{self.message} Set RABBITRY_DASHBOARD_TOKEN to the token of that service, or pass "
            "headers={'Authorization': 'Bearer TOKEN'}; `rabbitry dashboard` says where its token is when it starts."
        )


class Service:
    """One HTTP service. Every request has a connection of its own; any thread may make one.

    Args:
        address: `http://host:port` or `https://host:port`, maybe with a path.
        headers: for every request.
        cookies: for every request.
        verify: False to trust any certificate; a file or directory of certificates to trust; True for the system's.

    Raises:
        FileNotFoundError: no certificates are there.
        ValueError: it is no such address.
    """

    def __init__(
        self, address: str, headers: dict[str, str], cookies: dict[str, str] | None, verify: str | bool
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the address of a dashboard begins with http:// or https://, but is {address!r}")
        self.address = address.rstrip("/")
        self._tls = _tls(verify) if parts.scheme == "https" else None
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = dict(headers)
        if cookies:
            jar = SimpleCookie({name: str(value) for name, value in cookies.items()})
            self._headers["Cookie"] = "; ".join(f"{name}={each.coded_value}" for name, each in jar.items())

    def ask(
        self, method: str, path: str, *, body: IO[bytes] | None = None, size: int = 0, fields: Any = None
    ) -> tuple[int, bytes]:
        """Make a request; return the status and the whole answer.

        Args:
            method: of HTTP.
            path: begins with a slash.
            body: what to send, from where it stands.
            size: its bytes.
            fields: to send as JSON instead.

        Raises:
            ConnectionError: the service cannot be reached.
            TokenRefused: it wants another token.
        """
        with self.open(method, path, body=body, size=size, fields=fields) as answer:
            try:
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionError(f"the dashboard at {self.address} did not finish its answer: {error!r}") from None

    def open(
        self, method: str, path: str, *, body: IO[bytes] | None = None, size: int = 0, fields: Any = None
    ) -> Answer:
        """Make a request as `ask` does; return its answer, to be read and closed.

        Raises:
            ConnectionError: the service cannot be reached.
            TokenRefused: it wants another token.
        """
        headers = dict(self._headers)
        sent: IO[bytes] | bytes | None = body
        if body is not None:
            headers["Content-Length"] = str(size)
        if fields is not None:
            sent = json.dumps(fields).encode()
            headers["Content-Type"] = "application/json"
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_SECONDS, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_SECONDS)
            connection.request(method, self._path + path, sent, headers)
            answer = Answer(connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            why = str(error) or type(error).__name__
            raise ConnectionError(
                f"no dashboard answers at {self.address} ({why}). Is one running? `rabbitry dashboard` starts it, and "
                "so does init(include_dashboard=True)"
            ) from None
        except BaseException:
            connection.close()
            raise
        if answer.status in (401, 403):
            with answer:
                text = answer.read().decode("utf-8", "replace")
            raise TokenRefused(f"The dashboard at {self.address} refused: {text}.")
        return answer


class Answer:
    """An answer that may keep coming. One thread reads; any thread may close it, which ends the reading.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._socket: socket.socket | None = connection.sock
        self._response = response
        self.status = response.status

    def read(self) -> bytes:
        """Return all of it."""
        return self._response.read()

    def next_piece(self) -> bytes:
        """Return what has come, at least something; b"" at the end.

        Raises:
            ConnectionError: the connection broke before the end.
        """
        try:
            if self._socket is not None:
                self._socket.settimeout(None)  # a job may print nothing for days
            return self._response.read1(65536)
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            raise ConnectionError(f"the connection ended before the answer did: {error!r}") from None

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tls(verify: str | bool) -> ssl.SSLContext:
    if isinstance(verify, str):
        if os.path.isdir(verify):
            return ssl.create_default_context(capath=verify)
        if os.path.isfile(verify):
            return ssl.create_default_context(cafile=verify)
        raise FileNotFoundError(f"verify={verify!r}: there is no such file or directory of certificates")
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
