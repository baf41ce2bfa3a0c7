"""The bundles that a node holds: what it has set aside for placement groups.

    RESERVED --the group stands--> HELD --the group ends, or moves--> CLOSING --nothing runs inside--> (gone)
       |                                                                                                ^
       '-- the plan comes to nothing -------------------------------------------------------------------'

A bundle is a grant of the node's ledger, and a ledger of its own over it: what runs inside takes from that. It goes
back to the node when nothing inside holds anything any more, so that nothing is given away twice.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from rabbitry_broker import queue_names as names
from rabbitry_broker.queue_names import ANY_BUNDLE, QueueName
from rabbitry_broker.resources import CPU, UNITS, ResourceRequest
from rabbitry_workers.node.model.ledger import Grant, Ledger


class BundleState(enum.Enum):
    """Where a bundle is; see the module's head."""

    RESERVED = "reserved"
    HELD = "held"
    CLOSING = "closing"
    GONE = "gone"


_MOVES: Final = {
    BundleState.RESERVED: {BundleState.HELD, BundleState.GONE},
    BundleState.HELD: {BundleState.CLOSING},
    BundleState.CLOSING: {BundleState.GONE},
    BundleState.GONE: frozenset[BundleState](),
}


class Bundle:
    """One bundle on this node. Only `Bundles` changes it.

    Attributes:
        group: id of its group.
        index: its index there.
        token: of the plan by which it came here.
        grant: what it has of the node.
        ledger: of what runs inside.
        state: where it is.
    """

    __slots__ = ("grant", "group", "index", "ledger", "state", "token")

    def __init__(self, group: bytes, index: int, token: bytes, grant: Grant) -> None:
        self.group = group
        self.index = index
        self.token = token
        self.grant = grant
        self.ledger = Ledger(grant.request, grant.gpu_ids or None)
        self.state = BundleState.RESERVED

    def move(self, state: BundleState) -> None:
        """Change state; an impossible move is a bug and raises."""
        if state not in _MOVES[self.state]:
            raise AssertionError(f"bundle {self.index} of group {self.group.hex()}: {self.state} -> {state}")
        self.state = state

    def __repr__(self) -> str:
        return f"Bundle({self.group.hex()[:8]}.{self.index}, {self.grant.request.class_name}, {self.state.value})"


class Inside:
    """What a lane takes from when its tasks run in a group: the accounts of those bundles that are here and will do.

    Args:
        bundles: those of the node, which come and go.
        place: what the name of its queue says.
    """

    def __init__(self, bundles: Bundles, place: QueueName) -> None:
        self._bundles = bundles
        self._place = place

    def _ledgers(self) -> Iterator[Ledger]:
        for bundle in self._bundles.at(self._place):
            if bundle.state is BundleState.HELD:
                yield bundle.ledger

    def acquire(self, request: ResourceRequest) -> Grant | None:
        """Take `request` from one bundle, all of it or nothing; None also if no bundle is held here."""
        for ledger in self._ledgers():
            grant = ledger.acquire(request)
            if grant is not None:
                return grant
        return None

    def has_room(self, request: ResourceRequest) -> bool:
        """Return True if `acquire(request)` would succeed now."""
        return any(ledger.has_room(request) for ledger in self._ledgers())

    def times(self, request: ResourceRequest) -> int:
        """Return how many times it fits when nothing else is running."""
        return sum(ledger.times(request) for ledger in self._ledgers())


class Bundles:
    """All bundles of one node. Loop thread only.

    Args:
        ledger: of the node's resources.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._groups: dict[bytes, dict[int, Bundle]] = {}
        self._closing: set[Bundle] = set()  # those of which another one may have the place already

    def __iter__(self) -> Iterator[Bundle]:
        return iter([*[bundle for held in self._groups.values() for bundle in held.values()], *self._closing])

    def of(self, group: bytes) -> list[Bundle]:
        """Return the bundles of a group that are here, reserved or held."""
        return list(self._groups.get(group, {}).values())

    def at(self, place: QueueName) -> list[Bundle]:
        """Return those of them that a queue is for."""
        held = self._groups.get(place.id, {})
        if place.bundle_index != ANY_BUNDLE:
            return [held[place.bundle_index]] if place.bundle_index in held else []
        return [bundle for index, bundle in held.items() if place.has_bundle(index)]

    def groups(self) -> list[bytes]:
        """Return the groups of which bundles are reserved or held here."""
        return list(self._groups)

    def tokens(self) -> list[tuple[bytes, bytes]]:
        """Return (group, token) of all that is set aside here, each once."""
        return list({(bundle.group, bundle.token) for bundle in self})

    def free_in(self, groups: Iterable[bytes]) -> list[tuple[bytes, list[dict[str, float]]]]:
        """Return what is free in each bundle of some groups that is held here."""
        found = []
        for group in groups:
            held = [bundle for bundle in self.of(group) if bundle.state is BundleState.HELD]
            if held:
                found.append((group, [bundle.ledger.available() for bundle in held]))
        return found

    def has_room(self, place: QueueName) -> bool:
        """True if there is something free in one of these bundles."""
        held = [bundle for bundle in self.at(place) if bundle.state is BundleState.HELD]
        return any(amount for bundle in held for amount in bundle.ledger.available().values())

    def slots(self, place: QueueName) -> int:
        """Return how many tasks may run in these bundles at a time, about."""
        return sum(max(1, bundle.grant.request.amount(CPU) // UNITS) for bundle in self.at(place))

    def account_of(self, queue: str) -> Inside:
        """Return what those take from whose work comes from the queue of a bundle."""
        return Inside(self, names.parse(queue))

    def serves(self, place: QueueName) -> bool:
        """True if work for this place can run here, now or as soon as the group stands."""
        return bool(self.at(place))

    def fits(self, place: QueueName, request: ResourceRequest) -> bool:
        """True if a bundle here would have room for a request if nothing else ran there."""
        return any(bundle.ledger.can_ever(request) for bundle in self.at(place))

    # -- moves -------------------------------------------------------------------------------------------------------

    def reserve(self, group: bytes, token: bytes, wanted: Mapping[int, ResourceRequest]) -> bool:
        """Set bundles aside for a plan: all of them, or none. Those of the same plan may be here already."""
        made: list[Bundle] = []
        for index, request in wanted.items():
            known = self._groups.get(group, {}).get(index)
            if known is not None and known.token == token:
                continue
            grant = None if known is not None else self._ledger.acquire(request)
            if grant is None:
                for bundle in made:
                    self._drop(bundle)
                return False
            bundle = Bundle(group, index, token, grant)
            self._groups.setdefault(group, {})[index] = bundle
            made.append(bundle)
        return True

    def hold(self, group: bytes) -> list[Bundle]:
        """The group stands: what was reserved is held. Returns those bundles."""
        reserved = [bundle for bundle in self.of(group) if bundle.state is BundleState.RESERVED]
        for bundle in reserved:
            bundle.move(BundleState.HELD)
        return reserved

    def close(self, bundles: Collection[Bundle]) -> list[Bundle]:
        """Let go of bundles: at once of those in which nothing can run. Returns the others, which are closing."""
        closing = []
        for bundle in bundles:
            if self._groups.get(bundle.group, {}).get(bundle.index) is not bundle:
                continue
            if bundle.state is BundleState.RESERVED:
                self._drop(bundle)
                continue
            self._forget(bundle)
            bundle.move(BundleState.CLOSING)
            self._closing.add(bundle)
            closing.append(bundle)
        return closing

    def is_closing(self, ledger: Ledger) -> bool:
        """True for the ledger of a bundle that is closing."""
        return any(bundle.ledger is ledger for bundle in self._closing)

    @property
    def any_closing(self) -> bool:
        """True while something may run in bundles that are to go."""
        return bool(self._closing)

    def release_idle(self) -> bool:
        """Give back what bundles have that are closing and in which nothing runs; True if there was one."""
        idle = [bundle for bundle in self._closing if bundle.ledger.is_idle]
        for bundle in idle:
            self._closing.discard(bundle)
            bundle.move(BundleState.GONE)
            self._ledger.release(bundle.grant)
        return bool(idle)

    def _forget(self, bundle: Bundle) -> None:
        held = self._groups[bundle.group]
        del held[bundle.index]
        if not held:
            del self._groups[bundle.group]

    def _drop(self, bundle: Bundle) -> None:
        self._forget(bundle)
        bundle.move(BundleState.GONE)
        self._ledger.release(bundle.grant)
