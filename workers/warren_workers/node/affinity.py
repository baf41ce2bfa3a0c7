"""Tasks for one node: what the node itself cannot run, and what was meant for a node that is gone.

A node's own queue outlives the node. Any other node consumes it then, and decides as the task's strategy says:

| | the node is gone, or could never run it | the node has no room now |
|---|---|---|
| hard | TaskUnschedulableError | waits; with `_fail_on_unavailable` TaskUnschedulableError |
| soft | goes to the queue of its resource class | waits; with `_spill_on_unavailable` to the class's queue |
| SPREAD | goes to the queue of its resource class | goes to the queue of its resource class |
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from warren.exceptions import ActorUnschedulableError, TaskUnschedulableError, store_error
from warren_broker import records
from warren_broker.messages import KIND_ACTOR_CREATION, Task, TaskHeader, encode_frame
from warren_broker.queues import names
from warren_broker.queues.names import QueueKind, QueueName
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent
    from warren_workers.node.intake import Held


class Affinity:
    """Part of the agent. Loop thread only."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def is_orphaned(self, place: QueueName) -> bool:
        """True if this is the queue of a node that is gone (or never was)."""
        return place.kind is QueueKind.NODE and not self._agent.heartbeat.is_alive(place.id)

    def runs_here(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> bool:
        """True if tasks from a node's queue run on this node now; if not, they have been seen to."""
        agent = self._agent
        place = names.parse(held.queue)
        if place.id != agent.node_id:
            self._elsewhere(held, header_bytes, header, tasks, f"node {place.id.hex()} is gone")
            return False
        request = ResourceRequest.parse(header.resources)
        if not agent.ledger.can_ever(request):
            why = f"node {place.id.hex()} has not {header.resources} at all"
            self._elsewhere(held, header_bytes, header, tasks, why)
            return False
        if header.impatient and (agent.waits(header.resources) or agent.ledger.room(request) < len(tasks)):
            why = f"node {place.id.hex()} has no room for {header.resources} now"
            self._elsewhere(held, header_bytes, header, tasks, why)
            return False
        return True

    def _elsewhere(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task], why: str) -> None:
        agent = self._agent
        if header.elsewhere:
            held.outstanding += 1
            agent.publisher.publish(
                header.elsewhere,
                encode_frame(agent.signer, header_bytes, tasks),
                priority=header.priority,
                on_confirm=lambda: agent.loop.add_callback(lambda: agent.settle(held, 1)),
            )
            return
        if header.kind == KIND_ACTOR_CREATION:
            cause = store_error(ActorUnschedulableError(f"{why}, and the affinity is hard (soft=False)."))
            agent.actors.refuse(header.actor, cause)
            return
        record = records.ERROR + store_error(TaskUnschedulableError(f"{why}, and the affinity is hard (soft=False)."))
        for task in deque(tasks):
            agent.commit_record(held, header, task, record)
