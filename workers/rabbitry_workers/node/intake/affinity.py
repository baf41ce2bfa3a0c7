"""Tasks for one node: what the node itself cannot run, and what was meant for a node that is gone.

A node's own queue outlives the node. Any other node consumes it then, and decides as the task's strategy says:

| | the node is gone, or could never run it | the node has no room now |
|---|---|---|
| hard | TaskUnschedulableError | waits; with `_fail_on_unavailable` TaskUnschedulableError |
| soft | goes to the queue of its resource class | waits; with `_spill_on_unavailable` to the class's queue |
| SPREAD | goes to the queue of its resource class | goes to the queue of its resource class |
"""

from __future__ import annotations

from rabbitry.exceptions import ActorUnschedulableError, TaskUnschedulableError
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import KIND_ACTOR_CREATION, Task, TaskHeader, encode_frame
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.model.lanes import Lanes
from rabbitry_workers.node.model.ledger import Ledger
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Fails, Publishes, Settle
from rabbitry_workers.node.model.work import Held


class Affinity:
    """Loop thread only.

    Args:
        node: this one.
        lanes: in which tasks wait.
        ledger: of the node's resources.
        settle: of deliveries.
        publishing: of what runs elsewhere.
        failing: of what runs nowhere.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        ledger: Ledger,
        settle: Settle,
        publishing: Publishes,
        failing: Fails,
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._ledger = ledger
        self._settle = settle
        self._publishing = publishing
        self._failing = failing

    def runs_here(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> bool:
        """True if tasks from a node's queue run on this node now; if not, they have been seen to."""
        place = names.parse(held.queue)
        if place.id != self._node.id:
            self._elsewhere(held, header_bytes, header, tasks, f"node {place.id.hex()} is gone")
            return False
        request = ResourceRequest.parse(header.resources)
        if not self._ledger.can_ever(request):
            why = f"node {place.id.hex()} has not {header.resources} at all"
            self._elsewhere(held, header_bytes, header, tasks, why)
            return False
        if header.impatient and (self._lanes.waits(header.resources) or self._ledger.room(request) < len(tasks)):
            why = f"node {place.id.hex()} has no room for {header.resources} now"
            self._elsewhere(held, header_bytes, header, tasks, why)
            return False
        return True

    def _elsewhere(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task], why: str) -> None:
        if header.elsewhere:
            held.outstanding += 1
            self._publishing.publish_now(
                header.elsewhere,
                encode_frame(self._node.signer, header_bytes, tasks),
                header.priority,
                lambda: self._node.loop.add_callback(lambda: self._settle(held, 1)),
            )
            return
        kind = ActorUnschedulableError if header.kind == KIND_ACTOR_CREATION else TaskUnschedulableError
        held.outstanding += len(tasks)
        self._failing.fail_tasks(held, header, tasks, kind(f"{why}, and the affinity is hard (soft=False)."))
