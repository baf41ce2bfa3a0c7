"""Publishing what must not be lost, though Redis or the broker may be away.

A queue is announced before something is published to it for the first time. Released tasks are published before the
deliveries of what released them are acknowledged: until the broker has them, those would bring them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from rabbitry_broker.errors import RabbitryBrokerError, StoreError, is_wrong_type
from rabbitry_broker.queues.protocol import OnConfirm, Publisher
from rabbitry_broker.store.specs import Dependant
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Settle
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.notes import clear_notes
from rabbitry_workers.node.services.wrong_types import put_aside_wrong_types

AGAIN_SECONDS: Final = 1.0  # until the next try when a server is away

log = logging.getLogger("rabbitry.node")


def announce_queue(node: Node, queue: str) -> None:
    """Tell every node of a queue that this one publishes to first."""
    try:
        node.store.announce_queue(queue)
    except StoreError as error:
        if not (is_wrong_type(error) and put_aside_wrong_types(node.store)):
            raise
        node.store.announce_queue(queue)


class Publishing:
    """Loop thread only.

    Args:
        node: which publishes.
        publisher: sends.
        settle: of deliveries.
        may_be_abandoned: True for a queue that nodes may have stopped to look after: it is announced again.
    """

    def __init__(
        self, node: Node, publisher: Publisher, settle: Settle, may_be_abandoned: Callable[[str], bool]
    ) -> None:
        self._node = node
        self._publisher = publisher
        self._settle = settle
        self._may_be_abandoned = may_be_abandoned

    def publish_dependants(self, helds: list[Held], dependants: list[Dependant], *, noted: bool = False) -> None:
        """Publish released tasks; their releasers' deliveries stay unacknowledged until the broker has them.

        Args:
            helds: what the releasers belong to.
            dependants: the released.
            noted: they may be noted as continuations, which stand for them until then.
        """
        for held in helds:
            held.outstanding += 1
        left = len(dependants)
        loop = self._node.loop

        def confirmed() -> None:
            nonlocal left
            left -= 1
            if not left:
                loop.add_callback(settle)

        def settle() -> None:
            try:
                if noted:
                    clear_notes(self._node, self._node.id, dependants)
                else:
                    self._node.store.launched(dependants)
            except RabbitryBrokerError as error:
                log.warning("cannot yet forget tasks that are on their queues: %s", error)
                loop.call_later(AGAIN_SECONDS, settle)
                return
            for held in helds:
                self._settle(held, 1)

        for _, frame, queue, priority, _, _ in dependants:
            self.publish(queue, frame, priority, confirmed)

    def publish(self, queue: str, frame: bytes, priority: int, confirmed: OnConfirm | None = None) -> None:
        """Publish what must not be lost. A queue that is new has to be announced first, and Redis may be away."""
        try:
            self.publish_now(queue, frame, priority, confirmed)
        except RabbitryBrokerError as error:
            log.warning("cannot yet publish to %s: %s", queue, error)
            self._node.loop.call_later(AGAIN_SECONDS, lambda: self.publish(queue, frame, priority, confirmed))

    def publish_now(self, queue: str, frame: bytes, priority: int, confirmed: OnConfirm | None = None) -> None:
        """Publish, or raise if Redis or the broker is away."""
        if self._may_be_abandoned(queue):
            announce_queue(self._node, queue)
        self._publisher.publish(queue, frame, priority=priority, on_confirm=confirmed)

    def flush(self, timeout: float) -> bool:
        """Wait until the broker has confirmed everything; False if it has not after so many seconds."""
        return self._publisher.flush(timeout)
