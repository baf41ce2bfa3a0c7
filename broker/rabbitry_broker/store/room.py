"""Room in Redis for values: who asks for it before writing leaves some to what keeps the cluster going.

At `maxmemory` Redis refuses every write: leases, heartbeats, queues. So nobody writes values up to that limit:

    0 ............................ values of any size ... | small values only | leases, specs, inboxes, errors |
                                                          limit - 2 * reserve  limit - reserve              limit

Asking costs a round trip. For small values every process has an *allowance*, an eighth of what was left when it asked
last, and asks again when that is used up: many processes together may overdraw a little, for which the reserve is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from rabbitry_broker import machine, records
from rabbitry_broker.environment import number
from rabbitry_broker.errors import StoreError
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store.server import Server, is_full

PATIENCE_VARIABLE: Final = "RABBITRY_STORE_FULL_SECONDS"
"""The environment variable that says how long a writer waits for room before it fails, in seconds."""

DEFAULT_PATIENCE_SECONDS: Final = 10.0

FULL_RETRY_SECONDS: Final = 0.05
# What is left to others: a share of the limit, but not more than that many bytes.
_RESERVE_SHARE: Final = 40
_RESERVE_BYTES: Final = 32 << 20
# One process may write an eighth of what is left before it asks again, and so much without any limit.
_ALLOWANCE_SHARE: Final = 8
_ALLOWANCE_BYTES: Final = 64 << 20
# A writer that is refused so soon after another one meets the same shortage.
_ONE_SHORTAGE_SECONDS: Final = 1.0
# Below this, asking for the room of a large value costs more than being told that there is none.
_ASK_BYTES: Final = 1 << 20


def patience_seconds() -> float:
    """Return how long a writer waits for room before it fails.

    Raises:
        ValueError: the environment variable holds no number of seconds.
    """
    return number(PATIENCE_VARIABLE, float, DEFAULT_PATIENCE_SECONDS, unit="seconds")


class Room:
    """Knows how much values may take. Any thread may call anything; a lost update of the allowance does no harm.

    Raises:
        ValueError: the environment variable of the patience holds no number of seconds.
    """

    def __init__(self, server: Server) -> None:
        patience_seconds()  # nonsense is said here, not by the first write that finds no room
        self._server = server
        self._allowance = 0
        self._full_since = self._refused_at = -math.inf

    def require(self, size: int, *, patience: float | None = None) -> None:
        """Return when a small value of `size` bytes may be written. HOT PATH.

        Raises:
            ObjectStoreFull: it may not within `patience` seconds; None: as many as the environment says.
        """
        self._allowance -= size
        if self._allowance < 0:
            self._wait(size, patience)

    def deadline(self, patience: float | None) -> float:
        """Return until when a writer waits that finds no room; None: for as long as the environment says.

        Writers of this process that find none one after the other wait once, not each anew: a thousand tasks that
        wait ten seconds each would look like ones that never end.
        """
        now = time.monotonic()
        if now - self._refused_at > _ONE_SHORTAGE_SECONDS:
            self._full_since = now
        self._refused_at = now
        return self._full_since + (patience_seconds() if patience is None else patience)

    def found(self) -> None:
        """A writer that had waited found room."""
        self._refused_at = -math.inf

    def when_room(self, action: Callable[[], Any], *, patience: float | None = None, size: int = 0) -> Any:
        """Run `action` (which may safely run twice); while Redis is at `maxmemory`, wait and run it again.

        Args:
            action: what writes.
            patience: seconds to wait; None: as many as the environment says.
            size: bytes it wants to store, for the error.

        Raises:
            ObjectStoreFull: no room within `patience`.
        """
        refused = False
        while True:
            try:
                result = action()
                if refused:
                    self.found()
                return result
            except StoreError as error:
                if not is_full(error):
                    raise
                refused = True
                if time.monotonic() >= self.deadline(patience):
                    raise self.refused(size) from error
            self._server.on_full()
            time.sleep(FULL_RETRY_SECONDS)

    def _wait(self, size: int, patience: float | None) -> None:
        while True:
            used, limit, _, _ = self._facts()
            if not limit:
                self._allowance = _ALLOWANCE_BYTES
                return
            left = limit - used - _reserve(limit)
            if size <= left:
                self._allowance = min(_ALLOWANCE_BYTES, left // _ALLOWANCE_SHARE)
                self.found()
                return
            self._allowance = 0
            if time.monotonic() >= self.deadline(patience):
                raise ObjectStoreFull(size, max(0, left), _place(limit))
            self._server.on_full()
            time.sleep(FULL_RETRY_SECONDS)

    def lack(self, size: int, ask: Callable[..., Any] | None = None) -> ObjectStoreFull | None:
        """Return the error if there is no room for a large value of `size` bytes, as far as can be known beforehand.

        Args:
            size: bytes.
            ask: sends a command to the server that the value would go to; None for that of everything else.
        """
        if size < _ASK_BYTES:
            return None
        used, limit, rss, system = self._facts(ask)
        if limit:
            # A chunk counts twice while Redis receives it.
            reserve = 2 * _reserve(limit) + min(size, records.CHUNK_BYTES)
            free = max(0, limit - used - reserve)
            if size > free:
                return ObjectStoreFull(size, free, _place(limit), hopeless=size > limit - reserve)
            return None
        if self._server.traits.one_host:
            free = machine.available_memory()
            place = "the machine's memory"
        else:
            if not system:
                return None
            free = max(0, system - rss)
            place = "the memory of Redis' machine"
        return ObjectStoreFull(size, free, place, hopeless=True) if size > free else None

    def limit_and_left(self) -> tuple[int | None, int]:
        """Return (bytes that Redis may take, those that are left for what is not needed); None if there is no limit."""
        used, limit, _, _ = self._facts()
        return (limit, limit - used - 2 * _reserve(limit)) if limit else (None, 0)

    def refused(self, size: int, ask: Callable[..., Any] | None = None) -> ObjectStoreFull:
        """Return the error for a value that Redis refused; `ask` as in `lack`."""
        used, limit, _, _ = self._facts(ask)
        return ObjectStoreFull(size, max(0, limit - used - 2 * _reserve(limit)), _place(limit))

    def _facts(self, ask: Callable[..., Any] | None = None) -> tuple[int, int, int, int]:
        """Return Redis' (used memory, limit, resident memory, memory of its machine); 0 for what it does not tell."""
        text = (ask or self._server.call)(b"INFO", b"memory")
        facts = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
        used = int(facts.get(b"used_memory", 0))
        resident = int(facts.get(b"used_memory_rss", used))
        return used, int(facts.get(b"maxmemory", 0)), resident, int(facts.get(b"total_system_memory", 0))


def _reserve(limit: int) -> int:
    return min(_RESERVE_BYTES, limit // _RESERVE_SHARE)


def _place(limit: int) -> str:
    return f"Redis, whose `maxmemory` is {limit:,} bytes"
