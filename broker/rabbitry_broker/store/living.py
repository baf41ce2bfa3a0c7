"""The records of nodes, for those who are no nodes and keep none of them: which live, and what became of a host's."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from rabbitry_broker.messages import decode
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Server


class HostNodes(Enum):
    """What is known of the nodes of a host."""

    LIVE = "one has a lease"
    LAPSED = "the lease of one has ended without a goodbye, and no other is there"
    NONE = "they said goodbye, or there never were any"


def living_nodes(server: Server, keys: Keys, signer: Signer) -> Iterator[dict[str, Any]]:
    """Yield the records of nodes whose leases have not ended; what no node of ours has written is left out."""
    ids = server.call(b"HKEYS", keys.nodes)
    if not ids:
        return
    for node, sealed in zip(ids, server.call(b"MGET", *map(keys.node, ids)), strict=True):
        record = open_record(signer, node, sealed)
        if record is not None:
            yield record


def nodes_of(host: bytes, server: Server, keys: Keys, signer: Signer) -> HostNodes:
    """Return what is known of the nodes of a host."""
    flat = server.call(b"HGETALL", keys.nodes)
    if not flat:
        return HostNodes.NONE
    ids = flat[::2]
    found = HostNodes.NONE
    for node, last, sealed in zip(ids, flat[1::2], server.call(b"MGET", *map(keys.node, ids)), strict=True):
        record = open_record(signer, node, sealed if sealed is not None else last)
        if record is None or record.get("host") != host:
            continue
        if sealed is not None:
            return HostNodes.LIVE
        if not record.get("draining"):  # one that left, and left work to others, may be started again
            found = HostNodes.LAPSED
    return found


def open_record(signer: Signer, node: bytes, sealed: bytes | None) -> dict[str, Any] | None:
    """Return a node's record; None if there is none, or no node of ours has written it."""
    if sealed is None:
        return None
    try:
        record = decode(signer.open(b"node" + node, sealed))
    except (ForgedMessage, ValueError):
        return None
    return record if isinstance(record, dict) else None
