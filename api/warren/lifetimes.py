"""The life of objects, from a client's point of view: what it tells the store when handles come and go.

| what happens here | what the store is told |
|---|---|
| the last handle of an object of ours goes | drop: deleted, or marked as let go if others hold it |
| a result comes for which no handle is left | the same |
| a handle on a foreign object comes (in a value, by `from_hex`) | borrow: we hold it now |
| the last handle of a borrowed object goes | give back |
| a handle comes back on an object of ours that we had dropped | reclaim |
| a value with refs is put | hold: the object holds what its value refers to |

Nothing is told of refs in arguments on their way to a task: who submitted it pins them until the task has ended, and
the task's process borrows what it keeps before that end is committed (`settle`). So while a value is being unpickled,
whatever brought its refs still holds them, and there is time to register.

All of this happens under one lock, so that a drop and a fresh handle on the same object never pass each other.
See `warren_broker.store.lives` for the other half.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from warren.exceptions import (
    ObjectFreedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OwnerDiedError,
    WarrenError,
    store_error,
)
from warren_broker import records
from warren_broker.errors import WarrenBrokerError
from warren_broker.ids import CLIENT_BYTES, INDEX_ARGUMENTS, is_detached
from warren_broker.messages import Completion
from warren_broker.shared_memory import ObjectStoreFull
from warren_broker.store.lives import is_special
from warren_broker.store.spill import OutOfDisk

if TYPE_CHECKING:
    from warren.client import Client

log = logging.getLogger("warren")

COLLECT_AT = 500  # objects to let go of: then a task's end waits for that
FINISH_SECONDS = 10.0  # between two looks at what others deleted of ours and did not finish


class Lifetimes:
    """Registers, drops and collects objects for one client. Any thread may call anything."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lives = client.store.lives
        self._references = client.references
        self.lock = threading.RLock()  # held while handles and what the store knows of them change together
        self._gone: list[tuple[bytes, bytes | None]] = []  # (id, record) that lost their last handle
        self._unheld: deque[tuple[bytes, bool]] = deque()  # (id, may have buffers or refs) without handles, to delete
        self._settling = False
        self._for_ever: set[bytes] = set()
        self.borrowed: set[bytes] = set()
        self.returned: set[bytes] = set()  # of ours, dropped before: their values are in the store, and nobody tells us

    # -- handles come ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Register the objects that got a handle from elsewhere, as far as they still have one.

        To be called before whatever brought the handles lets go: a value's own ref, the end of a task.
        """
        references = self._references
        if not references.fresh and not self._settling:
            return
        with self.lock:
            self._settling = True  # another thread waits for us then, even if all fresh handles are taken
            taken = [references.fresh.popleft() for _ in range(len(references.fresh))]
            try:
                self._register([key for key in dict.fromkeys(taken) if references.holds(key)])
            except BaseException:
                references.fresh.extend(taken)
                raise
            finally:
                self._settling = False

    def _register(self, keys: list[bytes]) -> None:
        owns = self._references.owns
        ours = [key for key in keys if owns(key) and not is_detached(key)]
        if ours:
            self._lives.reclaim(ours)
            self.returned.update(ours)
        foreign = [key for key in keys if not owns(key) and key not in self.borrowed]
        if foreign:
            self._client.register()
            self._lives.borrow(self._client.id, foreign)
            self.borrowed.update(foreign)

    def known_here(self, key: bytes) -> bool:
        """True if this client is told of the object's value: it is ours and was never dropped."""
        return key[:CLIENT_BYTES] == self._client.id and key not in self.returned

    def put_with_refs(self, key: bytes, record: bytes, refs: Sequence[bytes]) -> None:
        """Store a put value that contains refs."""
        self._client.register()
        store = self._client.store
        store.when_room(lambda: store.put_records([(key, record)]))
        self._lives.hold(b"o" + key, refs)

    def keep_for_ever(self, key: bytes) -> None:
        """A ref left this process by ways that nobody can watch (`cloudpickle.dumps`): hold it as long as we live."""
        if key not in self._for_ever:
            self._for_ever.add(key)
            self._references.pin(b"out of band" + key, (key,))
        self.sent_out()

    def sent_out(self) -> None:
        """A ref's id left this process (`hex`): what it names must be findable."""
        client = self._client
        if client.unsent_puts:
            client.flush_puts()
        client.register()

    # -- handles go --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """True if `collect` has something to do."""
        return bool(self._references.dropped or self._gone or self._unheld or self._references.fresh)

    @property
    def is_much(self) -> bool:
        """True if `collect` should not be put off."""
        return len(self._gone) + len(self._unheld) > COLLECT_AT

    def unheld(self, key: bytes, record: bytes) -> None:
        """A result came for which no handle is left: it is deleted soon. Any thread, also under `references.lock`."""
        if key[:CLIENT_BYTES] == self._client.id:
            self._unheld.append((key, is_special(record)))

    def count(self) -> None:
        """Count what was dropped, without telling the store yet."""
        if self._references.dropped:
            with self.lock:
                self._gone += self._references.collect(self._client.inbox.values)

    def collect(self) -> None:
        """Forget what lost its last handle; delete it from the store if it is ours, give it back if it is not."""
        if not (self._references.dropped or self._gone or self._unheld):
            return
        with self.lock:
            self.count()
            gone, self._gone = self._gone, []
            plain: list[bytes] = []
            special: list[bytes] = []
            given_back: list[bytes] = []
            actors: list[tuple[bytes, bytes]] = []
            for key, record in gone:
                self._sort_out(key, record, plain, special, given_back, actors)
            while self._unheld:
                key, may_have_more = self._unheld.popleft()
                if self._references.holds(key):
                    # Since it came, a handle was found in another value (the items of a dynamic task in its result).
                    self.returned.add(key)
                else:
                    (special if may_have_more else plain).append(key)
            self._tell(plain, special, given_back, actors)

    def _sort_out(
        self,
        key: bytes,
        record: bytes | None,
        plain: list[bytes],
        special: list[bytes],
        given_back: list[bytes],
        actors: list[tuple[bytes, bytes]],
    ) -> None:
        """Decide what the store is told of one object that lost its last handle."""
        client, references = self._client, self._references
        if references.holds(key):
            # A handle came back meanwhile. Its value is forgotten here, so it is read from the store.
            if references.owns(key):
                self.returned.add(key)
        elif not references.owns(key):
            if key in self.borrowed:
                self.borrowed.discard(key)
                given_back.append(key)
        elif client.actors.owned and (actor := client.actors.collected(key)) is not None:
            actors.append((key, actor))
            special.append(key)
        elif key in self.returned:
            self.returned.discard(key)
            special.append(key)
        elif is_detached(key):
            if key.endswith(INDEX_ARGUMENTS):
                special.append(key)
        elif client.unsent_puts.pop(key, None) is None and record is not None:
            (special if is_special(record) else plain).append(key)
        # Else it was never sent, or is not there yet: then it is dropped when it comes.

    def _tell(
        self,
        plain: list[bytes],
        special: list[bytes],
        given_back: list[bytes],
        actors: list[tuple[bytes, bytes]],
    ) -> None:
        try:
            if plain:
                self._again(self._lives.drop(plain, plain=True)[1])
                plain = []
            if special:
                kept, failed = self._lives.drop(special)
                self._again(failed)
                special = []
                for key, actor in actors:
                    if key not in kept:
                        self._client.actors.handles_gone(actor)
            if given_back:
                self._lives.give_back(self._client.id, given_back)
        except WarrenBrokerError:
            # The store is away. Dropping twice is harmless; what was borrowed goes when our lease does.
            self._again(plain + special)
            raise

    def _again(self, keys: list[bytes]) -> None:
        self._unheld.extend([(key, True) for key in keys])

    def free(self, keys: Sequence[bytes]) -> None:
        """Delete values at once, whoever holds them; who reads them from now on gets ObjectFreedError."""
        client = self._client
        client.outbox.flush()
        client.flush_puts()
        items = [(key, records.ERROR + store_error(ObjectFreedError(key.hex()))) for key in keys]
        self._lives.free(items)
        with self._references.lock:
            for key, record in items:
                if key in client.inbox.values:
                    client.inbox.values[key] = record

    def died(self) -> None:
        """Everybody else believes that we are dead: whoever waits for what we owned is told so."""
        client, references = self._client, self._references
        with self.lock:
            self.borrowed.clear()
        with references.lock:
            waiting = [key for key in references.counts if references.owns(key) and key not in client.inbox.values]
        client.in_flight = 0
        client.inbox.accept(Completion(b"", 0, 0.0, orphan_items(waiting)))
        client.inbox.wake()

    def finish(self) -> None:
        """Finish what others deleted of ours and could not finish themselves. For the service thread."""
        self._lives.finish_graves(self._client.id)

    def goodbye(self) -> None:
        """Let go of everything: what nobody else holds is deleted."""
        with self.lock:
            self._references.dropped.clear()
            self._gone.clear()
            self._unheld.clear()
            self.borrowed.clear()
            for _ in self._lives.leave((self._client.id,), self._orphan):
                pass

    def _orphan(self, keys: list[bytes]) -> None:
        self._client.commit_errors(orphan_items(keys))


def orphan_record(object_id: bytes) -> bytes:
    """Return the record of a result that will never come since its owner is gone."""
    return records.ERROR + store_error(OwnerDiedError(object_id.hex()))


def orphan_items(object_ids: Sequence[bytes]) -> list[bytes]:
    """Return results (id, record, id, record, ...) that say of each object that it will never come."""
    return [each for object_id in object_ids for each in (object_id, orphan_record(object_id))]


def store_full(error: ObjectStoreFull) -> WarrenError:
    """Return the public error for a store that has no room."""
    if isinstance(error, OutOfDisk):
        return OutOfDiskError(str(error))
    return ObjectStoreFullError(str(error))
