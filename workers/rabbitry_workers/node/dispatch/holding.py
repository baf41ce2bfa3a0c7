"""Room that is kept for what needs more than ever becomes free at once: else a stream of small tasks would starve it.

Whoever was passed over for long asks (`keep`): a lane whose turn it is, or the planner for a placement group. Of those
that ask, one at a time has what becomes free kept for it, so that two cannot hold a half each:

    asked --its turn, and no actor or bundle is in the way--> HELD --HOLD_SECONDS--> RESTS, as long, then longer
      ^                                                        |                       |
      '------------------------ not asked for any more --------+-----------------------'

While it rests, others have all room: however long tasks run, no more than half of the node's time is lost by waiting
for them. What blocked tasks wait for is started in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.model.lanes import Lane
from rabbitry_workers.node.model.ledger import Grant, Ledger

PATIENCE_SECONDS: Final = 1.0  # that a lane is passed over before room is kept for it
HOLD_SECONDS: Final = 10.0
HOLD_SECONDS_MAX: Final = 160.0
ASKED_SECONDS: Final = 3.0  # whoever has not asked again by then needs it no more


class _Asked:
    """What somebody needs.

    Attributes:
        units: of each resource.
        asked_at: when it was asked for last.
        hold: seconds that it is kept, and rests then.
        turns_at: when its state changes; 0 until it was held.
        held: it is kept, or was last.
    """

    __slots__ = ("asked_at", "held", "hold", "turns_at", "units")

    def __init__(self, units: dict[str, int]) -> None:
        self.units = units
        self.asked_at = 0.0
        self.hold = HOLD_SECONDS
        self.turns_at = 0.0
        self.held = False


class Holding:
    """Loop thread only. HOT PATH while nobody asks.

    Args:
        ledger: of the node's resources.
        lasting: returns what is held by those who do not end by themselves: actors and bundles.
        waits_for: True if blocked tasks wait for something in a lane.
        on_room: called soon after something is kept no more.
    """

    def __init__(
        self,
        ledger: Ledger,
        lasting: Callable[[], Iterable[Grant]],
        waits_for: Callable[[Lane], bool],
        on_room: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._lasting = lasting
        self._waits_for = waits_for
        self._on_room = on_room
        self._asked: dict[Hashable, _Asked] = {}
        self._kept: dict[str, int] = {}  # units of each resource
        self._for: Hashable = None

    def keep(self, who: Hashable, requests: Sequence[ResourceRequest]) -> None:
        """Somebody who was passed over for long needs all of this at once; to be called again while that is so."""
        units: dict[str, int] = {}
        for request in requests:
            for name, amount in request.units:
                units[name] = units.get(name, 0) + amount
        asked = self._asked.get(who)
        if asked is None or asked.units != units:
            asked = self._asked[who] = _Asked(units)
        asked.asked_at = time.monotonic()
        self._choose()

    def drop(self, who: Hashable) -> None:
        """It needs nothing any more."""
        if self._asked.pop(who, None) is not None:
            self._choose()

    def took(self, lane: Lane) -> None:
        """A lane got room: it is passed over no more."""
        if self._asked:
            self.drop(lane.key)

    def run_once(self) -> None:
        """Begin and end what is due."""
        if self._asked:
            self._choose()

    def allows(self, lane: Lane) -> bool:
        """Return False if a lane may not take room now, because it is kept."""
        if not self._kept or lane.account is not self._ledger or lane.key == self._for:
            return True
        free, kept = self._ledger.free_units(), self._kept
        if all(free.get(name, 0) - units >= kept[name] for name, units in lane.request.units if name in kept):
            return True
        return self._waits_for(lane)

    def gives_way(self, lane: Lane) -> bool:
        """True if what an executor of this lane has is to be given back when it is done."""
        if not self._kept or lane.account is not self._ledger or lane.key == self._for:
            return False
        free, kept = self._ledger.free_units(), self._kept
        wanted = any(free.get(name, 0) < kept[name] for name, _ in lane.request.units if name in kept)
        return wanted and not self._waits_for(lane)

    def _choose(self) -> None:
        now = time.monotonic()
        for who, asked in list(self._asked.items()):
            if now - asked.asked_at > ASKED_SECONDS:
                del self._asked[who]
            elif asked.turns_at and now >= asked.turns_at:
                asked.turns_at = 0.0
                if asked.held:
                    asked.held = False
                    asked.turns_at = now + asked.hold
                    asked.hold = min(2 * asked.hold, HOLD_SECONDS_MAX)
        chosen = next((who for who, asked in self._asked.items() if asked.held), None)
        if chosen is None:
            chosen = self._next()
            if chosen is not None:
                asked = self._asked[chosen]
                asked.held, asked.turns_at = True, now + asked.hold
        if self._kept and chosen != self._for:
            self._on_room()
        self._for = chosen
        self._kept = self._asked[chosen].units if chosen is not None else {}

    def _next(self) -> Hashable:
        there: dict[str, int] | None = None
        for who, asked in self._asked.items():
            if asked.turns_at:
                continue  # it rests
            if there is None:
                there = self._ledger.totals.to_units()
                for grant in self._lasting():
                    for name, units in grant.request.units:
                        there[name] = there.get(name, 0) - units
            if all(there.get(name, 0) >= units for name, units in asked.units.items()):
                return who
        return None
