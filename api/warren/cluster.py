"""What is known of the cluster: its nodes, their resources; and the checks when a driver or node joins one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from warren import current
from warren_broker.endpoint import Endpoint
from warren_broker.errors import ConnectError, WarrenBrokerError, without_password
from warren_broker.messages import decode, encode
from warren_broker.signing import ForgedMessage, Signer
from warren_broker.store.connection import Connection
from warren_broker.store.keys import Keys

if TYPE_CHECKING:
    from warren.client import Client

WIRE_VERSION = 1


def node_records(client: Client) -> list[dict[str, Any]]:
    """Return the records of all nodes that were seen, with `alive` added."""
    store, keys = client.store, client.keys
    stored = store.call(b"HGETALL", keys.nodes)
    records = []
    ids = stored[::2]
    if not ids:
        return []
    living = store.call(b"MGET", *[keys.node(each) for each in ids])
    for node, last, now in zip(ids, stored[1::2], living, strict=True):
        record = decode(store.signer.open(b"node" + node, now or last))
        record["alive"] = now is not None
        records.append(record)
    return sorted(records, key=lambda record: float(record["started"]))


def nodes() -> list[dict[str, Any]]:
    """Return a list with one dictionary a node: NodeID, Alive, Resources, Labels, NodeName, NodeManagerHostname, ...

    Raises:
        WarrenSystemError: no session; `nodes` does not start one.
    """
    return [
        {
            "NodeID": record["id"].hex(),
            "Alive": record["alive"],
            "alive": record["alive"],
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": record["hostname"],
            "NodeManagerPort": 0,
            "ObjectManagerPort": 0,
            "ObjectStoreSocketName": "",
            "RayletSocketName": "",
            "MetricsExportPort": 0,
            "NodeName": record["name"],
            "RuntimeEnvAgentPort": 0,
            "DeathReason": 0 if record["alive"] else 1,
            "DeathReasonMessage": "" if record["alive"] else "its lease ended",
            "Resources": dict(record["totals"]) if record["alive"] else {},
            "Labels": {"ray.io/node-id": record["id"].hex(), **record["labels"]},
        }
        for record in node_records(_connected())
    ]


def cluster_resources() -> dict[str, float]:
    """Return the resources of all living nodes, added up by name.

    Raises:
        WarrenSystemError: no session; this does not start one.
    """
    return _sum("totals")


def available_resources() -> dict[str, float]:
    """Return what is free now on all living nodes, added up by name; what is used up is left out.

    Raises:
        WarrenSystemError: no session; this does not start one.
    """
    return {name: amount for name, amount in _sum("available").items() if amount > 0}


def _sum(field: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for record in node_records(_connected()):
        if record["alive"]:
            for name, amount in record[field].items():
                total[name] = round(total.get(name, 0.0) + amount, 4)
    return total


def _connected() -> Client:
    client = current.peek()
    if client is None:
        from warren.exceptions import WarrenSystemError

        raise WarrenSystemError("warren has not been started yet. Call warren.init() first.")
    return client


def check_cluster(endpoint: Endpoint, *, timeout: float = 5.0) -> None:
    """Check that both servers answer, that the secret is the cluster's, and that versions fit.

    The first process of a cluster writes its mark; all others compare.

    Raises:
        ConnectError: a server is not there, refuses us, or is too old.
        WarrenBrokerError: another secret, another Python minor version, another wire version.
    """
    connection = Connection.open(endpoint, timeout=timeout, name="warren-check")
    try:
        signer, keys = Signer(endpoint.secrets), Keys(endpoint.prefix)
        mine: dict[str, Any] = {"python": list(sys.version_info[:2]), "wire": WIRE_VERSION}
        connection.call(b"SET", keys.cluster, signer.seal(b"cluster", encode(mine)), b"NX")
        stored = connection.call(b"GET", keys.cluster)
    finally:
        connection.close()
    where = without_password(endpoint.store_url)
    try:
        mark = decode(signer.open(b"cluster", stored))
    except ForgedMessage:
        raise ConnectError(
            where,
            "the cluster there was started with another secret",
            "Set WARREN_SECRET to the cluster's, or choose another WARREN_PREFIX.",
        ) from None
    if mark["python"] != mine["python"]:
        theirs, ours = (".".join(map(str, each)) for each in (mark["python"], mine["python"]))
        raise WarrenBrokerError(
            f"the cluster at {where} runs Python {theirs}, this process Python {ours}: pickled functions need the same "
            "minor version. Use that Python here, or another WARREN_PREFIX for a cluster of its own."
        )
    if mark["wire"] != WIRE_VERSION:
        raise WarrenBrokerError(
            f"the cluster at {where} speaks wire version {mark['wire']}, this process {WIRE_VERSION}"
        )
    if endpoint.broker_url is not None:
        from warren_broker.queues import open_publisher

        open_publisher(endpoint, name="check").close()
