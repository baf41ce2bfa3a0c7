"""The cluster, as the routes of the service reach it."""

from __future__ import annotations

import threading
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import HTTPConnection

import rabbitry
from rabbitry import current
from rabbitry.client import Client
from rabbitry_broker import local_clusters
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.store.host import shared_session
from rabbitry_broker.store.reader import Reader
from rabbitry_workers.joining import Joining

INTERNAL_NAMESPACE: Final = "_ray_internal_dashboard"
"""Of the service's own session. Jobs in namespaces that begin like it are not shown, as in Ray."""


class ClusterAccess:
    """The way to the cluster that a service is for. Any thread may use it.

    Args:
        joining: where the cluster is.
        address: what `init` takes to join it.
        store: URL of its Redis, if that is not in the environment.

    Attributes:
        endpoint: its addresses.
        timeout: seconds to reach a server, and for each reply.
        name: what `session_name` in Ray's answers is.
    """

    def __init__(self, joining: Joining, address: str | None = None, store: str | None = None) -> None:
        self.joining = joining
        self.endpoint: Endpoint = joining.endpoint
        self.timeout = joining.connect_timeout
        self.name = f"session_{joining.session or shared_session(joining.endpoint)}"
        self._address = address or local_clusters.AUTO
        self._store = store
        self._lock = threading.Lock()

    def client(self) -> Client:
        """Return the client of this process; the first call connects it (`rabbitry.init`).

        Raises:
            ConnectError: the cluster cannot be reached.
        """
        with self._lock:
            if not rabbitry.is_initialized():
                rabbitry.init(
                    self._address,
                    store=self._store,
                    namespace=INTERNAL_NAMESPACE,
                    configure_logging=False,
                    log_to_driver=False,
                )
            return current.client()

    def reader(self) -> Reader:
        """Open a connection that reads the store; to be used with `with`.

        Raises:
            ConnectError: no server can be reached.
        """
        return Reader(self.endpoint, timeout=self.timeout)

    def check(self) -> None:
        """Raise if the store cannot be reached.

        Raises:
            ConnectError: no server can be reached.
        """
        with self.reader() as reader:
            reader.call(b"PING")


def cluster_access(connection: HTTPConnection) -> ClusterAccess:
    """Return the cluster of a request's service."""
    access: ClusterAccess = connection.app.state.cluster
    return access


Cluster = Annotated[ClusterAccess, Depends(cluster_access)]
"""The type of the parameter by which a route gets the cluster of its service."""
