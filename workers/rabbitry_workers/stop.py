"""`rabbitry stop`: ask nodes of a cluster, wherever they run, to finish what they do and leave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rabbitry.cluster import check_cluster
from rabbitry.nodes import read_nodes
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import encode
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Connection

LOOK_SECONDS = 0.2


class NoSuchNode(RabbitryBrokerError, ValueError):
    """No living node, or more than one, is meant by what was said."""


def stop_nodes(endpoint: Endpoint, wanted: Sequence[str] | None, *, timeout: float = 5.0) -> list[str]:
    """Ask nodes to leave, and return how they are called.

    Args:
        endpoint: the cluster.
        wanted: names, ids or beginnings of ids; None for all.
        timeout: seconds to reach the servers.

    Raises:
        NoSuchNode: one of `wanted` is no living node, or several.
        ConnectError: a server cannot be reached.
    """
    check_cluster(endpoint, timeout=timeout)
    keys, signer = Keys.of(endpoint), Signer(endpoint.secrets)
    connection = Connection.open(endpoint, timeout=timeout, name="rabbitry-stop")
    try:
        living = [node for node in read_nodes(connection, keys, signer) if node["alive"]]
        chosen = living if wanted is None else [_find(each, living) for each in wanted]
        for node in chosen:
            connection.call(b"PUBLISH", keys.control_channel, signer.seal(b"control", encode(["drain", node["id"]])))
    finally:
        connection.close()
    return [f"{node['id'].hex()[:8]} ({node['name']})" for node in chosen]


def wait_until_gone(endpoint: Endpoint, node: str, seconds: float) -> bool:
    """Wait until no living node has that name or id; False if one still has it after so many seconds.

    Raises:
        ConnectError: Redis cannot be reached.
    """
    keys, signer = Keys.of(endpoint), Signer(endpoint.secrets)
    deadline = time.monotonic() + seconds
    connection = Connection.open(endpoint, timeout=seconds, name="rabbitry-drain")
    try:
        while True:
            living = [each for each in read_nodes(connection, keys, signer) if each["alive"]]
            if not any(each["name"] == node or each["id"].hex().startswith(node) for each in living):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
    finally:
        connection.close()


def _find(wanted: str, living: list[dict[str, Any]]) -> dict[str, Any]:
    found = [node for node in living if node["name"] == wanted or node["id"].hex().startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(node["id"].hex()[:8] for node in found)
        raise NoSuchNode(f"{wanted!r} means {len(found)} nodes ({ids}): say which by its id")
    raise NoSuchNode(f"no living node is called {wanted!r}, and no id begins so; `rabbitry status` shows them all")
