"""Cancelling tasks, wherever they are on this node.

| where the task is | what is done |
|---|---|
| not here (yet) | its id is kept: if it comes, it fails without having run |
| it waits in a lane | it fails without having run |
| sent to an executor, not begun | its error is committed, and the executor is told to skip it |
| running | the executor is interrupted, or killed by `force` |
| a call that waits for its actor's process | it fails without having run |
| a call that an actor's process has | that drops it, or cancels its coroutine, or lets the method know |

Which tasks are not here is told to who asked: if no node has one, nobody has to wait for what a node would do with it.

A task may begin just while it is being cancelled, and what an executor has not begun may go to another one: so those
that were cancelled unbegun stay marked until the executor has nothing in hand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from rabbitry.core.failures import cancelled_error
from rabbitry.core.resolve.notes import CANCEL_CLAIMED, CANCEL_PASSED
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import owner_of
from rabbitry_broker.messages import Completion, Task, TaskHeader, encode_completion
from rabbitry_workers.executor.calls import result_ids
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Commits, Failed, Fails
from rabbitry_workers.node.model.work import Chunk, Held

CANCELS_KEPT: Final = 10000
NODES_THAT_ANSWER: Final = 16  # of more, who asks waits a moment for claims: so many answers would cost it more
# Between two looks for what is to be cancelled. Shorter than clients wait for a claim (`CANCEL_GRACE_SECONDS`): what
# runs would count as cancelled unbegun otherwise.
PAUSE_SECONDS_MAX: Final = 0.1
AGAIN_SECONDS: Final = 1.0  # until the next try when Redis is away

log = logging.getLogger("rabbitry.node")

Found = TypeVar("Found")


def _record(task: Task) -> bytes:
    return records.ERROR + cancelled_error(task[0])


class _Asked(NamedTuple):
    """How a task is to be cancelled.

    Attributes:
        client: who asked last.
        force: kill the executor that runs it.
        recursive: cancel what it submitted, too.
    """

    client: bytes
    force: bool
    recursive: bool


class CancelsCalls(Protocol):
    """Cancels calls to actors."""

    def cancel(self, executor: Executor, task_id: bytes) -> None:
        """Cancel a call that its host has."""

    def take_waiting(self, wanted: Collection[bytes]) -> list[tuple[Held, TaskHeader, Task]]:
        """Take out the calls with these ids that wait for their actor's next process."""


class Cancelling:
    """Loop thread only.

    Args:
        node: this one.
        in_hand: where tasks are.
        commits: of errors.
        failing: of what waits, and of what comes when it was cancelled.
        others: returns how many other nodes there are.

    Attributes:
        known: ids of cancelled tasks that were not here, in the order of their cancelling.
        calls: to actors.
    """

    calls: CancelsCalls

    def __init__(
        self, node: Node, in_hand: InHand, commits: Commits, failing: Fails, others: Callable[[], int]
    ) -> None:
        self._node = node
        self._others = others
        self._in_hand = in_hand
        self._commits = commits
        self._failing = failing
        self.known: dict[bytes, None] = {}
        self._asked: dict[bytes, _Asked] = {}  # emptied by the next look
        self._look_from = 0.0
        self._walked = 0.0  # seconds of the last look

    def start(self) -> None:
        """Learn what was cancelled lately: it may still be on a queue."""
        self.known.update(dict.fromkeys(self._listed()))

    def _listed(self) -> Sequence[bytes]:
        """Return what was cancelled within the last hour."""
        store, keys = self._node.store, self._node.keys
        return store.call(b"ZRANGEBYSCORE", keys.cancelled, store.time(), b"+inf") or ()

    def listens_again(self) -> None:
        """This node may have missed cancellations: do those that are listed and whose tasks are here.

        Whether one was by force is not listed: a task that ignores its interruption goes on.
        """
        try:
            listed = self._listed()
        except RabbitryBrokerError as error:
            log.warning("cannot tell now what was cancelled meanwhile: %s", error)
            self._node.loop.call_later(AGAIN_SECONDS, self.listens_again)
            return
        here = set(self._in_hand.task_ids()) if listed else set()
        for task_id in listed:
            if task_id in here:
                self.cancel([task_id], owner_of(task_id), force=False)
            else:
                self.known.setdefault(task_id)

    def without_cancelled(
        self, held: Held, header: TaskHeader, tasks: list[Task], *, outstanding: bool = False
    ) -> list[Task]:
        """Return the tasks that were not cancelled; the others fail. `outstanding`: their delivery counts them.

        Of thousands that were cancelled in their queue each message has a few: they are not committed one by one.
        """
        kept = []
        cancelled: list[Failed] = []
        for task in tasks:
            if task[0] in self.known:
                cancelled.append((held, header, task, _record(task)))
            else:
                kept.append(task)
        if cancelled:
            if not outstanding:
                held.outstanding += len(cancelled)
            self._failing.gather(cancelled)
        return kept

    def cancel(self, task_ids: Sequence[bytes], client: bytes, *, force: bool, recursive: bool = True) -> None:
        """Cancel tasks, soon: those that are asked for together are looked for together.

        Args:
            task_ids: which.
            client: who asked; it is told of each whose end will be committed here.
            force: kill the executors that run them.
            recursive: cancel what they submitted, too.
        """
        asked = self._asked
        if not asked:
            self._node.loop.call_later(max(0.0, self._look_from - time.monotonic()), self._look)
        for task_id in task_ids:
            before = asked.get(task_id)
            if before is None:
                asked[task_id] = _Asked(client, force, recursive)
            else:
                asked[task_id] = _Asked(client, force or before.force, recursive or before.recursive)

    def _look(self) -> None:
        """Find what was asked for. That walks everything in hand, so walking takes a tenth of the loop's time at most.

        What is done about the tasks that are found has to be done anyway, and is not counted. Processor time counts: a
        look that others interrupt is no reason to look later.
        """
        self._walked = 0.0
        asked, self._asked = self._asked, {}
        try:
            self._cancel_all(asked)
        except RabbitryBrokerError as error:
            log.warning("cannot cancel %d tasks now: %s", len(asked), error)
            self._node.loop.call_later(AGAIN_SECONDS, lambda: self._ask_again(asked))
        self._look_from = time.monotonic() + min(10 * self._walked, PAUSE_SECONDS_MAX)

    def _ask_again(self, asked: dict[bytes, _Asked]) -> None:
        for task_id, (client, force, recursive) in asked.items():
            self.cancel([task_id], client, force=force, recursive=recursive)

    def _cancel_all(self, asked: dict[bytes, _Asked]) -> None:
        """Cancel these tasks; what is done already is no longer among them, so that the rest can be tried again.

        The last ones first: what waits behind what runs would begin when that ends.
        """
        for executor, chunk, sequence, task in reversed(self._walk(lambda: self._in_hand.sent(asked))):
            if task[0] in asked:  # else it was there twice
                client, force, recursive = asked[task[0]]
                if not recursive:
                    executor.progress.spare_children_of(task[0])
                self.cancel_sent(executor, chunk, sequence, task, client, force=force)
                del asked[task[0]]
        waiting = self._walk(lambda: [*self._in_hand.take_waiting(asked), *self.calls.take_waiting(asked)])
        self._failing.add([(held, header, task, _record(task)) for held, header, task in waiting])
        for _, _, task in waiting:
            asked.pop(task[0], None)
        while len(self.known) > CANCELS_KEPT:
            self.known.pop(next(iter(self.known)))
        self.known.update(dict.fromkeys(asked))
        if self._others() < NODES_THAT_ANSWER:
            self._pass(asked)

    def _pass(self, asked: dict[bytes, _Asked]) -> None:
        """Tell who asked for these tasks that they are not here; those that were told are no longer among them."""
        by_client: dict[bytes, list[bytes]] = {}
        for task_id, (client, _, _) in asked.items():
            by_client.setdefault(client, []).append(task_id)
        for client, task_ids in by_client.items():
            self._tell(client, CANCEL_PASSED, [self._node.id], task_ids)
            for task_id in task_ids:
                del asked[task_id]

    def _walk(self, walk: Callable[[], list[Found]]) -> list[Found]:
        """Return what a walk finds; how long it takes is counted."""
        began = time.thread_time()
        found = walk()
        self._walked += time.thread_time() - began
        return found

    def cancel_sent(
        self, executor: Executor, chunk: Chunk, sequence: int, task: Task, client: bytes, *, force: bool
    ) -> None:
        """Cancel a task that was sent to an executor."""
        if executor.actor:
            self._claim(client, task[0])
            self.calls.cancel(executor, task[0])
        elif executor.progress.started[0] - 1 == sequence:
            self._claim(client, task[0])
            self._interrupt(executor, task[0], force=force)
        else:
            # Not begun (or done and not reported): the first result stands, whichever it is.
            executor.progress.cancel(task[0])
            executor.dropped[task[0]] = force
            items: list[bytes] = []
            record = _record(task)
            for key in result_ids(task[0], chunk.header.num_returns):
                items += (key, record)
            self._commits.commit(chunk.held, chunk.header, items, [])

    def interrupt_dropped(self, executor: Executor) -> None:
        """A task may have begun while it was being cancelled: it is interrupted after all."""
        if not executor.chunks:
            executor.dropped.clear()
            return
        running = executor.running()
        if running is None:
            return
        chunk, at = running
        task_id = chunk.tasks[at][0]
        if task_id in executor.dropped and task_id not in executor.cancelled:
            self._interrupt(executor, task_id, force=executor.dropped[task_id])

    def _claim(self, client: bytes, task_id: bytes) -> None:
        self._tell(client, CANCEL_CLAIMED, [], [task_id])

    def _tell(self, client: bytes, word: str, items: list[bytes], task_ids: list[bytes]) -> None:
        note = Completion(b"", 0, 0.0, items, task_ids, word)
        self._node.store.tell(client, encode_completion(self._node.signer, client, note))

    @staticmethod
    def _interrupt(executor: Executor, task_id: bytes, *, force: bool) -> None:
        executor.cancelled.add(task_id)
        if force:
            executor.dismissed = "its task was cancelled"
            executor.kill()
        else:
            executor.interrupt(task_id)
