"""The queues of dead actors: calls on them fail at once with the cause of death, for a while; then they are deleted.

Clients find out from the actor's record. `burials` in Redis names the actors whose queues are still there, and the
record its *keeper*, the node that sees to this one; when that node is gone, another takes over.
"""

from __future__ import annotations

import time
from typing import Final

from rabbitry.core.failures import owner_gone_cause
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.queues.protocol import Consumer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_workers.node.actors.hosted import PREFETCH
from rabbitry_workers.node.model.node import Node

KEPT_SECONDS: Final = 60.0


class Burials:
    """Loop thread only.

    Args:
        node: this one.
        consumer: of actors' queues.
        actors: their records.

    Attributes:
        graves: dead actors that this node answers for: the record that their calls get, and since when.
    """

    def __init__(self, node: Node, consumer: Consumer, actors: ActorRecords) -> None:
        self._node = node
        self._consumer = consumer
        self._actors = actors
        self.graves: dict[bytes, tuple[bytes, float]] = {}

    def add(self, actor_id: bytes, record: bytes) -> None:
        """Answer calls on a dead actor with `record` from now on."""
        self.graves[actor_id] = (record, time.monotonic())
        self._consumer.subscribe(names.actor_queue(actor_id), prefetch=PREFETCH, exclusive=True)

    def run_once(self) -> None:
        """Delete the queues of those that have been dead for long enough."""
        now = time.monotonic()
        self._delete([actor_id for actor_id, (_, since) in self.graves.items() if now - since > KEPT_SECONDS])

    def close(self) -> None:
        """The node is gone in a moment: delete all queues."""
        self._delete(list(self.graves))

    def _delete(self, actor_ids: list[bytes]) -> None:
        consumer = self._consumer
        for actor_id in actor_ids:
            queue = names.actor_queue(actor_id)
            # First, or the consumer would declare the queue that is deleted under it anew.
            consumer.unsubscribe(queue)
            consumer.delete_queue(queue)
        self._actors.buried(actor_ids)
        for actor_id in actor_ids:
            self.graves.pop(actor_id, None)

    def orphaned(self) -> list[tuple[bytes, bytes]]:
        """Return (id, record for its calls) of dead actors whose keeper is gone; this node is the next one.

        Raises:
            StoreError: among others, if a record is of a wrong type.
        """
        store, keys, me = self._node.store, self._node.keys, self._node.id
        ids = [actor_id for actor_id in self._actors.burials() if actor_id not in self.graves]
        keepers = [keeper for (keeper,) in store.pipeline([(b"HMGET", keys.actor(each), "keeper") for each in ids])]
        living = store.pipeline([(b"EXISTS", keys.node(keeper or b"")) for keeper in keepers])
        found: list[tuple[bytes, bytes]] = []
        done: list[bytes] = []
        for actor_id, keeper, lives in zip(ids, keepers, living, strict=True):
            if not keeper or keeper == me:
                done.append(actor_id)  # its record has expired, or it was entered when we had buried it
            elif not lives:
                found.append((actor_id, self.adopt(actor_id)))
        self._delete(done)
        return found

    def adopt(self, actor_id: bytes) -> bytes:
        """Make this node the keeper of a dead actor that has none; returns the record for its calls."""
        self._actors.to_bury(actor_id, self._node.id)
        return records.ERROR + (self._actors.cause(actor_id) or owner_gone_cause(actor_id))
