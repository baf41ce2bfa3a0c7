"""From what a command line says to the cluster that is meant: by servers' addresses, or by a cluster's directory."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rabbitry.session import object_options
from rabbitry_broker import cluster_file, local_clusters
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.settings import Settings
from rabbitry_workers.node.services.memory import limit_from_environment


@dataclass(frozen=True)
class Joining:
    """What a process needs in order to take part in a cluster.

    Attributes:
        endpoint: where it is.
        session: name of its shared-memory session on this host; "" if that depends on its mark in Redis, since other
            clusters may have the same secret and prefix.
        node_lease: seconds without a sign of life after which a node counts as dead.
        client_lease: the same for a client.
        object_ttl: seconds after which objects are deleted whoever holds them; 0 for never.
        connect_timeout: seconds to reach a server.
        spill_url: directory or URL that large values go to when the store is full; "" for none.
        memory_limit: bytes that objects may take of this host's shared memory; None for what there is.
        executor_memory: bytes that an executor may take for itself; None for no limit.
    """

    endpoint: Endpoint
    session: str
    node_lease: float = 10.0
    client_lease: float = 30.0
    object_ttl: float = 0.0
    connect_timeout: float = 5.0
    spill_url: str = ""
    memory_limit: int | None = None
    executor_memory: int | None = None


def find_cluster(address: str | None, store: str | None, prefix: str | None, *, newest: bool = False) -> Joining:
    """Return the cluster that these arguments, the environment and `.env` name.

    Args:
        address: RabbitMQ's URL, "auto", `unix:///directory` of a cluster on this machine, or None.
        store: Redis' URL; None for RABBITRY_STORE_URL.
        prefix: of keys and queues; None for RABBITRY_PREFIX, else `rabbitry:`.
        newest: take the newest session of this machine if none of all that names a cluster.

    Raises:
        SettingsError: something is missing or impossible.
        ConnectError: no cluster is in that directory; there is none at all.
        ValueError: an impossible RABBITRY_EXECUTOR_MEMORY_LIMIT.
    """
    address = address or os.environ.get("RABBITRY_ADDRESS") or None
    if newest and store is None and address in (None, local_clusters.AUTO):
        address = local_clusters.resolve_auto()
    if address is not None and cluster_file.is_address(address):
        cluster = cluster_file.read(address)
        objects = object_options(cluster.memory_limit, None)
        return Joining(
            cluster.endpoint,
            cluster.session,
            cluster.node_lease,
            cluster.client_lease,
            objects["object_ttl"] or cluster.object_ttl,
            spill_url=objects["spill_url"] or cluster.spill_url,
            memory_limit=objects["memory_limit"],
            executor_memory=limit_from_environment(),
        )
    settings = Settings.load(address, store, prefix=prefix)
    endpoint = settings.endpoint()
    return Joining(
        endpoint,
        "",
        settings.node_lease,
        settings.client_lease,
        settings.object_ttl or 0.0,
        settings.connect_timeout,
        settings.spill_url.get_secret_value() if settings.spill_url else "",
        settings.shared_memory_limit,
        settings.executor_memory_limit,
    )
