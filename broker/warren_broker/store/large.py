"""Large values: pickle 5 with out-of-band buffers, in shared memory of this host, in chunks in Redis, or in files.

HOT PATH (`benchmarks/`: `put_64mib`, `get_64mib`, `task_64mib_argument`, `task_8mib_result`).

| engine | authoritative | shared memory is |
|---|---|---|
| embedded | shared memory (one host); Redis where that is too small | the only copy |
| cluster | Redis | a cache of what this host wrote or read, mapped without copying |

What fits in neither goes to `spill_url`, if one is set. Every attempt to store a value has a *token* (the writer's
process id and a random number), which is in the names of its buffers and in the record: a second run of the same task
disturbs nothing, and a buffer whose token is not that of the object's record is an orphan (`sweep`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from warren_broker import records
from warren_broker.errors import StoreError
from warren_broker.ids import OBJECT_BYTES
from warren_broker.serialization import Packed, unpack
from warren_broker.shared_memory import ObjectStoreFull, SharedMemoryStore
from warren_broker.signing import SIGNATURE_BYTES
from warren_broker.store import spill
from warren_broker.store.chunks import Chunks, count_of
from warren_broker.store.room import PATIENCE_SECONDS

if TYPE_CHECKING:
    from warren_broker.store.object_store import ObjectStore

log = logging.getLogger("warren")

# A copy that this host made of a value it read: the highest bit of the process id in the token.
_COPY_BIT: Final = 0x80
_FILES_A_SWEEP: Final = 500
# Where in a sealed record the token of a large value ends.
_HEAD_END: Final = SIGNATURE_BYTES + records.TOKEN_BYTES
# An unrecorded file of a living process is being committed; after so long it is not.
_ORPHAN_SECONDS: Final = 300.0


class LargeObjects:
    """Writes and reads the buffers of large values. Any thread may call anything.

    Args:
        store: whose Redis it uses.
        session: name of the shared-memory session of this host and cluster; "" for no shared memory.
        host: id of this host.
        spill_url: directory or URL for values that the store has no room for; "" for none.
        limit_bytes: what the session's shared memory may take; None for what there is.
    """

    def __init__(
        self, store: ObjectStore, *, session: str, host: bytes, spill_url: str = "", limit_bytes: int | None = None
    ) -> None:
        self._store = store
        self.host = host
        self._session = session
        # In a cluster the limit is for copies that can be had again; they make room for each other.
        self._memory = SharedMemoryStore(session, limit_bytes) if session else None
        self._chunks = Chunks(store)
        self._spill = spill.Spill(spill_url, session) if spill_url else None
        self._warned = False
        self._swept = ""
        self.copies_made = False

    # -- writing -----------------------------------------------------------------------------------------------------

    def describe(self, packed: Packed) -> records.Manifest:
        """Return the manifest of a value that is about to be written, as far as it is known before."""
        outer = len(packed.data) > records.INLINE_LIMIT_BYTES
        sizes = [len(packed.data)] if outer else []
        sizes += [memoryview(buffer).nbytes for buffer in packed.buffers]
        return records.Manifest(
            b"" if outer else bytes(packed.data),
            sizes,
            0 if self._store.endpoint.embedded else count_of(sizes),
            b"",
            self._session,
            list(packed.refs),
            outer=outer,
            token=os.getpid().to_bytes(4, "big") + os.urandom(records.TOKEN_BYTES - 4),
        )

    def write(self, object_id: bytes, packed: Packed, manifest: records.Manifest | None = None) -> bytes:
        """Store a value's buffers; return the record that describes them. Waits `PATIENCE_SECONDS` for room.

        Args:
            object_id: the object.
            packed: the value.
            manifest: from `describe`, if the caller needed it before.

        Raises:
            ObjectStoreFull: there is no room; nothing is left of the attempt.
        """
        if manifest is None:
            manifest = self.describe(packed)
        views = [memoryview(packed.data)] if manifest.outer else []
        views += [_flat(buffer) for buffer in packed.buffers]
        manifest.chunks = 0
        if self._store.endpoint.embedded:
            full = self._share(object_id, manifest, views)
            if full is not None:
                if full.by_limit:
                    full = self._wait_for_memory(object_id, manifest, views, full)
                else:
                    full = self._send(object_id, manifest, views)
                if full is not None:
                    self._spill_over(object_id, manifest, views, full)
        else:
            full = self._send(object_id, manifest, views)
            if full is not None:
                self._spill_over(object_id, manifest, views, full)
            self._share(object_id, manifest, views)
        return records.large(manifest)

    def _share(self, object_id: bytes, manifest: records.Manifest, views: list[memoryview]) -> ObjectStoreFull | None:
        """Write the buffers into shared memory; return the error if it has no room."""
        if self._memory is None:
            return ObjectStoreFull(sum(manifest.sizes), 0, "shared memory (there is none)")
        try:
            self._memory.create(object_id + manifest.token, views, b"")
        except ObjectStoreFull as error:
            full = error
        except OSError as error:
            full = ObjectStoreFull(sum(manifest.sizes), 0, f"{self._memory.directory} ({error})")
        else:
            manifest.host = self.host
            return None
        if not self._warned and not full.by_limit:
            self._warned = True
            log.warning("shared memory has no room: %s. Such objects go through Redis alone, which is slower.", full)
        return full

    def _wait_for_memory(
        self, object_id: bytes, manifest: records.Manifest, views: list[memoryview], full: ObjectStoreFull
    ) -> ObjectStoreFull | None:
        """The session's limit is reached: wait for somebody to drop something."""
        patience = 0.0 if full.hopeless else self.patience
        deadline = time.monotonic() + patience
        again: ObjectStoreFull | None = full
        while again is not None and time.monotonic() < deadline:
            self._store.on_full()
            again = self._share(object_id, manifest, views)
            if again is not None:
                time.sleep(0.02)
        return again

    @property
    def patience(self) -> float:
        """Seconds to wait for room: none if there is a place to spill to."""
        return 0.0 if self._spill is not None else PATIENCE_SECONDS

    def _send(self, object_id: bytes, manifest: records.Manifest, views: list[memoryview]) -> ObjectStoreFull | None:
        """Write the buffers into Redis; return the error if it has no room."""
        try:
            manifest.chunks = self._chunks.write(object_id, manifest.token, views, patience=self.patience)
        except ObjectStoreFull as error:
            return error
        if manifest.outer:
            manifest.digest = _digest(views[0])
        return None

    def _spill_over(
        self, object_id: bytes, manifest: records.Manifest, views: list[memoryview], full: ObjectStoreFull
    ) -> None:
        if self._spill is None:
            raise full
        try:
            manifest.spill = self._spill.write((object_id + manifest.token).hex(), views)
        except ObjectStoreFull:
            raise
        except OSError as error:
            raise spill.OutOfDisk(full.needed, full.free, f"{full.place}, and spilling failed: {error}") from error
        if manifest.outer:
            manifest.digest = _digest(views[0])

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, object_id: bytes, manifest: records.Manifest) -> Any:
        """Return the value that `manifest` describes; buffers on this host are mapped, not copied.

        Raises:
            ObjectLost: its buffers are gone.
        """
        buffers = self._mapped(object_id, manifest)
        if buffers is None:
            buffers = self._fetched(object_id, manifest)
        if manifest.outer:
            return unpack(buffers[0], buffers[1:])
        return unpack(manifest.data, buffers)

    def bring_here(self, object_id: bytes, manifest: records.Manifest) -> None:
        """Have a value made elsewhere on this host before it is read. Nothing happens without a place to keep it.

        Raises:
            ObjectLost: its buffers are gone.
        """
        if self._memory is None or manifest.spill or self._store.endpoint.embedded:
            return
        if self._mapped(object_id, manifest) is None:
            self._fetched(object_id, manifest)

    def _mapped(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview] | None:
        if self._memory is None:
            return None
        token = manifest.token
        names = [token, _copy_of(token)] if manifest.host == self.host else [_copy_of(token), token]
        if self._store.endpoint.embedded:
            names = [token]
        for name in names:
            try:
                _, views = self._memory.open(object_id + name)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) or manifest.chunks == 0:
                    raise
                return None  # the limit of open files or mappings is reached; a copy needs neither
            if [view.nbytes for view in views] == manifest.sizes:
                return views
        return None

    def _fetched(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview]:
        """Read the buffers from Redis or the spill file; keep a copy of what came from Redis for this host."""
        if manifest.spill:
            try:
                buffers = spill.read(manifest.spill, manifest.sizes)
            except OSError as error:
                raise ObjectLost(f"object {object_id.hex()} was spilled and cannot be read: {error}") from error
        else:
            if not manifest.chunks and any(manifest.sizes):
                raise ObjectLost(f"object {object_id.hex()}: its shared memory on the host that made it is gone")
            wholes = [memoryview(bytearray(size)) for size in manifest.sizes]
            missing = self._chunks.read_into(object_id, manifest.token, wholes)
            if missing is not None:
                raise ObjectLost(f"object {object_id.hex()}: chunk {missing} of its value is gone from Redis")
            buffers = [whole.toreadonly() for whole in wholes]
        if manifest.outer and _digest(buffers[0]) != manifest.digest:
            raise ObjectLost(f"object {object_id.hex()}: its pickle was changed in the store; it is not opened")
        if not manifest.spill and not self._store.endpoint.embedded:
            return self._copied(object_id, manifest, buffers)
        return buffers

    def _copied(self, object_id: bytes, manifest: records.Manifest, buffers: list[memoryview]) -> list[memoryview]:
        """Keep a copy for the other readers of this host, and return views of it."""
        if self._memory is None:
            return buffers
        name = object_id + _copy_of(manifest.token)
        try:
            self._memory.create(name, buffers, b"")
            _, views = self._memory.open(name)
        except (ObjectStoreFull, OSError):
            return buffers
        self.copies_made = True
        return views

    # -- letting go --------------------------------------------------------------------------------------------------

    def forget_here(self, object_id: bytes, manifest: records.Manifest) -> list[bytes]:
        """Delete a value's buffers on this host and its spill file; return the keys of its chunks, for the caller."""
        if self._memory is not None:
            names = [object_id + manifest.token]
            if not self._store.endpoint.embedded:
                names.append(object_id + _copy_of(manifest.token))
            self._memory.delete(names)
        if manifest.spill:
            try:
                spill.delete(manifest.spill)
            except (OSError, StoreError) as error:
                log.warning("a spilled value was not deleted: %s", error)
        return self._chunks.keys(object_id, manifest.token, manifest.chunks)

    def deletions(self, chunks: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """Return commands that delete chunks, by their keys, for a pipeline; see `Chunks.deletions`."""
        return self._chunks.deletions(chunks)

    def delete_chunks(self, chunks: Sequence[bytes]) -> None:
        """Delete chunks by their keys."""
        self._chunks.delete(chunks)

    def scan_chunks(self, client: bytes = b"") -> Iterator[list[bytes]]:
        """Yield the keys of all chunks of a client, or of all, in a Redis Cluster; see `Chunks.scan`."""
        return self._chunks.scan(client)

    def memory(self) -> tuple[int, int]:
        """Return the bytes of shared memory that objects of this host may take, and how many of them are free."""
        if self._memory is None:
            return 0, 0
        capacity = self._memory.capacity_bytes
        return capacity, max(0, capacity - self._memory.used_bytes)

    def trim(self) -> None:
        """Delete spare files that were kept for reuse. Call it about once a second."""
        if self._memory is not None:
            self._memory.trim()

    def sweep(self) -> int:
        """Delete files of this host that no record needs; return how many. For agents, every few seconds.

        These are what killed writers left, copies of objects that were deleted elsewhere, and what expired. At most
        500 files are looked at; the next call goes on from there.
        """
        removed = 0
        if self._memory is not None:
            self._memory.remove_orphans()
            removed += self._sweep(self._memory.names(), self._memory.age, self._memory.delete)
        if self._spill is not None:
            removed += self._sweep_spill(self._spill)
        return removed

    def _sweep(self, names: list[bytes], age: Callable[[bytes], float], delete: Callable[[list[bytes]], None]) -> int:
        names = [name for name in names if len(name) == OBJECT_BYTES + records.TOKEN_BYTES]
        if len(names) > _FILES_A_SWEEP:
            names.sort()
            after = [name for name in names if name.hex() > self._swept]
            names = (after or names)[:_FILES_A_SWEEP]
            self._swept = names[-1].hex()
        recorded = self.recorded(names)
        doomed = [
            name
            for name in names
            if name not in recorded and (_is_copy(name) or not _writer_lives(name) or age(name) > _ORPHAN_SECONDS)
        ]
        delete(doomed)
        return len(doomed)

    def _sweep_spill(self, place: spill.Spill) -> int:
        names = []
        for text in place.names():
            try:
                names.append(bytes.fromhex(text))
            except ValueError:
                continue  # being written
        paths = {name: place.url_of(name.hex()) for name in names}

        def age(name: bytes) -> float:
            try:
                return time.time() - os.stat(paths[name]).st_ctime
            except OSError:
                return 0.0

        def delete(doomed: list[bytes]) -> None:
            for name in doomed:
                spill.delete(paths[name])

        return self._sweep(names, age, delete)

    def recorded(self, names: Sequence[bytes]) -> set[bytes]:
        """Return those names (object id and token) of buffers that the records of their objects describe."""
        store = self._store
        heads = store.pipeline(
            [(b"GETRANGE", store.keys.object(name[:OBJECT_BYTES]), SIGNATURE_BYTES, _HEAD_END) for name in names]
        )
        return {
            name
            for name, head in zip(names, heads, strict=True)
            if head == records.LARGE + _original(name[OBJECT_BYTES:])
        }

    def close(self) -> None:
        """Let go of the session's files: the last process to leave deletes them."""
        self._chunks.close()
        if self._memory is not None:
            self._memory.close()


class ObjectLost(StoreError):
    """The bytes of a value are in no store any more."""


def _flat(buffer: Any) -> memoryview:
    view = memoryview(buffer)
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _digest(view: memoryview) -> bytes:
    return hashlib.blake2b(view, digest_size=16).digest()


def _copy_of(token: bytes) -> bytes:
    return bytes((token[0] | _COPY_BIT,)) + token[1:]


def _original(token: bytes) -> bytes:
    return bytes((token[0] & ~_COPY_BIT,)) + token[1:]


def _is_copy(name: bytes) -> bool:
    return bool(name[OBJECT_BYTES] & _COPY_BIT)


def _writer_lives(name: bytes) -> bool:
    try:
        os.kill(int.from_bytes(name[OBJECT_BYTES : OBJECT_BYTES + 4], "big"), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
