"""The queues that a publisher has met: each is announced before its first message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry_broker.queues.protocol import OnNewQueue

QUEUES_KEPT: Final = 10_000
"""Queues that a publisher remembers: each actor has one, and most are gone. After that all are met anew."""


class KnownQueues(set[str]):
    """Names of queues. Any thread may call anything; two threads may both announce a queue, which does no harm.

    HOT PATH: `queue not in known`, which a set answers by itself, is all that is asked about a queue that was met.

    Args:
        on_new_queue: called with a queue that is met, without a lock of the publisher's: it does input and output.

    Attributes:
        created: those of them to which something was sent that makes a queue which is not there; under the publisher's
            lock.
    """

    def __init__(self, on_new_queue: OnNewQueue | None) -> None:
        super().__init__()
        self._on_new_queue = on_new_queue
        self.created: set[str] = set()

    def meet(self, queue: str) -> None:
        """Announce a queue and remember it. What the announcement raises, this does, and the queue stays unknown."""
        if self._on_new_queue is not None:
            self._on_new_queue(queue)
        if len(self) >= QUEUES_KEPT:
            self.clear()
            self.created.clear()
        self.add(queue)

    def forget(self, queue: str) -> None:
        """A queue may be gone: it has to be met again."""
        self.discard(queue)
        self.created.discard(queue)
