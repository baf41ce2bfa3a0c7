"""Depths and rates of queues, who consumes them, and figures of the server that has them.

RabbitMQ's own protocol tells how many messages a queue has; rates, consumers, and what is unsettled, its management
plugin tells, if it is switched on and lets this user in. The embedded engine's queues are streams in Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rabbitry.nodes import could_run
from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.reader import Reader
from rabbitry_workers.dashboard import formats
from rabbitry_workers.dashboard.source import QueueRow, Queues
from rabbitry_workers.management import Management, QueueTold
from rabbitry_workers.status import depths_of

KINDS: Final = {"task": "resources", "bundle": "placement group", "dead-letter": "dead letters"}
NOT_THERE: Final = QueueTold()


class QueueFigures:
    """Reads queues. For one thread at a time.

    Args:
        endpoint: the cluster.
        timeout: seconds to reach the store.
        clock: seconds.
    """

    def __init__(self, endpoint: Endpoint, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._clock = clock
        self._keys = Keys.of(endpoint)
        self._before: dict[str, tuple[float, int, int]] = {}
        self._management = None if endpoint.broker_url is None else Management(endpoint.broker_url, clock=clock)

    def read(self, tasks: Mapping[str, int], nodes: Sequence[Mapping[str, Any]], actors: Mapping[str, str]) -> Queues:
        """Return all queues.

        Args:
            tasks: how many wait in each queue, by its name.
            nodes: records of nodes.
            actors: id of the node (hex) of each living actor (hex).
        """
        with Reader(self._endpoint, timeout=self._timeout) as store:
            known = names.announced(store.call(b"SMEMBERS", self._keys.queues))
            known += [queue for queue in {*tasks, *map(_actor_queue, actors)} if queue not in known]
            by = {queue: _consumers(queue, nodes, actors) for queue in known}
            if self._endpoint.embedded:
                return self._embedded(store, known, tasks, by)
            return self._rabbitmq(store, known, tasks, by)

    # -- the embedded engine -----------------------------------------------------------------------------------------

    def _embedded(
        self, store: Reader, known: Sequence[str], tasks: Mapping[str, int], by: Mapping[str, list[str]]
    ) -> Queues:
        of_streams = streams.Keys(self._endpoint.prefix)
        now = self._clock()
        rows, seen = [], {}
        for queue in known:
            length = unsettled = added = read = 0
            consumers: int | None = None
            for level in {streams.BASE, *store.call(b"SMEMBERS", of_streams.levels(queue))}:
                stream = of_streams.stream(queue, level)
                length_here = store.call(b"XLEN", stream)
                if not store.call(b"EXISTS", stream):
                    continue
                length += length_here
                added += int(_pairs(store.call(b"XINFO", b"STREAM", stream)).get(b"entries-added") or 0)
                for group in store.call(b"XINFO", b"GROUPS", stream):
                    facts = _pairs(group)
                    unsettled += facts[b"pending"]
                    read += int(facts.get(b"entries-read") or 0)
                    if level == streams.BASE:
                        consumers = facts[b"consumers"]
            before = self._before.get(queue)
            seen[queue] = (now, added, read)
            into = out = None
            if before is not None and now > before[0] and added:
                into = max(0.0, (added - before[1]) / (now - before[0]))
                out = max(0.0, (read - before[2]) / (now - before[0]))
            rows.append(
                QueueRow(
                    queue,
                    _kind(queue),
                    max(0, length - unsettled),
                    tasks.get(queue, 0),
                    unsettled,
                    into,
                    out,
                    consumers,
                    ", ".join(by[queue]),
                )
            )
        self._before = seen
        version = _info(store.call(b"INFO", b"server")).get("redis_version", "")
        memory = _info(store.call(b"INFO", b"memory")).get("used_memory", "0")
        facts_of_server = {
            "Server": f"Redis {version}, private to this session",
            "Memory": formats.size(float(memory)),
        }
        return Queues(rows, facts_of_server)

    # -- RabbitMQ ----------------------------------------------------------------------------------------------------

    def _rabbitmq(
        self, store: Reader, known: Sequence[str], tasks: Mapping[str, int], by: Mapping[str, list[str]]
    ) -> Queues:
        told = None if self._management is None else self._management.ask()
        if told is None:
            rows = [
                QueueRow(queue, _kind(queue), messages, tasks.get(queue, 0), by=", ".join(by[queue]))
                for queue, messages in depths_of(self._endpoint, store, list(known)).items()
            ]
            refusal = "" if self._management is None else self._management.refusal
            return Queues(rows, {}, f"Rates, unsettled messages and consumers are not known: {refusal}.")
        rows = []
        for queue in known:
            of = told.queues.get(names.amqp_name(self._endpoint.prefix, queue), NOT_THERE)
            rows.append(
                QueueRow(
                    queue,
                    _kind(queue),
                    of.ready,
                    tasks.get(queue, 0),
                    of.unsettled,
                    of.publish_rate,
                    of.deliver_rate,
                    of.consumers,
                    ", ".join(by[queue]),
                )
            )
        return Queues(rows, _server(told.overview))


def _server(overview: Mapping[str, Any]) -> dict[str, str]:
    totals = overview.get("object_totals", {})
    server = {
        "Server": f"RabbitMQ {overview.get('rabbitmq_version', '')}",
        "Connections": formats.count(totals.get("connections")),
        "Channels": formats.count(totals.get("channels")),
        "Messages": formats.count(overview.get("queue_totals", {}).get("messages")),
    }
    for label, name in (("Published", "publish_details"), ("Delivered", "deliver_get_details")):
        rate = overview.get("message_stats", {}).get(name, {}).get("rate")
        if rate is not None:
            server[label] = f"{rate:,.1f} messages a second"
    return server


def _pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _info(text: Any) -> dict[str, str]:
    lines = text.decode("utf-8", "replace").splitlines() if isinstance(text, bytes) else []
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _kind(queue: str) -> str:
    kind = names.parse(queue).kind.value
    return KINDS.get(kind, kind)


def _actor_queue(actor: str) -> str:
    return names.actor_queue(bytes.fromhex(actor))


def _consumers(queue: str, nodes: Sequence[Mapping[str, Any]], actors: Mapping[str, str]) -> list[str]:
    """Return the names of the nodes that take from a queue, by what it is for."""
    parsed = names.parse(queue)
    alive = [node for node in nodes if node["alive"]]
    if parsed.kind is names.QueueKind.TASK:
        try:
            request = ResourceRequest.parse(parsed.resource_class)
        except ValueError:
            return []
        return [str(node["name"]) for node in alive if could_run(dict(node), request, parsed.selector)]
    if parsed.kind is names.QueueKind.NODE:
        return [str(node["name"]) for node in alive if node["id"] == parsed.id]
    if parsed.kind is names.QueueKind.ACTOR:
        host = actors.get(parsed.id.hex())
        return [str(node["name"]) for node in alive if node["id"].hex() == host]
    return []
