"""One question to whichever of several servers answers: where is the server that is wanted?

Over a connection of its own, which is closed again: these servers are asked when another connection was lost.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import hiredis

from rabbitry_broker.store.redis.address import Address, wrap_tls

# A server on a machine that is down must not use up the time for the others.
_LONGEST_WAIT_S: Final = 1.0


class Answer(NamedTuple):
    """What one server said.

    Attributes:
        host: the server's.
        port: the server's.
        reply: its reply; an `Exception` if it refused, or could not be reached (`OSError`, `hiredis.HiredisError`).
    """

    host: str
    port: int
    reply: Any

    @property
    def reached(self) -> bool:
        """True if the server said anything at all."""
        return not isinstance(self.reply, (OSError, hiredis.HiredisError))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}: {self.reply}"


def ask_each(
    address: Address,
    hosts: Iterable[tuple[str, int]],
    question: tuple[str, ...],
    *,
    credentials: tuple[str, str],
    timeout: float,
) -> Iterator[Answer]:
    """Ask one server after the other, as long as the caller wants more answers.

    Args:
        address: says how TLS is done.
        hosts: whom to ask.
        question: a command.
        credentials: user name and password; the password is "" for none.
        timeout: seconds for all of them together.
    """
    hosts = list(hosts)
    wait = max(0.05, min(_LONGEST_WAIT_S, timeout / len(hosts)))
    for host, port in hosts:
        try:
            reply = _ask(address._replace(host=host, port=port), question, credentials, wait)
        except (OSError, hiredis.HiredisError) as error:
            reply = error
        yield Answer(host, port, reply)


def _ask(address: Address, question: tuple[str, ...], credentials: tuple[str, str], wait: float) -> Any:
    with socket.create_connection((address.host, address.port), wait) as raw:
        sock = wrap_tls(raw, address) if address.tls else raw
        sock.settimeout(wait)
        reader = hiredis.Reader(notEnoughData=...)
        user, password = credentials
        if password:
            sock.sendall(hiredis.pack_command(("AUTH", user or "default", password)))  # type: ignore[arg-type]
            greeting = _read(sock, reader)
            if isinstance(greeting, Exception):
                return greeting
        sock.sendall(hiredis.pack_command(question))  # type: ignore[arg-type]
        return _read(sock, reader)


def _read(sock: socket.socket, reader: hiredis.Reader) -> Any:
    while (reply := reader.gets()) is ...:
        data = sock.recv(4096)
        if not data:
            raise ConnectionResetError("it closed the connection")
        reader.feed(data)
    return reply
