"""What a node is, as its agent is told at the start."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from rabbitry.labels import matches
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.events import are_on
from rabbitry_broker.ids import new_node_id
from rabbitry_broker.implicit import NODE_ID_LABEL
from rabbitry_broker.run_directory import RunDirectory
from rabbitry_broker.store.clients import CLIENT_LEASE_SECONDS
from rabbitry_broker.store.host import host_id


@dataclass
class NodeConfig:
    """A node's facts.

    Attributes:
        endpoint: the cluster.
        totals: resources it has, by name.
        node_id: its id.
        name: what people call it.
        address: of its host, for other hosts.
        labels: key to value, for label selectors.
        session: shared-memory session on this host.
        mark: of the cluster, sealed, as Redis had it when the node came; b"" for a cluster that needs none.
        host: id of this host.
        object_ttl: seconds after which objects are deleted whoever holds them; 0 never.
        spill_url: directory or URL that large values go to when the store is full; "" for none.
        memory_limit: bytes that objects may take of this host's shared memory; None for what there is.
        executor_memory: bytes that an executor may take for itself; None for no limit.
        lease: seconds without a heartbeat after which others take over.
        client_lease: seconds without a sign of life after which a client counts as dead.
        events: False if nothing is to be recorded of what becomes of tasks.
        files: directory for what executors leave on this node; made when it is needed, gone with the node.
    """

    endpoint: Endpoint
    totals: dict[str, float]
    node_id: bytes = field(default_factory=new_node_id)
    name: str = field(default_factory=socket.gethostname)
    address: str = "127.0.0.1"
    labels: dict[str, str] = field(default_factory=dict)
    session: str = ""
    mark: bytes = b""
    host: bytes = field(default_factory=host_id)
    object_ttl: float = 0.0
    spill_url: str = ""
    memory_limit: int | None = None
    executor_memory: int | None = None
    lease: float = 10.0
    client_lease: float = CLIENT_LEASE_SECONDS
    events: bool = field(default_factory=are_on)
    files: str = field(default_factory=lambda: str(RunDirectory.free_path(on_disk=True)))

    @property
    def short_id(self) -> str:
        """The beginning of its id, as logs and `rabbitry status` show it."""
        return self.node_id.hex()[:8]

    def matches(self, selector: Any) -> bool:
        """True if this node's labels satisfy a selector."""
        return matches(selector, {NODE_ID_LABEL: self.node_id.hex(), **self.labels})

    def executor_config(
        self, job: dict[str, Any], job_id: bytes, env: bytes, client_id: bytes, setup: bytes = b""
    ) -> dict[str, Any]:
        """Return what a forked executor must know."""
        return {
            "store_url": self.endpoint.store_url,
            "broker_url": self.endpoint.broker_url,
            "secrets": list(self.endpoint.secrets),
            "prefix": self.endpoint.prefix,
            "client_id": client_id,
            "job": job_id,
            "detached_id": job.get("detached_id", b"\0" * 12),
            "namespace": job.get("namespace", ""),
            "priority": job.get("priority", 0),
            "process": job.get("process", b""),  # and the environment: the executor reads them, they may be nonsense
            "env": env,
            "setup": setup,
            "as_ray": job.get("as_ray", False),
            "tracing": job.get("tracing", ""),
            "node_id": self.node_id,
            "address": self.address,
            "slots": max(1, int(self.totals.get("CPU", 1))),
            "object_ttl": self.object_ttl,
            "spill_url": self.spill_url,
            "memory_limit": self.memory_limit,
            "client_lease": self.client_lease,
            "session": self.session,
            "host": self.host,
            "events": self.events,
            "files": self.files,
        }
