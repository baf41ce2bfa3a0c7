"""Keys that all share, of another type than they should have: somebody else wrote there. They go, and are counted.

Else every command on them fails for ever: no node could join, no dead client be cleared away. Deleted, they fill up
again by themselves (nodes and clients write theirs regularly), or what they held is lost, as if that somebody had
deleted them.
"""

from __future__ import annotations

import logging
from typing import Final

from rabbitry_broker.errors import ConnectionLost, StoreError, is_wrong_type
from rabbitry_broker.store.store import ObjectStore

log = logging.getLogger("rabbitry.node")

_NOTHING: Final = b"-"  # a member that none of them has: what is asked is only whether it can be asked


def put_aside_wrong_types(store: ObjectStore) -> int:
    """Delete shared keys of a wrong type; return how many there were.

    Raises:
        ConnectionLost: Redis does not answer.
    """
    keys = store.keys
    nodes = [keys.nodes + each for each in (b":leases", b":changes", b":rooms")]
    sorted_sets = (
        keys.clients, keys.drivers, keys.cancelled, keys.jobs, keys.ended_jobs_at, keys.retired,
        keys.left_nodes, *nodes,
    )  # fmt: skip
    sets = (keys.ghosts, keys.queues, keys.prioritized, keys.prefix + b"actors", keys.burials)
    hashes = (
        keys.nodes, keys.nodes + b":slots", keys.nodes + b":died", keys.names, keys.submissions, keys.ended_jobs,
        keys.requested, keys.claims, keys.used,
    )  # fmt: skip
    probes: list[tuple[bytes, ...]] = [
        *[(b"ZSCORE", key, _NOTHING) for key in sorted_sets],
        *[(b"SISMEMBER", key, _NOTHING) for key in sets],
        *[(b"HGET", key, _NOTHING) for key in hashes],
        (b"LTRIM", keys.put_aside, b"0", b"-1"),
        (b"GET", keys.put_aside + b":count"),
    ]
    try:
        *_, count = store.pipeline(probes)  # one round trip, since it is done often
    except ConnectionLost:
        raise
    except StoreError as error:
        if not is_wrong_type(error):
            raise
    else:
        if count is None or count.isdigit():
            return 0
    return sum(_probe(store, probe) for probe in reversed(probes))  # what counts them first


def _probe(store: ObjectStore, probe: tuple[bytes, ...]) -> bool:
    """Try one key; return True if it had to go."""
    key = probe[1]
    try:
        answer = store.call(*probe)
        if probe[0] != b"GET" or answer is None or answer.isdigit():
            return False
    except ConnectionLost:
        raise
    except StoreError as error:
        if not is_wrong_type(error):
            raise
    name = key.decode("utf-8", "replace")
    log.warning("%s had a wrong type, and is deleted: somebody else wrote there", name)
    store.call(b"UNLINK", key)
    store.put_aside(name, b"", "wrong type")
    return True
