"""The owner's view of streams: items that have come and were not handed out yet.

Item number i of a stream is the object with index i of its task. Items may come long before the reader asks for them,
when no handle on them exists; the stream holds them until then. A stream ends when its generator is dropped or read
to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from rabbitry.core.lives.references import References
from rabbitry.core.ports import Commands
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry_broker.ids import TASK_BYTES, object_id
from rabbitry_broker.messages import STREAMING
from rabbitry_broker.store.keys import Keys

ABANDONED_SECONDS = 60  # the mark for a producer that pauses; it is cancelled too

__tracebackhide__ = of_errors_of_tasks


class Stream:
    """What has come of one stream. Changed under `References.lock`.

    Attributes:
        next: number of the item to hand out next.
        highest: the highest number that has come.
        ended: the task has ended.
        counted: the producer asks how many items were read (backpressure).
    """

    __slots__ = ("counted", "ended", "highest", "next")

    def __init__(self, *, counted: bool = False) -> None:
        self.next = 1
        self.highest = 0
        self.ended = False
        self.counted = counted

    def take(self, key: bytes, record: bytes, values: dict[bytes, bytes]) -> bool:
        """Keep an item for the reader; False if the reader has passed it (a retried producer sends it again)."""
        number = int.from_bytes(key[TASK_BYTES:], "little")
        if number < self.next:
            return False
        values.setdefault(key, record)
        self.highest = max(self.highest, number)
        return True


def stream_pin(task_id: bytes) -> bytes:
    """Return what a streaming task's arguments are pinned under: its first item does not end it."""
    return b"stream" + task_id


class CancelsProducer(Protocol):
    """Cancels a task; see `Cancelling.cancel`."""

    def __call__(self, task_id: bytes, *, force: bool, recursive: bool, results: int) -> None:
        """Cancel it."""


class Streams:
    """Those of one client whose generators live. Any thread may call anything.

    Args:
        references: its lock is held while streams change.
        values: the records of resolved objects.
        streams: by task id (shared with what keeps the items).
        store: has the producers' marks.
        keys: of the cluster.
        callbacks: on objects that are not here; of an item that nobody waits for any more they go with the stream.
        unheld: hears of items without handles.
        cancel: cancels a producer.
    """

    def __init__(
        self,
        references: References,
        values: dict[bytes, bytes],
        streams: dict[bytes, Stream],
        *,
        store: Commands,
        keys: Keys,
        callbacks: dict[bytes, list[Callable[[], None]]],
        unheld: Callable[[bytes, bytes], None],
        cancel: CancelsProducer,
    ) -> None:
        self._references = references
        self._values = values
        self._streams = streams
        self._store = store
        self._keys = keys
        self._callbacks = callbacks
        self._unheld = unheld
        self._cancel = cancel
        self.abandoned: deque[bytes] = deque()  # streams whose generators went, until the service thread ends them
        self.closed = False

    def open(self, task_id: bytes, *, counted: bool) -> Stream:
        """Begin a stream; `counted` if its producer asks how many items were read."""
        stream = self._streams[task_id] = Stream(counted=counted)
        return stream

    def is_open(self, task_id: bytes) -> bool:
        """True while the stream's items are kept for its generator."""
        return task_id in self._streams

    def withdraw(self, task_id: bytes) -> None:
        """The task was not accepted: there is no producer to be stopped when the generator goes."""
        stream = self._streams.get(task_id)
        if stream is not None:
            stream.ended = True

    def abandon(self, task_id: bytes) -> None:
        """A generator was dropped. Called by `__del__`: only appends."""
        if not self.closed:
            self.abandoned.append(task_id)

    def count_read(self, task_id: bytes) -> None:
        """One more item of a counted stream was read: its producer may go on."""
        self._store.call(b"INCR", self._keys.consumed(task_id))

    def end_abandoned(self) -> None:
        """End the streams whose generators went. One that cannot be ended now is ended later."""
        while self.abandoned:
            task_id = self.abandoned.popleft()
            try:
                self._end(task_id)
            except Exception:
                self.abandoned.append(task_id)
                raise

    def _end(self, task_id: bytes) -> None:
        """The generator is gone: stop the producer if it still runs, delete what was not read."""
        values, counts = self._values, self._references.counts
        with self._references.lock:
            stream = self._streams.pop(task_id, None)
            if stream is None:
                return
            awaited = object_id(task_id, stream.next)
            if awaited not in counts:
                self._callbacks.pop(awaited, None)
            unread = [
                (key, values.pop(key, b"L"))
                for key in [object_id(task_id, number) for number in range(stream.next, stream.highest + 1)]
                if key not in counts
            ]
            stream.next = stream.highest + 1
        for key, record in unread:
            self._unheld(key, record)
        try:
            self._stop_producer(task_id, stream)
        except BaseException:
            self._streams[task_id] = stream  # for whoever tries again
            raise

    def _stop_producer(self, task_id: bytes, stream: Stream) -> None:
        if stream.counted:
            key = self._keys.consumed(task_id)
            if stream.ended:
                self._store.call(b"DEL", key)
            else:
                self._store.call(b"SET", key, b"-1", b"EX", ABANDONED_SECONDS)
        if not stream.ended:
            self._cancel(task_id, force=False, recursive=True, results=STREAMING)
