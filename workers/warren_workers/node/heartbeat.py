"""The node's sign of life, and what it knows of the other nodes.

Every second the agent writes its record with an expiry (the lease), and reads the others'. A node whose record is
gone is dead: nobody may count on it any more, and its long tasks may be taken over.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from warren_broker.messages import decode, encode
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

INTERVAL_SECONDS = 1.0
REFRESH_SECONDS = 0.1


class Heartbeat:
    """Service on the agent's loop: `start`, `run_once`, `close`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._others: dict[bytes, dict[str, Any]] = {}
        self._started = time.time()
        self._closed = False
        self._any_dead = False
        self._beat_at = 0.0
        self._told: dict[str, float] = {}

    def start(self) -> None:
        """Beat from now on."""
        self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._closed:
            return
        try:
            self.run_once()
        finally:
            self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)

    def record(self) -> dict[str, Any]:
        """Return the node's record as others read it."""
        agent = self._agent
        return {
            "id": agent.node_id,
            "name": agent.config.name,
            "host": agent.config.host,
            "pid": os.getpid(),
            "totals": agent.config.totals,
            "available": agent.ledger.available(),
            "labels": agent.config.labels,
            "started": self._started,
            "hostname": os.uname().nodename,
            "draining": agent.draining,
        }

    def run_once(self) -> None:
        """Write our record, read the others'."""
        agent = self._agent
        keys, store, node = agent.keys, agent.store, agent.node_id
        sealed = agent.signer.seal(b"node" + node, encode(self.record()))
        lease = int(agent.config.lease * 1000)
        self._beat_at = time.monotonic()
        self._told = agent.ledger.available()
        replies = store.pipeline(
            [
                (b"SET", keys.node(node), sealed, b"PX", lease),
                (b"HSET", keys.nodes, node, sealed),
                (b"HSET", keys.nodes + b":slots", node, agent.slots),
                (b"HKEYS", keys.nodes),
            ]
        )
        others = [each for each in replies[3] if each != node]
        self._others = {}
        dead = False
        if others:
            for each, stored in zip(others, store.call(b"MGET", *[keys.node(each) for each in others]), strict=True):
                if stored is None:
                    dead = True
                    store.call(b"HDEL", keys.nodes + b":slots", each)
                else:
                    self._others[each] = decode(agent.signer.open(b"node" + each, stored))
        self._any_dead = dead

    def refresh(self, *, waiting: bool) -> None:
        """Between two beats: tell others if what is free here changed; look at theirs if work waits here."""
        if not self._others:
            return
        now = time.monotonic()
        if now - self._beat_at < REFRESH_SECONDS:
            return
        if waiting or self._agent.ledger.available() != self._told:
            self.run_once()

    def any_dead(self) -> bool:
        """True if a node is on record whose lease ended: work may have been lost with it."""
        return self._any_dead

    def is_alive(self, node: bytes) -> bool:
        """True if that node's lease has not ended."""
        return bool(self._agent.store.call(b"EXISTS", self._agent.keys.node(node)))

    def room_elsewhere(self, request: Any) -> bool:
        """True if some other node has room for a request now, as far as is known."""
        return any(
            not other["draining"] and request.fits_in(ResourceRequest.from_floats(other["available"]))
            for other in self._others.values()
        )

    def close(self) -> None:
        """Take the node's record away."""
        self._closed = True
        agent = self._agent
        agent.store.pipeline(
            [
                (b"DEL", agent.keys.node(agent.node_id)),
                (b"HDEL", agent.keys.nodes + b":slots", agent.node_id),
                (b"HDEL", agent.keys.nodes, agent.node_id),
            ]
        )
