"""What is known of the cluster: its nodes, their resources; and the checks when a driver or node joins one."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from rabbitry import current, program
from rabbitry.nodes import labels_of, name_of, read_nodes, read_nodes_and_left
from rabbitry.outages import with_public_errors
from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, RabbitryBrokerError, without_password
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Connection
from rabbitry_broker.store.store import ObjectStore

if TYPE_CHECKING:
    from rabbitry.core.client import Client

WIRE_VERSION = 1
EXPECTED_TERMINATION, UNEXPECTED_TERMINATION = 1, 2
"""Ray's numbers for the end of a node that said goodbye, and of one that did not."""


class ClusterMismatch(RabbitryBrokerError):
    """This process cannot work with the cluster: it runs another Python, or another version of rabbitry."""


class Mark(NamedTuple):
    """What all processes of a cluster have to agree on, as Redis has it.

    Attributes:
        cluster_id: tells this cluster from all others, whatever their addresses, secrets and prefixes are; "" for one
            that is older than its mark's id.
        sealed: the mark itself.
    """

    cluster_id: str
    sealed: bytes


def node_records(client: Client) -> list[dict[str, Any]]:
    """Return the records of all nodes on record, oldest first, with `alive` added."""
    return read_nodes(client.store, client.keys, client.signer)


@with_public_errors
def nodes() -> list[dict[str, Any]]:
    """Return a list with one dictionary a node, the oldest first.

    What is in it is what Ray has in it: NodeID, Alive, NodeManagerAddress, NodeManagerHostname, NodeName (the address
    unless it was given a name), Resources, Labels, DeathReason, DeathReasonMessage, and the ports and sockets of
    processes of Ray's that are not there (0 and "").

    Nodes that have died or left are listed for ten minutes.

    Raises:
        RabbitrySystemError: no session; `nodes` does not start one.
    """
    client = connected()
    return [
        {
            "NodeID": record["id"].hex(),
            "Alive": record["alive"],
            "alive": record["alive"],
            "NodeManagerAddress": record["address"],
            "NodeManagerHostname": record["hostname"],
            "NodeManagerPort": 0,
            "ObjectManagerPort": 0,
            "ObjectStoreSocketName": "",
            "RayletSocketName": "",
            "MetricsExportPort": 0,
            "MetricsAgentPort": 0,
            "DashboardAgentListenPort": 0,
            "NodeName": name_of(record),
            "RuntimeEnvAgentPort": 0,
            **_death(record),
            "Resources": resources_of(record, "totals") if record["alive"] else {},
            "Labels": labels_of(record),
        }
        for record in read_nodes_and_left(client.store, client.keys, client.signer)
    ]


def _death(record: Mapping[str, Any]) -> dict[str, Any]:
    reason, message = UNEXPECTED_TERMINATION, "its lease ended"
    if record["alive"]:
        reason, message = 0, ""
    elif "left" in record:
        reason, message = EXPECTED_TERMINATION, "it left"
    return {"DeathReason": reason, "DeathReasonMessage": message}


@with_public_errors
def cluster_resources() -> dict[str, float]:
    """Return the resources of all living nodes, added up by name.

    Raises:
        RabbitrySystemError: no session; this does not start one.
    """
    return _sum("totals")


@with_public_errors
def available_resources() -> dict[str, float]:
    """Return what is free now on all living nodes, added up by name; what is used up is left out.

    Raises:
        RabbitrySystemError: no session; this does not start one.
    """
    return {name: amount for name, amount in _sum("available").items() if amount > 0}


def _sum(field: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for record in node_records(connected()):
        if record["alive"]:
            for name, amount in resources_of(record, field).items():
                total[name] = round(total.get(name, 0.0) + amount, 4)
    return total


def resources_of(record: dict[str, Any], field: str) -> dict[str, float]:
    """Return a node's resources, with its room for objects as Ray has it among them."""
    return {**record[field], "object_store_memory": float(record["objects"][field != "totals"])}


def connected() -> Client:
    """Return the client of the session; nothing starts one.

    Raises:
        RabbitrySystemError: there is none.
    """
    client = current.peek()
    if client is None:
        from rabbitry.exceptions import RabbitrySystemError

        raise RabbitrySystemError(program.not_started())
    return client


def check_cluster(endpoint: Endpoint, *, timeout: float = 5.0) -> Mark:
    """Check that both servers answer, that the secret is the cluster's, and that versions fit.

    The first process of a cluster writes its mark; all others compare. A cluster without any living process may change
    its versions: that is how it is upgraded.

    Args:
        endpoint: the cluster.
        timeout: seconds to reach each server.

    Returns:
        The cluster's mark.

    Raises:
        ConnectError: a server is not there, refuses us or is too old; or the cluster has another secret.
        ClusterMismatch: the cluster runs another Python minor version, or speaks another wire version.
    """
    connection = Connection.open(endpoint, timeout=timeout, name="rabbitry-check")
    try:
        if endpoint.broker_url is not None:
            from rabbitry_broker.queues import open_publisher

            open_publisher(endpoint, name="check").close()
        return _check_mark(endpoint, connection)
    finally:
        connection.close()


def _check_mark(endpoint: Endpoint, connection: Connection) -> Mark:
    signer, keys = Signer(endpoint.secrets), Keys.of(endpoint)
    mine: dict[str, Any] = {"python": list(sys.version_info[:2]), "wire": WIRE_VERSION, "id": secrets.token_hex(8)}
    sealed = signer.seal(b"cluster", encode(mine))
    connection.call(b"SET", keys.cluster, sealed, b"NX")
    stored = connection.call(b"GET", keys.cluster)
    where = without_password(endpoint.store_url)
    try:
        mark = decode(signer.open(b"cluster", stored))
    except ForgedMessage:
        raise ConnectError(
            where,
            f"the cluster there (prefix {endpoint.prefix!r}) has another secret",
            "Set RABBITRY_SECRET to that cluster's, or choose another RABBITRY_PREFIX for one of your own.",
        ) from None
    # The id stays what it is: of two processes that write the mark anew, both are to have the same.
    cluster_id = str(mark.get("id", ""))
    sealed = signer.seal(b"cluster", encode({**mine, "id": cluster_id}))
    if (mark["python"] != mine["python"] or mark["wire"] != WIRE_VERSION) and _is_deserted(connection, keys):
        connection.call(b"SET", keys.cluster, sealed)
        return Mark(cluster_id, sealed)
    if mark["python"] != mine["python"]:
        theirs, ours = (".".join(map(str, each)) for each in (mark["python"], mine["python"]))
        raise ClusterMismatch(
            f"the cluster at {where} runs Python {theirs}, this process Python {ours}: pickled functions need the same "
            f"minor version. Use Python {theirs} here, or another RABBITRY_PREFIX for a cluster of its own."
        )
    if mark["wire"] != WIRE_VERSION:
        raise ClusterMismatch(
            f"the cluster at {where} speaks wire version {mark['wire']}, this process {WIRE_VERSION}: use the same "
            "version of rabbitry everywhere, or another RABBITRY_PREFIX for a cluster of its own."
        )
    if stored != sealed and not _signed_with_newest(endpoint, stored):
        # A secret is being replaced: once the old one is dropped everywhere, nobody could read the mark.
        connection.call(b"SET", keys.cluster, sealed)
    return Mark(cluster_id, sealed)


def _signed_with_newest(endpoint: Endpoint, stored: bytes) -> bool:
    try:
        Signer(endpoint.secrets[:1]).open(b"cluster", stored)
    except ForgedMessage:
        return False
    return True


def _is_deserted(connection: Connection, keys: Keys) -> bool:
    """Return True if no node and no client of the cluster is alive."""
    names = [keys.node(each) for each in connection.call(b"HKEYS", keys.nodes)]
    names += [keys.client(each) for each in connection.call(b"ZRANGE", keys.clients, 0, -1)]
    return not names or not connection.call(b"EXISTS", *names)


def _actors(keys: Keys, found: list[bytes]) -> list[bytes]:
    """Return the ids of the actors whose records are among these keys."""
    actors = []
    for key in found:
        with suppress(ValueError):  # whatever it is, it is no actor's record
            actor = keys.actor_of(key)
            if actor is not None:
                actors.append(actor)
    return actors


def delete_cluster(endpoint: Endpoint) -> None:
    """Delete the queues and keys of a cluster, whose processes must all be gone.

    Args:
        endpoint: the cluster. Its prefix decides what is deleted.

    Raises:
        ConnectError: a server cannot be reached.
    """
    connection = Connection.open(endpoint, name="rabbitry-delete")
    try:
        keys = Keys.of(endpoint)
        found: list[bytes] = []
        cursor: Any = b""
        while cursor != b"0":
            cursor, part = connection.call(b"SCAN", cursor or b"0", b"MATCH", keys.prefix + b"*", b"COUNT", 1000)
            found += part
        if endpoint.broker_url is not None:
            # Slow to import, and only clusters on RabbitMQ need it.
            from rabbitry_broker.queues.rabbitmq.asking import connect

            broker = connect(endpoint.broker_url)
            try:
                channel = broker.channel()
                queues = set(names.announced(connection.call(b"SMEMBERS", keys.queues)))
                queues.update(names.actor_queue(actor) for actor in _actors(keys, found))
                for queue in queues:
                    channel.queue_delete(names.amqp_name(endpoint.prefix, queue))
            finally:
                broker.close()
        for at in range(0, len(found), 1000):
            connection.call(b"UNLINK", *found[at : at + 1000])
    finally:
        connection.close()
    if endpoint.spread:
        store = ObjectStore(endpoint, Signer(endpoint.secrets))
        try:
            for part in store.large.scan_chunks():
                store.large.delete_chunks(part)
        finally:
            store.close()
