"""Redis Sentinel: which server is the master now.

A `redis+sentinel://` address names the Sentinels and a service. Every (re)connection asks them first, so a failover is
followed as soon as the old connection breaks. What is authoritative is the server's own word: one that says in its
greeting that it is a replica is not used (see `Connection`).
"""

from __future__ import annotations

import socket
from typing import Any, Final

import hiredis

from warren_broker.errors import ConnectError
from warren_broker.store.address import Address, wrap_tls

# A Sentinel on a machine that is down must not use up the time for the others.
_LONGEST_WAIT_S: Final = 1.0


def find_master(address: Address, timeout: float) -> tuple[str, int]:
    """Return host and port of the master of a service, as the first Sentinel that knows it says.

    Args:
        address: of Sentinels.
        timeout: seconds for all of them together.

    Raises:
        ConnectError: no Sentinel answers, or none knows the service.
    """
    wait = max(0.05, min(_LONGEST_WAIT_S, timeout / len(address.sentinels)))
    problems: list[str] = []
    answered = False
    for host, port in address.sentinels:
        try:
            reply = _ask(address._replace(host=host, port=port), wait)
        except (OSError, hiredis.HiredisError) as error:
            problems.append(f"{host}:{port}: {error}")
            continue
        if isinstance(reply, list) and len(reply) == 2:
            return reply[0].decode(), int(reply[1])
        answered = True
        problems.append(f"{host}:{port}: {reply if isinstance(reply, Exception) else 'knows no such service'}")
    if answered:
        raise ConnectError(
            address.url,
            f"no Sentinel has a master for the service {address.service!r} ({'; '.join(problems)})",
            "Name the service as `sentinel monitor` does: redis+sentinel://host:26379/SERVICE.",
        )
    raise ConnectError(
        address.url,
        f"no Sentinel answers ({'; '.join(problems)})",
        "Check the addresses, and that Sentinels run there.",
    )


def _ask(address: Address, wait: float) -> Any:
    with socket.create_connection((address.host, address.port), wait) as raw:
        sock = wrap_tls(raw, address) if address.tls else raw
        sock.settimeout(wait)
        reader = hiredis.Reader(notEnoughData=...)
        password = address.options.get("sentinel_password")
        if password:
            user = address.options.get("sentinel_username") or "default"
            sock.sendall(hiredis.pack_command(("AUTH", user, password)))  # type: ignore[arg-type]
            greeting = _read(sock, reader)
            if isinstance(greeting, Exception):
                return greeting
        query = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
        sock.sendall(hiredis.pack_command(query))  # type: ignore[arg-type]
        return _read(sock, reader)


def _read(sock: socket.socket, reader: hiredis.Reader) -> Any:
    while (reply := reader.gets()) is ...:
        data = sock.recv(4096)
        if not data:
            raise ConnectionResetError("it closed the connection")
        reader.feed(data)
    return reply
