"""What `init` returns."""

from __future__ import annotations

import platform
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warren.client import Client
    from warren.embedded import EmbeddedNode

VERSION = "0.1.0"


class WarrenContext:
    """A session, as `init` returns it; a context manager that shuts it down.

    Attributes:
        dashboard_url: always "", warren has no dashboard.
        python_version: of this process.
        ray_version: version of Ray's API that warren follows.
        ray_commit: always "".
        address_info: addresses by Ray's names.
    """

    def __init__(self, client: Client, node: EmbeddedNode | None) -> None:
        from warren_broker.errors import without_password

        self.dashboard_url = ""
        self.python_version = platform.python_version()
        self.ray_version = "2.60.0"
        self.ray_commit = ""
        store = without_password(client.endpoint.store_url)
        self.address_info: dict[str, Any] = {
            "address": without_password(client.endpoint.broker_url) if client.endpoint.broker_url else store,
            "redis_address": store,
            "gcs_address": store,
            "node_ip_address": "127.0.0.1",
            "object_store_address": "",
            "raylet_socket_name": "",
            "webui_url": "",
            "session_dir": node.directory if node is not None else "",
            "metrics_export_port": None,
            "dashboard_agent_listen_port": None,
            "node_id": client.home_node().hex(),
        }

    def __getitem__(self, key: str) -> Any:
        warnings.warn('Use ctx.address_info["..."] or an attribute instead of ctx["..."].', DeprecationWarning, 2)
        return self.address_info[key]

    def __enter__(self) -> WarrenContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the session; the same as `warren.shutdown()`."""
        from warren.session import shutdown

        shutdown()

    def __repr__(self) -> str:
        return f"WarrenContext(python_version={self.python_version!r}, address={self.address_info['address']!r})"
