"""The name under which Redis lists a node's connection for announcements; others see by it that the node is there."""

from __future__ import annotations


def connection_name(node_id: bytes) -> str:
    """Return the name of that connection of a node."""
    return f"rabbitry-watch-{node_id.hex()}"
