"""Ends that this client commits itself: errors, where no results stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from rabbitry import error_types
from rabbitry.core.ports import Publishes
from rabbitry_broker.events import Recorder
from rabbitry_broker.ids import TASK_BYTES, is_detached, owner_of
from rabbitry_broker.messages import Completion, encode_completion
from rabbitry_broker.records import ERROR_TAG
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.results import OWNER_GONE

FLUSH_SECONDS = 5.0  # for confirms; what is not confirmed then keeps its spec, and is published again by others


class EndStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def commit(self, owner: bytes, items: Sequence[bytes], entry: bytes, *, require_owner: bool) -> list[Any]:
        """Commit results where none stand."""

    def dependants(self, owner: bytes, left: Sequence[Any]) -> tuple[list[Any], list[tuple[bytes, bytes]]]:
        """Read what `commit` left to do."""

    def launched(self, dependants: Sequence[Any]) -> None:
        """Forget the specs of what is on its queue for certain."""

    def tell(self, client: bytes, entry: bytes) -> None:
        """Put an entry on a client's inbox."""


class Ends:
    """Commits errors, and sees to those who waited for the results. Any thread may use it.

    Args:
        store: to which they go.
        publisher: sends what they release.
        signer: seals notes.
        events: notes which tasks have failed.
    """

    def __init__(self, store: EndStore, publisher: Publishes, signer: Signer, events: Recorder | None = None) -> None:
        self._events = events
        self._store = store
        self._publisher = publisher
        self._signer = signer

    def commit(self, items: Sequence[bytes]) -> None:
        """Commit errors (id, record, ...) where no results stand; publish what waited for them, tell who waits.

        Nothing is written for an owner that is gone, as this client is after its goodbye: nobody would delete it.
        """
        self._commit(items, require_owner=not is_detached(items[0]))

    def commit_orphans(self, items: Sequence[bytes]) -> None:
        """Do the same for what its owner, who is gone or about to be, left to those who wait for it."""
        self._commit(items, require_owner=False)

    def _commit(self, items: Sequence[bytes], *, require_owner: bool) -> None:
        owner = owner_of(items[0])
        store = self._store
        left = store.commit(owner, items, b"", require_owner=require_owner)
        if left and left[0] == OWNER_GONE:
            return
        publish, tell = store.dependants(owner, left)
        for _, frame, queue, priority, _, _ in publish:
            self._publisher.publish(queue, frame, priority=priority)
        if publish and self._publisher.flush(FLUSH_SECONDS):
            store.launched(publish)
        records_of = dict(zip(items[::2], items[1::2], strict=True))
        if self._events is not None and self._events.on:
            for task_id, record in {key[:TASK_BYTES]: record for key, record in records_of.items()}.items():
                if record[0] == ERROR_TAG:
                    self._events.failed(b"", task_id, 0, *error_types.of_stored(record[1:]))
        for waiter, suffix in tell:
            note = Completion(b"", 0, 0.0, [owner + suffix, records_of[owner + suffix]])
            store.tell(waiter, encode_completion(self._signer, waiter, note))
