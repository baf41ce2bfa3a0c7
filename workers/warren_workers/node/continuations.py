"""Tasks that executors went on with by themselves (`warren_workers.executor.continuing`), as their agent sees them.

A continuation came by no delivery. Its safety is in Redis: the script that hands it over notes its spec in the node's
hash of continuations, and the script that commits its result removes both (and notes what that releases in turn, until
it is published). If the node dies, the janitor of another one publishes what is noted there and has no result.

Only the first run, by the executor that took it, ends that way. A continuation that comes back to the agent (the
executor died, is blocked, or is to try it again) is work like any other, and the agent clears its note in the end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from warren_broker.errors import WarrenBrokerError
from warren_broker.messages import as_task, decode_header
from warren_workers.node.executors import Chunk, ExecutorProcess
from warren_workers.node.intake import Held, Piece
from warren_workers.node.periodic import every

if TYPE_CHECKING:
    from warren_broker.store.object_store import Dependant
    from warren_workers.node.agent import Agent

AGAIN_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 10.0
GIVE_BACK_SECONDS: Final = 5.0  # for the broker to confirm what a leaving node gives back

log = logging.getLogger("warren.node")


class Continuations:
    """Part of the agent. Loop thread only."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.left = False  # this node ends, and could not give everything back

    def adopt(self, executor: ExecutorProcess, sequence: int, fields: list[Any]) -> None:
        """Take note of what an executor runs now. HOT PATH.

        Args:
            executor: which.
            sequence: the task's number there.
            fields: (spec key, queue, tag and suffix of the releasing object, header bytes, task).
        """
        spec, queue, tag, suffix, header_bytes, task_fields = fields
        held = Held(None, queue)
        held.continues = (spec, tag, suffix)
        held.outstanding = 1
        task = as_task(task_fields)
        header = decode_header(header_bytes)
        chunk = Chunk(Piece(held, header_bytes, header, deque()), sequence, [task])
        chunk.clears_note = True
        executor.chunks.appendleft(chunk)
        cancelling = self._agent.cancelling
        if task[0] in cancelling.known:
            cancelling.cancel_sent(executor, chunk, sequence, task, header.owner, force=False)

    def settled(self, held: Held) -> None:
        """A continuation has ended, or is on its queue, and its note is still there."""
        assert held.continues is not None
        spec, tag, suffix = held.continues
        held.continues = None
        self._clear_one((spec, b"", held.queue, 0, tag, suffix))

    def _clear_one(self, ended: Dependant) -> None:
        try:
            self.clear(self._agent.node_id, [ended])
        except WarrenBrokerError as error:
            log.warning("cannot yet forget a continuation: %s", error)
            self._agent.loop.call_later(AGAIN_SECONDS, lambda: self._clear_one(ended))

    def clear(self, node: bytes, dependants: list[Dependant]) -> None:
        """Forget specs and notes of what has ended or is on its queue."""
        store, keys = self._agent.store, self._agent.keys
        store.launched(dependants)
        store.call(b"HDEL", keys.continuations(node), *[spec for spec, *_ in dependants])

    def start(self) -> None:
        """Look after the notes from now on."""
        every(self._agent, LOOK_SECONDS, self.run_once)

    def run_once(self) -> None:
        """Remove notes whose specs are gone: an executor that ends before it has told us of one leaves it."""
        store, key = self._agent.store, self._agent.keys.continuations(self._agent.node_id)
        noted = store.call(b"HKEYS", key)
        there = store.pipeline([(b"EXISTS", spec) for spec in noted])
        gone = [spec for spec, is_there in zip(noted, there, strict=True) if not is_there]
        if gone:
            store.call(b"HDEL", key, *gone)

    def give_back(self) -> None:
        """This node ends: what its executors were at goes to its queue, as far as it is not done.

        What the broker has not confirmed stays noted, and `left` says so: another node's janitor publishes it then.
        """
        agent = self._agent
        self.left = True
        _, published = self._publish(agent.node_id, lambda each: None)
        if published:
            if not agent.publisher.flush(GIVE_BACK_SECONDS):
                log.warning("the broker does not take back what executors went on with: it is left to other nodes")
                return
            self.clear(agent.node_id, published)  # the loop runs no more, which clears them one by one
        self.left = False

    def publish_of(self, node: bytes) -> int:
        """Publish the continuations of a node that is gone; return how many there were."""
        loop = self._agent.loop
        count, _ = self._publish(node, lambda each: loop.add_callback(lambda: self.clear(node, [each])))
        return count

    def _publish(self, node: bytes, confirmed: Callable[[Dependant], None]) -> tuple[int, list[Dependant]]:
        """Return how many there were, and those of them that were published."""
        agent = self._agent
        flat = agent.store.call(b"HGETALL", agent.keys.continuations(node))
        noted = list(zip(flat[::2], flat[1::2], strict=True))
        if not noted:
            return 0, []
        specs = agent.store.pipeline([(b"HMGET", spec, b"f", b"q", b"p") for spec, _ in noted])
        dependants: list[Dependant] = []
        gone: list[Dependant] = []
        for (spec, releaser), (frame, queue, priority) in zip(noted, specs, strict=True):
            tag, _, suffix = releaser.partition(b"}")
            tag += b"}"
            if frame is None:
                gone.append((spec, b"", "", 0, tag, suffix))
            else:
                dependants.append((spec, frame, queue.decode(), int(priority), tag, suffix))
        left = agent.redelivery.not_ended(dependants)
        ended = [each for each in dependants if each not in left]
        if gone or ended:
            self.clear(node, gone + ended)
        for each in left:
            agent.publisher.publish(
                each[2],
                each[1],
                priority=each[3],
                on_confirm=lambda each=each: confirmed(each),  # type: ignore[misc]
            )
        return len(noted), left
