"""Tasks that executors went on with by themselves (`rabbitry_workers.executor.continuing`), as their agent sees them.

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
from typing import Any, Final, Protocol

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import Task, as_task, decode_header
from rabbitry_broker.store.specs import Dependant
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Publishes, Rechecks
from rabbitry_workers.node.model.work import Chunk, Held, Piece
from rabbitry_workers.node.outcome.notes import clear_notes

AGAIN_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 10.0
GIVE_BACK_SECONDS: Final = 5.0  # for the broker to confirm what a leaving node gives back

log = logging.getLogger("rabbitry.node")


class CancelsSent(Protocol):
    """Knows what was cancelled, and cancels what an executor has."""

    known: dict[bytes, None]

    def cancel_sent(
        self, executor: Executor, chunk: Chunk, sequence: int, task: Task, client: bytes, *, force: bool
    ) -> None:
        """Cancel a task that was sent to an executor."""


class Continuations:
    """Loop thread only.

    Args:
        node: whose executors go on.
        publishing: of what comes back.
        rechecks: tell what has ended.
        cancelling: of what was cancelled before it was gone on with.
    """

    def __init__(self, node: Node, publishing: Publishes, rechecks: Rechecks, cancelling: CancelsSent) -> None:
        self._node = node
        self._publishing = publishing
        self._rechecks = rechecks
        self._cancelling = cancelling
        self.left = False  # this node ends, and could not give everything back

    def adopt(self, executor: Executor, sequence: int, fields: list[Any]) -> None:
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
        if task[0] in self._cancelling.known:
            self._cancelling.cancel_sent(executor, chunk, sequence, task, header.owner, force=False)

    def settled(self, held: Held) -> None:
        """A continuation has ended, or is on its queue, and its note is still there."""
        assert held.continues is not None
        spec, tag, suffix = held.continues
        held.continues = None
        self._clear_one((spec, b"", held.queue, 0, tag, suffix))

    def _clear_one(self, ended: Dependant) -> None:
        try:
            clear_notes(self._node, self._node.id, [ended])
        except RabbitryBrokerError as error:
            log.warning("cannot yet forget a continuation: %s", error)
            self._node.loop.call_later(AGAIN_SECONDS, lambda: self._clear_one(ended))

    def start(self) -> None:
        """Look after the notes from now on."""
        self._node.periodic.every(LOOK_SECONDS, self.run_once)

    def run_once(self) -> None:
        """Remove notes whose specs are gone: an executor that ends before it has told us of one leaves it."""
        store, key = self._node.store, self._node.keys.continuations(self._node.id)
        noted = store.call(b"HKEYS", key)
        there = store.pipeline([(b"EXISTS", spec) for spec in noted])
        gone = [spec for spec, is_there in zip(noted, there, strict=True) if not is_there]
        if gone:
            store.call(b"HDEL", key, *gone)

    def give_back(self) -> None:
        """This node ends: what its executors were at goes to its queue, as far as it is not done.

        What the broker has not confirmed stays noted, and `left` says so: another node's janitor publishes it then.
        """
        self.left = True
        _, published = self._publish(self._node.id, lambda each: None)
        if published:
            if not self._publishing.flush(GIVE_BACK_SECONDS):
                log.warning("the broker does not take back what executors went on with: it is left to other nodes")
                return
            clear_notes(self._node, self._node.id, published)  # the loop runs no more, which clears them one by one
        self.left = False

    def publish_of(self, node: bytes) -> int:
        """Publish the continuations of a node that is gone; return how many there were."""
        loop = self._node.loop
        count, _ = self._publish(node, lambda each: loop.add_callback(lambda: clear_notes(self._node, node, [each])))
        return count

    def _publish(self, node: bytes, confirmed: Callable[[Dependant], None]) -> tuple[int, list[Dependant]]:
        """Return how many there were, and those of them that were published."""
        flat = self._node.store.call(b"HGETALL", self._node.keys.continuations(node))
        noted = list(zip(flat[::2], flat[1::2], strict=True))
        if not noted:
            return 0, []
        specs = self._node.store.pipeline([(b"HMGET", spec, b"f", b"q", b"p") for spec, _ in noted])
        dependants: list[Dependant] = []
        gone: list[Dependant] = []
        for (spec, releaser), (frame, queue, priority) in zip(noted, specs, strict=True):
            tag, _, suffix = releaser.partition(b"}")
            tag += b"}"
            if frame is None:
                gone.append((spec, b"", "", 0, tag, suffix))
            else:
                dependants.append((spec, frame, queue.decode(), int(priority), tag, suffix))
        left = self._rechecks.not_ended(dependants)
        ended = [each for each in dependants if each not in left]
        if gone or ended:
            clear_notes(self._node, node, gone + ended)
        for each in left:
            self._publishing.publish_now(each[2], each[1], each[3], lambda each=each: confirmed(each))  # type: ignore[misc]
        return len(noted), left
