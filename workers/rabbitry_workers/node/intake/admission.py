"""Admission: which tasks of a message become work of this node. Each filter takes away what it has seen to.

tasks --not cancelled--> --their owner lives--> --they may run here--> --their arguments are not elsewhere--> lane
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_broker.queue_names import QueueKind
from rabbitry_workers.node.intake.affinity import Affinity
from rabbitry_workers.node.intake.cancelling import Cancelling
from rabbitry_workers.node.intake.inside import InsideGroups
from rabbitry_workers.node.intake.locality import Locality
from rabbitry_workers.node.intake.owners import Owners
from rabbitry_workers.node.model.lanes import Lanes
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.ports import Serve
from rabbitry_workers.node.model.work import Held, Piece


class Admission:
    """Loop thread only.

    Args:
        lanes: into which tasks go.
        life: of the node.
        cancelling: knows what was cancelled.
        owners: knows whose results nobody wants.
        affinity: knows what may run here.
        inside: knows what may run here in placement groups.
        locality: sends on what has large arguments elsewhere.
        serve: gives a lane's tasks to executors.
        give_back_all: of a node that leaves, gives what waits to others.
    """

    def __init__(
        self,
        lanes: Lanes,
        life: Life,
        cancelling: Cancelling,
        owners: Owners,
        affinity: Affinity,
        inside: InsideGroups,
        locality: Locality,
        serve: Serve,
        give_back_all: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._life = life
        self._cancelling = cancelling
        self._owners = owners
        self._affinity = affinity
        self._inside = inside
        self._locality = locality
        self._serve = serve
        self._give_back_all = give_back_all

    def admit(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Take tasks of a delivery as work for this node. HOT PATH."""
        if self._cancelling.known:
            tasks = self._cancelling.without_cancelled(held, header, tasks)
        if not tasks or (self._owners.gone and self._owners.is_gone(header)):
            return
        source = held.source
        if source is not None and source.place.kind is not QueueKind.TASK:
            place = self._affinity if source.place.kind is QueueKind.NODE else self._inside
            if not place.runs_here(held, header_bytes, header, tasks):
                return
        elif self._locality.wanted(header, tasks) and not self._life.draining:
            tasks = self._locality.staying(held, header_bytes, header, tasks)
            if not tasks:
                return
        lane = self._lanes.of(header)
        held.outstanding += len(tasks)
        lane.put(Piece(held, header_bytes, header, deque(tasks)))
        if self._life.draining:
            self._give_back_all()
        else:
            self._serve(lane)
