"""Addresses of embedded clusters that others may join: `embedded:/run/dir`, with socket and secret inside."""

from __future__ import annotations

import os
from pathlib import Path

from warren_broker.endpoint import Endpoint

SCHEME = "embedded:"
SECRET_FILE = "secret"
SESSION_FILE = "session"
SOCKET_FILE = "redis.sock"


def embedded_address(run_dir: str | os.PathLike[str]) -> str:
    """Return the address of the embedded cluster whose files are in `run_dir`."""
    return f"{SCHEME}{os.fspath(run_dir)}"


def endpoint_of(address: str) -> tuple[Endpoint, str]:
    """Return (endpoint, shared-memory session) of an embedded cluster.

    Raises:
        ConnectionError: there is none at that address, or it belongs to another user.
    """
    directory = Path(address[len(SCHEME) :])
    try:
        secret = bytes.fromhex((directory / SECRET_FILE).read_text())
        session = (directory / SESSION_FILE).read_text()
    except OSError as error:
        raise ConnectionError(f"there is no embedded cluster of yours at {address}: {error.strerror}") from None
    return Endpoint(store_url=f"unix://{directory / SOCKET_FILE}", secrets=(secret,)), session
