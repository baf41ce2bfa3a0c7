"""What a node knows of the other nodes: which are alive, what room they have, whether one was lost lately.

It is told what changed of them (`update`), and now and then of all (`read`). Authoritative are the records in Redis,
whose expiry is the lease. What stands here was true at the last beat; what decides whether something may run twice
(`is_alive`) is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rabbitry.labels import matches
from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import StoreError
from rabbitry_broker.implicit import NODE_ID_LABEL
from rabbitry_broker.messages import decode
from rabbitry_broker.queue_names import QueueKind, QueueName
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.nodes import Found
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.peers.names import connection_name

LOSS_SECONDS: Final = 180.0
"""So long after a node's end its deliveries may come again: RabbitMQ waits for a silent host."""

TAKEN_SECONDS: Final = 1.5
"""So long what was sent to another node counts as taken there: a task that ran between two of its beats, each a
second after the other, leaves its room as it was said before, of which nobody is told anew."""

PRESENCE_SECONDS: Final = 0.1  # what a look at Redis' connections says is believed so long

log = logging.getLogger("rabbitry.node")


class OtherNode:
    """What is known of another living node.

    Attributes:
        totals: what it has.
        host: id of its host, whose shared memory it uses.
        available: what it has free for any task, as it said last: not what its blocked tasks lend.
        labels: its labels, those included that it has by itself.
        draining: it takes no more work.
        gpus: what it has free of each GPU, in units of 1/10000.
        bundles: (group, token of the plan) of what it has set aside for placement groups.
        inside: what is free in its bundles, by group, of those groups that share their work.
    """

    __slots__ = ("_said", "_taken_at", "available", "bundles", "draining", "gpus", "host", "inside", "labels", "totals")

    def __init__(self, record: dict[str, Any]) -> None:
        self.totals = ResourceRequest.from_floats(record["totals"])
        self.available = self._said = ResourceRequest.free(record["room"])
        self._taken_at = 0.0
        self.labels = {NODE_ID_LABEL: record["id"].hex(), **record["labels"]}
        self.draining = record["draining"]
        self.host: bytes = record.get("host", b"")
        self.gpus: list[int] = list(record.get("gpus", ()))
        self.bundles = {(group, token) for group, token in record.get("bundles", ())}
        self.inside = {
            group: [ResourceRequest.free(each) for each in rooms] for group, rooms in record.get("inside", ())
        }

    def take(self, request: ResourceRequest, now: float) -> None:
        """Count on that much less, for as long as its taking may go unsaid."""
        left = self.available.to_units()
        for name, units in request.units:
            left[name] -= units
        self.available, self._taken_at = ResourceRequest.from_units(left, is_free=True), now

    def forget_taken(self, now: float) -> bool:
        """Believe again what it said, if what was taken since would be told by now; True if so."""
        told = now - self._taken_at > TAKEN_SECONDS
        if told:
            self.available = self._said
        return told


class Others:
    """The other nodes of one node. The heartbeat reads their records (`read`), all parts ask. Loop thread only.

    Attributes:
        on_other_hosts: some of them are on other hosts than this one.
        on_gone: called when nodes are there no more, whether they were lost or left in order.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._alive: dict[bytes, OtherNode] = {}
        self._taken: set[OtherNode] = set()  # of which `take_room` took something lately
        self._lost: dict[bytes, float] = {}  # nodes without a goodbye, and when that was noticed; `read` forgets them
        self._present: tuple[float, bool] = (0.0, False)
        self.on_other_hosts = False
        self.on_gone: Callable[[], None] = lambda: None

    @property
    def has_others(self) -> bool:
        """True if other nodes are alive."""
        return bool(self._alive)

    @property
    def count(self) -> int:
        """How many other nodes are alive."""
        return len(self._alive)

    def is_alive(self, node: bytes) -> bool:
        """True if that node's lease has not ended, or cannot be judged just after Redis was away."""
        store = self._node.store
        if not store.trusts_leases(self._node.config.lease):
            return True
        return bool(store.call(b"EXISTS", self._node.keys.node(node)))

    def is_orphaned(self, place: QueueName) -> bool:
        """True if this is the queue of a node that is gone (or never was)."""
        return place.kind is QueueKind.NODE and place.id not in self._alive and not self.is_alive(place.id)

    def may_be_abandoned(self, queue: str) -> bool:
        """True for the queue of a node that is not known to live: others look after it for a while only."""
        if not queue.startswith(names.NODE_PREFIX):
            return False
        node = names.parse(queue).id
        return node != self._node.id and node not in self._alive

    def room_elsewhere(self, request: ResourceRequest, selector: str = "") -> bool:
        """True if some other node whose labels fit has room for a request now, as far as is known."""
        return any(
            not other.draining
            and request.fits_in(other.available)
            and (not selector or matches(selector, other.labels))
            for other in self._alive.values()
        )

    def room_inside(self, group: bytes, request: ResourceRequest) -> bool:
        """True if some other node has room for a request in a bundle of that group, as far as is known."""
        return any(
            not other.draining and any(request.fits_in(free) for free in other.inside.get(group, ()))
            for other in self._alive.values()
        )

    def take_room(self, hosts: list[bytes], request: ResourceRequest, selector: str) -> bytes | None:
        """Return a node on the first of these hosts that has room, and count on that room no more; None for none.

        What was taken counts until the node says anew what it has free, or could have.
        """
        for host in hosts:
            for node, other in self._alive.items():
                if (
                    other.host == host
                    and not other.draining
                    and request.fits_in(other.available)
                    and (not selector or matches(selector, other.labels))
                ):
                    other.take(request, time.monotonic())
                    self._taken.add(other)
                    return node
        return None

    def is_alone_on_host(self) -> bool:
        """True if no other node of this host is known to take work."""
        host = self._node.config.host
        return not any(other.host == host and not other.draining for other in self._alive.values())

    def lost_a_node(self) -> bool:
        """True if a node was lost lately, and work with it. Looks at leases, and at who is connected right now."""
        now = time.monotonic()
        if any(now - since < LOSS_SECONDS for since in self._lost.values()):
            return True
        if now - self._present[0] > PRESENCE_SECONDS:
            self._present = now, self._someone_is_missing()
        return self._present[1]

    def _someone_is_missing(self) -> bool:
        store, keys = self._node.store, self._node.keys
        try:
            nodes = store.call(b"HKEYS", keys.nodes)
            connected = store.call(b"CLIENT", b"LIST") if len(nodes) > 1 else b""
        except StoreError as error:
            log.info("cannot see who is connected: %s", error)  # not everybody's Redis lets its users
            return False
        missing = {each for each in nodes if b" name=%s " % connection_name(each).encode() not in connected}
        # A list without ourselves (a proxy made it) says nothing about others.
        return bool(missing) and self._node.id not in missing

    def alive(self) -> dict[bytes, OtherNode]:
        """Return the other living nodes, by id."""
        return dict(self._alive)

    def take(self, node: bytes, record: bytes) -> None:
        """A node told of itself between two beats."""
        if node == self._node.id or node in self._lost:
            return
        try:
            self._alive[node] = OtherNode(decode(self._node.signer.open(b"node" + node, record)))
        except ForgedMessage as error:
            self._node.store.put_aside(f"node {node.hex()}", record, str(error))

    def read(self, stored: Mapping[bytes, bytes | None]) -> None:
        """Take in the records of all other nodes on record; None for one whose lease has ended."""
        before, self._alive = self._alive, {}
        trusted = self._node.store.trusts_leases(self._node.config.lease)
        for node, record in stored.items():
            if record is not None:
                self._keep(node, record)
            elif not trusted:
                if node in before:
                    self._alive[node] = before[node]
            else:
                self._lose(node, known=node in before)
                self._node.store.call(b"HDEL", self._node.keys.nodes + b":slots", node)
        for node in set(self._lost).difference(stored):
            del self._lost[node]
        self._look_at_hosts()
        if before.keys() - self._alive.keys():
            self.on_gone()

    def update(self, found: Found) -> None:
        """Take in what changed of other nodes."""
        if self._taken:
            now = time.monotonic()
            self._taken = {each for each in self._taken if not each.forget_taken(now)}
        gone = False
        for node, record in found.items():
            if isinstance(record, bytes):
                self._keep(node, record)
                continue
            known = self._alive.pop(node, None) is not None
            gone = gone or known
            if record is None:
                self._lose(node, known=known)
            else:
                self._lost.pop(node, None)
        if gone:
            self._look_at_hosts()
            self.on_gone()

    def _keep(self, node: bytes, record: bytes) -> None:
        self._lost.pop(node, None)
        try:
            other = self._alive[node] = OtherNode(decode(self._node.signer.open(b"node" + node, record)))
        except ForgedMessage as error:
            self._alive.pop(node, None)
            self._node.store.put_aside(f"node {node.hex()}", record, str(error))
        else:
            self.on_other_hosts = self.on_other_hosts or other.host != self._node.config.host

    def _lose(self, node: bytes, *, known: bool) -> None:
        if node in self._lost:
            return
        self._lost[node] = time.monotonic()
        if known:
            log.warning("node %s is gone: its lease ended", node.hex()[:8])

    def _look_at_hosts(self) -> None:
        self.on_other_hosts = any(other.host != self._node.config.host for other in self._alive.values())
