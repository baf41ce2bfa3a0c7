"""What `init` returns."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rabbitry.client import Client
    from rabbitry.embedded import EmbeddedNode

VERSION = "0.1.0"
RAY_VERSION = "2.60.0"


class RabbitryContext(Mapping[str, Any]):
    """A session, as `init` returns it; a context manager that shuts it down.

    As a mapping it is its `address_info`, which older programs expect.

    Attributes:
        dashboard_url: `host:port` of the session's dashboard; "" without `include_dashboard=True`.
        python_version: of this process.
        ray_version: version of Ray's API that rabbitry follows.
        ray_commit: always "".
        address_info: addresses by Ray's names.
    """

    def __init__(
        self,
        client: Client,
        node: EmbeddedNode | None,
        address: str = "",
        *,
        dashboard_url: str = "",
        end: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the context.

        Args:
            client: of this process.
            node: the embedded node, if this session started one.
            address: of the cluster if it is on this machine; "" for its servers' addresses.
            dashboard_url: of the dashboard that this session started; "" for none.
            end: ends the session; inside a task or actor, whose session is not ours to end, it does nothing.
        """
        from rabbitry.util.node_address import get_node_ip_address
        from rabbitry_broker.errors import without_password

        self._client = client
        self._end = end
        self.dashboard_url = dashboard_url
        self.python_version = platform.python_version()
        self.ray_version = RAY_VERSION
        self.ray_commit = ""
        store = without_password(client.endpoint.store_url)
        broker = client.endpoint.broker_url
        address = address or (without_password(broker) if broker else store)
        self.address_info: dict[str, Any] = {
            "address": address,
            "redis_address": store,
            "gcs_address": address,
            "node_ip_address": get_node_ip_address(),
            "object_store_address": "",
            "raylet_socket_name": "",
            "webui_url": dashboard_url,
            "session_dir": node.directory if node is not None else "",
            "metrics_export_port": None,
            "dashboard_agent_listen_port": None,
            "node_id": client.home_node().hex(),
        }

    def __getitem__(self, key: str) -> Any:
        warnings.warn('Use ctx.address_info["..."] or an attribute instead of ctx["..."].', DeprecationWarning, 2)
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __enter__(self) -> RabbitryContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the session; the same as `rabbitry.shutdown()`."""
        self._end()

    def _repr_html_(self) -> str:
        from rabbitry import current
        from rabbitry.cluster import cluster_resources, nodes
        from rabbitry.notebook import table
        from rabbitry_broker.errors import RabbitryBrokerError

        rows: list[tuple[str, object]] = [
            ("address", self.address_info["address"]),
            ("Python", self.python_version),
            ("rabbitry", VERSION),
        ]
        if current.peek() is not self._client:
            return table("rabbitry (shut down)", rows)
        try:
            resources = cluster_resources()
            rows.append(("nodes", sum(bool(node["Alive"]) for node in nodes())))
            rows += [(name, f"{amount:g}") for name, amount in sorted(resources.items()) if ":" not in name]
        except RabbitryBrokerError:
            rows.append(("nodes", "the store does not answer"))
        return table("rabbitry", rows)

    def __repr__(self) -> str:
        return f"RabbitryContext(python_version={self.python_version!r}, address={self.address_info['address']!r})"
