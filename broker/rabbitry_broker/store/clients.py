"""Signs of life of clients, and their inboxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.presence import driver_connection
from rabbitry_broker.store.server import Server

CLIENT_LEASE_SECONDS = 30.0  # after which a client that gave no sign of life counts as dead
KEPT_AT_ONCE = 500  # signs of life in one step: Redis answers nobody else meanwhile


class Clients:
    """Knows which clients live. Any thread may call anything."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def register(self, client: bytes, lease: float, *, driver: bool = False) -> None:
        """Give a client a sign of life for `lease` seconds; `driver`: see `known_by_connection`."""
        self._server.script("renew", *self._renewal(client, lease), b"1", self._keys.drivers if driver else b"")

    def renew(self, client: bytes, lease: float, *, driver: bool = False) -> bool:
        """Keep a client's sign of life for `lease` seconds more; False if it counts as dead and is cleared away."""
        noted = self._keys.drivers if driver else b""
        return bool(self._server.script("renew", *self._renewal(client, lease), b"0", noted) == 1)

    def keep(self, clients: Sequence[bytes], lease: float) -> None:
        """Keep the signs of life of those clients that have one."""
        calls = []
        for at in range(0, len(clients), KEPT_AT_ONCE):
            signs = [part for each in clients[at : at + KEPT_AT_ONCE] for part in (self._keys.client(each), each)]
            calls.append(("keep", (self._keys.clients, int(lease * 1000), *signs)))
        self._server.pipeline_of_scripts(calls)

    def known_by_connection(self, client: bytes) -> None:
        """This is the store of a driver: from its next connection on, the connection tells that the driver is there."""
        self._server.name_connection(driver_connection(client))

    def condemn(self, client: bytes, too_old: float) -> bool:
        """A driver's process has ended, as its connections say: it counts as dead now.

        Args:
            client: the driver.
            too_old: it has not if it gave a sign later than this, by the clock of Redis.

        Returns:
            True if it counts as dead.
        """
        keys = self._keys
        return bool(
            self._server.script("condemn", keys.client(client), keys.clients, keys.drivers, client, repr(too_old))
        )

    def lapse(self, clients: Sequence[bytes]) -> list[bytes]:
        """Leases of clients have ended, and leases can be trusted: return those that count as dead from now on."""
        keys = self._keys
        calls = [("lapse", (keys.client(each), keys.clients, keys.drivers, each)) for each in clients]
        replies = self._server.pipeline_of_scripts(calls)
        return [each for each, dead in zip(clients, replies, strict=True) if dead]

    def _renewal(self, client: bytes, lease: float) -> tuple[Any, ...]:
        return self._keys.client(client), self._keys.clients, client, int(lease * 1000)

    def is_alive(self, client: bytes) -> bool:
        """True until somebody clears up after a client (its lease may have ended while Redis was away)."""
        sign, score = self._server.pipeline(
            [(b"EXISTS", self._keys.client(client)), (b"ZSCORE", self._keys.clients, client)]
        )
        return bool(sign) or (score is not None and score != b"-inf")

    def registered(self, clients: Sequence[bytes]) -> list[bytes]:
        """Return those clients that are on record as living and have not said goodbye."""
        scores = self._server.pipeline([(b"ZSCORE", self._keys.clients, each) for each in clients])
        return [each for each, score in zip(clients, scores, strict=True) if score is not None]

    def tell(self, client: bytes, entry: bytes) -> None:
        """Put an entry on a client's inbox, if the client lives."""
        self._server.script("tell", self._keys.client(client), self._keys.inbox(client), entry)
