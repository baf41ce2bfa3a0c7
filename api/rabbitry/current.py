"""The one client of this process: what `rabbitry.get` and `f.remote` act on.

Ray's API is global by nature, so one global stands here, and nowhere else. `session` sets it for a driver,
the executor for its process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from rabbitry import program
from rabbitry.object_ref import process

if TYPE_CHECKING:
    from rabbitry.core.client import Client

_client: Client | None = None
_auto_init: Callable[[], None] | None = None
_thread = threading.local()


def set_client(client: Client | None) -> None:
    """Make `client` the one of this process (None: there is none any more)."""
    global _client
    _client = process.home = client


def set_auto_init(init: Callable[[], None]) -> None:
    """Register what starts a session when an API call needs one."""
    global _auto_init
    _auto_init = init


def start_none_here() -> None:
    """This thread does what is left of a session's work: it must not start another one when that has ended."""
    _thread.starts_none = True


def peek() -> Client | None:
    """Return this process's client if it has one."""
    return _client


def client() -> Client:
    """Return this process's client; a session is started with defaults if there is none (as in Ray)."""
    if _client is None and _auto_init is not None and not getattr(_thread, "starts_none", False):
        _auto_init()
    if _client is None:
        from rabbitry.exceptions import RabbitrySystemError

        raise RabbitrySystemError(program.not_started())
    return _client


process.start = client
