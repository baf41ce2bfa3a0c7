"""The stream of events: batches of marks, the newest at its end. Bounded by bytes and by age.

Nobody waits for it: a batch that finds no room is dropped, and counted by whoever wrote it. When nobody writes any
more, the stream ends by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final, Protocol

from rabbitry_broker.environment import number
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.events import Batch, Recorder, pack, unpack
from rabbitry_broker.messages import MalformedMessage
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server

BYTES_VARIABLE: Final = "RABBITRY_TASK_EVENTS_BYTES"
SECONDS_VARIABLE: Final = "RABBITRY_TASK_EVENTS_SECONDS"
DEFAULT_BYTES: Final = 64 << 20
DEFAULT_SECONDS: Final = 6 * 3600
SHARE_OF_SERVER: Final = 20
"""Of a server with a `maxmemory`, events take one part in so many at most."""
ASK_SECONDS: Final = 10.0
READ_AT_ONCE: Final = 32
PATIENCE_SECONDS: Final = 0.2


class Caller(Protocol):
    """A connection to Redis, or what has one."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""


class Events:
    """Writes batches of events. Any thread may call it.

    Args:
        server: to which they go.
        keys: of the cluster.
        signer: seals them.
        room: knows how full the server is.
    """

    def __init__(self, server: Server, keys: Keys, signer: Signer, room: Room) -> None:
        self._server = server
        self._keys = keys
        self._signer = signer
        self._room = room
        self._lock = threading.Lock()
        self._limit = 0
        self._seconds = 0
        self._asked_at = -ASK_SECONDS

    def send(self, recorder: Recorder, who: dict[str, Any]) -> None:
        """Send all that a process has recorded, or drop and count it: a server that is away or full is no error."""
        with self._lock, self._server.within(time.monotonic() + PATIENCE_SECONDS):
            for marks, dropped in recorder.take():
                try:
                    limit = self._bytes_allowed()
                    if limit:
                        self._add(pack(self._signer, who, marks, dropped), limit)
                    else:
                        recorder.lost(marks)
                        self._add(b"", 0)  # what is there goes, too: others need the room more
                except RabbitryBrokerError:
                    recorder.lost(marks)

    def _add(self, batch: bytes, limit: int) -> None:
        keys = self._keys
        self._server.script("add_events", keys.events, keys.events + b":bytes", batch, limit, self._seconds)

    def _bytes_allowed(self) -> int:
        """Return how many bytes events may take now; 0 if the server is nearly full."""
        now = time.monotonic()
        if now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            limit = number(BYTES_VARIABLE, int, DEFAULT_BYTES, unit="bytes")
            self._seconds = max(1, number(SECONDS_VARIABLE, int, DEFAULT_SECONDS, unit="seconds"))
            most, left = self._room.limit_and_left()
            if most is not None:
                limit = 0 if left <= 0 else min(limit, most // SHARE_OF_SERVER)
            self._limit = limit
        return self._limit


class EventReader:
    """Reads the stream from where it was read last. For one thread.

    Args:
        source: runs the commands.
        keys: of the cluster.
        signer: checks what is read.

    Attributes:
        source: what runs the commands.
        unreadable: entries that nobody of this cluster wrote.
    """

    def __init__(self, source: Caller, keys: Keys, signer: Signer) -> None:
        self.source = source
        self._key = keys.events
        self._signer = signer
        self._last = b"-"
        self.unreadable = 0

    def fresh(self) -> Iterator[tuple[float, Batch]]:
        """Yield (when it was written, batch) of all that came since the last time, oldest first."""
        while True:
            entries = self.source.call(b"XRANGE", self._key, self._last, b"+", b"COUNT", READ_AT_ONCE)
            for name, fields in entries:
                self._last = b"(" + name
                try:
                    batch = unpack(self._signer, fields[1])
                except (MalformedMessage, IndexError):
                    self.unreadable += 1
                    continue
                yield int(name.partition(b"-")[0]) / 1000, batch
            if len(entries) < READ_AT_ONCE:
                return

    def size(self) -> int:
        """Return how many bytes the stream has."""
        return int(self.source.call(b"GET", self._key + b":bytes") or 0)
