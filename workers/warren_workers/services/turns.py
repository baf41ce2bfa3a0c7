"""Work that one node of the cluster does for all, every so often: whichever comes first.

The key that says that it was done ends by itself. One that does not, or not in time, somebody else wrote: it goes, or
nobody would ever do that work again.
"""

from __future__ import annotations

import logging
from typing import Final

from warren_broker.store.object_store import ObjectStore

log = logging.getLogger("warren.node")

_SHARE: Final = 0.9  # of the interval: two rounds of one node must both find the key gone


def takes_turn(store: ObjectStore, key: bytes, node: bytes, seconds: float) -> bool:
    """Return True if the work is this node's to do now.

    Args:
        store: of the cluster.
        key: of that work.
        node: this node.
        seconds: how often it is to be done.
    """
    milliseconds = int(seconds * 1000 * _SHARE)
    taken, left = store.pipeline([(b"SET", key, node, b"NX", b"PX", milliseconds), (b"PTTL", key)])
    if taken is None and (left == -1 or left > milliseconds):
        log.warning("%s would not end: somebody else wrote it", key.decode("utf-8", "replace"))
        store.call(b"UNLINK", key)
    return taken is not None
