"""Values that are put: small ones are kept back for a moment and sent together, large ones are stored at once.

HOT PATH (`benchmarks/`: `put_small`, `put_large`). What a ref names must be in the store before the ref leaves this
process: whoever passes one on calls `send` or `sent_out` first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rabbitry import program
from rabbitry.core.failures import store_full
from rabbitry.core.lives.references import DELETE_AT, References
from rabbitry.object_ref import ObjectRef, made_here
from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, TaskIds
from rabbitry_broker.serialization import Packed, pack
from rabbitry_broker.shared_memory import ObjectStoreFull

UNSENT_PUTS = 500  # small puts kept back: then the caller sends them
UNSENT_BYTES = 256 * 1024  # of them

log = logging.getLogger("rabbitry")


class PutStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def put_records(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Store small values."""

    def put_packed(self, object_id: bytes, packed: Packed, *, copy: int) -> bytes:
        """Store a value of any size; return its record. `copy`: when hosts get it that do not ask."""

    def when_room(self, action: Callable[[], Any], *, patience: float | None = None) -> Any:
        """Run `action`; while the store is full, wait and run it again."""

    def seconds_left(self) -> float:
        """Return how long this thread may wait for a lock; -1 for ever."""


class Lock(Protocol):
    """A lock that is waited for so long at most."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False if that took too long."""

    def release(self) -> None:
        """Let go of it."""


class Puts:
    """Stores values for one client. Any thread may call anything.

    Args:
        ids: of puts, which count as tasks.
        store: where values go.
        references: counts handles.
        values: the records of resolved objects.
        unsent: small values that were kept back, by id (shared with what lets go of objects).
        lock: held while handles and what the store knows of them change together.
        hold: has the store know what a value refers to: (holder, objects).
        require_room: waits until a small value of so many bytes may be written.
        register: makes the client known as alive, before anything can depend on it.
        collect: lets go of what was dropped: it may be the memory to use.
        kick: has the service thread send what was kept back.
        interrupts: holds back the cancellation of what runs.
        copy: when copies of large values are made (`records.COPY_ASKED`, ...).
    """

    def __init__(
        self,
        ids: TaskIds,
        store: PutStore,
        references: References,
        *,
        values: dict[bytes, bytes],
        unsent: dict[bytes, bytes],
        lock: Lock,
        hold: Callable[[bytes, Sequence[bytes]], None],
        require_room: Callable[[int], None],
        register: Callable[[], None],
        collect: Callable[[], None],
        kick: Callable[[], None],
        interrupts: AbstractContextManager[None],
        copy: int,
    ) -> None:
        self._copy = copy
        self._ids = ids
        self._store = store
        self._references = references
        self._values = values
        self._lock = lock
        self._hold = hold
        self._require_room = require_room
        self._register = register
        self._collect = collect
        self._kick = kick
        self._interrupts = interrupts
        self._unsent_bytes = 0
        self._for_ever: set[bytes] = set()  # held as long as this process lives
        self.unsent = unsent

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value; see `rabbitry.put`.

        Raises:
            TypeError: `value` is an ObjectRef, or cannot be pickled.
            ObjectStoreFullError: no room.
        """
        if type(value) is ObjectRef:
            raise TypeError(
                f"Calling 'put' on an {program.name()}.ObjectRef is not allowed: it is a handle already. "
                "Put the ref inside a list, or pass it as it is."
            )
        if isinstance(value, ObjectRef):
            raise TypeError(f"Calling 'put' on an {program.name()}.ObjectRef is not allowed.")
        packed = pack(value)
        key = self._ids.next() + FIRST_INDEX
        if packed.refs:
            self.send(packed.refs)
        unsent = self.unsent
        if packed.buffers or len(packed.data) > records.INLINE_LIMIT_BYTES:
            self._register()
            self._collect()  # what was dropped may be the memory to use
            record = self.store_now(key, packed)
        elif packed.refs:
            record = records.containing(packed.refs, packed.data)
            self.require_room(len(record))
            self._put_with_refs(key, record, packed.refs)
        else:
            record = records.plain(packed.data)
            self.require_room(len(record))
            unsent[key] = record
            self._unsent_bytes += len(record)
        ref = made_here(key, self._references)
        self._values[key] = record
        waiting = len(unsent)
        if waiting >= UNSENT_PUTS or self._unsent_bytes > UNSENT_BYTES:
            try:
                self.flush()
            except ObjectStoreFull as error:
                raise store_full(error) from error
        elif waiting == 1:
            self._kick()
        if len(self._references.dropped) > DELETE_AT:
            self._collect()
        return ref

    def _put_with_refs(self, key: bytes, record: bytes, refs: Sequence[bytes]) -> None:
        """Store a small value that contains refs at once.

        Raises:
            ObjectStoreFullError: no room.
        """
        self._register()
        try:
            self._store.when_room(lambda: self._store.put_records([(key, record)]))
            self._hold(b"o" + key, refs)
        except ObjectStoreFull as error:
            raise store_full(error) from error

    def require_room(self, size: int) -> None:
        """Return when a small value may be written.

        Raises:
            ObjectStoreFullError: no room.
        """
        try:
            self._require_room(size)
        except ObjectStoreFull as error:
            raise store_full(error) from error

    def store_now(self, key: bytes, packed: Packed) -> bytes:
        """Store a value of ours at once; return its record.

        Raises:
            ObjectStoreFullError: no room.
        """
        try:
            with self._interrupts:
                record = self._store.put_packed(key, packed, copy=self._copy)
                if packed.refs:
                    self._hold(b"o" + key, packed.refs)
        except ObjectStoreFull as error:
            raise store_full(error) from error
        return record

    def send(self, refs: Sequence[bytes]) -> None:
        """Refs leave this process with a value: what they name must be in the store before.

        Raises:
            ObjectStoreFullError: no room.
        """
        unsent = self.unsent
        if unsent and any(ref in unsent for ref in refs):
            try:
                self.flush()
            except ObjectStoreFull as error:
                raise store_full(error) from error

    def sent_out(self) -> None:
        """A ref's id left this process (`hex`): what it names must be findable."""
        if self.unsent:
            self.flush()
        self._register()

    def keep_for_ever(self, key: bytes) -> None:
        """A ref left this process by ways that nobody can watch (`cloudpickle.dumps`): hold it as long as we live."""
        if key not in self._for_ever:
            self._for_ever.add(key)
            self._references.pin(b"out of band" + key, (key,))
        self.sent_out()

    def flush(self, *, wait: bool = True) -> None:
        """Send small puts that were kept back.

        Args:
            wait: wait for room if the store is full.

        Raises:
            ObjectStoreFull: there is none; what was not sent is kept.
        """
        if not self.unsent:
            return
        self._register()
        if not self._lock.acquire(timeout=self._store.seconds_left()):
            return  # a thread with a deadline does not wait for one that waits for the server
        try:
            # They stay unsent until they are sent: a failure loses none, and a drop meanwhile waits for the lock.
            sent: list[tuple[bytes, bytes]] = []

            def send() -> None:
                # Looked up each time: what makes room in between drops some, and nobody would delete those again.
                sent[:] = self.unsent.items()
                if sent:
                    self._store.put_records(sent)

            self._store.when_room(send, patience=None if wait else 0.0)
            for key, _ in sent:
                self.unsent.pop(key, None)
            self._unsent_bytes = 0
        finally:
            self._lock.release()
