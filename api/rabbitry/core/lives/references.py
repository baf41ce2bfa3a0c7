"""Which objects this client has handles on.

HOT PATH (`benchmarks/`: every workload makes and drops refs). A handle is one `ObjectRef` instance, or one pin: a
task in flight pins the refs in its arguments until it ends. `ObjectRef.__del__` may run in any thread at any
instruction, also inside our own locks, so it only appends to a deque; `collect` does the work later.

What becomes of objects that gain or lose their last handle is decided in `rabbitry.core.lives.lifetimes`.
"""

from __future__ import annotations

import threading
from collections import deque

from rabbitry_broker.ids import CLIENT_BYTES

DELETE_AT = 2000  # dropped handles: then whoever submits or puts collects them itself


class References:
    """Counts handles. Any thread may call anything; `dropped.append` is the only thing `__del__` does.

    Attributes:
        lock: held while counts and resolved values change together.
        dropped: handles that are gone and not yet counted.
        counts: handles on each object.
        passed: objects that went into arguments, as long as there are handles on them.
        fresh: objects that got their first handle from elsewhere (unpickled, `from_hex`) and are not registered yet.
    """

    def __init__(self, owned_prefixes: frozenset[bytes]) -> None:
        self.lock = threading.RLock()  # a `__del__` of the user's may get here while we hold it
        self.dropped: deque[bytes] = deque()
        self.counts: dict[bytes, int] = {}
        self.fresh: deque[bytes] = deque()
        self.passed: set[bytes] = set()
        self._owned = owned_prefixes
        self._pins: dict[bytes, tuple[bytes, ...]] = {}

    def become(self, owned_prefixes: frozenset[bytes]) -> None:
        """What it is for: `become` of the whole."""
        self._owned = owned_prefixes

    def owns(self, object_id: bytes) -> bool:
        """True if this client made the object."""
        return object_id[:CLIENT_BYTES] in self._owned

    def new(self, object_id: bytes) -> None:
        """Count the first handle of an object just made (nobody else can know its id: no lock)."""
        self.counts[object_id] = 1

    def add(self, object_id: bytes) -> None:
        """Count one more handle of an object that may be known."""
        with self.lock:
            count = self.counts.get(object_id, 0)
            self.counts[object_id] = count + 1
        if not count:
            self.fresh.append(object_id)

    def pin(self, holder: bytes, object_ids: tuple[bytes, ...]) -> None:
        """Hold `object_ids` until `unpin(holder)`."""
        with self.lock:
            for object_id in object_ids:
                self.counts[object_id] = self.counts.get(object_id, 0) + 1
            self._pins[holder] = (*self._pins.get(holder, ()), *object_ids)
            self.passed.update(object_ids)

    def unpin(self, holder: bytes) -> None:
        """Drop what `pin` held for `holder` (a no-op for one without pins)."""
        if self._pins:
            held = self._pins.pop(holder, None)
            if held:
                self.dropped.extend(held)

    def holds(self, object_id: bytes) -> bool:
        """True while a handle or pin of the object exists here."""
        return object_id in self.counts

    def collect(self, values: dict[bytes, bytes], most: int | None = None) -> list[tuple[bytes, bytes | None]]:
        """Count what was dropped; return (id, resolved value if there was one) of what lost its last handle.

        Args:
            values: the resolved values; those of the objects returned are taken out.
            most: how many handles to count; None for all.
        """
        dropped, counts, passed = self.dropped, self.counts, self.passed
        gone: list[tuple[bytes, bytes | None]] = []
        with self.lock:
            for _ in range(len(dropped) if most is None else min(most, len(dropped))):
                try:
                    object_id = dropped.popleft()
                except IndexError:
                    break
                count = counts.get(object_id, 0) - 1
                if count > 0:
                    counts[object_id] = count
                elif counts.pop(object_id, None) is not None:
                    if passed:
                        passed.discard(object_id)
                    gone.append((object_id, values.pop(object_id, None)))
        return gone
