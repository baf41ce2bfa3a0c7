"""Shadows: deliveries that came again for work that this node has in hand (a connection broke, not a process)."""

from __future__ import annotations

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.ports import Settle
from rabbitry_workers.node.model.work import Held


class ShadowDeliveries:
    """Keeps them until the work in hand ends. Loop thread only."""

    def __init__(self, in_hand: InHand, settle: Settle) -> None:
        self._in_hand = in_hand
        self._settle = settle
        self._shadows: list[tuple[Held, set[bytes]]] = []  # `settle_ended` lets go of them

    def not_held_here(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Tasks that this node has in hand already (a connection broke) are not taken twice.

        The new delivery is kept unacknowledged until they are done: the old one does not count any more.
        """
        mine = set(self._in_hand.task_ids())
        shadows = {task[0] for task in tasks if task[0] in mine}
        if not shadows:
            return tasks
        held.outstanding += len(shadows)
        self._shadows.append((held, shadows))
        return [task for task in tasks if task[0] not in shadows]

    def settle_ended(self) -> None:
        """Let go of deliveries that came again for work which has ended since."""
        if not self._shadows:
            return
        shadows, self._shadows = self._shadows, []
        mine = set(self._in_hand.task_ids())
        for held, tasks in shadows:
            ended = {task_id for task_id in tasks if task_id not in mine}
            if len(ended) < len(tasks):
                self._shadows.append((held, tasks - ended))
            if ended:
                self._settle(held, len(ended))
