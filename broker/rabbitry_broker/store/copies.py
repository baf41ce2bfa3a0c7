"""Copies in Redis of large values that only the shared memory of one host has.

A value is in shared memory first (`large`). It is copied by a node of its host, when a reader on another host asks or
soon after it was made; or by who made it, if no node is there any more.

    reader                                    Redis                        a node of the value's host
      |-- control: copy, host, object --------->|------------------------------->|
      |                                         |<-- chunks, with an expiry -----|
      |                                         |<-- chunks lose it -------------|
      |-- looks at the record, again and again->|<-- record, if it is as it was -|

Whoever copies may be killed at any moment: chunks without a record expire. Two may copy the same value at the same
time: they write the same bytes under the same keys, and nobody writes a chunk that is there (one that is kept would
expire else). A value that is deleted meanwhile takes its chunks along, those included that its record does not know of
yet; what is written later finds no record, and goes again.

What became of a request stands in the record alone. A note beside it (`v:`) says that somebody is at it, or why it
cannot be done now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from rabbitry_broker import records
from rabbitry_broker.errors import StoreError
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.chunks import Chunks
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.living import HostNodes, nodes_of
from rabbitry_broker.store.room import patience_seconds
from rabbitry_broker.store.server import Server

ASK_AGAIN_SECONDS: Final = 2.0
"""A request may get lost with the node that heard it."""

GONE_SECONDS: Final = 10.0
"""A host without nodes for so long has none any more: a node that is started again takes a while."""

LAPSED_SECONDS: Final = 0.4
"""The same of a host whose last node was silent until its lease ended: it has had that while already."""

LOOK_SECONDS: Final = 0.5
"""Until the first look whether the host has nodes; while it has, each next one comes after twice the time."""

SILENT_SECONDS: Final = 60.0
"""So long a reader waits for nodes that live and say nothing."""

NOTE_MILLISECONDS: Final = 5000
"""A note is believed for so long; who is still at it writes it anew."""

UNKEPT_MILLISECONDS: Final = 600_000
"""A chunk that no record knows of goes after so long. To copy the largest value takes less."""

LEASE_SECONDS: Final = 10.0  # of nodes, about: how long after an outage of Redis theirs prove nothing
_ATTEMPTS: Final = 3  # what another process wrote before it was killed may expire under our hands
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.02


class ObjectLost(StoreError):
    """The bytes of a value are in no store any more."""


class Copies:
    """Asks for copies, and makes them. Any thread may call anything.

    Args:
        server: Redis.
        keys: of the cluster.
        signer: of records and requests.
        chunks: where copies go; its transfers wait for each other.
        ttl_milliseconds: after which an object is deleted whoever holds it; 0 for never.
    """

    def __init__(self, server: Server, keys: Keys, signer: Signer, chunks: Chunks, *, ttl_milliseconds: int) -> None:
        self._server = server
        self._keys = keys
        self._signer = signer
        self._chunks = chunks
        self._ttl = ttl_milliseconds

    # -- for readers -------------------------------------------------------------------------------------------------

    def ask(self, object_id: bytes, manifest: records.Manifest) -> records.Manifest:
        """Have a value copied by a node of its host; return the manifest that says where the copy is.

        Args:
            object_id: the value.
            manifest: of it, as far as the reader knows.

        Raises:
            ObjectLost: its bytes are gone, with its host; or another value has taken its place.
            ObjectStoreFull: there is no room for a copy.
        """
        started = heard = time.monotonic()
        asked = missed = 0.0
        look_at, look_after = started + LOOK_SECONDS, LOOK_SECONDS
        pause = _FIRST_PAUSE
        note_key = self._keys.copying(object_id)
        while True:
            sealed, note = self._server.pipeline([(b"GET", self._keys.object(object_id)), (b"GET", note_key)])
            stands = self._opened(object_id, sealed)
            if stands is None or stands.token != manifest.token:
                raise ObjectLost(f"object {object_id.hex()} was deleted, or replaced")
            if stands.chunks or stands.spill:
                return stands
            if not stands.host:
                raise ObjectLost(f"object {object_id.hex()}: its shared memory on the host that made it is gone")
            now = time.monotonic()
            refusal = None
            if note is not None and asked:
                heard, refusal = now, _refusal_in(note)
                if refusal is not None and now - started > patience_seconds():
                    raise refusal
            if now - heard > SILENT_SECONDS:
                raise ObjectLost(f"object {object_id.hex()}: the nodes of the host that has it do not answer")
            if now >= look_at:
                nodes = nodes_of(stands.host, self._server, self._keys, self._signer)
                if nodes is HostNodes.LIVE or not self._server.trusts_leases(LEASE_SECONDS):
                    missed = 0.0
                    look_after = min(2 * look_after, ASK_AGAIN_SECONDS)
                else:
                    missed, look_after = missed or now, LOOK_SECONDS
                    if now - missed > (LAPSED_SECONDS if nodes is HostNodes.LAPSED else GONE_SECONDS):
                        raise ObjectLost(f"object {object_id.hex()}: no node is left on the host that made it")
                look_at = now + look_after
            if now - asked >= ASK_AGAIN_SECONDS:
                message = encode(["copy", stands.host, object_id, asked > 0.0])
                request = (b"PUBLISH", self._keys.control_channel, self._signer.seal(b"control", message))
                # What was said against a copy some seconds ago is no answer to this.
                first = not asked or refusal is not None
                self._server.pipeline([(b"DEL", note_key), request] if first else [request])
                asked = now
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # -- for those who have the value --------------------------------------------------------------------------------

    def look(self, object_ids: Sequence[bytes]) -> list[tuple[bytes, records.Manifest] | None]:
        """Return (record as it stands, manifest) of each object; None for what is no large value, or not there."""
        if not object_ids:
            return []
        stored = self._server.call(b"MGET", *[self._keys.object(each) for each in object_ids])
        found: list[tuple[bytes, records.Manifest] | None] = []
        for object_id, sealed in zip(object_ids, stored, strict=True):
            manifest = self._opened(object_id, sealed)
            found.append(None if manifest is None else (sealed, manifest))
        return found

    def make(
        self, object_id: bytes, sealed: bytes, manifest: records.Manifest, views: Sequence[memoryview], digest: bytes
    ) -> bool:
        """Copy a value into Redis, and say so in its record.

        Args:
            object_id: the value.
            sealed: its record, as it stands.
            manifest: the same, read; changed to what the record says in the end.
            views: its buffers.
            digest: what its manifest is to say of a stream that is a buffer.

        Returns:
            False if it has been deleted meanwhile.

        Raises:
            ObjectStoreFull: Redis has no room for it; nothing is left of the attempt.
        """
        token = manifest.token
        for _ in range(_ATTEMPTS):
            count = self._chunks.write(object_id, token, views, patience=0.0, unkept=UNKEPT_MILLISECONDS)
            if self._chunks.keep(object_id, token, count, self._ttl):
                break
        else:
            raise StoreError(f"object {object_id.hex()}: chunks of its copy go as they are written")
        manifest.chunks, manifest.digest, manifest.chunk_bytes = count, digest, records.CHUNK_BYTES
        if self._replace(object_id, sealed, manifest):
            return True
        stands = self._opened(object_id, self._server.call(b"GET", self._keys.object(object_id)))
        if stands is not None and stands.token == token and stands.chunks:
            return True  # another one was faster
        self._chunks.delete(self._chunks.keys(object_id, token, count))
        return False

    def spilled(self, object_id: bytes, sealed: bytes, manifest: records.Manifest, url: str, digest: bytes) -> bool:
        """Say in a value's record in which file it is now; False if it has been deleted, or copied, meanwhile."""
        manifest.spill, manifest.digest = url, digest
        return self._replace(object_id, sealed, manifest)

    def say_lost(self, object_id: bytes, sealed: bytes, manifest: records.Manifest) -> None:
        """Say in a value's record that its host has no bytes of it: who asks for it need not wait."""
        manifest.host = b""
        self._replace(object_id, sealed, manifest)

    def note(self, object_ids: Iterable[bytes], refusal: ObjectStoreFull | None = None) -> None:
        """Tell those who ask for these objects that somebody is at it, or why there will be no copy now."""
        said = encode([] if refusal is None else [refusal.needed, refusal.free, refusal.place])
        self._server.pipeline(
            [(b"SET", self._keys.copying(each), said, b"PX", NOTE_MILLISECONDS) for each in object_ids]
        )

    def unnote(self, object_id: bytes) -> None:
        """Take back what `note` said."""
        self._server.call(b"DEL", self._keys.copying(object_id))

    def _replace(self, object_id: bytes, sealed: bytes, manifest: records.Manifest) -> bool:
        record = self._signer.seal(object_id, records.large(manifest))
        return bool(self._server.script("replace", self._keys.object(object_id), sealed, record))

    def _opened(self, object_id: bytes, sealed: bytes | None) -> records.Manifest | None:
        if not sealed:
            return None
        try:
            record = self._signer.open(object_id, sealed)
            return records.read_manifest(record) if record[0] == records.LARGE_TAG else None
        except (ForgedMessage, msgspec.MsgspecError):
            return None


def _refusal_in(note: bytes) -> ObjectStoreFull | None:
    """Return what a note says against a copy; None if it says that one is being made."""
    try:
        said = msgspec.convert(decode(note), list[int | str])
        if len(said) == 3:
            return ObjectStoreFull(int(said[0]), int(said[1]), f"{said[2]} (a copy for another host was asked for)")
    except (ValueError, msgspec.MsgspecError):
        return None  # not ours
    return None
