"""The node's sign of life, and what it knows of the other nodes.

Every second the agent writes its record with an expiry (the lease), and reads the others'. A node whose record is gone
is dead: nobody may count on it any more, and its long tasks may be taken over. Between two beats a node that has others
tells them when what is free changes, and looks at theirs while work waits here.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from warren.labels import matches
from warren_broker.errors import StoreError, WarrenBrokerError, is_wrong_type
from warren_broker.messages import decode, encode
from warren_broker.resources import ResourceRequest
from warren_broker.signing import ForgedMessage
from warren_workers.node.watch import connection_name

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

INTERVAL_SECONDS = 1.0
REFRESH_SECONDS = 0.1
REFRESH_ROUND_TRIPS = 5  # the same from far away
SLOWEST_ROUND_TRIP = 2.0  # what took longer was an outage
LOSS_SECONDS = 180.0  # so long after a node's end its deliveries may come again: RabbitMQ waits for a silent host
PRESENCE_SECONDS = 0.1  # what a look at Redis' connections says is believed so long

log = logging.getLogger("warren.node")


class OtherNode:
    """What is known of another living node.

    Attributes:
        totals: what it has.
        available: what it has free, as it said last.
        labels: its labels, those included that it has by itself.
        draining: it takes no more work.
    """

    __slots__ = ("available", "draining", "labels", "totals")

    def __init__(self, record: dict[str, Any]) -> None:
        self.totals = ResourceRequest.from_floats(record["totals"])
        self.available = ResourceRequest.from_floats(record["available"])
        self.labels = {"ray.io/node-id": record["id"].hex(), **record["labels"]}
        self.draining = record["draining"]


class Heartbeat:
    """Service on the agent's loop: `start`, `run_once`, `close`.

    Attributes:
        round_trip: seconds that Redis took to answer, the best of the last beats.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._others: dict[bytes, OtherNode] = {}
        self._lost: dict[bytes, float] = {}  # nodes without a goodbye, and when that was noticed
        self._started = time.time()
        self._closed = False
        self._beat_at = 0.0
        self._told: dict[str, float] = {}
        self._present: tuple[float, bool] = (0.0, False)
        self.round_trip = 0.0
        self._round_trips: deque[float] = deque(maxlen=3)

    def start(self) -> None:
        """Beat from now on."""
        self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._closed:
            return
        try:
            self.run_once()
        except WarrenBrokerError as error:
            self._clear_wrong_type(error)
            log.warning("no sign of life could be written: %s", error)
        finally:
            often = min(REFRESH_ROUND_TRIPS * self.round_trip, self._agent.config.lease / 4)
            self._agent.loop.call_later(max(INTERVAL_SECONDS, often), self._tick)

    def _clear_wrong_type(self, error: WarrenBrokerError) -> None:
        """Somebody else wrote in the place of our record, in another type: it goes, and the next beat writes ours."""
        agent = self._agent
        key = agent.keys.node(agent.node_id)
        if isinstance(error, StoreError) and is_wrong_type(error) and agent.store.call(b"MGET", key) == [None]:
            agent.store.call(b"UNLINK", key)
            agent.store.put_aside(f"node {agent.node_id.hex()}", b"", str(error))

    def record(self) -> dict[str, Any]:
        """Return the node's record as others read it."""
        agent = self._agent
        return {
            "id": agent.node_id,
            "name": agent.config.name,
            "host": agent.config.host,
            "pid": os.getpid(),
            "totals": agent.config.totals,
            "available": self._told,
            "objects": agent.store.large.memory(),
            "labels": agent.config.labels,
            "started": self._started,
            "hostname": os.uname().nodename,
            "draining": agent.draining,
        }

    def stay(self) -> None:
        """Keep our record while Redis is full: it takes no new one then, but lets an old one live on."""
        agent = self._agent
        agent.store.connection.call(b"PEXPIRE", agent.keys.node(agent.node_id), int(agent.config.lease * 1000))

    def run_once(self) -> None:
        """Write our record, read the others'."""
        agent = self._agent
        keys, store, node = agent.keys, agent.store, agent.node_id
        self._told = agent.ledger.available()
        sealed = agent.signer.seal(b"node" + node, encode(self.record()))
        lease = int(agent.config.lease * 1000)
        before, self._beat_at = self._beat_at, time.monotonic()
        alone = (b"SET", keys.node(node), sealed, b"PX", lease, b"GET")
        known = [*self._others, *self._lost]
        store.sign_of_life(node, agent.config.lease)
        replies = store.pipeline(
            [
                alone,
                (b"HSET", keys.nodes, node, sealed),
                (b"HSET", keys.nodes + b":slots", node, agent.slots),
                (b"HKEYS", keys.nodes),
                *([(b"MGET", *[keys.node(each) for each in known])] if known else []),
            ]
        )
        self._measure(time.monotonic() - self._beat_at)
        if before and replies[0] is None:
            log.warning(
                "this node was silent for %.0f s, longer than its lease: others count it as dead and may have taken "
                "over its work",
                self._beat_at - before,
            )
            agent.actors.doubt()
        found = dict(zip(known, replies[4] if known else [], strict=True))
        fresh = [each for each in replies[3] if each != node and each not in found]
        if fresh:
            found.update(zip(fresh, store.call(b"MGET", *[keys.node(each) for each in fresh]), strict=True))
        self._read_others({each: found[each] for each in replies[3] if each != node})

    def _measure(self, seconds: float) -> None:
        if seconds < SLOWEST_ROUND_TRIP:
            self._round_trips.append(seconds)
            self.round_trip = min(self._round_trips)

    def _read_others(self, others: dict[bytes, bytes | None]) -> None:
        agent = self._agent
        now = time.monotonic()
        before, self._others = self._others, {}
        store_trusted = agent.store.trusts_leases(agent.config.lease)
        for node, stored in others.items():
            if stored is None:
                if not store_trusted:
                    if node in before:
                        self._others[node] = before[node]
                elif node not in self._lost:
                    self._lost[node] = now
                    agent.store.call(b"HDEL", agent.keys.nodes + b":slots", node)
                    if node in before:
                        log.warning("node %s is gone: its lease ended", node.hex()[:8])
                continue
            self._lost.pop(node, None)
            try:
                self._others[node] = OtherNode(decode(agent.signer.open(b"node" + node, stored)))
            except ForgedMessage as error:
                agent.store.put_aside(f"node {node.hex()}", stored, str(error))
        for node in set(self._lost).difference(others):
            del self._lost[node]

    def refresh(self, *, waiting: bool) -> None:
        """Between two beats: tell others if what is free here changed; look at theirs if work waits here."""
        if not self._others:
            return
        now = time.monotonic()
        if now - self._beat_at < max(REFRESH_SECONDS, REFRESH_ROUND_TRIPS * self.round_trip):
            return
        if waiting or self.has_news():
            self.run_once()

    def has_news(self) -> bool:
        """True if other nodes do not know yet what is free here."""
        return bool(self._others) and self._agent.ledger.available() != self._told

    # -- the others --------------------------------------------------------------------------------------------------

    @property
    def has_others(self) -> bool:
        """True if other nodes are alive."""
        return bool(self._others)

    def is_alive(self, node: bytes) -> bool:
        """True if that node's lease has not ended, or cannot be judged just after Redis was away."""
        agent = self._agent
        if not agent.store.trusts_leases(agent.config.lease):
            return True
        return bool(agent.store.call(b"EXISTS", agent.keys.node(node)))

    def room_elsewhere(self, request: ResourceRequest, selector: str = "") -> bool:
        """True if some other node whose labels fit has room for a request now, as far as is known."""
        return any(
            not other.draining
            and request.fits_in(other.available)
            and (not selector or matches(selector, other.labels))
            for other in self._others.values()
        )

    def lost_a_node(self) -> bool:
        """True if a node was lost lately, and work with it. Looks at leases, and at who is connected right now."""
        now = time.monotonic()
        if any(now - since < LOSS_SECONDS for since in self._lost.values()):
            return True
        if now - self._present[0] > PRESENCE_SECONDS:
            self._present = now, self._someone_is_missing()
        return self._present[1]

    def _someone_is_missing(self) -> bool:
        agent = self._agent
        try:
            nodes = agent.store.call(b"HKEYS", agent.keys.nodes)
            connected = agent.store.call(b"CLIENT", b"LIST") if len(nodes) > 1 else b""
        except StoreError as error:
            log.info("cannot see who is connected: %s", error)  # not everybody's Redis lets its users
            return False
        missing = {each for each in nodes if b" name=%s " % connection_name(each).encode() not in connected}
        # A list without ourselves (a proxy made it) says nothing about others.
        return bool(missing) and agent.node_id not in missing

    def close(self) -> None:
        """Take the node's record away; while work of it is in Redis, others must know that there was this node."""
        self._closed = True
        agent = self._agent
        commands: list[tuple[bytes, ...]] = [
            (b"DEL", agent.keys.node(agent.node_id)),
            (b"HDEL", agent.keys.nodes + b":slots", agent.node_id),
        ]
        if not (agent.custody.left or agent.continuations.left):
            commands.append((b"HDEL", agent.keys.nodes, agent.node_id))
        agent.store.pipeline(commands)
