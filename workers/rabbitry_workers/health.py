"""`rabbitry health`: whether a node of this host's name has given a sign of life within its lease.

For the health check of a container, whose host's name is its own. It asks Redis alone, and imports little.
"""

from __future__ import annotations

import socket

from rabbitry.nodes import read_nodes
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Connection


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
    connection = Connection.open(endpoint, timeout=timeout, name="rabbitry-health")
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
