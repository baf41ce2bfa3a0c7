"""Work that one node of the cluster does for all, every so often: whichever comes first.

The key that says that it was done ends by itself. One that does not, or not in time, somebody else wrote: it goes, or
nobody would ever do that work again.
"""

from __future__ import annotations

import logging
from typing import Final

from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.node.model.turns import Turns

log = logging.getLogger("rabbitry.node")

_SHARE: Final = 0.9  # of the interval: two rounds of one node must both find the key gone


def turns(keys: Keys) -> list[bytes]:
    """Return the keys of all work that goes by turns, of which a node's sign of life is to tell."""
    return [keys.janitor, actors_turn(keys), submissions_turn(keys)]


def actors_turn(keys: Keys) -> bytes:
    """Return the key of the turn at recovering actors."""
    return keys.janitor + b":actors"


def submissions_turn(keys: Keys) -> bytes:
    """Return the key of the turn at looking after submitted jobs."""
    return keys.janitor + b":submissions"


def takes_turn(store: ObjectStore, key: bytes, node: bytes, seconds: float, known: Turns | None = None) -> bool:
    """Return True if the work is this node's to do now.

    Args:
        store: of the cluster.
        key: of that work.
        node: this node.
        seconds: how often it is to be done.
        known: what the node was told; None to ask in any case.
    """
    milliseconds = int(seconds * 1000 * _SHARE)
    if known is not None and known.is_taken(key, milliseconds):
        return False
    taken, left = store.pipeline([(b"SET", key, node, b"NX", b"PX", milliseconds), (b"PTTL", key)])
    if taken is None and (left == -1 or left > milliseconds):
        log.warning("%s would not end: somebody else wrote it", key.decode("utf-8", "replace"))
        store.call(b"UNLINK", key)
    elif known is not None:
        known.told(key, left)
    return taken is not None
