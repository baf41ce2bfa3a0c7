"""Objects in Redis, by their records: written, read, and subscribed to.

HOT PATH (`put_records`, `fetch`, `subscribe`; watched by all of `benchmarks/`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rabbitry_broker import records
from rabbitry_broker.errors import StoreError
from rabbitry_broker.serialization import Packed
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.aside import Aside
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.large import LargeObjects
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server, is_full
from rabbitry_broker.store.tags import Tags

FETCH_AT_ONCE = 1000


class Records:
    """Writes and reads objects. Any thread may call anything."""

    def __init__(
        self,
        server: Server,
        keys: Keys,
        tags: Tags,
        signer: Signer,
        aside: Aside,
        room: Room,
        large: LargeObjects,
        *,
        ttl_milliseconds: int,
    ) -> None:
        self._server = server
        self._keys = keys
        self._tags = tags
        self._signer = signer
        self._aside = aside
        self._room = room
        self._large = large
        self._ttl = str(ttl_milliseconds).encode()

    def seal(self, object_id: bytes, record: bytes) -> bytes:
        """Return the record as it stands under the object's key."""
        return self._signer.seal(object_id, record)

    def unseal(self, object_id: bytes, stored: bytes | None) -> bytes | None:
        """Return the record of a stored value; None if there is none, or a forged one (treated as absent)."""
        if stored is None:
            return None
        try:
            return self._signer.open(object_id, stored)
        except ForgedMessage as error:
            self._aside.put(f"object {object_id.hex()}", stored, str(error))
            return None

    def put_records(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Store small objects, in one round trip."""
        key, seal = self._keys.object, self._signer.seal
        if self._ttl == b"0":
            commands: list[tuple[Any, ...]] = [(b"SET", key(oid), seal(oid, record)) for oid, record in items]
        else:
            commands = [(b"SET", key(oid), seal(oid, record), b"PX", self._ttl) for oid, record in items]
        self._server.pipeline(commands)

    def put_packed(self, object_id: bytes, packed: Packed, *, copy: int = records.COPY_SOON) -> bytes:
        """Store a value of any size; return its record. `copy` as in `LargeObjects.write`."""
        if not packed.buffers and len(packed.data) <= records.INLINE_LIMIT_BYTES:
            record = records.containing(packed.refs, packed.data) if packed.refs else records.plain(packed.data)
        else:
            record = self._large.write(object_id, packed, copy=copy)
        self._room.require(len(record))
        self._room.when_room(lambda: self.put_records([(object_id, record)]), size=len(record))
        if record[0] == records.LARGE_TAG:
            self._large.settle(object_id, record)
        return record

    def fetch(self, object_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the records of objects, None for those that are not there."""
        if not object_ids:
            return []
        key = self._keys.object
        if len(object_ids) <= FETCH_AT_ONCE:
            stored = self._server.call(b"MGET", *[key(object_id) for object_id in object_ids])
        else:
            # In parts, so that Redis serves others in between; still one round trip.
            names = [key(object_id) for object_id in object_ids]
            parts = [(b"MGET", *names[at : at + FETCH_AT_ONCE]) for at in range(0, len(names), FETCH_AT_ONCE)]
            stored = [value for part in self._server.pipeline(parts) for value in part]
        return [self.unseal(oid, value) for oid, value in zip(object_ids, stored, strict=True)]

    def subscribe(self, client: bytes, object_ids: Sequence[bytes]) -> tuple[list[bytes | None], list[bytes]]:
        """Like `fetch`, and have the client told on its inbox of those that are not there yet.

        Returns:
            The records, None for those to come; the ids of those that will never come: their owner is gone.
        """
        parts = [object_ids[at : at + FETCH_AT_ONCE] for at in range(0, len(object_ids), FETCH_AT_ONCE)]
        calls = [("subscribe", (self._keys.prefix, client, *self._tags.pairs(part))) for part in parts]
        try:
            replies = self._server.pipeline_of_scripts(calls)
        except StoreError as error:
            if not is_full(error):
                raise
            return self.fetch(object_ids), []  # nobody is told, but whoever waits looks again by itself
        found: list[bytes | None] = []
        orphans: list[bytes] = []
        for object_id, stored in zip(object_ids, [each for reply in replies for each in reply], strict=True):
            if stored == 0:
                orphans.append(object_id)
                found.append(None)
            else:
                found.append(self.unseal(object_id, stored))
        return found, orphans
