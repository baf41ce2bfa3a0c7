"""Who is connected to Redis: a driver's sign of life that needs none of its threads.

A driver whose main thread keeps the interpreter (a long call into C), that is stopped (SIGSTOP, Ctrl-Z) or whose
machine sleeps for a while gives no sign of its own, but the kernel keeps its connections. When its process ends,
however that happens, the kernel closes them. So the connection that a driver's store has anyway carries the driver's id
in its name, and nodes look for it in CLIENT LIST (see `rabbitry_workers.node.services.drivers`).
"""

from __future__ import annotations

from collections.abc import Collection

_DRIVER = "driver-"


def driver_connection(client: bytes) -> str:
    """Return what a driver calls its connection; Redis shows it with `rabbitry-` before it."""
    return _DRIVER + client.hex()


def connected(listing: bytes, clients: Collection[bytes]) -> set[bytes]:
    """Return those drivers that have a connection.

    Args:
        listing: what CLIENT LIST said.
        clients: the drivers' ids.

    Example:
        >>> connected(b"id=3 name=rabbitry-driver-6162 age=7", [b"ab", b"cd"])
        {b'ab'}
    """
    return {each for each in clients if b" name=rabbitry-%s " % driver_connection(each).encode() in listing}
