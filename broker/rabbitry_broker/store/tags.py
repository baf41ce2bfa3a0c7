"""Hash tags of clients, the middle of most keys: remembered, since making one costs as much as a command. HOT PATH."""

from __future__ import annotations

from collections.abc import Sequence

from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.store.keys import Keys

TAGS_KEPT = 10_000


class Tags:
    """Knows the tags of clients. Any thread may call anything."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._tags: dict[bytes, bytes] = {}  # emptied when it is full

    def of(self, client: bytes) -> bytes:
        """Return the hash tag part of a client's keys."""
        tag = self._tags.get(client)
        if tag is None:
            if len(self._tags) >= TAGS_KEPT:
                self._tags.clear()
            tag = self._tags[client] = self._keys.tag(client)
        return tag

    def pairs(self, object_ids: Sequence[bytes]) -> list[bytes]:
        """Return tag, suffix, tag, suffix, ... of objects, as scripts take them."""
        pairs: list[bytes] = []
        for object_id in object_ids:
            pairs += (self.of(object_id[:CLIENT_BYTES]), object_id[CLIENT_BYTES:])
        return pairs
