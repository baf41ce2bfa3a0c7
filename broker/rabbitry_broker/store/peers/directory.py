"""Where the nodes of each host serve: what their records say, read when a host is met that is not known yet."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from rabbitry_broker.errors import StoreError
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.living import living_nodes
from rabbitry_broker.store.server import Server

LOOK_SECONDS: Final = 2.0
"""Between two looks at the records of all nodes, by one process."""
MISSING_SECONDS: Final = 15.0
"""A host of which no node was found is not looked for again for so long: it may have gone for good."""

_MISSING_KEPT: Final = 1000

log = logging.getLogger("rabbitry")

Place = tuple[str, int]
"""Address and port."""


class Directory:
    """Any thread may call anything.

    Args:
        server: Redis.
        keys: of the cluster.
        signer: of the cluster: records are signed.
    """

    def __init__(self, server: Server, keys: Keys, signer: Signer) -> None:
        self._server = server
        self._keys = keys
        self._signer = signer
        self._lock = threading.Lock()
        self._places: dict[bytes, Place] = {}
        self._missing: dict[bytes, float] = {}  # until when they are not looked for
        self._looked_at = -LOOK_SECONDS

    def find(self, host: bytes) -> Place | None:
        """Return where a node of that host serves; None if there is none, as far as is known."""
        place = self._places.get(host)
        if place is not None or time.monotonic() < self._missing.get(host, 0.0) or not self._look():
            return place
        place = self._places.get(host)
        if place is None:
            if len(self._missing) >= _MISSING_KEPT:
                self._missing.clear()
            self._missing[host] = time.monotonic() + MISSING_SECONDS
        return place

    def forget(self, host: bytes, place: Place) -> None:
        """Nobody of that host serves there: look again when it is asked for next."""
        with self._lock:
            if self._places.get(host) == place:
                del self._places[host]

    def _look(self) -> bool:
        """Read the records of all nodes, unless that was done just now."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at < LOOK_SECONDS:
                return False
            self._looked_at = now
            try:
                self._places = self._read()
            except StoreError as error:
                log.debug("cannot see where peers are: %s", error)
                return False
            return True

    def _read(self) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        for record in living_nodes(self._server, self._keys, self._signer):
            try:
                address, port = record["peers"]
                found.setdefault(bytes(record["host"]), (str(address), int(port)))
            except (KeyError, TypeError, ValueError):
                continue  # it serves nobody, or is of another version
        return found
