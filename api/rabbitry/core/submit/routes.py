"""Routes of tasks to the queues of single nodes: by affinity to one, or dealt out to all (SPREAD).

A node may leave at any time, and its queue outlives it: the nodes that are left see to what is on it (fail it, or send
it elsewhere). They stop looking after a while, so a route that still leads there announces the queue anew.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Protocol

from rabbitry.core.ports import NodeRecords
from rabbitry.labels import matches
from rabbitry.nodes import could_run, labels_of
from rabbitry_broker import queue_names as names
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.keys import Keys

REFRESH_SECONDS = 1.0
ROOM_SECONDS = 0.25  # what nodes say of their room is believed so long
ROOM_COUNTED = 100  # tasks that a node may have room for, at most


class RouteStore(Protocol):
    """What the store does for routes; see `ObjectStore`."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""

    def announce_queue(self, queue: str) -> None:
        """Have nodes look at a queue."""


class Bound:
    """Sends the tasks of one plan to one node. Any thread may use it.

    Args:
        store: knows whether the node lives.
        keys: of the cluster.
        node_id: of the node.
        elsewhere: the queue they go to once that node is gone; "" if they fail then.
    """

    def __init__(self, store: RouteStore, keys: Keys, node_id: bytes, elsewhere: str) -> None:
        self._store = store
        self._keys = keys
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
            self._alive = bool(self._store.call(b"EXISTS", self._keys.node(self._node_id)))
            if not self._alive and not self._elsewhere:
                self._store.announce_queue(self._queue)
        return self._queue if self._alive else self._elsewhere or self._queue


class Preferred:
    """Sends the tasks of one plan to nodes with the best labels of which there is room. Any thread may use it.

    Each goes on to the common queue, which all nodes consume that would do, if its node has no room when it comes.

    Args:
        nodes: returns the records of all nodes.
        request: what one needs.
        selectors: that would do, the best first.
        queue: where they go while no node has room, as far as is known.
    """

    def __init__(self, nodes: NodeRecords, request: ResourceRequest, selectors: Sequence[str], queue: str) -> None:
        self._records = nodes
        self._request = request
        self._selectors = selectors
        self._queue = queue
        self._room: list[bytes] = []  # a node for each task that has room there, the best last
        self._read_at = float("-inf")

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        now = time.monotonic()
        if now - self._read_at > ROOM_SECONDS:
            self._read_at = now
            self._room = self._read_room()
        try:
            return names.node_queue(self._room.pop())
        except IndexError:
            return self._queue

    def _read_room(self) -> list[bytes]:
        nodes = []
        for node in self._records():
            if node["alive"] and not node["draining"]:
                free = ResourceRequest.free(node["room"])
                nodes.append((node["id"], labels_of(node), self._request.times_in(free, ROOM_COUNTED)))
        random.shuffle(nodes)  # many clients begin: not all with the same node
        best: dict[bytes, int] = {}
        for selector in self._selectors:
            best.update({node: room for node, labels, room in nodes if node not in best and matches(selector, labels)})
        return [node for node, room in reversed(best.items()) for _ in range(room)]


class Spread:
    """Deals out the tasks of one plan to the nodes that could run them, in turn. Any thread may use it.

    Each goes on to the queue of its resource class if its node has no room when it comes: nothing waits for the node it
    was dealt to.

    Args:
        nodes: returns the records of all nodes.
        request: what one needs.
        selector: which labels its node must have.
        queue: where they go while the cluster has less than two nodes that could run them.
    """

    def __init__(self, nodes: NodeRecords, request: ResourceRequest, selector: str, queue: str) -> None:
        self._records = nodes
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
        return [
            node["id"]
            for node in self._records()
            if node["alive"] and not node["draining"] and could_run(node, self._request, self._selector)
        ]
