"""What work is on a node, from the message it came with to the executor that has it.

    Delivery --> Held (until every task of it is settled) --> Piece --> Lane --> Chunk (an executor has it)

A *held* delivery is acknowledged when nothing of it is outstanding: all tasks committed, all dependants they released
published. A *piece* is a run of tasks under one header that waits for an executor, in the *lane* of its resource class,
job and environment (`model.lanes`). A *chunk* is what an executor has been sent of a piece.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_workers.node.model.source import Source

STUCK_SECONDS: Final = 0.1
"""When nothing has begun for so long, what waits behind it is not kept from other executors and nodes."""


class Held:
    """One delivery and how much of it is unsettled. Work that came from no delivery (a restart) names its queue."""

    __slots__ = (
        "continues",
        "counted",
        "custody",
        "delivery",
        "local",
        "outstanding",
        "queue",
        "received_at",
        "returned",
        "source",
    )

    def __init__(self, delivery: Delivery | None, queue: str = "") -> None:
        self.delivery = delivery
        self.queue = delivery.queue if delivery is not None else queue
        self.local = False  # calls that came without the broker: no queue takes them back
        self.outstanding = 0
        self.custody = b""  # its field in the node's custody hash, once it was acknowledged early
        self.received_at = time.monotonic()
        self.source: Source | None = None  # what the queue is to this node; None for work from no queue
        self.counted = False  # among the messages of its source that are not acknowledged
        self.returned: set[bytes] = set()  # tasks of it that were handed back to the queue
        # Of a continuation: its spec, tag and suffix of what released it.
        self.continues: tuple[bytes, bytes, bytes] | None = None


class Piece:
    """Tasks under one header, waiting. `marked`: how many, from the left, have their start mark already."""

    __slots__ = ("header", "header_bytes", "held", "marked", "since", "tasks", "token", "told")

    def __init__(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: deque[Task]) -> None:
        self.held = held
        self.header_bytes = header_bytes
        self.header = header
        self.tasks = tasks
        self.marked = 0
        self.token = b""  # of its start marks: one that is set again, since the reply was lost, is known by it
        self.since = time.monotonic()
        self.told = False  # that it waits here, by an event


class Chunk:
    """Tasks of one piece sent to an executor and not all done yet."""

    __slots__ = (
        "charged",
        "clears_note",
        "done",
        "end",
        "first",
        "header",
        "header_bytes",
        "held",
        "piece",
        "sent_at",
        "tasks",
        "told",
    )

    def __init__(self, piece: Piece, first: int, tasks: list[Task]) -> None:
        self.piece = piece
        self.held = piece.held
        self.header = piece.header
        self.header_bytes = piece.header_bytes
        self.first = first
        self.end = first + len(tasks)
        self.tasks = tasks
        self.done: set[int] = set()  # sequence numbers, for actor calls: they may end in any order
        self.charged = 0.0  # seconds for each task that its job's time counts already
        self.clears_note = False  # a continuation: the commit of its result also removes its note
        self.sent_at = time.monotonic()
        self.told = False  # that an executor has it, by an event

    def left(self) -> Iterator[tuple[int, Task]]:
        """Yield number and task of those that have not ended."""
        for sequence, task in enumerate(self.tasks, self.first):
            if sequence not in self.done:
                yield sequence, task
