"""Tells of failures that nobody reads: the last handle on a failed result went, and nobody had asked for its value.

As in Ray, `wait` counts as reading, and so do a callback or an `await` that was there when the failure came. So does
passing the ref on: whoever needed the value fails in turn, and tells of that. What the user did himself (a
cancellation, a killed actor) is not told. An actor whose constructor raised is told of at once: its creation has no ref
that could be read.

Results come and go under locks, so there it is only noted what is to be told; `run_once`, under none, loads the errors.
Nothing here costs anything for a task that succeeds and whose ref is kept until its result comes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container, Iterable
from typing import Final, Protocol

from rabbitry import environment
from rabbitry.exceptions import ActorDiedError, TaskCancelledError, TaskError, WorkerCrashedError, load_task_error
from rabbitry_broker.ids import TASK_BYTES
from rabbitry_broker.records import ERROR_TAG

log = logging.getLogger("rabbitry")

AWAITED_KEPT: Final = 100_000
DUE_KEPT: Final = 1000
TOLD_KEPT: Final = 1000


class Handles(Protocol):
    """Knows whose objects are; see `References`."""

    @property
    def passed(self) -> set[bytes]:
        """Objects that went into arguments."""

    def owns(self, object_id: bytes) -> bool:
        """True if this client made the object."""


class UnhandledErrors:
    """Knows which failed results were not read. Any thread may call anything; only `run_once` does more than note.

    Args:
        references: whose objects; those of others are told of by their owners.
        creations: ids of the creation objects of this client's actors.

    Attributes:
        due: (object, record) of what is to be told.
        unread: failed results with handles, of which nobody has learnt.
    """

    def __init__(self, references: Handles, creations: Container[bytes]) -> None:
        self._creations = creations
        self._owns = references.owns
        self._passed_on = references.passed
        self._ignored = environment.is_on(*environment.IGNORE_UNHANDLED_ERRORS)
        self.unread: set[bytes] = set()  # until they are read or dropped
        self._awaited: set[bytes] = set()  # dropped before their results came: until they come
        self.due: deque[tuple[bytes, bytes]] = deque(maxlen=DUE_KEPT)
        self._told: deque[object] = deque(maxlen=TOLD_KEPT)  # tasks and actors

    def came(self, key: bytes, record: bytes) -> None:
        """A failed result came, and there are handles on it."""
        if self._ignored:
            return
        if key in self._creations:
            self.due.append((key, record))
        elif key not in self._passed_on and self._owns(key):
            self.unread.add(key)

    def came_unheld(self, key: bytes, record: bytes) -> None:
        """A result came for which there is no handle any more (or none yet: an item of a stream)."""
        if key in self._awaited:
            self._awaited.discard(key)
            if record[0] == ERROR_TAG:
                self.due.append((key, record))

    def read(self, keys: Iterable[bytes]) -> None:
        """Somebody learnt of these failures."""
        if self.unread:
            self.unread.difference_update(keys)

    def dropped(self, key: bytes, record: bytes) -> None:
        """The last handle on a failed result went."""
        if key in self.unread:
            self.unread.discard(key)
            self.due.append((key, record))

    def dropped_early(self, key: bytes) -> None:
        """The last handle on a result of ours went before it came."""
        self.unread.discard(key)
        if not self._ignored:
            if len(self._awaited) >= AWAITED_KEPT:
                self._awaited.clear()  # only what was lost with a connection stays so long
            self._awaited.add(key)

    def run_once(self) -> None:
        """Tell of what is due, once for each task. Not to be called under a lock: it runs code of the user's."""
        while self.due:
            try:
                key, record = self.due.popleft()
            except IndexError:
                return  # another thread was faster
            error = load_task_error(record[1:])
            told_as: object = key[:TASK_BYTES]
            if isinstance(error, ActorDiedError) and error.actor_init_failed:
                told_as = error.actor_id  # its calls fail with the same
            elif isinstance(error, TaskCancelledError) or not isinstance(error, (TaskError, WorkerCrashedError)):
                continue
            if told_as not in self._told:
                self._told.append(told_as)
                log.error("Unhandled error (suppress with %s=1): %s", environment.IGNORE_UNHANDLED_ERRORS[0], error)
