"""Deliveries that come again: why they do decides what becomes of their tasks.

| a task that comes again | is |
|---|---|
| its result stands | done; whoever waits is told again |
| it creates an actor that is to be restarted | run again: the result that stands is that of the actor's first life |
| this node has it in hand (a connection broke, not a process) | a shadow: settled when the one in hand ends |
| `max_retries=0`, and marked as started by a node that is gone | failed with NodeDiedError: it may have run |
| `max_retries=0`, and marked by a node that lives | in doubt: until its result stands, or that node is gone |
| any other, and a node was lost lately | run again, with one attempt counted against `max_retries` |
| any other | run again: a connection broke, or a consumer was cancelled with the message on its way |

RabbitMQ gives back what a killed node held within milliseconds, long before that node's lease ends. So besides leases,
a node's connection for announcements is looked for, which the kernel closes with its process. Only for counting
attempts: a connection may also break by itself, and then an attempt too many is a small harm. What decides whether
something may run twice, `max_retries=0`, waits for the lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from rabbitry.exceptions import NodeDiedError, store_error
from rabbitry_broker import records, retry_policy
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import owner_of
from rabbitry_broker.messages import (
    KIND_ACTOR_CREATION,
    MalformedMessage,
    Task,
    TaskHeader,
    decode_frames,
    decode_header,
    encode_frame,
)
from rabbitry_broker.store.specs import Dependant
from rabbitry_workers.executor.calls import result_ids
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Admit, Commits, Failed, Peers, Settle, Shadows
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.doubts import lost_text

# So long after a process is killed, Redis has noticed too that its connections are closed.
SETTLE_SECONDS: Final = 0.03
AGAIN_SECONDS: Final = 1.0  # until the next try when Redis is away

log = logging.getLogger("rabbitry.node")


class Redelivery:
    """Loop thread only.

    Args:
        node: to which they come.
        settle: of deliveries.
        commits: of results that stand, and of errors.
        shadows: know what this node has in hand.
        others: the other nodes.
        admit: takes tasks as work for this node.
        awaits_creation: True for an actor that has no process now, and is to get one.
    """

    def __init__(
        self,
        node: Node,
        settle: Settle,
        commits: Commits,
        shadows: Shadows,
        others: Peers,
        admit: Admit,
        awaits_creation: Callable[[bytes], bool],
    ) -> None:
        self._node = node
        self._settle = settle
        self._commits = commits
        self._shadows = shadows
        self._others = others
        self._admit = admit
        self._awaits_creation = awaits_creation

    def take_later(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Take tasks of a message that came again, once it is known whether a node was lost."""
        held.outstanding += 1

        def take() -> None:
            before = held.outstanding
            try:
                try:
                    left = self.recheck(held, header, self._shadows.not_held_here(held, header, tasks))
                    self._admit(held, header_bytes, header, left)
                except RabbitryBrokerError:
                    raise
                except Exception as error:
                    # Left unsettled it would take up room in the window for good.
                    log.exception("tasks %s, which came again, cannot be taken", header.name)
                    held.outstanding = before
                    body = encode_frame(self._node.signer, header_bytes, tasks)
                    self._node.store.put_aside(held.queue, body, repr(error))
            except RabbitryBrokerError as error:
                log.warning("cannot yet take %s, which came again: %s", header.name, error)
                self._node.loop.call_later(AGAIN_SECONDS, take)
                return
            self._settle(held, 1)

        self._node.loop.call_later(SETTLE_SECONDS, take)

    def recheck(self, held: Held, header: TaskHeader, tasks: list[Task], *, lost: bool | None = None) -> list[Task]:
        """Skip tasks whose result stands; count an attempt for the rest if a node was lost with them.

        Args:
            held: the delivery they came with.
            header: what they share.
            tasks: the tasks.
            lost: whether a node was lost with them; None to look.
        """
        if not tasks:
            return tasks
        finals = [result_ids(task[0], header.num_returns)[-1:] for task in tasks]
        ids = [each[0] for each in finals if each]
        if header.kind == KIND_ACTOR_CREATION and self._awaits_creation(header.actor):
            stands: dict[bytes, bytes | None] = {}
        else:
            stands = dict(zip(ids, self._node.store.fetch(ids), strict=True))
        again: list[Task] = []
        standing: dict[bytes, tuple[list[bytes], list[bytes]]] = {}  # by tag: results, ids of their tasks
        for task, final in zip(tasks, finals, strict=True):
            record = stands.get(final[0]) if final else None
            if record is None:
                again.append(task)
            else:
                items, ended = standing.setdefault(owner_of(final[0]), ([], []))
                items += (final[0], record)
                ended.append(task[0])
        for items, ended in standing.values():
            self._commits.commit(held, header, items, ended, stands=True)
        if not again or header.max_retries == 0:
            return again
        if not (self._others.lost_a_node() if lost is None else lost):
            return again
        return self._count(held, header, again)

    def _count(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        counts = self._node.store.count_attempts([task[0] for task in tasks])
        again: list[Task] = []
        lost: list[Failed] = []
        for task, counted in zip(tasks, counts, strict=True):
            attempts = retry_policy.after_lost_node(header.max_retries, counted)
            if attempts is None:
                cause = store_error(NodeDiedError(lost_text(header, counted)))
                lost.append((held, header, task, records.ERROR + cause))
            else:
                again.append((task[0], task[1], max(task[2], attempts), *task[3:]))
        if lost:
            self._commits.commit_records(lost)
        return again

    def not_ended(self, released: list[Dependant]) -> list[Dependant]:
        """Of tasks that a result released which stood before: those that have not ended since.

        An executor may have gone on with them by itself (see `continuations`), and with what they released in turn.
        """
        left: list[Dependant] = []
        ended: list[Dependant] = []
        for dependant in released:
            _, message, queue, *_ = dependant
            try:
                again = [
                    self.recheck(Held(None, queue), decode_header(header_bytes), tasks)
                    for header_bytes, tasks in decode_frames(self._node.signer, message)
                ]
            except MalformedMessage:
                left.append(dependant)  # whoever takes it from the queue puts it aside
                continue
            (left if any(again) else ended).append(dependant)
        if ended:
            self._node.store.launched(ended)
        return left
