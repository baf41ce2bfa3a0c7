"""From deliveries to pieces of work: what a message holds, until every task of it is settled.

A *held* delivery is acknowledged when nothing of it is outstanding: all tasks committed, all dependants they released
published. A *piece* is a run of tasks under one header that waits for an executor.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from warren_broker.messages import Task, TaskHeader
from warren_broker.queues.protocol import Delivery
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren_workers.node.executors import ExecutorProcess
    from warren_workers.node.sources import Source


class Held:
    """One delivery and how much of it is unsettled. Work that came from no delivery (a restart) names its queue."""

    __slots__ = (
        "continues",
        "counted",
        "custody",
        "delivery",
        "outstanding",
        "queue",
        "received_at",
        "returned",
        "source",
    )

    def __init__(self, delivery: Delivery | None, queue: str = "") -> None:
        self.delivery = delivery
        self.queue = delivery.queue if delivery is not None else queue
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

    __slots__ = ("header", "header_bytes", "held", "marked", "since", "tasks", "token")

    def __init__(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: deque[Task]) -> None:
        self.held = held
        self.header_bytes = header_bytes
        self.header = header
        self.tasks = tasks
        self.marked = 0
        self.token = b""  # of its start marks: one that is set again, since the reply was lost, is known by it
        self.since = time.monotonic()


class Lane:
    """What waits for one resource class in one kind of executor (job and environment)."""

    __slots__ = ("counts", "executors", "key", "pieces", "queues", "request", "waiting", "waiting_since")

    def __init__(self, key: tuple[str, bytes, bytes], request: ResourceRequest) -> None:
        self.key = key
        self.request = request
        self.pieces: dict[int, deque[Piece]] = {}
        self.executors: list[ExecutorProcess] = []
        self.waiting = 0
        self.waiting_since = 0.0

    def put(self, piece: Piece, *, front: bool = False) -> None:
        """Add a piece behind (or before) those of its priority."""
        line = self.pieces.setdefault(piece.header.priority, deque())
        if front:
            line.appendleft(piece)
        else:
            line.append(piece)
        if not self.waiting:
            self.waiting_since = time.monotonic()
        self.waiting += len(piece.tasks)

    def first(self) -> Piece | None:
        """Return the piece to serve next; None if nothing waits."""
        while self.pieces:
            priority = max(self.pieces)
            line = self.pieces[priority]
            while line and not line[0].tasks:
                line.popleft()
            if line:
                return line[0]
            del self.pieces[priority]
        return None

    def take(self, piece: Piece, count: int) -> list[Task]:
        """Remove up to `count` tasks from the head of `piece`."""
        tasks = piece.tasks
        if count >= len(tasks):
            taken = list(tasks)
            tasks.clear()
        else:
            taken = [tasks.popleft() for _ in range(count)]
        self.waiting -= len(taken)
        self.waiting_since = time.monotonic()
        return taken

    def untake(self, piece: Piece, tasks: list[Task], marked: int) -> None:
        """Undo a `take` that has just been done: these tasks could not be handed out."""
        piece.tasks.extendleft(reversed(tasks))
        piece.marked = marked
        self.waiting += len(tasks)

    def all_pieces(self) -> Iterator[Piece]:
        """Yield what waits, in the order in which it will be served."""
        for priority in sorted(self.pieces, reverse=True):
            for piece in self.pieces[priority]:
                if piece.tasks:
                    yield piece

    def remove(self, piece: Piece) -> None:
        """Remove a piece that waits."""
        self.pieces[piece.header.priority].remove(piece)
        self.waiting -= len(piece.tasks)

    def take_all(self) -> list[Piece]:
        """Remove everything that waits."""
        pieces = [piece for line in self.pieces.values() for piece in line if piece.tasks]
        self.pieces.clear()
        self.waiting = 0
        return pieces
