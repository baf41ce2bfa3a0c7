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

All of this happens under one lock, so that a drop and a fresh handle on the same object never pass each other. Nothing
is sent to queues under it (see `rabbitry.core.lock_order`).
See `rabbitry_broker.store.lives` for the other half.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from rabbitry.core.failures import orphan_items
from rabbitry.core.identity import Identity
from rabbitry.core.lives.references import References
from rabbitry.core.lives.shrinking import give_back, is_sparse, shrink
from rabbitry.exceptions import ObjectFreedError, store_error
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import CLIENT_BYTES, INDEX_ARGUMENTS, is_detached
from rabbitry_broker.records import ERROR_TAG
from rabbitry_broker.store.lives import is_special

log = logging.getLogger("rabbitry")

COLLECT_AT = 500  # objects to let go of: then a task's end waits for that
TOGETHER = 10_000  # objects that are let go of in one step: what it takes for a moment must not grow with their number


class LivesStore(Protocol):
    """What the store is told of lives; see `rabbitry_broker.store.lives.Lives`."""

    def borrow(self, client: bytes, object_ids: Sequence[bytes]) -> None:
        """A client holds objects of others."""

    def give_back(self, client: bytes, object_ids: Sequence[bytes]) -> None:
        """It holds them no more."""

    def reclaim(self, object_ids: Sequence[bytes]) -> None:
        """Objects that their owner had dropped have handles there again."""

    def drop(self, object_ids: Sequence[bytes], *, plain: bool = False) -> tuple[set[bytes], list[bytes]]:
        """Their owner lets go of objects; returns (those that others hold, those to be dropped again)."""

    def free(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Delete values and leave these records in their place."""

    def finish_graves(self, client: bytes) -> None:
        """Finish what others deleted of a client's and could not finish."""

    def leave(self, clients: Sequence[bytes], orphan: Callable[[list[bytes]], None]) -> Iterator[None]:
        """Let go of all that clients own and hold, step by step."""


class Unread(Protocol):
    """Hears of failed results that are dropped; see `UnhandledErrors`."""

    def dropped(self, key: bytes, record: bytes) -> None:
        """The last handle on a failed result went."""

    def dropped_early(self, key: bytes) -> None:
        """The last handle on a result of ours went before it came."""


class Lifetimes:
    """Registers, drops and collects objects for one client. Any thread may call anything.

    Args:
        identity: of the client.
        lives: what the store is told.
        references: counts the handles.
        values: the records of resolved objects.
        unsent: small values that are not in the store yet; one that is dropped never comes there.
        actors: the actors of this client by their creation objects.
        unread: hears of dropped failures.
        register: makes the client known as alive, before it holds anything.
        forget: hears of foreign objects without handles: nobody waits for them.
        actor_released: hears of actors that no handle is left of.
        commit_errors: commits results (id, record, ...) that will never come otherwise.

    Attributes:
        lock: held while handles and what the store knows of them change together.
        borrowed: foreign objects that the store knows we hold.
        returned: objects of ours that were dropped before: their values are in the store, and nobody tells us of them.
    """

    def __init__(
        self,
        identity: Identity,
        lives: LivesStore,
        references: References,
        *,
        values: dict[bytes, bytes],
        unsent: dict[bytes, bytes],
        actors: dict[bytes, bytes],
        unread: Unread,
        register: Callable[[], None],
        forget: Callable[[Iterable[bytes]], None],
        actor_released: Callable[[bytes], None],
        commit_errors: Callable[[Sequence[bytes]], None],
    ) -> None:
        self._id = identity.id
        self._lives = lives
        self._references = references
        self._values = values
        self._unsent = unsent
        self._actors = actors
        self._unread = unread
        self._register = register
        self._forget = forget
        self._actor_released = actor_released
        self._commit_errors = commit_errors
        self.lock = threading.RLock()
        self._gone: list[tuple[bytes, bytes | None]] = []  # (id, record) that lost their last handle
        self._unheld: deque[tuple[bytes, bool]] = deque()  # (id, may have buffers or refs) without handles, to delete
        self._settling = False
        self.borrowed: set[bytes] = set()
        self.returned: set[bytes] = set()
        self._watched: dict[bytes, list[Callable[[bytes], None]]] = {}  # who wants to hear of an object's last handle

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._id = client

    def on_last_handle_gone(self, key: bytes, callback: Callable[[bytes], None]) -> bool:
        """Call `callback(key)` once the last handle on an object of ours is gone and no task of ours needs it any more.

        On whichever thread notices, in a moment, without any lock held; never if the session ends before.

        Returns:
            False if there is no such handle, or the object is not ours: then nothing is called.
        """
        with self.lock:
            if not self._references.owns(key) or not self._references.holds(key):
                return False
            self._watched.setdefault(key, []).append(callback)
            return True

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
                self._announce([key for key in dict.fromkeys(taken) if references.holds(key)])
            except BaseException:
                references.fresh.extend(taken)
                raise
            finally:
                self._settling = False

    def _announce(self, keys: list[bytes]) -> None:
        owns = self._references.owns
        ours = [key for key in keys if owns(key) and not is_detached(key)]
        if ours:
            self._lives.reclaim(ours)
            self.returned.update(ours)
        foreign = [key for key in keys if not owns(key) and key not in self.borrowed]
        if foreign:
            self._register()
            self._lives.borrow(self._id, foreign)
            self.borrowed.update(foreign)

    def known_here(self, key: bytes) -> bool:
        """True if this client is told of the object's value: it is ours and was never dropped."""
        return key[:CLIENT_BYTES] == self._id and key not in self.returned

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
        if key[:CLIENT_BYTES] == self._id:
            self._unheld.append((key, is_special(record)))

    def count(self) -> None:
        """Count what was dropped, without telling the store yet."""
        if self._references.dropped:
            with self.lock:
                self._gone += self._references.collect(self._values)

    def collect(self) -> None:
        """Forget what lost its last handle; delete it from the store if it is ours, give it back if it is not."""
        left = len(self._references.dropped) + len(self._gone) + len(self._unheld)
        if not left:
            return
        heard: list[tuple[Callable[[bytes], None], bytes]] = []
        try:
            while left > 0:
                self._collect(heard)
                left -= TOGETHER
        finally:
            for callback, key in heard:
                try:
                    callback(key)
                except Exception:
                    log.exception("a callback for an object that went out of scope failed")

    def _collect(self, heard: list[tuple[Callable[[bytes], None], bytes]]) -> None:
        with self.lock:
            gone = self._gone[:TOGETHER]
            del self._gone[:TOGETHER]
            gone += self._references.collect(self._values, TOGETHER - len(gone))
            plain: list[bytes] = []
            special: list[bytes] = []
            given_back: list[bytes] = []
            actors: list[tuple[bytes, bytes]] = []
            for key, record in gone:
                self._sort_out(key, record, plain, special, given_back, actors)
                if self._watched and key in self._watched and not self._references.holds(key):
                    heard += [(callback, key) for callback in self._watched.pop(key)]
            for _ in range(min(len(self._unheld), TOGETHER - len(gone))):
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
        references = self._references
        if record is not None and record[0] == ERROR_TAG:
            self._unread.dropped(key, record)
        if references.holds(key):
            # A handle came back meanwhile. Its value is forgotten here, so it is read from the store.
            if references.owns(key):
                self.returned.add(key)
        elif not references.owns(key):
            self._forget((key,))
            if key in self.borrowed:
                self.borrowed.discard(key)
                given_back.append(key)
        elif self._actors and (actor := self._actors.pop(key, None)) is not None:
            if record is None:
                self._unread.dropped_early(key)
            actors.append((key, actor))
            special.append(key)
        elif key in self.returned:
            self.returned.discard(key)
            special.append(key)
        elif is_detached(key):
            if key.endswith(INDEX_ARGUMENTS):
                special.append(key)
        elif self._unsent.pop(key, None) is None:
            if record is None:
                self._unread.dropped_early(key)
            else:
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
            # First what may have more: a result that came twice may be of both kinds (a large value, and the error of a
            # group that was removed then), and what the first one has is found only as long as it stands.
            if special:
                kept, failed = self._lives.drop(special)
                self._again(failed)
                special = []
                for key, actor in actors:
                    if key not in kept:
                        self._actor_released(actor)
            if plain:
                self._again(self._lives.drop(plain, plain=True)[1])
                plain = []
            if given_back:
                self._lives.give_back(self._id, given_back)
        except RabbitryBrokerError:
            # The store is away, and all of it is done again. Dropping twice is harmless.
            if special:
                for key, actor in actors:
                    self._actors[key] = actor
                    special.remove(key)
                self._gone += [(key, None) for key, _ in actors]
            self.borrowed.update(given_back)
            self._gone += [(key, None) for key in given_back]
            self._again(plain + special)
            raise

    def _again(self, keys: list[bytes]) -> None:
        self._unheld.extend([(key, True) for key in keys])

    def free(self, keys: Sequence[bytes]) -> None:
        """Delete values at once, whoever holds them; who reads them from now on gets ObjectFreedError.

        They must be in the store: what waits to be sent is sent before.
        """
        items = [(key, records.ERROR + store_error(ObjectFreedError(key.hex()))) for key in keys]
        self._lives.free(items)
        with self._references.lock:
            for key, record in items:
                if key in self._values:
                    self._values[key] = record

    def died(self) -> list[bytes]:
        """Everybody else believes that we are dead; return what we owned and what somebody here waits for."""
        references = self._references
        with self.lock:
            self.borrowed.clear()
        with references.lock:
            return [key for key in references.counts if references.owns(key) and key not in self._values]

    def shrink(self) -> None:
        """Give memory back after very many handles were dropped. For the service thread."""
        sparse = [table for table in (self._references.counts, self._values) if is_sparse(table)]
        for table in sparse:
            with self._references.lock:  # others go through them under it
                shrink(table)
        if sparse:
            give_back()

    def finish(self) -> None:
        """Finish what others deleted of ours and could not finish themselves. For the service thread."""
        self._lives.finish_graves(self._id)

    def goodbye(self) -> None:
        """Let go of everything: what nobody else holds is deleted."""
        with self.lock:
            self._references.dropped.clear()
            self._gone.clear()
            self._unheld.clear()
            self._watched.clear()
            self.borrowed.clear()
            for _ in self._lives.leave((self._id,), self._orphan):
                pass

    def _orphan(self, keys: list[bytes]) -> None:
        self._commit_errors(orphan_items(keys))
