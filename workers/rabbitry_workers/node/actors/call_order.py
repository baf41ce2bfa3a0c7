"""The order of calls to a durable actor whose node was lost.

What the broker had delivered to that node is neither on the queue nor here until the node returns, or the broker drops
its connection. The calls behind it are: they would overtake. But the state says which calls it contains, so a call is
*early* if one before it, of the same caller, is neither in the state nor was handed to the process since.

An early call waits until those before it have come, for as long as they can take (`EngineTraits.lost_come_back`): some
never come, since they were cancelled or have failed for good.
"""

from __future__ import annotations

from collections.abc import Mapping

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.positions import Positions

Call = tuple[Held, bytes, TaskHeader, Task]  # with the packed header


class CallOrder:
    """Decides which calls may be handed to the process of one actor.

    Args:
        applied: bounds of the positions that the state contains, by caller.
    """

    def __init__(self, applied: Mapping[bytes, list[int]]) -> None:
        self._handed = {caller: Positions(bounds) for caller, bounds in applied.items()}
        self._early: dict[bytes, dict[int, Call]] = {}

    def is_early(self, caller: bytes, position: int) -> bool:
        """True if that call waits here already."""
        return position in self._early.get(caller, ())

    def in_turn(self, call: Call) -> list[Call]:
        """Return what may be handed to the process now that `call` has come, in order; nothing if it is early."""
        caller, position = call[2].owner, call[3][5]
        handed = self._handed.get(caller)
        if handed is None:
            handed = self._handed[caller] = Positions()
        early = self._early.get(caller, {})
        if position not in handed and not handed.has_all_below(position):
            self._early.setdefault(caller, early)[position] = call
            return []
        ready = [call]
        handed.add(position)
        while early:
            position = min(early)
            if not handed.has_all_below(position):
                break
            handed.add(position)
            ready.append(early.pop(position))
        if not early:
            self._early.pop(caller, None)
        return ready

    def waiting(self) -> list[Call]:
        """Return the early calls, those of one caller in order."""
        return [early[position] for early in self._early.values() for position in sorted(early)]

    def clear(self) -> list[Call]:
        """Return the early calls, and forget them."""
        left = self.waiting()
        self._early.clear()
        return left
