"""Servers that are restarted while programs run on them.

RabbitMQ sends again what was not acknowledged, and clients send again what was not confirmed: what may be run again may
have begun once more for each restart. Redis keeps an append-only file, so that nothing else may be noticed.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.servers import Server

LATE = "late"
"""Word for a server that was away for longer than programs are patient: then they say nothing of the product."""

LATE_SECONDS = 20.0
TRIES = 5


class Restarts:
    """Kills or stops one of the servers now and then, and starts it again. A context manager.

    Args:
        servers: by the word that reports have for their restarts.
        chance: decides when, which, and how.
        every: seconds from one restart to the next, about.
    """

    def __init__(self, servers: dict[str, Server], chance: random.Random, every: float) -> None:
        self._servers = servers
        self._chance = chance
        self._every = every
        self._lock = threading.Lock()
        self._struck: list[str] = []
        self._down: set[str] = set()
        self._error: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="restarts")

    def __enter__(self) -> Restarts:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def take(self) -> list[str]:
        """Return what was struck since the last time; what is down now is told of again the next time."""
        with self._lock:
            struck, self._struck = self._struck, list(self._down)
        return struck

    def _run(self) -> None:
        while not self._over.wait(self._chance.uniform(0.5, 1.5) * self._every):
            word = self._chance.choice(sorted(self._servers))
            server = self._servers[word]
            end = self._chance.choice([server.kill, server.stop])
            with self._lock:
                self._struck.append(word)
                self._down.add(word)
            end()
            try:
                self._start(server)
            except Exception as error:
                self._error = error
                with self._lock:
                    self._struck.append(LATE)
                    self._down.add(LATE)
                return
            with self._lock:
                self._down.discard(word)

    def _start(self, server: Server) -> None:
        """Start a server; on a machine with too much to do that may take several times as long as it should."""
        from tests.servers import ServerError

        began = time.monotonic()
        for tries in range(TRIES):
            try:
                server.start()
                break
            except ServerError:
                if tries == TRIES - 1:
                    raise
        if time.monotonic() - began > LATE_SECONDS:
            with self._lock:
                self._struck.append(LATE)
