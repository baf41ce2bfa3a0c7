"""The queues that a node takes work from, and how much it takes of each.

    OPEN --no task of it started for STUCK_SECONDS, and one waits--> PAUSED
    OPEN <--room for one, and none waits here--------------------- PAUSED
    OPEN <--none waits here, but others do: for one, as its turn-- PAUSED

A source begins wide: many messages may be outstanding, which is what short tasks need. One that had to pause comes
back narrow, with as many messages as there is room for, so that a busy node hoards no long tasks: they wait on
the queue, where any node that gets room finds them, the most urgent first. It widens again when its messages are done
quickly.

What a paused node holds already it keeps, in order, unless another node could start it (see `handback`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Final

from rabbitry_broker import queue_names as names
from rabbitry_broker.queue_names import QueueKind, QueueName
from rabbitry_broker.queues.protocol import Consumer
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.model.lanes import Lane, Lanes
from rabbitry_workers.node.model.ledger import Ledger
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import KnowsGroups, Peers
from rabbitry_workers.node.model.source import ORPHAN_SECONDS, Source
from rabbitry_workers.node.model.work import Held

WIDEST_FOR_BLOCKED: Final = 2048  # messages, however many tasks are blocked
QUICK_MESSAGE_SECONDS: Final = 0.1  # a message that is done in this time asks for more of its kind
GONE_SECONDS: Final = 3.0
USED_SECONDS: Final = 20.0  # between two notes that a queue is in use
MANY_NARROW: Final = 16
LOOK_SECONDS: Final = 0.02  # between two looks at so many narrow sources


log = logging.getLogger("rabbitry.node")


class Sources:
    """The sources of one node. Loop thread only.

    Args:
        node: which takes work.
        consumer: takes messages from queues.
        lanes: in which tasks wait.
        ledger: of the node's resources.
        others: the other nodes.
        groups: knows which bundles of placement groups are here, and which groups are gone.
    """

    def __init__(
        self,
        node: Node,
        consumer: Consumer,
        lanes: Lanes,
        ledger: Ledger,
        others: Peers,
        groups: KnowsGroups,
    ) -> None:
        self._node = node
        self._consumer = consumer
        self._lanes = lanes
        self._ledger = ledger
        self._others = others
        self._groups = groups
        self._base = max(8, 4 * node.slots)
        self.widest = self._base  # a window's width at most: more while tasks are blocked
        self.by_queue: dict[str, Source] = {}
        self._narrow: set[Source] = set()
        self._abandoned: set[str] = set()
        self._closed = False
        self._looked_at = 0.0
        self._gone: dict[str, float] = {}
        self._of_some: dict[bytes, set[str]] = {}  # by group: for some of its bundles, of which none is here

    # -- which -------------------------------------------------------------------------------------------------------

    def consider(self, queue: str, *, announced: bool = True, prioritized: bool = False) -> None:
        """Consume a queue if this node can serve it.

        Args:
            queue: its name.
            announced: somebody is about to publish to it; False if it is only known to exist.
            prioritized: its tasks have priorities.
        """
        if self._closed or (not announced and (queue in self._abandoned or self._has_just_gone(queue))):
            return
        self._abandoned.discard(queue)
        self._gone.pop(queue, None)
        known = self.by_queue.get(queue)
        if known is not None:
            known.prioritized = known.prioritized or prioritized
            return
        try:
            place = names.parse(queue)
            foreign = not self.can_serve(place)
            if foreign and not self._is_orphaned(place):
                self._note(queue, place)
                return
            source = self.by_queue[queue] = Source(queue, place, self.widest)
            self._begin_narrow(source)
        except ValueError as error:
            log.warning("an unknown kind of queue was announced: %s", error)
            return
        source.foreign = foreign
        source.prioritized = prioritized
        self._consumer.subscribe(queue, prefetch=source.window)

    def _begin_narrow(self, source: Source) -> None:
        """Among several readers, Redis streams give all to the first. RabbitMQ deals messages out in turn."""
        if self._node.endpoint.traits.first_reader_takes_all and self._others.has_others and source.is_shared:
            source.window = max(1, min(self.widest, self._room(source)))
            self._narrow.add(source)

    def _room(self, source: Source) -> int:
        """Return how many tasks of a source could be started now; of a bundle's, of which nothing is known, about."""
        if source.request is not None:
            return self._ledger.room(source.request)
        return self._groups.slots(source.place) if self._groups.has_room(source.place) else 0

    def _waits(self, source: Source) -> bool:
        """True if tasks of a source wait for room here."""
        if source.request is None:
            return self._lanes.waits_inside(source.queue)
        place = source.place
        if place.job:
            return self._lanes.waits_of(place.resource_class, place.job)
        ready = self._lanes.ready_of(place.resource_class)
        return any(self._own_queue(place, lane) not in self.by_queue for lane in ready)

    @staticmethod
    def _own_queue(place: QueueName, lane: Lane) -> str:
        return names.task_queue(place.resource_class, place.selector, lane.key[1])

    def shared_groups(self) -> list[bytes]:
        """Return the placement groups whose common queue this node takes work from."""
        shared = [each.place.id for each in self.by_queue.values() if each.is_shared and each.request is None]
        return list(dict.fromkeys(shared))

    def _is_orphaned(self, place: QueueName) -> bool:
        """True for the queue of a node or placement group that is gone: any node sees to what comes there."""
        if place.kind is QueueKind.BUNDLE:
            return self._groups.is_gone(place.id)
        return place.kind is QueueKind.NODE and self._others.is_orphaned(place)

    def can_serve(self, place: QueueName) -> bool:
        """True if the named queue's tasks fit this node's totals and labels, or a bundle that is here."""
        if place.kind is QueueKind.BUNDLE:
            return self._groups.serves(place)
        if place.kind is not QueueKind.TASK:
            return place.kind is QueueKind.NODE and place.id == self._node.id
        if place.selector and not self._node.config.matches(place.selector):
            return False
        return self._ledger.can_ever(ResourceRequest.parse(place.resource_class))

    def forget_unserved(self) -> None:
        """The node has less than before: take no more from queues of which it can serve nothing any more."""
        for source in list(self.by_queue.values()):
            if source.request is not None and not self._ledger.can_ever(source.request):
                self.forget(source.queue)

    def forget(self, queue: str) -> None:
        """Consume a queue no more."""
        source = self.by_queue.pop(queue, None)
        if source is not None:
            self._narrow.discard(source)
            source.open = False
            self._consumer.unsubscribe(queue)
            if not self._closed:
                self._note(queue, source.place)

    def _note(self, queue: str, place: QueueName) -> None:
        """Look at a queue again when bundles of its group come here or the group ends.

        Who moves a group announces its other queues anew, and cannot know which of these there are.
        """
        if place.among:
            self._of_some.setdefault(place.id, set()).add(queue)

    def gone(self, queue: str) -> None:
        """A queue was deleted since nobody used it: it is announced anew when somebody does."""
        source = self.by_queue.pop(queue, None)
        if source is not None:
            self._narrow.discard(source)
            source.open = False
        self._gone[queue] = time.monotonic()

    def _has_just_gone(self, queue: str) -> bool:
        """True if it may still be on record, because who deleted it has not come to that."""
        at = self._gone.get(queue)
        return at is not None and time.monotonic() - at < GONE_SECONDS

    def reconsider(self, group: bytes) -> None:
        """Bundles of a placement group have come or gone: take work from the queues of those that are here.

        Those of a group that is gone are looked after like those of a node that is gone.
        """
        for source in [each for each in self.by_queue.values() if each.place.id == group]:
            source.foreign = not self.can_serve(source.place)
            if source.foreign and not self._is_orphaned(source.place):
                self.forget(source.queue)
            elif source.foreign and not source.open:
                self._open(source, self.widest)  # it was paused until there would be room in the bundle
        for queue in self._of_some.pop(group, ()):
            self.consider(queue, announced=False)

    def tidy(self, announced: Collection[bytes] | None) -> None:
        """Look no more after the queues of nodes that are back, or long gone; call it every few seconds.

        Args:
            announced: all queues on record; the janitor removes those that nobody needs. None: as the last time.
        """
        if self._abandoned and announced is not None:
            self._abandoned.intersection_update([each.decode("utf-8", "replace") for each in announced])
        if self._of_some and announced is not None:
            on_record = {each.decode("utf-8", "replace") for each in announced}
            kept = {group: queues & on_record for group, queues in self._of_some.items()}
            self._of_some = {group: queues for group, queues in kept.items() if queues}
        now = time.monotonic()
        self._gone = {queue: at for queue, at in self._gone.items() if now - at < GONE_SECONDS}
        self._tell_of_use(now, announced)
        for source in [source for source in self.by_queue.values() if source.foreign]:
            if not self._is_orphaned(source.place):
                self.forget(source.queue)
            elif not source.outstanding and now - source.taken_at > ORPHAN_SECONDS:
                self.forget(source.queue)
                self._abandoned.add(source.queue)

    def _tell_of_use(self, now: float, announced: Collection[bytes] | None) -> None:
        """Keep queues on record that are consumed here, and put down which were used, each once in `USED_SECONDS`."""
        store, keys = self._node.store, self._node.keys
        commands: list[tuple[bytes | str, ...]] = []
        used: list[bytes | str] = []
        on_record = None if announced is None else set(announced)
        for source in self.by_queue.values():
            if source.request is None:
                continue
            if on_record is not None and source.queue.encode() not in on_record:
                # It was deleted and announced anew, and its deletion was put down last.
                commands.append((b"SADD", keys.queues, source.queue))
            if source.outstanding:
                source.taken_at = now
            if source.taken_at - source.told_at > USED_SECONDS:
                source.told_at = source.taken_at
                used += (source.queue, repr(store.time()))
        if used:
            commands.append((b"HSET", keys.used, *used))
        if commands:
            store.pipeline(commands)

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
            and time.monotonic() - held.received_at < QUICK_MESSAGE_SECONDS
        ):
            self._open(source, 2 * source.window)

    def pause(self, source: Source) -> None:
        """Take no more from a source until there is room for its tasks."""
        if source.open and source.is_shared:
            source.open = False
            self._narrow.add(source)
            self._consumer.unsubscribe(source.queue)

    def on_room(self) -> None:
        """Resources may have become free: take more of what there is room for. HOT PATH when nothing is narrow.

        With many narrow sources only now and then: who looks after waiting work asks again soon.
        """
        if not self._narrow or self._closed:
            return
        if len(self._narrow) > MANY_NARROW:
            now = time.monotonic()
            if now - self._looked_at < LOOK_SECONDS:
                return
            self._looked_at = now
        for source in list(self._narrow):
            if source.open and not source.filled:
                continue
            if self._waits(source):
                continue
            room = self._room(source) or self._is_its_turn(source)
            if room:
                self._open(source, room if not source.open else source.window + room)

    def _is_its_turn(self, source: Source) -> bool:
        """True if one more message is to come although there is no room: else what waits here would have all of it.

        Room that is taken again as it becomes free is never seen from outside; by its lane a job has its turns.
        """
        request = source.request
        return (
            request is not None
            and bool(self._lanes.ready)
            and not self._others.room_elsewhere(request, source.place.selector)
        )

    def _open(self, source: Source, window: int) -> None:
        source.open = True
        source.filled = False
        source.window = max(1, min(window, self.widest))
        if source.window == self.widest:
            self._narrow.discard(source)
        self._subscribe(source)

    def _subscribe(self, source: Source) -> None:
        # On RabbitMQ what is outstanding does not count towards a new prefetch, on the embedded engine it does.
        held = source.outstanding if self._node.endpoint.traits.prefetch_counts_unsettled else 0
        self._consumer.subscribe(source.queue, prefetch=source.window + held)

    def take_more(self, resource_class: str) -> bool:
        """What is here of a class cannot be started, though there is room: take more of it, if more may be there.

        Args:
            resource_class: as it stands in a lane's key: in a bundle, if the lane is one.

        Returns:
            False if all that was on the queues is here, or as much as a node may hold.
        """
        more = False
        for source in self.by_queue.values():
            if self._closed or not source.has(resource_class):
                continue
            if source.open and not source.filled:
                continue
            if source.outstanding < WIDEST_FOR_BLOCKED:
                self.widest = max(self.widest, min(2 * max(source.window, source.outstanding), WIDEST_FOR_BLOCKED))
                self._open(source, self.widest)
                more = True
        return more

    def forget_blocked(self) -> None:
        """Nothing is blocked any more: windows are as wide as they were."""
        if self.widest == self._base:
            return
        self.widest = self._base
        for source in self.by_queue.values():
            if source.window > self.widest:
                source.window = self.widest
                if source.open:
                    self._subscribe(source)

    def allow_for_blocked(self, blocked: int) -> None:
        """What blocked tasks wait for must come: their own messages, unacknowledged, must not fill the windows."""
        if 2 * blocked > self.widest and self.widest < WIDEST_FOR_BLOCKED:
            self.widest *= 2
            for source in self.by_queue.values():
                if source.open and source not in self._narrow:
                    source.window = self.widest
                    self._consumer.subscribe(source.queue, prefetch=self.widest)
