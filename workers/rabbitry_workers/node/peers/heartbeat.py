"""The node's sign of life.

Every second the agent writes its record with an expiry (the lease), and reads which others changed. A node whose
record is gone is dead: nobody may count on it any more, and its long tasks may be taken over. Between two beats a node
that has others tells them when what is free changes, and looks at theirs while work waits here.

What a beat or a look costs does not grow with the number of nodes (`store/nodes.py`): it reads so many changes at most,
and the more nodes there are, the less often work that waits has this one look, and all records are read.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.machine import Load
from rabbitry_broker.messages import encode
from rabbitry_broker.store.nodes import CHANGES_AT_ONCE, UNREAD_SECONDS, Beaten, NodeRecords
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.peers.head import Head
from rabbitry_workers.node.peers.others import Others

INTERVAL_SECONDS: Final = 1.0
REFRESH_SECONDS: Final = 0.1
REFRESH_ROUND_TRIPS: Final = 5  # the same from far away
# So that all nodes together look 200 times a second, which cost them less than an idle second of theirs does: what one
# look finds grows with their number, too.
REFRESH_SECONDS_A_NODE: Final = 0.005
SLOWEST_ROUND_TRIP: Final = 2.0  # what took longer was an outage
READ_ALL_SECONDS: Final = 10.0  # changes are hints: so often all records are read
READ_ALL_SECONDS_A_NODE: Final = 0.1

NEWS: Final = ("totals", "draining")  # what of a record all others are to know
ROOM: Final = ("room", "gpus", "bundles", "inside")  # and those that look for room

LATE_SECONDS: Final = 2.0  # twice the pause between two signs of a driver; or a quarter of a lease

log = logging.getLogger("rabbitry.node")


def late_after(client_lease: float) -> float:
    """Return the seconds without a sign of life after which a driver is silent."""
    return min(LATE_SECONDS, client_lease / 4)


class Room(Protocol):
    """Knows what is free here."""

    def available(self) -> dict[str, float]:
        """Return what is free of each resource."""

    def for_others(self) -> dict[str, float]:
        """Return what is free for any task: not what blocked tasks lend."""

    def gpus(self) -> list[int]:
        """Return what is free of each GPU, in units of 1/10000."""


class Waits(Protocol):
    """Knows what waits here."""

    def work(self) -> list[tuple[str, str, int]]:
        """Return (resource class, label selector, count) of what waits."""

    def idle_seconds(self) -> float:
        """Return for how long the node has had nothing to do."""


class Heartbeat:
    """Service on the agent's loop: `start`, `run_once`, `close`.

    Args:
        node: whose sign of life it is.
        others: gets the records of the others.
        room: says what is free here.
        sign: tells the store that a sign of life is sent now, and for how long it lasts.
        bundles: returns (group, token of the plan) of what is set aside here for placement groups.
        inside: returns what is free in bundles here, by group, of those groups that share their work.
        is_draining: True if this node takes no more work.
        doubt: called when this node was silent for longer than its lease.
        head: claims the resource that one node of the cluster has.
        waiting: says what waits here, and for how long nothing has happened.
        figures: returns how much work the node has, and how it fares, for those who look at it.
        place: address and port where it serves large values; None if it does not.
        turns: keys of what one node does for all: the sign of life brings whether that is somebody's turn.

    Attributes:
        sealed: this node's record as it was written last.
        on_queues: told how many queues there are on record, and how many of them have priorities.
        on_planning_free: called when nobody plans placement groups.
        on_silent: called when there are drivers that gave no sign of life for too long.
    """

    def __init__(
        self,
        node: Node,
        others: Others,
        room: Room,
        bundles: Callable[[], list[tuple[bytes, bytes]]],
        inside: Callable[[], list[tuple[bytes, list[dict[str, float]]]]],
        sign: Callable[[bytes, float], None],
        is_draining: Callable[[], bool],
        doubt: Callable[[], None],
        head: Head,
        waiting: Waits,
        figures: Callable[[], dict[str, Any]] = dict,
        place: tuple[str, int] | None = None,
        turns: Sequence[bytes] = (),
    ) -> None:
        self._place = place
        self._turns = turns
        self._figures = figures
        self._node = node
        self._others = others
        self._room = room
        self._bundles = bundles
        self._inside = inside
        self._sign = sign
        self._is_draining = is_draining
        self._doubt = doubt
        self._head = head
        self._waiting = waiting
        self._records = NodeRecords(node.store, node.keys, node.id)
        self._started = time.time()
        self._closed = False
        self._beat_at = self._looked_at = 0.0
        self._read_all_at = self._read_at = -math.inf
        self._trusted = True
        self._planner, self._planner_until = b"", 0.0
        self.on_queues: Callable[[tuple[int, int]], None] = lambda counts: None
        self.on_planning_free: Callable[[], None] = lambda: None
        self.on_silent: Callable[[], None] = lambda: None
        self._load = Load()
        self.sealed = b""
        self._told: dict[str, float] = {}
        self._told_inside: list[tuple[bytes, list[dict[str, float]]]] = []
        self._news: list[Any] = []  # of the last record, what all others are to know, and those that look for room
        self._round_trips: deque[float] = deque(maxlen=3)

    def start(self) -> None:
        """Beat from now on."""
        self._node.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._closed:
            return
        try:
            self.run_once()
        except RabbitryBrokerError as error:
            log.warning("no sign of life could be written: %s", error)
        finally:
            often = min(REFRESH_ROUND_TRIPS * self._node.periodic.round_trip, self._node.config.lease / 4)
            self._node.loop.call_later(max(INTERVAL_SECONDS, often), self._tick)

    def record(self) -> dict[str, Any]:
        """Return the node's record as others read it."""
        config = self._node.config
        return {
            "id": self._node.id,
            "name": config.name,
            "host": config.host,
            "pid": os.getpid(),
            "address": config.address,
            "peers": self._place,
            "totals": self._head.totals(),
            "available": self._room.available(),
            "room": self._told,
            "waiting": self._waiting.work(),
            "idle": self._waiting.idle_seconds(),
            "objects": self._node.store.large.memory(),
            "labels": config.labels,
            "started": self._started,
            "hostname": os.uname().nodename,
            "draining": self._is_draining(),
            "load": self._load.look(),
            "gpus": self._room.gpus(),
            "bundles": self._bundles(),
            "inside": self._told_inside,
            "figures": {**self._figures(), "round_trip": self._node.periodic.round_trip},
        }

    def stay(self) -> None:
        """Keep our record while Redis is full."""
        self._records.stay(self._node.config.lease, head=self._head.holds)

    def run_once(self) -> None:
        """Write our record, read which others changed."""
        before = self._beat_at
        beaten = self._beat()
        if self._head.read(beaten.head):
            self._beat()  # what it has is not what was just said
        now = time.monotonic()
        self._measure(now - self._beat_at)
        if before and not beaten.was_alive:
            log.warning(
                "this node was silent for %.0f s, longer than its lease: others count it as dead and may have taken "
                "over its work",
                self._beat_at - before,
            )
            if self._node.config.mark:
                self._records.mark_again(self._node.config.mark)
            self._doubt()
        self._take(beaten, now)
        for key, left in zip(self._turns, beaten.turns, strict=True):
            self._node.turns.told(key, left)
        self.on_queues(beaten.queues)
        self._planner, self._planner_until = beaten.planner.node, now + beaten.planner.left / 1000
        if beaten.planner.left < 0:
            self.on_planning_free()
        if beaten.has_silent:
            self.on_silent()

    def _beat(self) -> Beaten:
        self._told, self._told_inside = self._room.for_others(), self._inside()
        leaving = self._is_draining()
        claims = self._head.claims(leaving=leaving)
        record = self.record()
        said = self._news or [[], []]
        self._news = [[record[each] for each in fields] for fields in (NEWS, ROOM)]
        news, room = (one != other for one, other in zip(self._news, said, strict=True))
        self.sealed = self._node.signer.seal(b"node" + self._node.id, encode(record))
        lease = self._node.config.lease
        self._looked_at = self._beat_at = time.monotonic()
        self._sign(self._node.id, lease)
        try:
            return self._records.beat(
                self.sealed,
                lease=lease,
                slots=self._node.slots,
                news=news,
                room=room,
                claims_head=claims,
                late=late_after(self._node.config.client_lease),
                turns=self._turns,
            )
        except RabbitryBrokerError:
            self._news = []  # perhaps nobody was told
            raise

    def _take(self, beaten: Beaten, now: float) -> None:
        """Take in what changed of others, or all of them: now and then, and when changes may have been missed."""
        trusted = self._node.store.trusts_leases(self._node.config.lease)
        overdue = READ_ALL_SECONDS + READ_ALL_SECONDS_A_NODE * self._others.count
        missed = not beaten.was_alive or now - self._read_at > UNREAD_SECONDS
        if missed or now - self._read_all_at > overdue or not (trusted and self._trusted):
            self._others.read(self._records.read_all())
            self._read_all_at = now
        else:
            self._others.update(beaten.found)
            if beaten.more:
                self._node.loop.add_callback(self._look_on)
        self._read_at, self._trusted = now, trusted

    def _look_on(self) -> None:
        """There is more that changed: the loop has other work in between."""
        try:
            self.look()
        except RabbitryBrokerError as error:
            log.info("cannot read what other nodes say now, but soon again: %s", error)

    def look_at_all(self) -> None:
        """Read all that others changed: for who plans for all. Half of them may change again meanwhile."""
        for _ in range(2 + 2 * self._others.count // CHANGES_AT_ONCE):
            if not self.look():
                return

    def look(self) -> bool:
        """Read which others changed, without a sign of life; True if there is more that changed."""
        self._looked_at = time.monotonic()
        found, more = self._records.look()
        self._others.update(found)
        return more

    def may_plan(self) -> bool:
        """True if no other node plans placement groups, as far as is known."""
        return self._planner in (b"", self._node.id) or time.monotonic() >= self._planner_until

    def _measure(self, seconds: float) -> None:
        if seconds < SLOWEST_ROUND_TRIP:
            self._round_trips.append(seconds)
            self._node.periodic.round_trip = min(self._round_trips)

    def refresh(self, *, waiting: bool) -> None:
        """Between two beats: say if what is free here changed, which programs ask for; look at others if work waits."""
        least = max(REFRESH_SECONDS, REFRESH_SECONDS_A_NODE * self._others.count)
        if time.monotonic() - self._looked_at < max(least, REFRESH_ROUND_TRIPS * self._node.periodic.round_trip):
            return
        if self.has_news():
            self.run_once()
        elif waiting and self._others.has_others:
            self.look()

    def has_news(self) -> bool:
        """True if the record does not say yet what is free here."""
        return (self._room.for_others(), self._inside()) != (self._told, self._told_inside)

    def close(self, *, work_left: bool) -> None:
        """Take the node's record away; while work of it is in Redis, others must know that there was this node."""
        self._closed = True
        self._records.leave(work_left=work_left)
