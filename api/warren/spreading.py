"""SPREAD: tasks are dealt out to the nodes that could run them, in turn.

Each goes to the queue of one node, and from there to the queue of its resource class if that node is gone, or has no
room when the task comes: nothing waits for the node it was dealt to.
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


class Spread:
    """Deals out the tasks of one plan. Any thread may use it.

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
        """Return the queue of the next task."""
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
