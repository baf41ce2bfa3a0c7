"""Serves the large values of this host to readers on others: the node's part of `rabbitry_broker.store.peers`.

The threads of the server are not the agent's loop's: it opens and closes them, and has nothing else to do with them.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from rabbitry_broker.environment import number
from rabbitry_broker.store.peers.reading import are_on
from rabbitry_broker.store.peers.serving import PeerServer, listen, security_for
from rabbitry_workers.node.model.node import Node

PORT_VARIABLE: Final = "RABBITRY_PEER_PORT"
BIND_VARIABLE: Final = "RABBITRY_PEER_BIND"

_LAST_PORT: Final = 65_535

log = logging.getLogger("rabbitry.node")


def port_from_environment() -> int:
    """Return the port that is set for peers, 0 for any.

    Raises:
        ValueError: the variable holds none.
    """
    port = number(PORT_VARIABLE, int, 0, unit="a port")
    if port > _LAST_PORT:
        raise ValueError(f"{PORT_VARIABLE}={port} must be a port, {_LAST_PORT} at most, or 0 for any that is free")
    return port


class Peers:
    """The node's server of large values, or none.

    There is none where all processes share a host, where it is switched off, without shared memory, where TLS is asked
    for without a certificate, and where it cannot listen; then all goes through Redis.

    Args:
        node: whose host it is.

    Attributes:
        place: address and port for the node's record; None if it serves nobody.
    """

    def __init__(self, node: Node) -> None:
        self._server = _open(node)
        self.place = None if self._server is None else (node.config.address, self._server.port)

    def start(self) -> None:
        """Serve from now on."""
        if self._server is not None:
            self._server.start()

    def close(self) -> None:
        """End what is being read."""
        if self._server is not None:
            self._server.close()

    def figures(self) -> dict[str, int]:
        """Return how many values were sent, and of how many bytes."""
        server = self._server
        return {} if server is None else {"values_sent": server.sent, "value_bytes_sent": server.sent_bytes}


def _open(node: Node) -> PeerServer | None:
    if node.endpoint.traits.one_host or not are_on():
        return None
    memory = node.store.large.shared
    if memory is None:
        return None
    try:
        security = security_for(node.endpoint.store_url)
    except (OSError, ValueError) as error:
        log.warning("large values of this host go through Redis alone: %s", error)
        return None
    bind = os.environ.get(BIND_VARIABLE) or node.config.address
    try:
        listener = listen(bind, port_from_environment())
    except OSError as error:
        log.warning(
            "large values of this host go through Redis alone: this node cannot listen at %s (%s). %s says where it "
            "shall (0.0.0.0 for everywhere), %s at which port",
            bind,
            error,
            BIND_VARIABLE,
            PORT_VARIABLE,
        )
        return None
    return PeerServer(listener, memory, node.signer, node.config.host, security)
