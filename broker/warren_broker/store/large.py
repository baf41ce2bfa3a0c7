"""Large values: pickle 5 with out-of-band buffers, in shared memory on this host and in chunks in Redis.

On the embedded engine all processes share one host, so the buffers are in shared memory alone. In a cluster a value is
stored once Redis has its chunks; the shared-memory file of the host that made it is a cache that readers there map
without copying. Where shared memory is too small, Redis alone serves (warned about once).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from warren_broker import records
from warren_broker.errors import StoreError
from warren_broker.ids import CLIENT_BYTES
from warren_broker.serialization import Packed, unpack
from warren_broker.shared_memory import ObjectStoreFull, SharedMemoryStore

if TYPE_CHECKING:
    from warren_broker.store.object_store import ObjectStore

log = logging.getLogger("warren")

CHUNKS_A_ROUND_TRIP = 4


class LargeObjects:
    """Writes and reads the buffers of large values. Any thread may call anything."""

    def __init__(self, store: ObjectStore, *, session: str, host: bytes) -> None:
        self._store = store
        self.host = host
        self._session = session
        self._memory = SharedMemoryStore(session) if session else None
        self._warned = False

    def write(self, object_id: bytes, packed: Packed) -> bytes:
        """Store a value's buffers; return the record that describes them.

        Raises:
            ObjectStoreFull: neither shared memory nor Redis has room.
        """
        outer = len(packed.data) > records.INLINE_LIMIT_BYTES
        views = [memoryview(buffer).cast("B") for buffer in packed.buffers]
        if outer:
            views.insert(0, memoryview(packed.data))
        in_memory = self._share(object_id, views)
        chunks = 0
        if not in_memory or not self._store.endpoint.embedded:
            chunks = self._write_chunks(object_id, views)
        manifest = records.Manifest(
            b"" if outer else packed.data,
            [view.nbytes for view in views],
            chunks,
            self.host if in_memory else b"",
            self._session,
            list(packed.refs),
            outer=outer,
        )
        return records.large(manifest)

    def _share(self, object_id: bytes, views: list[memoryview]) -> bool:
        if self._memory is None:
            return False
        try:
            self._memory.create(object_id, views, b"")
        except (ObjectStoreFull, OSError) as error:
            if not self._warned:
                self._warned = True
                log.warning("shared memory has no room (%s); large objects go through Redis alone", error)
            return False
        return True

    def _chunk_key(self, object_id: bytes, number: int) -> bytes:
        owner = object_id[:CLIENT_BYTES]
        return b"%sx%s:%s:%d" % (self._store.keys.prefix, self._store.tag(owner), object_id[CLIENT_BYTES:], number)

    def _write_chunks(self, object_id: bytes, views: list[memoryview]) -> int:
        size = records.CHUNK_BYTES
        number = 0
        for view in views:
            for start in range(0, view.nbytes, size):
                self._store.call(b"SET", self._chunk_key(object_id, number), view[start : start + size])
                number += 1
        return number

    def read(self, object_id: bytes, manifest: records.Manifest) -> Any:
        """Return the value that `manifest` describes; buffers on this host are mapped, not copied.

        Raises:
            ObjectLost: its buffers are gone.
        """
        buffers = self._mapped(object_id, manifest)
        if buffers is None:
            buffers = self._read_chunks(object_id, manifest)
            if self._memory is not None and self._share(object_id, buffers):
                buffers = self._mapped(object_id, manifest, anywhere=True) or buffers
        if manifest.outer:
            return unpack(buffers[0], buffers[1:])
        return unpack(manifest.data, buffers)

    def _mapped(
        self, object_id: bytes, manifest: records.Manifest, *, anywhere: bool = False
    ) -> list[memoryview] | None:
        if self._memory is None:
            return None
        try:
            _, views = self._memory.open(object_id)
        except FileNotFoundError:
            return None
        return views if [view.nbytes for view in views] == manifest.sizes else None

    def _read_chunks(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview]:
        if manifest.chunks == 0 and sum(manifest.sizes) > 0:
            raise ObjectLost(f"object {object_id.hex()}: its shared memory on the host that made it is gone")
        buffers: list[memoryview] = []
        number = 0
        for size in manifest.sizes:
            whole = bytearray(size)
            at = 0
            while at < size:
                chunk = self._store.call(b"GET", self._chunk_key(object_id, number))
                if chunk is None or len(chunk) > size - at:
                    raise ObjectLost(f"object {object_id.hex()}: chunk {number} of its value is gone from Redis")
                whole[at : at + len(chunk)] = chunk
                at += len(chunk)
                number += 1
            buffers.append(memoryview(whole).toreadonly())
        return buffers

    def forget(self, object_id: bytes, record: bytes) -> None:
        """Delete the buffers of a value whose record is being deleted."""
        if record[0] != records.LARGE_TAG:
            return
        manifest = records.read_manifest(record)
        if self._memory is not None:
            self._memory.delete([object_id])
        if manifest.chunks:
            self._store.call(b"UNLINK", *[self._chunk_key(object_id, at) for at in range(manifest.chunks)])

    def forget_all(self, object_ids: list[bytes], values: dict[bytes, bytes]) -> None:
        """Delete the buffers of many values, given their records."""
        for object_id in object_ids:
            record = values[object_id]
            if record[0] == records.LARGE_TAG:
                self.forget(object_id, record)

    def close(self) -> None:
        """Let go of the session's files: the last process to leave deletes them."""
        if self._memory is not None:
            self._memory.close()

    def trim(self) -> None:
        """Delete spare files that were kept for reuse. Call it about once a second."""
        if self._memory is not None:
            self._memory.trim()


class ObjectLost(StoreError):
    """The bytes of a value are in no store any more."""
