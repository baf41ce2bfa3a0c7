"""The records of nodes that live, for those who are no nodes and keep none of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rabbitry_broker.messages import decode
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Server


def living_nodes(server: Server, keys: Keys, signer: Signer) -> Iterator[dict[str, Any]]:
    """Yield the records of nodes whose leases have not ended; what no node of ours has written is left out."""
    ids = server.call(b"HKEYS", keys.nodes)
    if not ids:
        return
    for node, sealed in zip(ids, server.call(b"MGET", *map(keys.node, ids)), strict=True):
        if sealed is None:
            continue
        try:
            record = decode(signer.open(b"node" + node, sealed))
        except (ForgedMessage, ValueError):
            continue
        if isinstance(record, dict):
            yield record
