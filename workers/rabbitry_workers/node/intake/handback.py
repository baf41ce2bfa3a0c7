"""Handing work back: what cannot start here soon goes to the queue again when another node could start it.

Every `SERVICE_SECONDS` the agent looks at the lanes in which something waits:

| what is seen | what is done |
|---|---|
| no task of a lane started for `STUCK_SECONDS`, and there are other nodes | its sources pause: no more is hoarded |
| the same, and its tasks have priorities | what waits goes back, so that the most urgent comes first |
| tasks wait for `STUCK_SECONDS`, and another node has had room for a while | what would not start soon goes back |

A source of which something went back is paused until there is room here and nothing waits: the other node gets it, and
nothing comes and goes. Tasks go back as fresh messages, one each if they are not known to be short, and the old
delivery is settled when the broker has them. (Releasing the delivery would mark it as delivered before, as a crash
does.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.messages import Task, TaskHeader, encode_frame
from rabbitry_broker.queue_names import ANY_BUNDLE
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.model.lanes import Lane, LaneKey, Lanes
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Peers, Publishes, Settle
from rabbitry_workers.node.model.source import Source
from rabbitry_workers.node.model.work import STUCK_SECONDS, Held, Piece

ROOM_SECONDS: Final = 0.05  # that another node must have had room: it may be about to take what is on the queue
BATCH_SECONDS: Final = 0.01  # of work in one message that goes back
AGAIN_SECONDS: Final = 1.0  # until the next try of a leaving node, when Redis is away
BATCHES_MAX: Final = 64  # messages that one piece of unknown length is cut into

log = logging.getLogger("rabbitry.node")


class HandBack:
    """Loop thread only.

    Args:
        node: which gives back.
        lanes: in which tasks wait.
        others: the other nodes.
        settle: of deliveries.
        publishing: of what goes back.
        means: of run times, by function.
        life: of the node.
        pause_source: takes no more from a source until there is room.
        holds_back: True for a lane that waits for what blocked tasks wait for.
        update_custody: of a delivery, tasks of which go back.
        moved_away: tasks with this header went back.
        is_making: True for a lane whose environment is being made here; another node would have to make it, too.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        others: Peers,
        settle: Settle,
        publishing: Publishes,
        means: dict[bytes, float],
        life: Life,
        pause_source: Callable[[Source], None],
        holds_back: Callable[[Lane], bool],
        update_custody: Callable[[Held], None],
        moved_away: Callable[[TaskHeader], None],
        is_making: Callable[[Lane], bool] = lambda lane: False,
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._others = others
        self._settle = settle
        self._publishing = publishing
        self._means = means
        self._life = life
        self._pause_source = pause_source
        self._holds_back = holds_back
        self._update_custody = update_custody
        self._moved_away = moved_away
        self._is_making = is_making
        self.unconfirmed = 0
        self._room_since: dict[LaneKey, float] = {}

    def run_once(self) -> None:
        """Look at all lanes."""
        now = time.monotonic()
        for key in [key for key in self._room_since if key not in self._lanes]:
            del self._room_since[key]
        for key, lane in list(self._lanes.items()):
            if not lane.waiting:
                self._room_since.pop(key, None)
                continue
            stuck = now - lane.waiting_since > STUCK_SECONDS
            if stuck and not self._holds_back(lane) and not self._is_making(lane):
                self._pause(lane)
            if not self._others.has_others or self._is_making(lane):
                continue
            if not self._room_elsewhere(lane):
                self._room_since.pop(key, None)
            elif now - self._room_since.setdefault(key, now) >= ROOM_SECONDS:
                self._return_old(lane, now, stuck=stuck)

    def _room_elsewhere(self, lane: Lane) -> bool:
        if lane.bundle:
            return self._room_inside(lane.bundle, lane)
        return any(self._others.room_elsewhere(lane.request, selector) for selector in _selectors(lane))

    def _room_inside(self, bundle: str, lane: Lane) -> bool:
        """True if another node has room in the same group; what is for one bundle can run in no other place."""
        place = names.parse(bundle)
        return place.bundle_index == ANY_BUNDLE and self._others.room_inside(place.id, lane.request)

    def _pause(self, lane: Lane) -> None:
        for piece in list(lane.all_pieces()):
            source = piece.held.source
            if source is None or not (source.prioritized or self._others.has_others):
                continue  # kept from nobody
            self._pause_source(source)
            if source.prioritized and source.is_shared:
                lane.remove(piece)
                self.give_back(piece)

    def _return_old(self, lane: Lane, now: float, *, stuck: bool) -> None:
        """Give back what waits for long, but for what will start here soon."""
        keep = 0.0 if stuck else lane.capacity(self._node.slots) * STUCK_SECONDS
        for piece in list(lane.all_pieces()):
            mean = self._means.get(piece.header.function, STUCK_SECONDS)
            if keep > 0:
                keep -= mean * len(piece.tasks)
                continue
            if now - piece.since < STUCK_SECONDS or not self._may_leave(piece):
                continue
            lane.remove(piece)
            if piece.held.source is not None:
                self._pause_source(piece.held.source)
            self.give_back(piece)

    def _may_leave(self, piece: Piece) -> bool:
        """True if another node, one that has room now, could run it."""
        source = piece.held.source
        if piece.header.bundle:
            return True  # to any bundle of its group
        if source is None:
            return True  # it came from no queue: an actor's restart, which any node may do; or from one that is closed
        if source.request is None:
            return False
        return self._others.room_elsewhere(source.request, source.place.selector)

    def give_back_all(self) -> None:
        """Give back everything that waits (the node leaves)."""
        for lane in list(self._lanes.values()):
            for piece in lane.take_all():
                if not self.give_back(piece):
                    self._node.loop.call_later(AGAIN_SECONDS, self._give_back_again)

    def give_back_unserved(self, can_ever: Callable[[ResourceRequest], bool]) -> None:
        """Give back what waits and could not run here any more, however long it waited."""
        for lane in list(self._lanes.values()):
            if lane.waiting and not lane.bundle and not can_ever(lane.request):
                for piece in lane.take_all():
                    self.give_back(piece)

    def _give_back_again(self) -> None:
        self.give_back_all()
        self._life.stop_if_drained()

    def give_back(self, piece: Piece) -> bool:
        """Publish the tasks of a piece (which is in no lane any more) to the queue they came from.

        Returns:
            False if Redis is away: they are in their lane again.
        """
        held, header = piece.held, piece.header
        tasks = list(piece.tasks)
        returned = {task[0] for task in tasks}
        try:
            if header.max_retries == 0 and piece.marked:
                # They were about to run but did not: whoever gets them next may.
                marked = [task[0] for task in tasks[: piece.marked]]
                self._node.store.call(b"HDEL", self._node.keys.starts(marked[0][:CLIENT_BYTES]), *marked)
                piece.marked = 0
            held.returned |= returned
            self._update_custody(held)
        except RabbitryBrokerError as error:
            log.warning("cannot yet give back tasks %s: %s", header.name, error)
            held.returned -= returned
            piece.tasks.clear()
            self._lanes.put_back(held, piece.header_bytes, header, tasks, marked=piece.marked)
            return False
        self._moved_away(header)
        piece.tasks.clear()
        mean = self._means.get(header.function)
        size = -(-len(tasks) // BATCHES_MAX) if mean is None else max(1, int(BATCH_SECONDS / max(mean, 1e-6)))
        for at in range(0, len(tasks), size):
            self._publish(held, piece.header_bytes, header.priority, tasks[at : at + size])
        return True

    def _publish(self, held: Held, header_bytes: bytes, priority: int, tasks: list[Task]) -> None:
        self.unconfirmed += 1

        def settle() -> None:
            self.unconfirmed -= 1
            self._settle(held, len(tasks))
            self._life.stop_if_drained()

        self._publishing.publish(
            held.queue,
            encode_frame(self._node.signer, header_bytes, tasks),
            priority,
            lambda: self._node.loop.add_callback(settle),
        )


def _selectors(lane: Lane) -> set[str]:
    return {piece.held.source.place.selector if piece.held.source is not None else "" for piece in lane.all_pieces()}
