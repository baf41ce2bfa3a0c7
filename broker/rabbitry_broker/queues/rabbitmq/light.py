"""Messages that RabbitMQ need not write to its disk, since whoever sent them keeps them for as long as they matter.

A durable queue writes a persistent message to its journal and flushes that to the disk, which takes more time than all
else that is done about a short call of an actor. A transient one is lost if the server ends while it has the message,
be it in the queue or with a consumer that did not acknowledge it. So its publisher keeps it, and sends it again, as a
persistent message that says so (`frames.AGAIN`, consumers take it as redelivered), in front of what comes later:

    KEPT --- not needed any more (its call has ended) ---------------------------> forgotten
    KEPT --- the connection or the channel broke: the server may have ended -----> sent again
    KEPT --- a persistent message follows on its queue, which must not overtake -> sent again
    KEPT --- it is needed for long (`KEPT_SECONDS`) -----------------------------> sent again
    KEPT --- all that was published is to be safe (`flush`, `close`) ------------> sent again

Nothing is decided by what is kept: who needs a message no more says so when he is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

KEPT: Final = 256
"""Messages that are kept at most; what comes then is persistent."""

KEPT_SECONDS: Final = 5.0
"""A message that was kept for so long is sent again, at the next look. What lasts has time for the disk."""

REST: Final = 64
"""For so many messages of the publisher nothing of a queue is kept: calls overlap there, and copies are for nothing."""

LARGEST_BYTES: Final = 16 * 1024
"""Of a message that is kept: all of them together are 4 MiB at most."""


class Message(Protocol):
    """What is kept of a message that was sent."""

    @property
    def queue(self) -> str:
        """Where it was sent."""

    @property
    def needed(self) -> Callable[[], object] | None:
        """Tells whether it has to arrive, if it has not."""

    @property
    def number(self) -> int:
        """Its place among all that were published."""

    @property
    def published(self) -> float:
        """When that was (monotonic)."""


M = TypeVar("M", bound=Message)


class LightMessages(Generic[M]):
    """Those of one publisher, which guards them by its lock."""

    def __init__(self) -> None:
        self._of: dict[str, deque[M]] = {}
        self._count = 0
        self._rests: dict[str, int] = {}  # queue -> number of a message before which nothing of it is kept

    def __len__(self) -> int:
        return self._count

    def __contains__(self, queue: str) -> bool:
        return queue in self._of

    def rest(self, queue: str, until: int) -> None:
        """A persistent message followed one that was kept: more of them will, for a while."""
        if len(self._rests) >= KEPT:
            self._rests.clear()
        self._rests[queue] = until

    def has_room(self, queue: str, number: int) -> bool:
        """True if a message of that number can be kept; forgets what is not needed any more, of this queue first."""
        if self._rests and number < self._rests.get(queue, 0):
            return False
        kept = self._of.get(queue)
        if kept:
            while kept and not _is_needed(kept[0]):
                kept.popleft()
                self._count -= 1
            if not kept:
                del self._of[queue]
        if self._count >= KEPT:
            self.forget_ended()
        return self._count < KEPT

    def forget_ended(self) -> None:
        """Forget what is not needed any more."""
        for queue, kept in list(self._of.items()):
            left = deque(each for each in kept if _is_needed(each))
            self._count -= len(kept) - len(left)
            if left:
                self._of[queue] = left
            else:
                del self._of[queue]

    def keep(self, message: M) -> None:
        """A message is sent."""
        self._of.setdefault(message.queue, deque()).append(message)
        self._count += 1

    def take(self, queue: str) -> list[M]:
        """Return what is still needed of one queue, in order, and keep it no longer."""
        kept = self._of.pop(queue, ())
        self._count -= len(kept)
        return [each for each in kept if _is_needed(each)]

    def take_all(self) -> list[M]:
        """Return all that is still needed, in order, and keep it no longer."""
        taken = [message for queue in list(self._of) for message in self.take(queue)]
        return sorted(taken, key=lambda message: message.number)

    def queues_older_than(self, since: float) -> list[str]:
        """Return the queues of messages that were published before that and are needed; forget what is not."""
        self.forget_ended()
        return [queue for queue, kept in self._of.items() if kept[0].published <= since]


def _is_needed(message: Message) -> bool:
    return message.needed is not None and bool(message.needed())
