"""Why Redis could not be reached or would not have us, in words for a person."""

from __future__ import annotations

import socket
from typing import Final

import hiredis

from rabbitry_broker.errors import ConnectError
from rabbitry_broker.store.redis.address import Address

OLDEST_REDIS: Final = (6, 2)
"""Older servers lack commands that rabbitry uses."""


def too_old(address: Address, version: str) -> ConnectError:
    """Return the error for a server of this version."""
    oldest = ".".join(map(str, OLDEST_REDIS))
    return ConnectError(
        address.url,
        f"the server is Redis {version}, which is too old",
        f"rabbitry needs Redis {oldest} or newer: upgrade it, or name another server.",
    )


def is_cluster(address: Address) -> ConnectError:
    """Return the error for a server in cluster mode that the address does not call one."""
    return ConnectError(
        address.url,
        "the server runs in cluster mode",
        "Name some servers of the cluster as redis+cluster://host:6379,host:6379 (with TLS: rediss+cluster://).",
    )


def is_no_cluster(address: Address) -> ConnectError:
    """Return the error for a server not in cluster mode that the address calls one."""
    return ConnectError(
        address.url,
        "the server does not run in cluster mode",
        "Write redis:// and this one server, or set `cluster-enabled yes` on it.",
    )


def is_replica(address: Address, host: str, port: int) -> ConnectError:
    """Return the error for a server that takes no writes."""
    remedy = "Name its master, or the Sentinels: redis+sentinel://host:26379/service."
    if address.sentinels:
        remedy = "A failover is under way: try again when it is over."
    elif address.nodes:
        remedy = "Its master has just changed: try again."
    return ConnectError(address.url, f"the server at {host}:{port} is a replica", remedy)


def refused(address: Address, answer: str) -> ConnectError:
    """Return the error for a server that is there and answered the greeting with the error `answer`."""
    cause = f"the server answered {answer!r}"
    remedy = "Check that the address is that of a Redis server, and what its user may do."
    if answer.startswith("WRONGPASS") or "invalid password" in answer:
        cause = "wrong user name or password"
        remedy = "Correct them in the address (special characters of a password are percent-encoded there)."
    elif answer.startswith("NOAUTH"):
        cause = "the server asks for a password"
        remedy = "Write it into the address: redis://:password@host:port."
    elif "unknown command" in answer:  # No HELLO: older than 6.0.
        return too_old(address, "older than 6.0")
    elif "max number of clients" in answer:
        cause = "the server has reached its maximum of clients"
        remedy = "Raise `maxclients` on it, or close others."
    elif "DB index" in answer:
        cause = f"there is no database {address.database}"
        remedy = "Choose a lower number, or raise `databases` on the server."
    return ConnectError(address.url, cause, remedy)


def unreachable(address: Address, error: BaseException | None, timeout: float) -> ConnectError:
    """Return the error for a connection that failed with `error` (None: closed by the server) in `timeout` seconds."""
    remedy = "Check the address, and that a Redis server is running there."
    if isinstance(error, (TimeoutError, BlockingIOError)):
        cause = f"no answer within {timeout:g} s"
    elif isinstance(error, FileNotFoundError) and address.path:
        cause = "the socket does not exist"
    elif isinstance(error, ConnectionRefusedError):
        cause = "nothing is listening there"
    elif isinstance(error, socket.gaierror):
        cause = f"the host {address.host!r} cannot be found"
    elif isinstance(error, PermissionError):
        cause = "no permission to use the socket"
        remedy = "Run as a user who may, or change the socket's permissions."
    else:
        cause = "the server closed the connection"
        if isinstance(error, hiredis.HiredisError):
            cause = "what answers there does not speak the protocol of Redis"
        elif isinstance(error, OSError):
            cause = ": ".join(str(part) for part in (error.strerror, error.filename) if part) or str(error)
        if address.tls:
            remedy = "Check the address, the certificates, and that the server speaks TLS on this port."
    return ConnectError(address.url, cause, remedy)
