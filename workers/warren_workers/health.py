"""`warren health`: whether a node of this host's name has given a sign of life within its lease.

For the health check of a container, whose host's name is its own. It asks Redis alone, and imports little.
"""

from __future__ import annotations

import socket

from warren.cluster import read_nodes
from warren_broker.endpoint import Endpoint
from warren_broker.signing import Signer
from warren_broker.store.connection import Connection
from warren_broker.store.keys import Keys


def check(endpoint: Endpoint, name: str | None = None, *, timeout: float = 5.0) -> str:
    """Return "" if a living node has this name, else what is wrong.

    Args:
        endpoint: the cluster.
        name: of the node; None for this host's.
        timeout: seconds to reach Redis.

    Raises:
        ConnectError: Redis cannot be reached.
    """
    name = name or socket.gethostname()
    connection = Connection.open(endpoint, timeout=timeout, name="warren-health")
    try:
        nodes = [
            each for each in read_nodes(connection, Keys.of(endpoint), Signer(endpoint.secrets)) if each["name"] == name
        ]
    finally:
        connection.close()
    if not nodes:
        return f"no node {name} has joined the cluster"
    if not any(each["alive"] for each in nodes):
        return f"node {name} has given no sign of life within its lease"
    return ""
