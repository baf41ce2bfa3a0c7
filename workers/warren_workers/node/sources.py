"""The queues that a node takes work from, and how much it takes of each.

    OPEN --no task of it started for STUCK_SECONDS, and one waits--> PAUSED
    OPEN <--room for one, and none waits here--------------------- PAUSED

A source begins wide: many messages may be outstanding, which is what short tasks need. One that had to pause comes
back narrow, with as many messages as there is room for, so that a busy node hoards no long tasks: they wait on
the queue, where any node that gets room finds them, the most urgent first. It widens again when its messages are done
quickly.

What a paused node holds already it keeps, in order, unless another node could start it (see `handback`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from warren_broker.queues import names
from warren_broker.queues.names import QueueKind, QueueName
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent
    from warren_workers.node.intake import Held

STUCK_SECONDS: Final = 0.1
ORPHAN_SECONDS: Final = 60.0  # that the queue of a node that is gone is looked after, since its last message
QUICK_SECONDS: Final = 0.1  # a message that is done in this time asks for more of its kind


log = logging.getLogger("warren.node")


class Source:
    """One queue that this node can serve.

    Attributes:
        queue: its name.
        place: what the name says.
        request: what its tasks need; None for a node's own queue, where all kinds meet, and which never pauses.
        open: False while it is paused.
        window: messages that may be outstanding.
        outstanding: messages that are.
        filled: the window was used up since it was set.
        prioritized: tasks with priorities use it, so that it matters which of them come first.
        foreign: the queue of another node, which is gone; see `affinity`.
        taken_at: when its last message came.
    """

    __slots__ = (
        "filled",
        "foreign",
        "open",
        "outstanding",
        "place",
        "prioritized",
        "queue",
        "request",
        "taken_at",
        "window",
    )

    def __init__(self, queue: str, place: QueueName, window: int) -> None:
        self.queue = queue
        self.place = place
        self.request = ResourceRequest.parse(place.resource_class) if place.kind is QueueKind.TASK else None
        self.open = True
        self.window = window
        self.outstanding = 0
        self.filled = False
        self.prioritized = False
        self.foreign = False
        self.taken_at = time.monotonic()


class Sources:
    """The sources of one node. Loop thread only."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.widest = max(8, 4 * agent.slots)
        self.by_queue: dict[str, Source] = {}
        self._narrow: set[Source] = set()
        self._abandoned: set[str] = set()
        self._closed = False

    # -- which -------------------------------------------------------------------------------------------------------

    def consider(self, queue: str, *, announced: bool = True, prioritized: bool = False) -> None:
        """Consume a queue if this node can serve it.

        Args:
            queue: its name.
            announced: somebody is about to publish to it; False if it is only known to exist.
            prioritized: its tasks have priorities.
        """
        if self._closed or (queue in self._abandoned and not announced):
            return
        self._abandoned.discard(queue)
        known = self.by_queue.get(queue)
        if known is not None:
            known.prioritized = known.prioritized or prioritized
            return
        try:
            place = names.parse(queue)
            foreign = place.kind is QueueKind.NODE and place.id != self._agent.node_id
            if not (self._agent.affinity.is_orphaned(place) if foreign else self.can_serve(place)):
                return
            source = self.by_queue[queue] = Source(queue, place, self.widest)
            self._begin_narrow(source)
        except ValueError as error:
            log.warning("an unknown kind of queue was announced: %s", error)
            return
        source.foreign = foreign
        source.prioritized = prioritized
        self._agent.consumer.subscribe(queue, prefetch=source.window)

    def _begin_narrow(self, source: Source) -> None:
        """Among several readers, Redis streams give all to the first. RabbitMQ deals messages out in turn."""
        agent = self._agent
        if agent.endpoint.embedded and agent.heartbeat.has_others and source.request is not None:
            source.window = max(1, min(self.widest, agent.ledger.room(source.request)))
            self._narrow.add(source)

    def can_serve(self, place: QueueName) -> bool:
        """True if the named queue's tasks fit this node's totals and labels."""
        if place.kind is not QueueKind.TASK:
            return place.kind is QueueKind.NODE and place.id == self._agent.node_id
        if place.selector and not self._agent.config.matches(place.selector):
            return False
        return ResourceRequest.parse(place.resource_class).fits_in(self._agent.totals)

    def forget(self, queue: str) -> None:
        """Consume a queue no more."""
        source = self.by_queue.pop(queue, None)
        if source is not None:
            self._narrow.discard(source)
            source.open = False
            self._agent.consumer.unsubscribe(queue)

    def tidy(self) -> None:
        """Look no more after the queues of nodes that are back, or long gone; call it every few seconds."""
        now = time.monotonic()
        for source in [source for source in self.by_queue.values() if source.foreign]:
            if not self._agent.affinity.is_orphaned(source.place):
                self.forget(source.queue)
            elif not source.outstanding and now - source.taken_at > ORPHAN_SECONDS:
                self.forget(source.queue)
                self._abandoned.add(source.queue)

    def close(self) -> None:
        """Take no more work."""
        self._closed = True
        for queue in list(self.by_queue):
            self.forget(queue)

    # -- how much ----------------------------------------------------------------------------------------------------

    def taken(self, held: Held) -> None:
        """A message came. HOT PATH."""
        source = held.source = self.by_queue.get(held.queue)
        if source is not None:
            held.counted = True
            source.outstanding += 1
            source.taken_at = held.received_at
            if source.outstanding >= source.window:
                source.filled = True

    def settled(self, held: Held) -> None:
        """It was acknowledged. HOT PATH."""
        source = held.source
        if source is None or not held.counted:
            return
        held.counted = False
        source.outstanding -= 1
        if (
            self._narrow
            and source in self._narrow
            and source.open
            and source.filled
            and time.monotonic() - held.received_at < QUICK_SECONDS
        ):
            self._open(source, 2 * source.window)

    def pause(self, source: Source) -> None:
        """Take no more from a source until there is room for its tasks."""
        if source.open and source.request is not None:
            source.open = False
            self._narrow.add(source)
            self._agent.consumer.unsubscribe(source.queue)

    def on_room(self) -> None:
        """Resources may have become free: take more of what there is room for. HOT PATH when nothing is narrow."""
        if not self._narrow or self._closed:
            return
        for source in list(self._narrow):
            if source.request is None or (source.open and not source.filled):
                continue
            if self._agent.waits(source.place.resource_class):
                continue
            room = self._agent.ledger.room(source.request)
            if room:
                self._open(source, room if not source.open else source.window + room)

    def _open(self, source: Source, window: int) -> None:
        source.open = True
        source.filled = False
        source.window = max(1, min(window, self.widest))
        if source.window == self.widest:
            self._narrow.discard(source)
        self._subscribe(source)

    def _subscribe(self, source: Source) -> None:
        # On RabbitMQ what is outstanding does not count towards a new prefetch, on the embedded engine it does.
        held = source.outstanding if self._agent.endpoint.embedded else 0
        self._agent.consumer.subscribe(source.queue, prefetch=source.window + held)

    def allow_for_blocked(self, blocked: int) -> None:
        """What blocked tasks wait for must come: their own messages, unacknowledged, must not fill the windows."""
        if 2 * blocked > self.widest:
            self.widest *= 2
            for source in self.by_queue.values():
                if source.open and source not in self._narrow:
                    source.window = self.widest
                    self._agent.consumer.subscribe(source.queue, prefetch=self.widest)
