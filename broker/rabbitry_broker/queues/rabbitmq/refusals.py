"""Why RabbitMQ could not be reached or would not have us, in words for a person."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import pika
from pika import exceptions
from pika.adapters.utils import connection_workflow

from rabbitry_broker.errors import ConnectError

OLDEST_RABBITMQ: Final = (3, 8)
"""Older servers lack single active consumers."""

_ACCESS_REFUSED: Final = 403
_NOT_ALLOWED: Final = 530


def parse(url: str) -> pika.URLParameters:
    """Return pika's parameters for an `amqp://` or `amqps://` URL.

    Raises:
        ConnectError: it is none of these, or malformed.
    """
    cause = "it is not an AMQP address"
    try:
        if urlsplit(url).scheme in ("amqp", "amqps"):
            return pika.URLParameters(url)
    except (ValueError, TypeError):
        cause = "the address cannot be parsed (is a character of the password not percent-encoded?)"
    # Outside of the except clause: the text of that error may hold a part of the password.
    raise ConnectError(url, cause, "Write it as amqp://user:password@host[:port]/vhost or amqps://...")


def too_old(url: str, version: str) -> ConnectError:
    """Return the error for a server of this version."""
    oldest = ".".join(map(str, OLDEST_RABBITMQ))
    return ConnectError(
        url,
        f"the server is RabbitMQ {version}, which is too old",
        f"rabbitry needs RabbitMQ {oldest} or newer: upgrade it, or name another server.",
    )


def no_answer(url: str, timeout: float) -> ConnectError:
    """Return the error for a server that was silent for `timeout` seconds."""
    return ConnectError(url, f"no answer within {timeout:g} s", _remedy())


def explain(url: str, error: BaseException | None, timeout: float) -> ConnectError:
    """Return the error for a connection that failed with pika's `error`."""
    causes = list(_unfold(error))
    parts = urlsplit(url)
    vhost = parts.path[1:] or "/"

    def among(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    closed = among(exceptions.ConnectionClosedByBroker)
    code = closed.reply_code if isinstance(closed, exceptions.ConnectionClosedByBroker) else 0
    text = closed.reply_text if isinstance(closed, exceptions.ConnectionClosedByBroker) else ""
    if code == _ACCESS_REFUSED or among(exceptions.ProbableAuthenticationError, exceptions.AuthenticationError):
        cause = "wrong user name or password"
        remedy = "Correct them in the address (special characters of a password are percent-encoded there)."
        if "vhost" in text and "Login" not in text:
            cause = f"user {parts.username or 'guest'!r} may not use virtual host {vhost!r}"
            remedy = "Give the permission with `rabbitmqctl set_permissions`, or name another virtual host."
    elif code == _NOT_ALLOWED or among(exceptions.ProbableAccessDeniedError):
        cause = f"there is no virtual host {vhost!r}, or user {parts.username or 'guest'!r} may not use it"
        remedy = "Make it with `rabbitmqctl add_vhost` and `set_permissions`, or correct the address after the host."
    elif among(socket.gaierror):
        cause, remedy = f"the host {parts.hostname!r} cannot be found", _remedy()
    elif among(ConnectionRefusedError):
        cause, remedy = "nothing is listening there", _remedy()
    elif among(connection_workflow.AMQPConnectorStackTimeout, TimeoutError):
        return no_answer(url, timeout)
    elif tls := among(ssl.SSLError):
        cause = f"TLS failed: {tls}"
        remedy = "Check the certificates, and that the server speaks TLS on this port."
    elif among(exceptions.IncompatibleProtocolError) and parts.scheme == "amqps":
        # With TLS 1.3 a client learns only after the handshake that its certificate was wanted.
        cause = "the server closed the connection right after the TLS handshake"
        remedy = "It may want a client certificate: name `certfile` and `keyfile` in ssl_options. Check the port, too."
    elif among(exceptions.IncompatibleProtocolError):
        cause = "what answers there does not speak AMQP 0-9-1"
        remedy = "Check the port (5672 for amqp, 5671 for amqps)."
    else:
        cause = str(causes[-1]) or type(causes[-1]).__name__ if causes else "the server closed the connection"
        remedy = _remedy()
    return ConnectError(url, cause, remedy)


def _remedy() -> str:
    return "Check the address, and that RabbitMQ is running there."


def _unfold(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all errors that it carries."""
    if error is None:
        return
    yield error
    carried = [*error.args, *getattr(error, "exceptions", ()), getattr(error, "exception", None), error.__cause__]
    for inner in carried:
        if isinstance(inner, BaseException):
            yield from _unfold(inner)
