"""How others know that this client lives, and what it does once they took it for dead."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from rabbitry.core.identity import Identity

SIGN_SECONDS = 1.0  # between two signs of life of a driver: nodes look for its connection if it is silent for longer

log = logging.getLogger("rabbitry")


class ClientRecords(Protocol):
    """What the store knows of clients; see `ObjectStore`."""

    def register_client(self, client: bytes, lease: float, *, driver: bool = False) -> None:
        """Put a client on record."""

    def renew_client(self, client: bytes, lease: float, *, driver: bool = False) -> bool:
        """Renew its lease; False if it is not on record any more."""


class Liveness:
    """Keeps this client on record. `register` may be called by any thread, `renew` by the service thread.

    Args:
        identity: of the client.
        store: has the record.
        start_service: starts the thread that renews it.

    Attributes:
        registered: it is on record.
        counted_dead: others took it for dead at some time: what it had submitted and stored until then is gone.
        leaving: what is cleared away now is not to be brought back.
        on_died: called once when others have cleared up after us, and before we are on record again.
        restores: called after that, until all of them succeed: they store again what was cleared away and is needed.
    """

    def __init__(self, identity: Identity, store: ClientRecords, *, start_service: Callable[[], None]) -> None:
        self._identity = identity
        self._store = store
        self._start_service = start_service
        self._renew_at = 0.0
        self._to_restore = False
        self.registered = False
        self.counted_dead = False
        self.leaving = False
        self.on_died: list[Callable[[], None]] = []
        self.restores: list[Callable[[], None]] = []

    def register(self) -> None:
        """Make this client known as alive, before anything can depend on it (results of a dead owner are dropped)."""
        if not self.registered:
            self.registered = True
            identity = self._identity
            if identity.driver:
                try:
                    self._store.register_client(identity.id, identity.lease, driver=identity.by_connection)
                except BaseException:
                    self.registered = False
                    raise
                self._signed()
                self._start_service()

    @property
    def is_due(self) -> bool:
        """True if a sign of life is due."""
        return self.registered and self._identity.driver and not self.leaving and time.monotonic() >= self._renew_at

    def renew(self) -> None:
        """Give a sign of life. Comes again at once if it fails."""
        identity = self._identity
        if not self._store.renew_client(identity.id, identity.lease, driver=identity.by_connection):
            self._died()
        if self._to_restore:
            for restore in self.restores:
                restore()
            self._to_restore = False
        self._signed()

    def _signed(self) -> None:
        self._renew_at = time.monotonic() + min(SIGN_SECONDS, self._identity.lease / 10)

    def _died(self) -> None:
        """We gave no sign of life for so long that others cleared up after us. Go on as a new client would.

        What we had submitted and stored is gone, and what we borrowed may be.
        """
        identity = self._identity
        log.error(
            "this process gave no sign of life for %g s (it was stopped, or kept the interpreter busy) and counts as "
            "dead: what it had submitted and stored is gone. RABBITRY_CLIENT_LEASE sets the time.",
            identity.lease,
        )
        self.counted_dead = True
        for tell in self.on_died:
            tell()
        self._store.register_client(identity.id, identity.lease, driver=identity.by_connection)
        self._to_restore = True
