"""Calls between processes of one node: handed over by their agent, without a way through the broker.

| a call | goes |
|---|---|
| to an actor with a process here, which has got all that this caller sent it before | to that process, at once |
| whose actor keeps its state in Redis, or that is to be tried again | by the broker: it may outlive this node |
| any other | by the broker |

Order holds: a caller numbers its calls to an actor, and one goes past the broker only behind all the earlier ones. A
call that is tried once at most and that a node has when it dies is lost with it, whichever way it came (see
`ActorCalls`). A node that leaves in order, or has lost the actor, gives the broker what has not begun (see `Ends`).

HOT PATH (`take`, for each message that an executor publishes).
"""

from __future__ import annotations

from typing import Final

from rabbitry.core.submit.plans import END_METHOD
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import KIND_ACTOR_CALL, MalformedMessage, Task, TaskHeader, decode_batches
from rabbitry_workers.node.actors.calls import ActorCalls
from rabbitry_workers.node.actors.hosted import ActorTable, Hosted
from rabbitry_workers.node.intake.headers import fault_of
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Cancels
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.positions import Positions

_NONE: Final = Positions()


class LocalCalls:
    """Loop thread only.

    Args:
        node: this one.
        life: of the node.
        table: the actors of this node.
        calls: hands them to processes.
        cancelling: knows what was cancelled.
    """

    def __init__(self, node: Node, life: Life, table: ActorTable, calls: ActorCalls, cancelling: Cancels) -> None:
        self._node = node
        self._life = life
        self._table = table
        self._calls = calls
        self._cancelling = cancelling

    def take(self, queue: str, message: bytes) -> bool:
        """Hand calls over that a process of this node publishes; False if they are to go by the broker. HOT PATH."""
        actor_id = names.actor_of(queue)
        hosted = self._table.hosted.get(actor_id)
        if hosted is None or not self._takes_calls(actor_id, hosted):
            return False
        try:
            batches = decode_batches(self._node.signer, message)
        except (MalformedMessage, RecursionError):
            return False  # whoever gets it puts it aside
        if any(fault_of(head, queue) or not self._may_be_local(header, tasks) for head, header, tasks in batches):
            return False
        if not _are_next(hosted, [(header.owner, task[5]) for _, header, tasks in batches for task in tasks]):
            return False
        held = Held(None, queue)
        held.local = True
        for header_bytes, header, tasks in batches:
            self._calls.deliver(held, header_bytes, header, tasks)
        return True

    def _takes_calls(self, actor_id: bytes, hosted: Hosted) -> bool:
        executor = hosted.executor
        return (
            hosted.alive
            and not hosted.final
            and hosted.order is None
            and not hosted.spec.durable
            and not executor.leaving
            and not executor.dismissed
            and not hosted.has_enough()
            and actor_id not in self._table.restarting
            and not self._life.draining
        )

    def _may_be_local(self, header: TaskHeader, tasks: list[Task]) -> bool:
        """True if these calls need not outlive this node, and nothing is to be done about them but to run them."""
        if header.kind != KIND_ACTOR_CALL or header.max_retries or header.method == END_METHOD:
            return False
        known = self._cancelling.known
        return not (known and any(task[0] in known for task in tasks))


def _are_next(hosted: Hosted, calls: list[tuple[bytes, int]]) -> bool:
    """True if calls, (caller, its number), are one caller's next ones after those that the process was handed."""
    if not calls:
        return False
    caller, first = calls[0]
    if calls != [(caller, number) for number in range(first, first + len(calls))]:
        return False
    seen = hosted.seen.get(caller, _NONE)
    return first > 0 and seen.has_all_below(first) and first not in seen
