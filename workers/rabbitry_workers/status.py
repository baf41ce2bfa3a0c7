"""What `rabbitry status` shows, collected from Redis and RabbitMQ."""

from __future__ import annotations

import time
from typing import Any

from rabbitry.cluster import check_cluster
from rabbitry.demand import read_demand
from rabbitry.nodes import read_nodes
from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.implicit import is_implicit
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.resources import HEAD
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.reader import Reader

REASONS_SHOWN = 5


def collect(endpoint: Endpoint, *, timeout: float = 5.0) -> dict[str, Any]:
    """Return nodes, queues, counts of clients and actors, and what was put aside; all of it fit for JSON.

    Args:
        endpoint: the cluster.
        timeout: seconds to reach each server.

    Raises:
        ConnectError: a server cannot be reached, or the cluster is not ours.
    """
    check_cluster(endpoint, timeout=timeout)
    keys = Keys.of(endpoint)
    with Reader(endpoint, timeout=timeout) as connection:
        depths = queue_depths(endpoint, connection)
        signer = Signer(endpoint.secrets)
        reasons = connection.call(b"LRANGE", keys.put_aside, 0, REASONS_SHOWN - 1)
        clients = connection.call(b"ZRANGE", keys.clients, 0, -1)
        living = connection.call(b"EXISTS", *[keys.client(each) for each in clients]) if clients else 0
        return {
            "nodes": [_node(record) for record in read_nodes(connection, keys, signer)],
            "queues": depths,
            "demand": read_demand(connection, keys, signer, depths).to_json(),
            "clients": living,
            "actors": connection.call(b"SCARD", keys.prefix + b"actors"),
            "put_aside": {
                "count": int(connection.call(b"GET", keys.put_aside + b":count") or 0),
                "last_reasons": [_printable(each.partition(b"\0")[0].decode("utf-8", "replace")) for each in reasons],
            },
        }


def _printable(text: str) -> str:
    """Return text without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _node(record: dict[str, Any]) -> dict[str, Any]:
    totals, available = record["totals"], record["available"]
    state = "dead" if not record["alive"] else "draining" if record["draining"] else "alive"
    return {
        "id": record["id"].hex(),
        "name": record["name"],
        "state": state,
        "total": totals,
        "used": {name: round(total - available.get(name, 0.0), 4) for name, total in totals.items()},
        "labels": record["labels"],
        "host": record["hostname"],
        "pid": record["pid"],
        "started": record["started"],
    }


def queue_depths(endpoint: Endpoint, connection: Reader) -> dict[str, int | None]:
    """Return the messages (each holds a batch of tasks) that wait in each queue; None for one that is gone."""
    return depths_of(endpoint, connection, names.announced(connection.call(b"SMEMBERS", Keys.of(endpoint).queues)))


def depths_of(endpoint: Endpoint, connection: Reader, queues: list[str]) -> dict[str, int | None]:
    """Return the messages that wait in each of the queues; None for one that is not there."""
    if endpoint.broker_url is None:
        of_streams = streams.Keys(endpoint.prefix)
        return {queue: _stream_depth(connection, of_streams, queue) for queue in queues}
    import pika  # slow to import, and the embedded engine has no use for it

    from rabbitry_broker.queues.rabbitmq.asking import connect

    depths: dict[str, int | None] = {}
    broker = connect(endpoint.broker_url)
    try:
        channel = broker.channel()
        for queue in queues:
            try:
                depths[queue] = channel.queue_declare(
                    names.amqp_name(endpoint.prefix, queue), passive=True
                ).method.message_count
            except pika.exceptions.ChannelClosedByBroker:
                depths[queue] = None
                channel = broker.channel()
    finally:
        broker.close()
    return depths


def _stream_depth(connection: Reader, of_streams: streams.Keys, queue: str) -> int:
    depth = 0
    for level in {streams.BASE, *connection.call(b"SMEMBERS", of_streams.levels(queue))}:
        stream = of_streams.stream(queue, level)
        length = connection.call(b"XLEN", stream)
        if length:
            depth += length
            for group in connection.call(b"XINFO", b"GROUPS", stream):
                facts = dict(zip(group[::2], group[1::2], strict=True))
                depth -= facts[b"pending"]  # handed to a node and not acknowledged yet
    return depth


def describe(status: dict[str, Any]) -> str:
    """Return what `collect` returned as text for a terminal."""
    nodes, queues, aside = status["nodes"], status["queues"], status["put_aside"]
    lines = [f"nodes: {sum(node['state'] != 'dead' for node in nodes)}"]
    for node in nodes:
        lines.append(f"  {node['id'][:8]}  {node['name']:<20} {node['state']:<9} {_usage(node)}")
    waiting = {queue: depth for queue, depth in queues.items() if depth}
    lines.append(f"queues: {len(queues)}, {len(waiting)} with messages")
    lines += [f"  {queue:<60} {depth:>8}" for queue, depth in waiting.items()]
    lines += _demand(status["demand"])
    lines.append(f"clients: {status['clients']}")
    lines.append(f"actors: {status['actors']}")
    lines.append(f"put aside: {aside['count']}")
    lines += [f"  {reason}" for reason in aside["last_reasons"]]
    return "\n".join(lines)


def _demand(demand: dict[str, Any]) -> list[str]:
    """Return what is asked for beyond what runs, a line each."""
    lines = []
    for title, needs in (("waiting", demand["queued"]), ("requested", demand["requested"])):
        for need in needs:
            where = f" on {need['selector']}" if need["selector"] else ""
            lines.append(f"  {title:<10} {need['number']:>6} x {need['resources']}{where}")
    for group in demand["groups"]:
        bundles = ", ".join(bundle["resources"] for bundle in group["bundles"])
        lines.append(f"  {'group':<10} {group['strategy']} of {bundles}")
    return ["demand:", *lines] if lines else ["demand: none"]


def _usage(node: dict[str, Any]) -> str:
    if node["state"] == "dead":
        return ""
    parts = []
    for name, total in node["total"].items():
        if is_implicit(name):
            continue
        if name == "memory":
            parts.append(f"memory {node['used'][name] / 2**30:.1f}/{total / 2**30:.1f} GiB")
        else:
            parts.append(f"{name} {node['used'][name]:g}/{total:g}")
    parts += ["head"] * (HEAD in node["total"])
    parts += [f"{key}={value}" for key, value in node["labels"].items()]
    return "  ".join([*parts, f"up {_duration(time.time() - node['started'])}"])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
