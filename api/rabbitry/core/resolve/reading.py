"""What generators of refs read from: a stream's items, as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rabbitry.core.lives.references import References
from rabbitry.core.resolve.streams import Stream, Streams
from rabbitry.object_ref import ObjectRef, made_here


class WaitsUntil(Protocol):
    """Waits for objects; see `Waiting`."""

    def send_waiting(self, deadline: float | None = None) -> None:
        """Send what waits in the outbox."""

    def until(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], deadline: float | None) -> bool:
        """Wait until `done()`; False once `deadline` is over."""


class Inbox(Protocol):
    """What comes; see `rabbitry.core.resolve.inbox`."""

    def drain(self) -> bool:
        """Take what is there; False if another thread is at it."""

    def make_known(self, items: list[bytes]) -> None:
        """Make results known that this process found or made."""


class PutsRecords(Protocol):
    """Stores records; see `ObjectStore`."""

    def put_records(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Store small values at once."""


class Reading:
    """Reads streams for their generators. Any thread may call anything.

    Args:
        references: counts the handles on items.
        values: the records of resolved objects.
        streams: of this client.
        waiting: waits for items.
        inbox: has what came.
        when_ready: calls back once an object is here.
        store: keeps items that producers could not send.
        flush: sends all that waits to be sent.
        kick: has the service thread look.
    """

    def __init__(
        self,
        references: References,
        values: dict[bytes, bytes],
        streams: Streams,
        *,
        waiting: WaitsUntil,
        inbox: Inbox,
        when_ready: Callable[[bytes, Callable[[], None]], None],
        store: PutsRecords,
        flush: Callable[[], None],
        kick: Callable[[], None],
    ) -> None:
        self.references = references
        self.values = values
        self.abandon = streams.abandon
        self.count_read = streams.count_read
        self.when_ready = when_ready
        self._is_open = streams.is_open
        self._waiting = waiting
        self._inbox = inbox
        self._store = store
        self._flush = flush
        self._kick = kick

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], timeout: float | None) -> bool:
        """Send what waits, then wait until `done()`; False after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._waiting.send_waiting(deadline)
        return self._waiting.until(done, wanted, deadline)

    def look(self) -> None:
        """Take what has come, without waiting."""
        self._flush()
        self._inbox.drain()

    def hand_out(self, stream: Stream, key: bytes) -> ObjectRef[Any]:
        """Return a handle on the next item: the first one, unless somebody looked ahead."""
        counts = self.references.counts
        with self.references.lock:
            held = counts.get(key, 0)
            item: ObjectRef[Any] = made_here(key, self.references)
            counts[key] = held + 1
            stream.next += 1
        return item

    def fill(self, key: bytes, record: bytes) -> None:
        """Store a record as an item that the producer could not send."""
        self._store.put_records([(key, record)])
        self._inbox.make_known([key, record])

    def finish(self, task_id: bytes, stream: Stream) -> None:
        """Everything was read: the stream needs no more keeping."""
        if self._is_open(task_id):
            stream.ended = True
            self.abandon(task_id)
            self._kick()
