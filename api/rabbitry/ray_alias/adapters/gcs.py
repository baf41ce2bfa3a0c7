"""`GcsClient`: what libraries ask of Ray's head node, answered from the store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rabbitry import current
from rabbitry.cluster import node_records, nodes
from rabbitry.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_exists,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)
from rabbitry.ids import ClusterID, NodeID
from rabbitry.ray_alias.adapters.node_resources import available_resources_per_node

Text = bytes | str
ALIVE, DEAD = 0, 1


class GcsClient:
    """Reads and writes the cluster's key-value store and lists its nodes.

    Args:
        address: ignored: the session of this process says which cluster is meant.
    """

    def __init__(self, address: str | None = None, **_: Any) -> None:
        self.address = address or ""

    @property
    def cluster_id(self) -> ClusterID:
        """An id of the cluster, the same for all its processes."""
        client = current.client()
        return ClusterID(client.session.encode().ljust(ClusterID.size(), b"\0")[: ClusterID.size()])

    def internal_kv_get(self, key: Text, namespace: Text | None = None, timeout: float | None = None) -> bytes | None:
        """Return what is kept under a key, None if nothing is."""
        return _internal_kv_get(key, namespace=namespace)

    def internal_kv_multi_get(
        self, keys: list[bytes], namespace: Text | None = None, timeout: float | None = None
    ) -> dict[bytes, bytes]:
        """Return what is kept under those of the keys that there are."""
        found = {key: _internal_kv_get(key, namespace=namespace) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def internal_kv_put(
        self,
        key: Text,
        value: Text,
        overwrite: bool = True,
        namespace: Text | None = None,
        timeout: float | None = None,
    ) -> int:
        """Keep a value under a key; return 1 if the key is new, else 0."""
        return int(not _internal_kv_put(key, value, overwrite, namespace=namespace))

    def internal_kv_del(
        self, key: Text, del_by_prefix: bool = False, namespace: Text | None = None, timeout: float | None = None
    ) -> int:
        """Delete a key, or all that begin with it; return how many there were."""
        return _internal_kv_del(key, del_by_prefix=del_by_prefix, namespace=namespace)

    def internal_kv_keys(
        self, prefix: Text, namespace: Text | None = None, timeout: float | None = None
    ) -> list[bytes]:
        """Return the keys that begin with `prefix`."""
        return _internal_kv_list(prefix, namespace=namespace)

    def internal_kv_exists(self, key: Text, namespace: Text | None = None, timeout: float | None = None) -> bool:
        """Return True if something is kept under a key."""
        return _internal_kv_exists(key, namespace=namespace)

    def get_all_node_info(self, timeout: float | None = None, **_: Any) -> dict[NodeID, Any]:
        """Return what is known of each node, as objects with the fields of Ray's."""
        return {
            NodeID.from_hex(node["NodeID"]): SimpleNamespace(
                node_id=bytes.fromhex(node["NodeID"]),
                node_name=node.get("NodeName", ""),
                node_manager_address=node.get("NodeManagerAddress", ""),
                node_manager_hostname=node.get("NodeManagerHostname", ""),
                instance_id=node.get("InstanceID", ""),
                state=ALIVE if node["Alive"] else DEAD,
                labels=dict(node.get("Labels", {})),
                resources_total=dict(node.get("Resources", {})),
                is_head_node="node:__internal_head__" in node.get("Resources", {}),
            )
            for node in nodes()
        }

    def check_alive(self, node_ids: list[Any], timeout: float | None = None) -> list[bool]:
        """Return for each node whether it is alive."""
        alive = {node["NodeID"] for node in nodes() if node["Alive"]}
        return [(each.hex() if hasattr(each, "hex") else str(each)) in alive for each in node_ids]

    def get_draining_nodes(self, timeout: float | None = None) -> dict[str, int]:
        """Return the nodes that are leaving, with 0 as the time at which they will be gone: nobody knows that."""
        return {node["id"].hex(): 0 for node in node_records(current.client()) if node.get("draining")}

    def get_all_resource_usage(self, timeout: float | None = None) -> Any:
        """Return what each node has free, as an object with the fields of Ray's."""
        batch = [
            SimpleNamespace(node_id=bytes.fromhex(node_id), resources_available=free)
            for node_id, free in available_resources_per_node().items()
        ]
        return SimpleNamespace(resource_usage_data=SimpleNamespace(batch=batch))


class GcsClientOptions:
    """How to reach Ray's head node, of which there is none: a type that can be named, not made."""

    @staticmethod
    def create(*_: Any, **__: Any) -> Any:
        """Say so.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "rabbitry has no head node: ask ray.nodes(), ray.util.state or ray.cluster_resources()"
        )


class GlobalStateAccessor:
    """Reads what Ray's head node knows: a type that can be named, not made."""

    def __init__(self, *_: Any) -> None:
        GcsClientOptions.create()
