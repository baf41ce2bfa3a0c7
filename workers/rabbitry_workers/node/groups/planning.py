"""Where the bundles of placement groups go: pure functions of what nodes have, tested alone.

| strategy | bundles go to |
|---|---|
| PACK | as few nodes as can be |
| SPREAD | different nodes, as far as there are |
| STRICT_PACK | one node, or they wait |
| STRICT_SPREAD | different nodes, or they wait |

Groups are planned oldest first. One that does not fit now lets younger ones pass, for `PATIENCE_SECONDS`; from then on
what it waits for is kept for it, from groups and from tasks: the nodes on which it would fit as soon as all that is
younger has ended. What others hold for longer than `LASTING_SECONDS`, or held before it was asked for, counts as there
to stay, so that nothing is kept for a group that has to wait for that anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rabbitry.labels import matches
from rabbitry_broker.resources import GPU, UNITS, ResourceRequest
from rabbitry_broker.store.groups import PACK, SPREAD, STRICT_PACK, STRICT_SPREAD

PATIENCE_SECONDS: Final = 2.0
LASTING_SECONDS: Final = 60.0
STEPS_MAX: Final = 2000
"""Of a search for a plan, once the quick ways have found none."""

NO_RESOURCES: Final = "NO_RESOURCES"
INFEASIBLE: Final = "INFEASIBLE"

Plan = dict[int, bytes]
"""The node of each bundle, by index."""


@dataclass
class Room:
    """What a node has free.

    Attributes:
        node: its id.
        free: units of each resource, without GPUs.
        gpus: free units of each GPU.
        labels: of the node.
    """

    node: bytes
    free: dict[str, int]
    gpus: list[int] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def whole(cls, node: bytes, totals: ResourceRequest, labels: Mapping[str, str]) -> Room:
        """Return the room of a node on which nothing runs."""
        gpus = totals.amount(GPU)
        return cls(
            node,
            {name: units for name, units in totals.units if name != GPU},
            [min(UNITS, gpus - at) for at in range(0, gpus, UNITS)],
            labels,
        )

    def copy(self) -> Room:
        """Return one that may be changed."""
        return Room(self.node, dict(self.free), list(self.gpus), self.labels)

    def fits(self, request: ResourceRequest) -> bool:
        """Return True if there is room for a request."""
        for name, units in request.units:
            if name == GPU:
                if units >= UNITS:
                    if sum(share >= UNITS for share in self.gpus) < units // UNITS:
                        return False
                elif not any(share >= units for share in self.gpus):
                    return False
            elif self.free.get(name, 0) < units:
                return False
        return True

    def take(self, request: ResourceRequest) -> None:
        """Take what a request asks for; where there is less, nothing is left."""
        for name, units in request.units:
            if name == GPU:
                self._take_gpus(units)
            else:
                self.free[name] = max(0, self.free.get(name, 0) - units)

    def _take_gpus(self, units: int) -> None:
        if units < UNITS:
            fitting = [at for at, share in enumerate(self.gpus) if share >= units]
            if fitting:
                self.gpus[min(fitting, key=self.gpus.__getitem__)] -= units  # as a ledger chooses
            return
        for at, share in enumerate(self.gpus):
            if units and share >= UNITS:
                self.gpus[at] = 0
                units -= UNITS


@dataclass(frozen=True)
class Wanted:
    """A group that waits.

    Attributes:
        id: of the group.
        bundles: what each bundle that no node holds asks for, by index.
        strategy: of the group.
        selectors: label selectors of bundles, by index.
        target: the node to prefer, b"" for none.
        topology: the label that all nodes must share the value of, "" for none.
        taken: nodes that hold other bundles of it.
        created: when it was asked for.
    """

    id: bytes
    bundles: Mapping[int, ResourceRequest]
    strategy: str = PACK
    selectors: Mapping[int, str] = field(default_factory=dict)
    target: bytes = b""
    topology: str = ""
    taken: frozenset[bytes] = frozenset()
    created: float = 0.0

    def may_be_on(self, index: int, room: Room) -> bool:
        """Return True if a bundle could be on a node by its labels, and fits there."""
        selector = self.selectors.get(index, "")
        return (not selector or matches(selector, room.labels)) and room.fits(self.bundles[index])


def place(wanted: Wanted, rooms: Iterable[Room]) -> Plan | None:
    """Return a node for each bundle of a group, or None if they do not fit."""
    rooms = list(rooms)
    if not wanted.topology:
        return _place(wanted, rooms)
    values = {room.labels[wanted.topology] for room in rooms if wanted.topology in room.labels}
    held = {room.labels.get(wanted.topology) for room in rooms if room.node in wanted.taken}
    for value in sorted(values if not held else values & held):
        plan = _place(wanted, [room for room in rooms if room.labels.get(wanted.topology) == value])
        if plan is not None:
            return plan
    return None


def _place(wanted: Wanted, rooms: list[Room]) -> Plan | None:
    if not wanted.bundles:
        return {}
    if wanted.strategy == STRICT_PACK:
        return _on_one(wanted, [room for room in rooms if not wanted.taken or room.node in wanted.taken])
    if wanted.strategy == STRICT_SPREAD:
        return _on_different(wanted, [room for room in rooms if room.node not in wanted.taken])
    if wanted.strategy == PACK:
        plan = _on_one(wanted, sorted(rooms, key=lambda room: room.node not in wanted.taken))
        if plan is None:
            plan = _greedily(wanted, rooms, _fullest)
    else:
        plan = _greedily(wanted, rooms, _least_used)
    return plan if plan is not None else _search(wanted, rooms)


def _on_one(wanted: Wanted, rooms: Iterable[Room]) -> Plan | None:
    for room in sorted(rooms, key=lambda room: room.node != wanted.target):
        left = room.copy()
        if all(_taken(wanted, index, left) for index in wanted.bundles):
            return dict.fromkeys(wanted.bundles, room.node)
    return None


def _taken(wanted: Wanted, index: int, room: Room) -> bool:
    if not wanted.may_be_on(index, room):
        return False
    room.take(wanted.bundles[index])
    return True


def _on_different(wanted: Wanted, rooms: Sequence[Room]) -> Plan | None:
    """Match bundles with nodes of their own, by augmenting paths: a match is found if there is one."""
    bundle_on: dict[bytes, int] = {}

    def find(index: int, seen: set[bytes]) -> bool:
        for room in rooms:
            if room.node in seen or not wanted.may_be_on(index, room):
                continue
            seen.add(room.node)
            if room.node not in bundle_on or find(bundle_on[room.node], seen):
                bundle_on[room.node] = index
                return True
        return False

    if all(find(index, set()) for index in _largest_first(wanted)):
        return {index: node for node, index in bundle_on.items()}
    return None


def _largest_first(wanted: Wanted) -> list[int]:
    """Return the bundles, those first that are hardest to place: of what few have, then of what they need much of."""

    def hardness(index: int) -> tuple[bool, int, int]:
        request = wanted.bundles[index]
        return (request.amount(GPU) > 0, len(request.units), sum(units for _, units in request.units))

    return sorted(wanted.bundles, key=hardness, reverse=True)


_Prefers = Callable[[Wanted, list[Room], dict[bytes, int]], list[Room]]


def _greedily(wanted: Wanted, rooms: Sequence[Room], prefer: _Prefers) -> Plan | None:
    left = [room.copy() for room in rooms]
    counts = {room.node: int(room.node in wanted.taken) for room in left}
    plan: Plan = {}
    for index in _largest_first(wanted):
        for room in prefer(wanted, left, counts):
            if _taken(wanted, index, room):
                plan[index] = room.node
                counts[room.node] += 1
                break
        else:
            return None
    return plan


def _fullest(wanted: Wanted, rooms: list[Room], counts: dict[bytes, int]) -> list[Room]:
    """Nodes in use first, then those on which most bundles fit."""

    def holds(room: Room) -> int:
        left = room.copy()
        return sum(_taken(wanted, index, left) for index in wanted.bundles)

    return sorted(rooms, key=lambda room: (-counts[room.node], -holds(room)))


def _least_used(_: Wanted, rooms: list[Room], counts: dict[bytes, int]) -> list[Room]:
    return sorted(rooms, key=lambda room: counts[room.node])


def _search(wanted: Wanted, rooms: Sequence[Room]) -> Plan | None:
    """Try combinations, up to `STEPS_MAX`: where greed has wasted what another bundle needs."""
    order = _largest_first(wanted)
    left = [room.copy() for room in rooms]
    plan: Plan = {}
    steps = 0

    def fill(at: int) -> bool:
        nonlocal steps
        if at == len(order):
            return True
        index = order[at]
        used = set(plan.values())
        spread = wanted.strategy == SPREAD
        for room in sorted(left, key=lambda room: (room.node in used) == spread):
            steps += 1
            if steps > STEPS_MAX:
                return False
            if not wanted.may_be_on(index, room):
                continue
            before = dict(room.free), list(room.gpus)
            room.take(wanted.bundles[index])
            plan[index] = room.node
            if fill(at + 1):
                return True
            room.free, room.gpus = before
            del plan[index]
        return False

    return plan if fill(0) else None


def plan_all(
    waiting: Iterable[Wanted],
    rooms: Sequence[Room],
    now: float,
    *,
    ever: Sequence[Room],
    lasting: Callable[[Wanted], Sequence[Room]],
) -> tuple[dict[bytes, Plan], dict[bytes, str], dict[bytes, Plan]]:
    """Plan groups, the oldest first.

    Args:
        waiting: the groups.
        rooms: what nodes have free now.
        now: the time, as of `Wanted.created`.
        ever: the same nodes with nothing on them.
        lasting: returns, for a group, the same nodes with nothing on them but what is there to stay.

    Returns:
        (plans by group, why there is none by group, where room is kept by group).
    """
    left = [room.copy() for room in rooms]
    by_node = {room.node: room for room in left}
    plans: dict[bytes, Plan] = {}
    reasons: dict[bytes, str] = {}
    kept: dict[bytes, Plan] = {}
    for wanted in sorted(waiting, key=lambda wanted: (wanted.created, wanted.id)):
        plan = place(wanted, left)
        if plan is not None:
            plans[wanted.id] = plan
        elif place(wanted, ever) is None:
            reasons[wanted.id] = INFEASIBLE
            continue
        else:
            reasons[wanted.id] = NO_RESOURCES
            if now - wanted.created < PATIENCE_SECONDS:
                continue
            plan = place(wanted, lasting(wanted))
            if plan is not None:
                kept[wanted.id] = plan
        for index, node in (plan or {}).items():
            by_node[node].take(wanted.bundles[index])
    return plans, reasons, kept
