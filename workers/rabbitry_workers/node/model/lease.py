"""The agent's way to the store: what it sends renews the node's lease too, if no sign of life was sent for a while.

From far away (200 ms each way, say) the looks and the work that fall due together on the agent's loop may take seconds,
and the next beat comes after them. So a command that is sent late takes a renewal along: no further round trip, and
next to Redis, where beats come in time, nothing at all. It says as much as a beat does, that the loop goes on: an agent
that is stopped or hangs sends nothing, and loses its lease. A lease that has ended is not revived: only a beat writes
the record anew, and learns by it that there was none (see `heartbeat`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Server
from rabbitry_broker.store.store import ObjectStore

LATE: Final = 0.25
"""A sign of life is late after this part of the lease."""


class LeasedServer(Server):
    """The way to Redis of a node's agent. HOT PATH: all that its store sends passes through here."""

    _due = math.inf
    _thread = 0
    _lease = 0.0
    _sign_command: tuple[Any, ...] = ()

    def sign_of_life(self, node: bytes, lease: float) -> None:
        """The calling thread, the loop's, sends a beat now; from now on what it sends late renews that lease.

        Args:
            node: whose lease.
            lease: its length in seconds.
        """
        self._thread = threading.get_ident()
        self._lease = lease
        self._sign_command = (b"PEXPIRE", Keys.of(self.endpoint).node(node), int(lease * 1000))
        self._due = time.monotonic() + lease * LATE

    def _is_late(self) -> bool:
        # Other threads say nothing about the loop.
        now = time.monotonic()
        if now < self._due or threading.get_ident() != self._thread:
            return False
        self._due = now + self._lease * LATE
        return True

    def call(self, *args: Any) -> Any:
        """See `Server.call`."""
        if self._is_late():
            return super().pipeline([self._sign_command, args])[1]
        return super().call(*args)

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Server.pipeline`."""
        if commands and self._is_late():
            return super().pipeline([self._sign_command, *commands])[1:]
        return super().pipeline(commands)

    def script(self, name: str, *args: Any) -> Any:
        """See `Server.script`."""
        if self._is_late():
            return super().pipeline_of_scripts([(name, args)], [self._sign_command])[0]
        return super().script(name, *args)

    def pipeline_of_scripts(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], before: Sequence[tuple[Any, ...]] = ()
    ) -> list[Any]:
        """See `Server.pipeline_of_scripts`."""
        if (calls or before) and self._is_late():
            before = [self._sign_command, *before]
        return super().pipeline_of_scripts(calls, before)


class LeasedStore(ObjectStore):
    """The store as a node's agent uses it."""

    def __init__(self, endpoint: Endpoint, signer: Signer, **options: Any) -> None:
        server = LeasedServer(endpoint)
        super().__init__(endpoint, signer, server=server, **options)
        self.sign_of_life = server.sign_of_life
