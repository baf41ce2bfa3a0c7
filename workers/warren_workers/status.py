"""What `warren status` shows, collected from Redis and RabbitMQ."""

from __future__ import annotations

from typing import Any

from warren_broker.endpoint import Endpoint
from warren_broker.messages import decode
from warren_broker.signing import Signer
from warren_broker.store.connection import Connection
from warren_broker.store.keys import Keys

PUT_ASIDE_SHOWN = 5


def collect(endpoint: Endpoint) -> dict[str, Any]:
    """Return nodes, queue depths, counts of clients and actors, and what was put aside.

    Raises:
        ConnectError: a server cannot be reached.
    """
    keys, signer = Keys(endpoint.prefix), Signer(endpoint.secrets)
    connection = Connection.open(endpoint, name="warren-status")
    try:
        nodes = []
        stored = connection.call(b"HGETALL", keys.nodes)
        for node, sealed in zip(stored[::2], stored[1::2], strict=True):
            now = connection.call(b"GET", keys.node(node))
            record = decode(signer.open(b"node" + node, now or sealed))
            nodes.append(
                {
                    "id": node.hex(),
                    "name": record["name"],
                    "alive": now is not None,
                    "totals": record["totals"],
                    "available": record["available"] if now is not None else {},
                    "labels": record["labels"],
                    "started": record["started"],
                }
            )
        queues = sorted(each.decode() for each in connection.call(b"SMEMBERS", keys.queues))
        last = connection.call(b"LRANGE", keys.put_aside, 0, PUT_ASIDE_SHOWN - 1)
        return {
            "nodes": sorted(nodes, key=lambda each: float(each["started"])),
            "queues": _depths(endpoint, connection, queues),
            "clients": connection.call(b"ZCARD", keys.clients),
            "actors": connection.call(b"SCARD", keys.prefix + b"actors"),
            "put_aside": int(connection.call(b"GET", keys.put_aside + b":count") or 0),
            "put_aside_last": [each.partition(b"\0")[0].decode("utf-8", "replace") for each in last],
        }
    finally:
        connection.close()


def _depths(endpoint: Endpoint, connection: Connection, queues: list[str]) -> dict[str, int | None]:
    """Return messages waiting in each queue; None for a queue that is gone."""
    if endpoint.broker_url is None:
        return {queue: connection.call(b"XLEN", f"{endpoint.prefix}q:{queue}") for queue in queues}
    import pika  # slow to import: only here

    depths: dict[str, int | None] = {}
    broker = pika.BlockingConnection(pika.URLParameters(endpoint.broker_url))
    try:
        for queue in queues:
            channel = broker.channel()
            try:
                declared = channel.queue_declare(endpoint.prefix + queue, passive=True)
                depths[queue] = declared.method.message_count
                channel.close()
            except pika.exceptions.ChannelClosedByBroker:
                depths[queue] = None
    finally:
        broker.close()
    return depths
