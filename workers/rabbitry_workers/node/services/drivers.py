"""Which drivers are there: told by their connections to Redis when they give no sign of life themselves.

A driver signs every second. One that was silent for `LATE_SECONDS` either has no time for that (a long call into C
keeps the interpreter, it is stopped, its machine sleeps), or has ended without a goodbye. CLIENT LIST tells which: the
kernel keeps the connections of the first kind and closes those of the second.

| a silent driver | is |
|---|---|
| has its connection | kept alive: its lease is renewed for it |
| has none, in two looks `CONFIRM_SECONDS` apart | dead, whatever is left of its lease (`condemn.lua`) |

Where CLIENT LIST is not allowed, or does not even show this node (a proxy answers), leases alone decide. While Redis
has been away within the length of a lease nobody is condemned: connections broke, and a driver that is stopped could
not make a new one. See docs/decisions/005-drivers-by-connection.md.
"""

from __future__ import annotations

import logging
from typing import Final

from rabbitry_broker.errors import RabbitryBrokerError, StoreError
from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.store.presence import connected
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.peers.heartbeat import late_after
from rabbitry_workers.node.peers.names import connection_name
from rabbitry_workers.node.services.turns import takes_turn

INTERVAL_SECONDS: Final = 1.0  # or a sixth of a lease
CONFIRM_SECONDS: Final = 1.0  # longer than it takes a driver to make a new connection for one that broke
TROUBLE: Final = "cannot see which drivers are there"

log = logging.getLogger("rabbitry.node")


class Drivers:
    """Service on the agent's loop: `start`, `run_once`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told = False
        self._interval = min(INTERVAL_SECONDS, node.config.client_lease / 6)
        self._late = late_after(node.config.client_lease)

    def start(self) -> None:
        """Look after silent drivers from now on: the node's sign of life tells whether there are any.

        It does so too seldom where leases are very short.
        """
        if self._interval < INTERVAL_SECONDS:
            self._node.periodic.every(self._interval, self.run_once, TROUBLE)

    def look_soon(self) -> None:
        """There are silent drivers."""
        if self._interval >= INTERVAL_SECONDS:
            self._node.loop.add_callback(self._look)

    def _look(self) -> None:
        try:
            self.run_once()
        except RabbitryBrokerError as error:
            log.warning("%s: %s", TROUBLE, error)

    def run_once(self) -> None:
        """Keep the silent ones that are connected; look again, a little later, at those that are not."""
        if not self._silent() or not takes_turn(
            self._node.store, self._node.keys.janitor + b":drivers", self._node.id, self._interval
        ):
            return
        absent = self.keep_connected()
        if absent:
            self._node.loop.call_later(CONFIRM_SECONDS, lambda: self._confirm(absent))

    def is_silent(self, client: bytes) -> bool:
        """True if that is a driver that has given no sign for too long and has no connection: it may have ended."""
        return client in self._silent() and client in self.keep_connected()

    def _silent(self) -> dict[bytes, float]:
        """Return the drivers whose last sign is too old, each with the time of the youngest sign that would be."""
        store, keys = self._node.store, self._node.keys
        (seconds, microseconds), flat = store.pipeline(
            [(b"TIME",), (b"ZRANGE", keys.drivers, 0, -1, b"WITHSCORES")],
        )
        too_old = int(seconds) + int(microseconds) / 1e6 - self._late
        signs = dict(zip(flat[::2], flat[1::2], strict=True))
        strangers = [each for each in signs if len(each) != CLIENT_BYTES]
        if strangers:
            store.call(b"ZREM", keys.drivers, *strangers)
        return {each: too_old for each, at in signs.items() if len(each) == CLIENT_BYTES and float(at) <= too_old}

    def keep_connected(self) -> dict[bytes, float]:
        """Renew the leases of silent drivers that are connected; return the others (see `_silent`)."""
        silent = self._silent()
        listing = self._listing() if silent else b""
        if not listing:
            return {}
        there = connected(listing, silent)
        if there:
            self._node.store.keep_clients(list(there), self._node.config.client_lease)
        return {each: too_old for each, too_old in silent.items() if each not in there}

    def _listing(self) -> bytes:
        """Return who is connected; b"" if that cannot be known."""
        try:
            listing: bytes = self._node.store.call(b"CLIENT", b"LIST")
        except StoreError as error:
            if not self._told:
                log.warning("cannot see which drivers are connected, so their leases decide: %s", error)
                self._told = True
            return b""
        # A list without ourselves says nothing about others.
        return listing if b" name=%s " % connection_name(self._node.id).encode() in listing else b""

    def _confirm(self, absent: dict[bytes, float]) -> None:
        try:
            if not self._node.store.trusts_leases(self._node.config.client_lease):
                return
            dead = [
                client
                for client in set(self.keep_connected()) & set(absent)
                if self._node.store.condemn(client, absent[client])
            ]
            for client in dead:
                log.info("driver %s has ended without a goodbye", client.hex())
            self._node.store.clients_gone(dead)
        except RabbitryBrokerError as error:
            log.warning("%s: %s", TROUBLE, error)
