"""Records of nodes: signs of life, and what nodes read of each other, which is what changed.

    beat --record, lease--> n:<node>, nodes          authoritative: the record, whose expiry is the lease
      |---other totals, labels, draining--> nodes:changes --.
      |---other room--> nodes:rooms ------------------------+--beat, look of the other nodes
      '---a lease has ended--> nodes:changes ---------------'

A beat is one round trip and reads a bounded number of changes: what it costs does not depend on how many nodes there
are. Changes are hints that may be lost (with Redis' memory, say), so every node also reads all records now and then,
the less often the more there are. See `lua/node_changes.lua` for who removes what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.store import ObjectStore

CHANGES_AT_ONCE: Final = 64
"""What one beat or look reads of changes, and of changed rooms."""

UNREAD_SECONDS: Final = 30.0
"""Who has not read changes for so long reads all records: what is older than a minute goes."""

_NEVER: Final = b"0"


class LeftInOrder:
    """What stands in place of a record: the node said goodbye."""


LEFT: Final = LeftInOrder()

Found = Mapping[bytes, "bytes | LeftInOrder | None"]
"""Sealed records by node; None for one whose lease has ended, `LEFT` for one that said goodbye."""


class Holder(NamedTuple):
    """Who holds something of which there is one in the cluster.

    Attributes:
        node: its id, b"" for nobody.
        left: milliseconds until that ends; -2: nobody, -1: never.
    """

    node: bytes
    left: int


class Beaten(NamedTuple):
    """What a sign of life brought.

    Attributes:
        was_alive: the lease had not ended.
        head: who has the head's resource.
        planner: who plans placement groups.
        found: what changed of other nodes.
        more: there is more that changed.
        queues: how many queues there are on record, and how many of them have priorities.
        has_silent: there are drivers that gave no sign of life for too long.
        turns: milliseconds left of each turn that was asked for, as those of `Holder`.
    """

    was_alive: bool
    head: Holder
    planner: Holder
    found: Found
    more: bool
    queues: tuple[int, int]
    has_silent: bool
    turns: Sequence[int]


class NodeRecords:
    """The records of nodes, as one of them writes and reads them. For one thread: it keeps how far changes were read.

    Args:
        store: of the cluster.
        keys: of the cluster.
        node: who writes and reads.
        at_once: how many changes are read in one go.
    """

    def __init__(self, store: ObjectStore, keys: Keys, node: bytes, at_once: int = CHANGES_AT_ONCE) -> None:
        self._store = store
        self._keys = keys
        self._node = node
        self._prefix = keys.prefix
        self._hex = node.hex()
        self._at_once = at_once
        self._since = self._rooms_since = self._now = _NEVER

    def beat(
        self,
        record: bytes,
        *,
        lease: float,
        slots: int,
        news: bool,
        room: bool,
        claims_head: bool | None,
        late: float,
        turns: Sequence[bytes] = (),
    ) -> Beaten:
        """Write this node's record, and read what changed of others.

        Args:
            record: sealed.
            lease: for how long it counts, in seconds.
            slots: tasks that the node may run at a time.
            news: others are to read it at once, whoever they are.
            room: those are that look for room.
            claims_head: True to claim the head's resource or keep it, False to give it up, None for neither.
            late: seconds after which a driver that gave no sign of life is silent.
            turns: keys of what one node does for all.

        Raises:
            StoreError: Redis is away, or somebody else's keys are in the way.
        """
        head = b"" if claims_head is None else b"1" if claims_head else b"0"
        alive, self._now, holder, changes, rooms, planner, queues, prioritized, silent, left = self._store.script(
            "node_beat", self._prefix, self._node, self._hex, int(lease * 1000), record, slots,
            b"1" if news else b"0", b"1" if room else b"0", head, self._since, self._rooms_since, self._at_once,
            int(late * 1e6), *turns,
        )  # fmt: skip
        found, more = self._take(changes, rooms)
        counts = int(queues), int(prioritized)
        return Beaten(bool(alive), Holder(*holder), Holder(*planner), found, more, counts, bool(silent), left)

    def look(self) -> tuple[Found, bool]:
        """Return what changed of other nodes since the last look or beat, and whether there is more."""
        changes, rooms = self._store.script(
            "node_look", self._prefix, self._hex, self._since, self._rooms_since, self._at_once
        )
        return self._take(changes, rooms)

    def _take(self, changes: Sequence[Any], rooms: Sequence[Any]) -> tuple[Found, bool]:
        found: dict[bytes, bytes | LeftInOrder | None] = {}
        for each in (rooms, changes):
            for node, record in zip(each[2::2], each[3::2], strict=True):
                found[node] = LEFT if record == b"" else None if record == b"-" else record
        self._since, self._rooms_since = changes[0], rooms[0]
        return found, self._at_once in (changes[1], rooms[1])

    def read_all(self) -> dict[bytes, bytes | None]:
        """Return the records of all other nodes on record; from here on, what changed since the last beat is read."""
        store, keys = self._store, self._keys
        nodes = [each for each in store.call(b"HKEYS", keys.nodes) if each != self._node]
        self._since = self._rooms_since = self._now
        return dict(zip(nodes, store.call(b"MGET", *map(keys.node, nodes)), strict=True)) if nodes else {}

    def stay(self, lease: float, *, head: bool) -> None:
        """Keep this node's record, and its claim, by what Redis does also while it is full."""
        keys = self._keys
        for key in (keys.node(self._node), *([keys.head] if head else [])):
            self._store.connection.call(b"PEXPIRE", key, int(lease * 1000))

    def mark_again(self, mark: bytes) -> None:
        """Write the cluster's mark if Redis has lost it: who joins now is to join this cluster, not make another."""
        self._store.call(b"SET", self._keys.cluster, mark, b"NX")

    def leave(self, *, work_left: bool) -> None:
        """Take this node's record away; while work of it is in Redis, others must know that there was this node."""
        self._store.script("node_leave", self._prefix, self._node, self._hex, b"1" if work_left else b"0")
