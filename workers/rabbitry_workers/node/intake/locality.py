"""A task goes where its large arguments are, if there is room for it right now.

Who submits a task knows seldom where its arguments will be: they are made later, on whichever node has room. The node
that takes it knows, for the records of what it waited for say which host's shared memory holds their buffers. If most
of the bytes are on another host, and a node there said lately that it has room, the task goes on to that node's own
queue, with the queue it came from as the place to go if there is no room after all (as SPREAD does). So it is sent on
once at most, and nobody plans. It costs a look at the records of large arguments, and a message; to copy a few
megabytes costs more.

HOT PATH (`wanted`, for each delivery): tasks whose arguments are small, and clusters on one host, pay a comparison.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

import msgspec

from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import KIND_TASK, Task, TaskHeader, encode_frame, encode_header
from rabbitry_broker.queue_names import node_queue
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Publishes, Settle
from rabbitry_workers.node.model.work import Held

WORTH_BYTES: Final = 1 << 20  # to be copied less: it takes longer than to send a task on
HEADERS_KEPT: Final = 1000


class KnowsHosts(Protocol):
    """Knows which other nodes there are, and on which hosts."""

    on_other_hosts: bool

    def take_room(self, hosts: list[bytes], request: ResourceRequest, selector: str) -> bytes | None:
        """Return a node on the first of these hosts that has room, and count on that room no more; None for none."""


class Locality:
    """Loop thread only.

    Args:
        node: this one.
        others: the other nodes.
        settle: of deliveries.
        publishing: of what runs elsewhere.
    """

    def __init__(self, node: Node, others: KnowsHosts, settle: Settle, publishing: Publishes) -> None:
        self._node = node
        self._others = others
        self._settle = settle
        self._publishing = publishing
        self._one_host = node.endpoint.traits.one_host
        self._headers: dict[tuple[bytes, str], bytes] = {}

    def wanted(self, header: TaskHeader, tasks: list[Task]) -> bool:
        """True if some of these tasks have large arguments that may be on another host. HOT PATH."""
        if self._one_host or not self._others.on_other_hosts or header.elsewhere or header.kind != KIND_TASK:
            return False
        for task in tasks:
            if task[4]:
                for record in task[4].values():
                    if record[:1] == records.LARGE:
                        return True
        return False

    def staying(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Return those tasks that are not sent on."""
        request = ResourceRequest.parse(header.resources)
        selector = "" if held.source is None else held.source.place.selector
        stay = []
        for task in tasks:
            hosts = self._better_hosts(task)
            target = self._others.take_room(hosts, request, selector) if hosts else None
            if target is None:
                stay.append(task)
            else:
                self._send(held, header_bytes, header, task, target)
        return stay

    def _better_hosts(self, task: Task) -> list[bytes]:
        """Return the hosts that have much more of a task's arguments than this one, the best first."""
        found = dict(task[4])
        missing = [each for each in task[3] if each not in found]
        if missing:
            try:
                stored = self._node.store.fetch(missing)
            except RabbitryBrokerError:
                return []  # whoever runs it will have to ask again anyway
            found.update({key: record for key, record in zip(missing, stored, strict=True) if record is not None})
        sizes: Counter[bytes] = Counter()
        for record in found.values():
            if record[:1] == records.LARGE:
                try:
                    manifest = records.read_manifest(record)
                except msgspec.MsgspecError:
                    continue  # its executor says what is wrong with it
                sizes[manifest.host] += sum(manifest.sizes)
        least = sizes[self._node.config.host] + WORTH_BYTES
        return [host for host, size in sizes.most_common() if host and size >= least]

    def _send(self, held: Held, header_bytes: bytes, header: TaskHeader, task: Task, target: bytes) -> None:
        kept = self._headers.get((header_bytes, held.queue))
        if kept is None:
            if len(self._headers) >= HEADERS_KEPT:
                self._headers.clear()
            kept = encode_header(msgspec.structs.replace(header, elsewhere=held.queue, impatient=True))
            self._headers[header_bytes, held.queue] = kept
        held.outstanding += 1
        self._publishing.publish_now(
            node_queue(target),
            encode_frame(self._node.signer, kept, [task]),
            header.priority,
            lambda: self._node.loop.add_callback(lambda: self._settle(held, 1)),
        )
