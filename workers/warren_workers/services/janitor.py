"""The janitor: clears up after clients and nodes that died without a goodbye.

Authoritative are the leases: `c:{client}` and `n:<node>` expire if nobody renews them. Every agent runs a janitor; a
lock with an expiry lets one of them work at a time. All it does may be done twice.

- A dead client: what it borrowed is released; its objects that nobody holds, its inbox and its waiting specs are
deleted.
  Objects that others hold stay until their last holder lets go.
- A dead node: what it had in custody goes back to its queues (see `warren_workers.node.custody`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from warren_broker.errors import WarrenBrokerError
from warren_broker.ids import CLIENT_BYTES

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

log = logging.getLogger("warren.node")

INTERVAL_SECONDS = 5.0
DEAD_NODES_KEPT_SECONDS = 600.0
SCAN_COUNT = 2000


class Janitor:
    """Service on the agent's loop: `start`, `run_once`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def start(self) -> None:
        """Look after the cluster from now on."""
        self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        try:
            if self._locked():
                self.run_once()
        except WarrenBrokerError as error:
            log.warning("the janitor could not finish its round: %s", error)
        finally:
            self._agent.loop.call_later(INTERVAL_SECONDS, self._tick)

    def _locked(self) -> bool:
        agent = self._agent
        reply = agent.store.call(b"SET", agent.keys.janitor, agent.node_id, b"NX", b"PX", int(INTERVAL_SECONDS * 900))
        return reply is not None

    def run_once(self) -> None:
        """Clear up after whoever is dead now."""
        self._clear_clients()
        self._clear_nodes()

    def _clear_clients(self) -> None:
        store, keys = self._agent.store, self._agent.keys
        expired = store.call(b"ZRANGEBYSCORE", keys.clients, b"-inf", time.time())
        dead = [client for client in expired if not store.call(b"EXISTS", keys.client(client))]
        if not dead:
            return
        for client in dead:
            borrowed = store.call(b"SMEMBERS", keys.borrowed(client))
            if borrowed:
                store.release(b"c" + client, borrowed)
        self._delete_keys({client.hex().encode() for client in dead})
        store.call(b"ZREM", keys.clients, *dead)
        log.info("cleared up after %d clients that are gone", len(dead))

    def _delete_keys(self, tags: set[bytes]) -> None:
        """Delete the keys of these clients, but for objects that somebody else holds."""
        store, keys = self._agent.store, self._agent.keys
        cursor = b"0"
        while True:
            cursor, found = store.call(b"SCAN", cursor, b"MATCH", keys.prefix + b"*:{*}*", b"COUNT", SCAN_COUNT)
            doomed = []
            for key in found:
                kind, _, rest = key[len(keys.prefix) :].partition(b":{")
                tag, _, suffix = rest.partition(b"}")
                if tag not in tags or kind in (b"h", b"hg"):
                    continue
                if kind in (b"o", b"x") and self._is_held(tag, suffix):
                    continue
                doomed.append(key)
            if doomed:
                store.call(b"UNLINK", *doomed)
            if cursor == b"0":
                return

    def _is_held(self, tag: bytes, suffix: bytes) -> bool:
        """True if an object has holders besides its dead owner; the last of them will delete it."""
        store, keys = self._agent.store, self._agent.keys
        owner = bytes.fromhex(tag.decode())
        object_id = owner + suffix[1 : 1 + 28 - CLIENT_BYTES]
        holders = keys.prefix + b"h" + store.tag(owner) + b":" + object_id[CLIENT_BYTES:]
        if not store.call(b"EXISTS", holders):
            return False
        store.call(b"SADD", holders, b"!")
        return True

    def _clear_nodes(self) -> None:
        agent = self._agent
        store, keys = agent.store, agent.keys
        for node in store.call(b"HKEYS", keys.nodes):
            if node == agent.node_id or store.call(b"EXISTS", keys.node(node)):
                continue
            count = agent.custody.adopt(node)
            if count:
                log.warning("node %s is dead; %d messages in its custody go back", node.hex()[:8], count)
            died = store.call(b"HSETNX", keys.nodes + b":died", node, str(time.time()))
            if not died:
                since = float(store.call(b"HGET", keys.nodes + b":died", node) or 0)
                if time.time() - since > DEAD_NODES_KEPT_SECONDS:
                    store.call(b"HDEL", keys.nodes, node)
                    store.call(b"HDEL", keys.nodes + b":died", node)
