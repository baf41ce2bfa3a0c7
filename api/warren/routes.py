"""Routes of tasks to the queues of single nodes: by affinity to one, or dealt out to all (SPREAD).

A node may leave at any time, and its queue outlives it: the nodes that are left see to what is on it (fail it, or send
it elsewhere). They stop looking after a while, so a route that still leads there announces the queue anew.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from warren_broker.queues import names
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren.client import Client

REFRESH_SECONDS = 1.0


class Bound:
    """Sends the tasks of one plan to one node. Any thread may use it.

    Args:
        client: whose tasks they are.
        node_id: of the node.
        elsewhere: the queue they go to once that node is gone; "" if they fail then.
    """

    def __init__(self, client: Client, node_id: bytes, elsewhere: str) -> None:
        self._client = client
        self._node_id = node_id
        self._queue = names.node_queue(node_id)
        self._elsewhere = elsewhere
        self._alive = True
        self._read_at = float("-inf")

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        now = time.monotonic()
        if now - self._read_at > REFRESH_SECONDS:
            self._read_at = now
            store = self._client.store
            self._alive = bool(store.call(b"EXISTS", store.keys.node(self._node_id)))
            if not self._alive and not self._elsewhere:
                store.announce_queue(self._queue)
        return self._queue if self._alive else self._elsewhere or self._queue


class Spread:
    """Deals out the tasks of one plan to the nodes that could run them, in turn. Any thread may use it.

    Each goes on to the queue of its resource class if its node has no room when it comes: nothing waits for the node it
    was dealt to.

    Args:
        client: whose tasks they are.
        request: what one needs.
        selector: which labels its node must have.
        queue: where they go while the cluster has less than two nodes that could run them.
    """

    def __init__(self, client: Client, request: ResourceRequest, selector: str, queue: str) -> None:
        self._client = client
        self._request = request
        self._selector = selector
        self._queue = queue
        self._nodes: list[bytes] = []
        self._read_at = float("-inf")
        self._turn = random.randrange(1 << 30)  # many clients begin: not all with the same node

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        now = time.monotonic()
        if now - self._read_at > REFRESH_SECONDS:
            self._read_at = now
            self._nodes = self._read_nodes()
        nodes = self._nodes
        if len(nodes) < 2:
            return self._queue
        self._turn += 1
        return names.node_queue(nodes[self._turn % len(nodes)])

    def _read_nodes(self) -> list[bytes]:
        from warren.cluster import could_run, node_records

        return [
            node["id"]
            for node in node_records(self._client)
            if node["alive"] and not node["draining"] and could_run(node, self._request, self._selector)
        ]
