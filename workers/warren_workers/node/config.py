"""What a node is, as its agent is told at the start."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from warren.labels import matches
from warren_broker.endpoint import Endpoint
from warren_broker.ids import new_node_id
from warren_broker.store.host import host_id
from warren_broker.store.object_store import CLIENT_LEASE_SECONDS


@dataclass
class NodeConfig:
    """A node's facts.

    Attributes:
        endpoint: the cluster.
        totals: resources it has, by name.
        node_id: its id.
        name: what people call it.
        labels: key to value, for label selectors.
        session: shared-memory session on this host.
        host: id of this host.
        object_ttl: seconds after which objects are deleted whoever holds them; 0 never.
        spill_url: directory or URL that large values go to when the store is full; "" for none.
        memory_limit: bytes that objects may take of this host's shared memory; None for what there is.
        executor_memory: bytes that an executor may take for itself; None for no limit.
        lease: seconds without a heartbeat after which others take over.
        client_lease: seconds without a sign of life after which a client counts as dead.
    """

    endpoint: Endpoint
    totals: dict[str, float]
    node_id: bytes = field(default_factory=new_node_id)
    name: str = field(default_factory=socket.gethostname)
    labels: dict[str, str] = field(default_factory=dict)
    session: str = ""
    host: bytes = field(default_factory=host_id)
    object_ttl: float = 0.0
    spill_url: str = ""
    memory_limit: int | None = None
    executor_memory: int | None = None
    lease: float = 10.0
    client_lease: float = CLIENT_LEASE_SECONDS

    @property
    def short_id(self) -> str:
        """The beginning of its id, as logs and `warren status` show it."""
        return self.node_id.hex()[:8]

    def matches(self, selector: Any) -> bool:
        """True if this node's labels satisfy a selector."""
        return matches(selector, {"ray.io/node-id": self.node_id.hex(), **self.labels})

    def executor_config(self, job: dict[str, Any], job_id: bytes, env: bytes, client_id: bytes) -> dict[str, Any]:
        """Return what a forked executor must know."""
        import json

        return {
            "store_url": self.endpoint.store_url,
            "broker_url": self.endpoint.broker_url,
            "secrets": list(self.endpoint.secrets),
            "prefix": self.endpoint.prefix,
            "client_id": client_id,
            "job": job_id,
            "detached_id": job.get("detached_id", b"\0" * 12),
            "namespace": job.get("namespace", ""),
            "sys_path": job.get("sys_path", []),
            "cwd": job.get("cwd", ""),
            "job_env": job.get("env", {}),
            "as_ray": job.get("as_ray", False),
            "env": json.loads(env) if env else {},
            "node_id": self.node_id,
            "slots": max(1, int(self.totals.get("CPU", 1))),
            "object_ttl": self.object_ttl,
            "spill_url": self.spill_url,
            "memory_limit": self.memory_limit,
            "client_lease": self.client_lease,
            "session": self.session,
            "host": self.host,
        }
