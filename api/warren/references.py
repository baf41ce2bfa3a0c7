"""Which objects this client holds, and their release when the last handle goes.

HOT PATH (`benchmarks/`: every workload makes and drops refs). A handle is one `ObjectRef` instance, or one pin: a task
in flight pins the refs in its arguments until it ends. `ObjectRef.__del__` may run in any thread at any instruction,
also inside our own locks, so it only appends to a deque; `collect` does the work later.

An object of ours that nobody else holds is deleted when its last handle goes. Foreign objects (borrowed: their id names
another owner) are registered with the store while we hold them, and released when their last handle goes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from warren_broker.ids import CLIENT_BYTES


class References:
    """Counts handles. Any thread may call anything; `dropped.append` is the only thing `__del__` does."""

    def __init__(self, owned_prefixes: frozenset[bytes]) -> None:
        self.dropped: deque[bytes] = deque()
        self.counts: dict[bytes, int] = {}
        self._owned = owned_prefixes
        self._lock = threading.Lock()
        self._pins: dict[bytes, tuple[bytes, ...]] = {}

    def owns(self, object_id: bytes) -> bool:
        """True if this client made the object."""
        return object_id[:CLIENT_BYTES] in self._owned

    def new(self, object_id: bytes) -> None:
        """Count the first handle of an object just made (nobody else can know its id: no lock)."""
        self.counts[object_id] = 1

    def add(self, object_id: bytes) -> bool:
        """Count one more handle of an object that may be known; True if it was not held before."""
        with self._lock:
            count = self.counts.get(object_id, 0)
            self.counts[object_id] = count + 1
            return not count

    def pin(self, task_id: bytes, object_ids: tuple[bytes, ...]) -> None:
        """Hold `object_ids` until `task_ended(task_id)`."""
        with self._lock:
            for object_id in object_ids:
                self.counts[object_id] = self.counts.get(object_id, 0) + 1
            self._pins[task_id] = (*self._pins.get(task_id, ()), *object_ids)

    def task_ended(self, task_id: bytes) -> None:
        """Drop what `pin` held for the task (a no-op for one without pins)."""
        if self._pins:
            held = self._pins.pop(task_id, None)
            if held:
                self.dropped.extend(held)

    def holds(self, object_id: bytes) -> bool:
        """True while a handle or pin of the object exists here."""
        return object_id in self.counts

    def borrowed(self) -> list[bytes]:
        """Return the foreign objects that are held now."""
        with self._lock:
            return [object_id for object_id in self.counts if object_id[:CLIENT_BYTES] not in self._owned]

    def collect(self) -> list[bytes]:
        """Count what was dropped; return the ids whose last handle went."""
        dropped, counts = self.dropped, self.counts
        gone: list[bytes] = []
        if not dropped:
            return gone
        with self._lock:
            for _ in range(len(dropped)):
                try:
                    object_id = dropped.popleft()
                except IndexError:
                    break
                count = counts.get(object_id, 0) - 1
                if count > 0:
                    counts[object_id] = count
                elif counts.pop(object_id, None) is not None:
                    gone.append(object_id)
        return gone

    def drop(self, object_ids: Iterable[bytes]) -> None:
        """Drop one handle of each."""
        self.dropped.extend(object_ids)
