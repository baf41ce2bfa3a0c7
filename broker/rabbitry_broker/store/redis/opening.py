"""How a connection to Redis begins: a socket to the server that has our keys, TLS, the greeting and what it tells."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from rabbitry_broker.errors import StoreError
from rabbitry_broker.store.redis import cluster, refusals, sentinel
from rabbitry_broker.store.redis.address import Address, wrap_tls
from rabbitry_broker.store.redis.script import Argument, Command

_KEEPALIVE_IDLE_S: Final = 30
# How a server answers the greeting that will serve in a while, and what it does until then.
_SOON: Final = {"LOADING": "loading its data", "BUSY ": "busy with a script"}


def connect(address: Address, timeout: float, *, slot: int, at: tuple[str, int] | None) -> socket.socket:
    """Return a socket connected to the server that an address means.

    Args:
        address: parsed.
        timeout: seconds for each step.
        slot: in a Redis Cluster, the one whose master is wanted.
        at: in a Redis Cluster, host and port of the server; None for the master of `slot`.

    Raises:
        OSError: it cannot be reached.
    """
    if address.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    if at is None and address.sentinels:
        at = sentinel.find_master(address, timeout)
    elif at is None and address.nodes:
        at = cluster.find_master(address, slot, timeout)
    if at is not None:
        address = address._replace(host=at[0], port=at[1])
    sock = socket.create_connection((_plain(address.host), address.port), timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        return wrap_tls(sock, address) if address.tls else sock
    except BaseException:
        sock.close()
        raise


def _plain(host: str) -> Any:
    """Return the name of a host as `getaddrinfo` needs it: Python loads the tables of IDNA for any `str` (3 ms)."""
    return host.encode() if host.isascii() else host


def greeting(address: Address, name: str) -> list[Command]:
    """Return the commands that a connection begins with."""
    hello: list[Argument] = ["HELLO", 2]
    if address.password:
        hello += ["AUTH", address.username or "default", address.password]
    if name:
        hello += ["SETNAME", name]
    commands: list[Command] = [tuple(hello), ("PING",)]
    if address.database:
        commands.append(("SELECT", address.database))
    return commands


def judge(address: Address, replies: Sequence[Any], sock: socket.socket) -> tuple[tuple[int, ...], str]:
    """Return a server's version, and what keeps it from serving for the moment ("" for nothing).

    Args:
        address: the server's.
        replies: to `greeting`.
        sock: connected to it.

    Raises:
        ConnectError: it is none that can be used.
        StoreError: it refused.
    """
    hello = replies[0]
    if isinstance(hello, StoreError):
        raise hello
    facts = dict(zip(hello[::2], hello[1::2], strict=True))
    text = facts.get(b"version", b"0").decode()
    version = tuple(int(part) for part in text.split(".") if part.isdigit())
    if version < refusals.OLDEST_REDIS:
        raise refusals.too_old(address, text)
    if facts.get(b"mode") == b"cluster" and not address.nodes:
        raise refusals.is_cluster(address)
    if facts.get(b"role") in (b"replica", b"slave"):
        raise refusals.is_replica(address, *_peer(sock))
    for reply in replies[1:]:
        if isinstance(reply, StoreError):
            for beginning, occupation in _SOON.items():
                if str(reply).startswith(beginning):
                    return version, occupation
            try:
                raise reply
            finally:
                del reply, replies  # see `without_frames`
    return version, ""


def _peer(sock: socket.socket) -> tuple[str, int]:
    peer = sock.getpeername()
    return (peer[0], peer[1]) if isinstance(peer, tuple) else (str(peer), 0)
