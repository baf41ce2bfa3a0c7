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
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from warren.exceptions import NodeDiedError
from warren_broker.errors import WarrenBrokerError
from warren_broker.messages import (
    KIND_ACTOR_CREATION,
    MalformedMessage,
    Task,
    TaskHeader,
    decode_frames,
    decode_header,
)
from warren_workers.executor.calls import result_ids
from warren_workers.node.intake import Held
from warren_workers.node.periodic import every

if TYPE_CHECKING:
    from warren_broker.store.object_store import Dependant
    from warren_workers.node.agent import Agent

# So long after a process is killed, Redis has noticed too that its connections are closed.
SETTLE_SECONDS: Final = 0.03
DOUBT_SECONDS: Final = 1.0

log = logging.getLogger("warren.node")


class _Doubt:
    """A task that another living node may be running."""

    __slots__ = ("header", "header_bytes", "held", "task")

    def __init__(self, held: Held, header_bytes: bytes, header: TaskHeader, task: Task) -> None:
        self.held = held
        self.header_bytes = header_bytes
        self.header = header
        self.task = task


class Redelivery:
    """Part of the agent. Loop thread only."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._shadows: list[tuple[Held, set[bytes]]] = []
        self._doubts: list[_Doubt] = []

    def start(self) -> None:
        """Look at what is in doubt from now on."""
        every(self._agent, DOUBT_SECONDS, self.run_once)

    def take_later(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Take tasks of a message that came again, once it is known whether a node was lost."""
        held.outstanding += 1

        def take() -> None:
            agent = self._agent
            try:
                left = self.recheck(held, header, self.not_held_here(held, header, tasks))
                agent.admit(held, header_bytes, header, left)
            except WarrenBrokerError as error:
                log.warning("cannot yet take %s, which came again: %s", header.name, error)
                agent.loop.call_later(DOUBT_SECONDS, take)
                return
            agent.settle(held, 1)

        self._agent.loop.call_later(SETTLE_SECONDS, take)

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
        agent = self._agent
        finals = [result_ids(task[0], header.num_returns)[-1:] for task in tasks]
        ids = [each[0] for each in finals if each]
        if header.kind == KIND_ACTOR_CREATION and agent.actors.awaits_creation(header.actor):
            stands: dict[bytes, bytes | None] = {}
        else:
            stands = dict(zip(ids, agent.store.fetch(ids), strict=True))
        again: list[Task] = []
        for task, final in zip(tasks, finals, strict=True):
            record = stands.get(final[0]) if final else None
            if record is None:
                again.append(task)
            else:
                agent.commit(held, header, [final[0], record], [task[0]], stands=True)
        if not again or header.max_retries == 0:
            return again
        if not (agent.heartbeat.lost_a_node() if lost is None else lost):
            return again
        return self._count(held, header, again)

    def _count(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        agent = self._agent
        counts = agent.store.count_attempts([task[0] for task in tasks])
        again: list[Task] = []
        for task, attempts in zip(tasks, counts, strict=True):
            if 0 <= header.max_retries < attempts:
                agent.commit_error(held, header, task, NodeDiedError(lost_text(header, attempts)))
            else:
                again.append((task[0], task[1], max(task[2], attempts), *task[3:]))
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
                    for header_bytes, tasks in decode_frames(self._agent.signer, message)
                ]
            except MalformedMessage:
                left.append(dependant)  # whoever takes it from the queue puts it aside
                continue
            (left if any(again) else ended).append(dependant)
        if ended:
            self._agent.store.launched(ended)
        return left

    # -- shadows -----------------------------------------------------------------------------------------------------

    def not_held_here(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Tasks that this node has in hand already (a connection broke) are not taken twice.

        The new delivery is kept unacknowledged until they are done: the old one does not count any more.
        """
        mine = set(self._in_hand())
        shadows = {task[0] for task in tasks if task[0] in mine}
        if not shadows:
            return tasks
        held.outstanding += len(shadows)
        self._shadows.append((held, shadows))
        return [task for task in tasks if task[0] not in shadows]

    def _in_hand(self) -> Iterator[bytes]:
        agent = self._agent
        for lane in agent.lanes.values():
            for piece in lane.all_pieces():
                yield from [task[0] for task in piece.tasks]
        for executor in agent.executors.values():
            for chunk in executor.chunks:
                yield from [task[0] for at, task in enumerate(chunk.tasks, chunk.first) if at not in chunk.done]
        yield from agent.delayed
        for _, _, _, call in agent.actors.kept():
            yield call[0]

    def settle_shadows(self) -> None:
        """Let go of deliveries that came again for work which has ended since."""
        if not self._shadows:
            return
        shadows, self._shadows = self._shadows, []
        mine = set(self._in_hand())
        for held, tasks in shadows:
            ended = {task_id for task_id in tasks if task_id not in mine}
            if len(ended) < len(tasks):
                self._shadows.append((held, tasks - ended))
            if ended:
                self._agent.settle(held, len(ended))

    # -- doubts ------------------------------------------------------------------------------------------------------

    def doubt(self, held: Held, header_bytes: bytes, header: TaskHeader, task: Task) -> None:
        """A task that may run once only was started by another node: keep it until that ends."""
        self._doubts.append(_Doubt(held, header_bytes, header, task))

    def run_once(self) -> None:
        """Decide about what is in doubt, as far as that is possible now."""
        if not self._doubts:
            return
        doubts, self._doubts = self._doubts[::-1], []
        while doubts:
            try:
                self._decide(doubts[-1])
            except WarrenBrokerError:
                self._doubts += doubts[::-1]
                raise
            doubts.pop()

    def _decide(self, each: _Doubt) -> None:
        agent = self._agent
        header, task = each.header, each.task
        final = result_ids(task[0], header.num_returns)[-1:]
        if final and agent.store.fetch(final)[0] is not None:
            agent.settle(each.held, 1)
            return
        node = agent.store.started_by(task[0])
        if node is None:
            # It did not run after all: that node gave it back, and a copy of it is on a queue. One of them will.
            agent.admit(each.held, each.header_bytes, header, [task])
            agent.settle(each.held, 1)
        elif agent.heartbeat.is_alive(node):
            self._doubts.append(each)
        else:
            agent.commit_error(each.held, header, task, NodeDiedError(lost_text(header, 1)), outstanding=True)


def lost_text(header: TaskHeader, attempts: int) -> str:
    """Return what NodeDiedError says of a task."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return f"Task {header.name} was lost {times} with the node that ran it, and max_retries is {header.max_retries}."
