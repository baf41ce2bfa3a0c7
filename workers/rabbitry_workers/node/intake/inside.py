"""Tasks for placement groups: what comes from the queue of a bundle, and what is left when the bundle is not here.

| the group | what becomes of a task for it |
|---|---|
| has that bundle here | runs here; TaskUnschedulableError if it is larger than the bundle |
| is removed, or unknown | TaskPlacementGroupRemoved; an actor is dead with ActorUnschedulableError |
| has it elsewhere, or waits | goes back to its queue |

Clients check most of this before they submit, but a group may be removed at any time.
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitry.exceptions import ActorUnschedulableError, TaskPlacementGroupRemoved, TaskUnschedulableError
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import KIND_ACTOR_CREATION, Task, TaskHeader, encode_frame
from rabbitry_broker.queue_names import QueueName
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.groups.bundles import Bundles
from rabbitry_workers.node.model.lanes import Lane, Lanes
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Fails, KnowsGroups, Publishes, Settle
from rabbitry_workers.node.model.work import Held, Piece


class InsideGroups:
    """Loop thread only.

    Args:
        node: this one.
        lanes: in which tasks wait.
        bundles: that are here.
        groups: knows which are gone.
        settle: of deliveries.
        publishing: of what goes back.
        failing: of what runs nowhere.
        forget_source: takes no more from a queue.
        give_back: puts what waited in a lane back on its queue.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        bundles: Bundles,
        groups: KnowsGroups,
        settle: Settle,
        publishing: Publishes,
        failing: Fails,
        forget_source: Callable[[str], None],
        give_back: Callable[[Piece], bool],
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._bundles = bundles
        self._groups = groups
        self._settle = settle
        self._publishing = publishing
        self._failing = failing
        self._forget_source = forget_source
        self._give_back = give_back

    def runs_here(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> bool:
        """True if tasks from a bundle's queue run on this node; if not, they have been seen to."""
        place = names.parse(header.bundle)
        if self._bundles.serves(place):
            if self._bundles.fits(place, ResourceRequest.parse(header.resources)):
                return True
            held.outstanding += len(tasks)
            why = f"it needs {header.resources}, which no bundle of its placement group has"
            self._failing.fail_tasks(held, header, tasks, TaskUnschedulableError(f"No node can run it: {why}."))
            return False
        if self._groups.is_gone(place.id):
            held.outstanding += len(tasks)
            self._fail(held, header, tasks)
            return False
        self._forget_source(held.queue)  # else it would come here again
        held.outstanding += 1
        self._publishing.publish(
            header.bundle,
            encode_frame(self._node.signer, header_bytes, tasks),
            header.priority,
            lambda: self._node.loop.add_callback(lambda: self._settle(held, 1)),
        )
        return False

    def clear_lanes(self) -> None:
        """What waits here for bundles that are not here any more fails, or goes back to its queue."""
        for lane in [lane for lane in self._lanes.values() if lane.bundle and lane.waiting]:
            place = names.parse(lane.bundle)
            if not self._bundles.serves(place):
                self._clear(lane, place)

    def _clear(self, lane: Lane, place: QueueName) -> None:
        gone = self._groups.is_gone(place.id)
        for piece in lane.take_all():
            if gone:
                tasks = list(piece.tasks)
                piece.tasks.clear()
                self._fail(piece.held, piece.header, tasks)
            else:
                self._give_back(piece)

    def _fail(self, held: Held, header: TaskHeader, tasks: list[Task]) -> None:
        if header.kind == KIND_ACTOR_CREATION:
            error: Exception = ActorUnschedulableError(
                "Could not create the actor because its associated placement group was removed. "
                f"Required placement group {names.parse(header.bundle).id.hex()} is removed."
            )
        else:
            error = TaskPlacementGroupRemoved()
        self._failing.fail_tasks(held, header, tasks, error)
