"""`warren stop`: ask nodes of a cluster, wherever they run, to finish what they do and leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warren.cluster import check_cluster, read_nodes
from warren_broker.endpoint import Endpoint
from warren_broker.errors import WarrenBrokerError
from warren_broker.messages import encode
from warren_broker.signing import Signer
from warren_broker.store.connection import Connection
from warren_broker.store.keys import Keys


class NoSuchNode(WarrenBrokerError, ValueError):
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
    connection = Connection.open(endpoint, timeout=timeout, name="warren-stop")
    try:
        living = [node for node in read_nodes(connection, keys, signer) if node["alive"]]
        chosen = living if wanted is None else [_find(each, living) for each in wanted]
        for node in chosen:
            connection.call(b"PUBLISH", keys.control_channel, signer.seal(b"control", encode(["drain", node["id"]])))
    finally:
        connection.close()
    return [f"{node['id'].hex()[:8]} ({node['name']})" for node in chosen]


def _find(wanted: str, living: list[dict[str, Any]]) -> dict[str, Any]:
    found = [node for node in living if node["name"] == wanted or node["id"].hex().startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(node["id"].hex()[:8] for node in found)
        raise NoSuchNode(f"{wanted!r} means {len(found)} nodes ({ids}): say which by its id")
    raise NoSuchNode(f"no living node is called {wanted!r}, and no id begins so; `warren status` shows them all")
