"""Handing work back: what cannot start here soon goes to the queue again when another node could start it.

Every `SERVICE_SECONDS` the agent looks at the lanes in which something waits:

| what is seen | what is done |
|---|---|
| no task of a lane started for `STUCK_SECONDS` | its sources pause: no more is hoarded |
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
from typing import TYPE_CHECKING, Final

from warren_broker.errors import WarrenBrokerError
from warren_broker.ids import CLIENT_BYTES
from warren_broker.messages import Task, encode_frame
from warren_workers.node.sources import STUCK_SECONDS

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent
    from warren_workers.node.intake import Held, Lane, Piece

ROOM_SECONDS: Final = 0.05  # that another node must have had room: it may be about to take what is on the queue
BATCH_SECONDS: Final = 0.01  # of work in one message that goes back
AGAIN_SECONDS: Final = 1.0  # until the next try of a leaving node, when Redis is away
BATCHES_MAX: Final = 64  # messages that one piece of unknown length is cut into

log = logging.getLogger("warren.node")


class HandBack:
    """Part of the agent. Loop thread only."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.unconfirmed = 0
        self._room_since: dict[tuple[str, bytes, bytes], float] = {}

    def run_once(self) -> None:
        """Look at all lanes."""
        agent = self._agent
        now = time.monotonic()
        for key, lane in list(agent.lanes.items()):
            if not lane.waiting:
                self._room_since.pop(key, None)
                continue
            stuck = now - lane.waiting_since > STUCK_SECONDS
            if stuck:
                self._pause(lane)
            if not agent.heartbeat.has_others:
                continue
            if not any(agent.heartbeat.room_elsewhere(lane.request, selector) for selector in _selectors(lane)):
                self._room_since.pop(key, None)
            elif now - self._room_since.setdefault(key, now) >= ROOM_SECONDS:
                self._return_old(lane, now, stuck=stuck)

    def _pause(self, lane: Lane) -> None:
        agent = self._agent
        for piece in list(lane.all_pieces()):
            source = piece.held.source
            if source is None:
                continue
            agent.sources.pause(source)
            if source.prioritized and source.request is not None:
                lane.remove(piece)
                self.give_back(piece)

    def _return_old(self, lane: Lane, now: float, *, stuck: bool) -> None:
        """Give back what waits for long, but for what will start here soon."""
        agent = self._agent
        keep = 0.0 if stuck else agent.capacity(lane) * STUCK_SECONDS
        for piece in list(lane.all_pieces()):
            mean = agent.means.get(piece.header.function, STUCK_SECONDS)
            if keep > 0:
                keep -= mean * len(piece.tasks)
                continue
            if now - piece.since < STUCK_SECONDS or not self._may_leave(piece):
                continue
            lane.remove(piece)
            if piece.held.source is not None:
                agent.sources.pause(piece.held.source)
            self.give_back(piece)

    def _may_leave(self, piece: Piece) -> bool:
        """True if another node, one that has room now, could run it."""
        source = piece.held.source
        if source is None:
            return True  # it came from no queue: an actor's restart, which any node may do; or from one that is closed
        if source.request is None:
            return False
        return self._agent.heartbeat.room_elsewhere(source.request, source.place.selector)

    def give_back_all(self) -> None:
        """Give back everything that waits (the node leaves)."""
        for lane in list(self._agent.lanes.values()):
            for piece in lane.take_all():
                if not self.give_back(piece):
                    self._agent.loop.call_later(AGAIN_SECONDS, self._give_back_again)

    def _give_back_again(self) -> None:
        self.give_back_all()
        self._agent.stop_if_drained()

    def give_back(self, piece: Piece) -> bool:
        """Publish the tasks of a piece (which is in no lane any more) to the queue they came from.

        Returns:
            False if Redis is away: they are in their lane again.
        """
        agent, held, header = self._agent, piece.held, piece.header
        tasks = list(piece.tasks)
        returned = {task[0] for task in tasks}
        try:
            if header.max_retries == 0 and piece.marked:
                # They were about to run but did not: whoever gets them next may.
                marked = [task[0] for task in tasks[: piece.marked]]
                agent.store.call(b"HDEL", agent.keys.starts(marked[0][:CLIENT_BYTES]), *marked)
                piece.marked = 0
            held.returned |= returned
            agent.custody.update(held)
        except WarrenBrokerError as error:
            log.warning("cannot yet give back tasks %s: %s", header.name, error)
            held.returned -= returned
            piece.tasks.clear()
            agent.put_back(held, piece.header_bytes, header, tasks, marked=piece.marked)
            return False
        agent.actors.moved_away(header)
        piece.tasks.clear()
        mean = agent.means.get(header.function)
        size = -(-len(tasks) // BATCHES_MAX) if mean is None else max(1, int(BATCH_SECONDS / max(mean, 1e-6)))
        for at in range(0, len(tasks), size):
            self._publish(held, piece.header_bytes, header.priority, tasks[at : at + size])
        return True

    def _publish(self, held: Held, header_bytes: bytes, priority: int, tasks: list[Task]) -> None:
        agent = self._agent
        self.unconfirmed += 1

        def settle() -> None:
            self.unconfirmed -= 1
            agent.settle(held, len(tasks))
            agent.stop_if_drained()

        agent.publish(
            held.queue,
            encode_frame(agent.signer, header_bytes, tasks),
            priority,
            lambda: agent.loop.add_callback(settle),
        )


def _selectors(lane: Lane) -> set[str]:
    return {piece.held.source.place.selector if piece.held.source is not None else "" for piece in lane.all_pieces()}
