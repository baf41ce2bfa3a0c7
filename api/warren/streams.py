"""The owner's view of streams: items that have come and were not handed out yet.

Item number i of a stream is the object with index i of its task. Items may come long before the reader asks for them,
when no handle on them exists; the stream holds them until then. A stream ends when its generator is dropped or read
to its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warren_broker.ids import TASK_BYTES, object_id

if TYPE_CHECKING:
    from warren.client import Client

ABANDONED_SECONDS = 60  # the mark for a producer that pauses; it is cancelled too


class Stream:
    """What has come of one stream. Changed under `References.lock`.

    Attributes:
        next: number of the item to hand out next.
        highest: the highest number that has come.
        ended: the task has ended.
        counted: the producer asks how many items were read (backpressure).
    """

    __slots__ = ("counted", "ended", "highest", "next")

    def __init__(self) -> None:
        self.next = 1
        self.highest = 0
        self.ended = False
        self.counted = False

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


def end_stream(client: Client, task_id: bytes) -> None:
    """The generator is gone: stop the producer if it still runs, delete what was not read."""
    with client.references.lock:
        stream = client.streams.pop(task_id, None)
        if stream is None:
            return
        unread = [
            (key, client.inbox.values.pop(key, b"L"))
            for key in [object_id(task_id, number) for number in range(stream.next, stream.highest + 1)]
            if key not in client.references.counts
        ]
    for key, record in unread:
        client.lifetimes.unheld(key, record)
    if stream.counted:
        key = client.keys.consumed(task_id)
        if stream.ended:
            client.store.call(b"DEL", key)
        else:
            client.store.call(b"SET", key, b"-1", b"EX", ABANDONED_SECONDS)
    if not stream.ended:
        client.cancel(task_id, force=False, recursive=True, results=-1)
