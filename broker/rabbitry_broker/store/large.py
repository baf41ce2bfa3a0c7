"""Large values: pickle 5 with out-of-band buffers, in shared memory of this host, in chunks in Redis, or in files.

HOT PATH (`benchmarks/`: `put_64mib`, `get_64mib`, `task_64mib_argument`, `task_8mib_result`).

| engine | a value is written to | shared memory is |
|---|---|---|
| embedded | shared memory (one host); Redis where that is too small | the only copy |
| cluster | shared memory, if a node of this host looks after it | the only copy, until `copies` makes one in Redis |
| cluster, else | Redis | a cache of what this host wrote or read |

What another host made is taken from a node there if one can be reached (`peers`), else from Redis, by one process of a
host, however many want it. It is kept in shared memory, too; all readers of a host map the same pages. What fits in
neither goes to `spill_url`; the embedded engine has a directory of its session for that by default. Every attempt to
store a value has a *token* (the writer's process id and a random number), which is in the names of its buffers and in
the record: a second run of the same task disturbs nothing, and a buffer whose token is not that of the object's record
is an orphan (`sweep`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final, Protocol

from rabbitry_broker import records
from rabbitry_broker.errors import StoreError, anew, without_frames
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.serialization import Packed, unpack
from rabbitry_broker.shared_memory import ObjectStoreFull, SharedMemoryStore, in_body, sweep_dead_sessions
from rabbitry_broker.signing import SIGNATURE_BYTES, Signer
from rabbitry_broker.store import spill
from rabbitry_broker.store.chunks import Chunks, count_of
from rabbitry_broker.store.copies import Copies, ObjectLost
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.peers.wire import PeerLost
from rabbitry_broker.store.room import PATIENCE_SECONDS, Room
from rabbitry_broker.store.server import Server

log = logging.getLogger("rabbitry")

COPIES_VARIABLE: Final = "RABBITRY_VALUE_COPIES"
LAZY, EAGER = "lazy", "eager"

# A copy that this host made of a value it read: the highest bit of the process id in the token.
_COPY_BIT: Final = 0x80
_FILES_A_SWEEP: Final = 500
_SESSIONS_SWEPT_SECONDS: Final = 60.0
# Where in a sealed record the token of a large value ends.
_HEAD_END: Final = SIGNATURE_BYTES + records.TOKEN_BYTES
# Another process of this host brings a value; if that takes longer, it may be stopped.
_CLAIM_SECONDS: Final = 60.0
# An unrecorded file of a living process is being committed; after so long it is not.
_ORPHAN_SECONDS: Final = 300.0


class ReadsPeers(Protocol):
    """Reads values of other hosts from their nodes; see `PeerReader`."""

    def can_ask(self, host: bytes) -> bool:
        """True if it is worth a try."""

    def read(
        self,
        host: bytes,
        name: bytes,
        sizes: Sequence[int],
        keep: Callable[[Callable[[memoryview], None]], None],
        *,
        digest: bool,
    ) -> bool:
        """Have `keep` take the bytes of a value; False if the host does not have it, PeerLost if it went wrong."""

    def close(self) -> None:
        """Close connections."""


class LargeObjects:
    """Writes and reads the buffers of large values. Any thread may call anything.

    Args:
        server: Redis.
        keys: of the cluster.
        signer: of records.
        room: what Redis has room for.
        ttl_milliseconds: after which an object is deleted whoever holds it; 0 for never.
        session: name of the shared-memory session of this host and cluster; "" for no shared memory.
        host: id of this host.
        spill_url: directory or URL for values that the store has no room for; "" or "off" for none.
        limit_bytes: what the session's shared memory may take; None for what there is.
        eager: on the cluster engine, write values to Redis at once; None for what RABBITRY_VALUE_COPIES says.
        peers: reads values of other hosts from their nodes; None to read them from Redis alone.
    """

    def __init__(
        self,
        server: Server,
        keys: Keys,
        signer: Signer,
        room: Room,
        *,
        ttl_milliseconds: int,
        session: str,
        host: bytes,
        spill_url: str = "",
        limit_bytes: int | None = None,
        eager: bool | None = None,
        peers: ReadsPeers | None = None,
    ) -> None:
        self._server = server
        self._keys = keys
        self._one_host = server.traits.one_host
        self.host = host
        self._session = session
        self._memory = SharedMemoryStore(session, limit_bytes) if session else None
        self._eager = copies_are_eager() if eager is None else eager
        self._peers = peers
        self._chunks = Chunks(server, keys, room, ttl_milliseconds=ttl_milliseconds)
        # Copies for others go their own way: what this process writes and reads itself does not wait for them.
        self._copy_chunks = Chunks(server, keys, room, ttl_milliseconds=ttl_milliseconds)
        self.copies = Copies(server, keys, signer, self._copy_chunks, ttl_milliseconds=ttl_milliseconds)
        self._left_here = False
        self._spill = spill.Spill(spill_url, session) if spill_url not in ("", spill.OFF) else None
        self._warned = False
        self._swept = ""
        self._recorded: set[bytes] = set()  # files that had a record when `sweep` looked last
        self._sessions_swept_at = time.monotonic()

    # -- writing -----------------------------------------------------------------------------------------------------

    def describe(self, packed: Packed) -> records.Manifest:
        """Return the manifest of a value that is about to be written, as far as it is known before."""
        outer = len(packed.data) > records.INLINE_LIMIT_BYTES
        sizes = [len(packed.data)] if outer else []
        sizes += [memoryview(buffer).nbytes for buffer in packed.buffers]
        return records.Manifest(
            b"" if outer else bytes(packed.data),
            sizes,
            0 if self._one_host else count_of(sizes),
            b"",
            self._session,
            list(packed.refs),
            outer=outer,
            token=os.getpid().to_bytes(4, "big") + os.urandom(records.TOKEN_BYTES - 4),
            chunk_bytes=records.CHUNK_BYTES,
        )

    def write(
        self,
        object_id: bytes,
        packed: Packed,
        manifest: records.Manifest | None = None,
        *,
        copy: int = records.COPY_SOON,
        before_sending: Callable[[], None] | None = None,
    ) -> bytes:
        """Store a value's buffers; return the record that describes them. Waits `PATIENCE_SECONDS` for room.

        Args:
            object_id: the object.
            packed: the value.
            manifest: from `describe`, if the caller needed it before.
            copy: when a copy is to be made of what stays on this host (`records.COPY_ASKED`, ...).
            before_sending: called before anything is written that outlives this host.

        Raises:
            ObjectStoreFull: there is no room; nothing is left of the attempt.
        """
        if manifest is None:
            manifest = self.describe(packed)
        views = [memoryview(packed.data)] if manifest.outer else []
        views += [_flat(buffer) for buffer in packed.buffers]
        manifest.chunks = 0
        if self._one_host:
            full = self._share(object_id, manifest, views)
            if full is not None:
                if full.by_limit:
                    full = self._wait_for_memory(object_id, manifest, views, full)
                else:
                    full = self._send(object_id, manifest, views)
                if full is not None:
                    self._spill_over(object_id, manifest, views, full)
            return records.large(manifest)
        stays = self._may_stay()
        if stays and self._share(object_id, manifest, views) is None:
            manifest.copy = copy
            self._left_here = True
            return records.large(manifest)
        if before_sending is not None:
            before_sending()
        full = self._send(object_id, manifest, views)
        if full is not None:
            self._spill_over(object_id, manifest, views, full)
        if not stays:
            self._share(object_id, manifest, views)
        return records.large(manifest)

    def _may_stay(self) -> bool:
        """True if a value may be in this host's shared memory alone: somebody copies it when that is needed."""
        return not self._eager and self._memory is not None and self._memory.is_kept()

    def _share(self, object_id: bytes, manifest: records.Manifest, views: list[memoryview]) -> ObjectStoreFull | None:
        """Write the buffers into shared memory; return the error if it has no room."""
        if self._memory is None:
            return ObjectStoreFull(sum(manifest.sizes), 0, "shared memory (there is none)")
        try:
            self._memory.create(object_id + manifest.token, views, b"")
        except ObjectStoreFull as error:
            full = without_frames(error)
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
        """The session's limit is reached: let go of what was dropped here, then wait for others to do so."""
        if full.hopeless:
            return full
        deadline = time.monotonic() + self.patience
        while True:
            self._server.on_full()
            again = self._share(object_id, manifest, views)
            if again is None or time.monotonic() >= deadline:
                return again
            time.sleep(0.02)

    @property
    def patience(self) -> float:
        """Seconds to wait for room: none if there is a place to spill to."""
        return 0.0 if self._spill is not None else PATIENCE_SECONDS

    def _send(self, object_id: bytes, manifest: records.Manifest, views: list[memoryview]) -> ObjectStoreFull | None:
        """Write the buffers into Redis; return the error if it has no room."""
        try:
            manifest.chunks = self._chunks.write(object_id, manifest.token, views, patience=self.patience)
        except ObjectStoreFull as error:
            return without_frames(error)
        if manifest.outer:
            manifest.digest = _digest(views[0])
        return None

    def _spill_over(
        self, object_id: bytes, manifest: records.Manifest, views: list[memoryview], full: ObjectStoreFull
    ) -> None:
        if self._spill is None:
            raise anew(full)
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
            ObjectStoreFull: they are on another host, and Redis has no room for a copy.
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
        if self._memory is None or manifest.spill or self._one_host:
            return
        if self._mapped(object_id, manifest) is None:
            self._fetched(object_id, manifest)

    def _mapped(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview] | None:
        try:
            return self._here(object_id, manifest, keep=True)
        except OSError as error:
            elsewhere = manifest.chunks or manifest.is_on_host_only
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) or not elsewhere:
                raise
            return None  # the limit of open files or mappings is reached; a copy needs neither

    def _here(self, object_id: bytes, manifest: records.Manifest, *, keep: bool) -> list[memoryview] | None:
        """Return views of a value's buffers in this host's shared memory; None if they are not there.

        `keep`: keep them mapped for the next time.

        Raises:
            OSError: they cannot be mapped.
        """
        if self._memory is None:
            return None
        token = manifest.token
        names = [token, _copy_of(token)] if manifest.host == self.host else [_copy_of(token), token]
        if self._one_host:
            names = [token]
        for name in names:
            try:
                _, views = self._memory.open(object_id + name, keep=keep)
            except FileNotFoundError:
                continue
            if [view.nbytes for view in views] == manifest.sizes:
                return views
        return None

    def _fetched(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview]:
        """Read the buffers from wherever they are; keep a copy of what another host has for this one."""
        if manifest.spill:
            return self._from_file(object_id, manifest)
        if self._one_host:
            return self._from_redis(object_id, manifest)
        with ExitStack() as held:
            if self._memory is not None:
                with suppress(OSError):  # no descriptor or no room for a file: then several may do the same
                    held.enter_context(self._memory.claim(object_id + _copy_of(manifest.token), _CLAIM_SECONDS))
                views = self._mapped(object_id, manifest)
                if views is not None:
                    return views  # it came while we waited
            views = self._from_peer(object_id, manifest)
            if views is not None:
                return views
            if manifest.is_on_host_only:
                manifest = self.copies.ask(object_id, manifest)
                if manifest.spill:
                    return self._from_file(object_id, manifest)
            return self._copied(object_id, manifest, self._from_redis(object_id, manifest))

    def _from_file(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview]:
        try:
            buffers = spill.read(manifest.spill, manifest.sizes)
        except OSError as error:
            raise ObjectLost(f"object {object_id.hex()} was spilled and cannot be read: {error}") from error
        return self._opened(object_id, manifest, buffers)

    def _from_redis(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview]:
        if not manifest.chunks and any(manifest.sizes):
            raise ObjectLost(f"object {object_id.hex()}: its shared memory on the host that made it is gone")
        wholes = [memoryview(bytearray(size)) for size in manifest.sizes]
        missing = self._chunks.read_into(object_id, manifest.token, wholes, manifest.chunk_bytes)
        if missing is not None:
            raise ObjectLost(f"object {object_id.hex()}: chunk {missing} of its value is gone from Redis")
        return self._opened(object_id, manifest, [whole.toreadonly() for whole in wholes])

    def _from_peer(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview] | None:
        """Read the buffers from a node of the host that made them; None if they cannot be had there."""
        peers, host, sizes = self._peers, manifest.host, manifest.sizes
        if peers is None or not host or host == self.host or not any(sizes) or not peers.can_ask(host):
            return None
        copy = object_id + _copy_of(manifest.token)
        private: list[memoryview] = []

        def keep(fill: Callable[[memoryview], None]) -> None:
            if self._memory is not None:
                touched = False

                def first(target: memoryview) -> None:
                    nonlocal touched
                    touched = True
                    fill(target)

                try:
                    self._memory.receive(copy, sizes, first)
                    return
                except (ObjectStoreFull, OSError) as error:
                    if touched:
                        raise PeerLost(f"no room was left for it: {error}") from error
            places, size = in_body(sizes)
            whole = memoryview(bytearray(size))
            fill(whole)
            private[:] = [whole.toreadonly()[at : at + size] for at, size in zip(places, sizes, strict=True)]

        try:
            if not peers.read(host, object_id + manifest.token, sizes, keep, digest=manifest.outer):
                return None
        except PeerLost as error:
            log.debug("object %s is read from Redis: %s", object_id.hex(), error)
            return None
        if private or self._memory is None:
            return private
        try:
            return self._memory.open(copy)[1]
        except (OSError, FileNotFoundError):
            return None  # deleted meanwhile, or no more files can be opened

    def _opened(self, object_id: bytes, manifest: records.Manifest, buffers: list[memoryview]) -> list[memoryview]:
        """Return buffers that nobody vouches for, if the pickle among them is the one that was stored."""
        if manifest.outer and _digest(buffers[0]) != manifest.digest:
            raise ObjectLost(f"object {object_id.hex()}: its pickle was changed in the store; it is not opened")
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
        return views

    def settle(self, object_id: bytes, record: bytes) -> None:
        """A value that this process wrote is on record now: where it is in shared memory, its host's nodes see that."""
        if self._memory is not None:
            self._memory.settle(object_id + records.token_of(record))

    # -- copies of what is on this host only -------------------------------------------------------------------------

    def look_after(self) -> bool:
        """This process is a node: from now on it copies what its host's processes leave in shared memory alone.

        Returns:
            False if another node of the host does. Call it again: that one may end.
        """
        return self._memory is not None and not self._one_host and self._memory.keep()

    def stop_looking_after(self) -> None:
        """This node leaves: values that are made from now on are no business of its."""
        if self._memory is not None:
            self._memory.stop_keeping()

    @property
    def has_unkept(self) -> bool:
        """True if no node of this host looks any more after values that this process left in its shared memory."""
        return self._left_here and self._memory is not None and not self._memory.is_kept()

    def copy_unkept(self, seconds: float) -> None:
        """Copy values of this process that no node of its host looks after any more, for so long at most.

        Raises:
            ObjectStoreFull: Redis has no room for one.
        """
        until = time.monotonic() + seconds
        own = os.getpid().to_bytes(4, "big")
        names = [name for name in self.names_here() if name[OBJECT_BYTES : OBJECT_BYTES + 4] == own]
        for name in self.on_host_only(names):
            if time.monotonic() > until:
                return
            self.copy(name)

    def names_here(self) -> list[bytes]:
        """Return the names (object id and token) of what was made on this host; not of copies that it has of others."""
        if self._memory is None:
            return []
        length = OBJECT_BYTES + records.TOKEN_BYTES
        return [name for name in self._memory.names() if len(name) == length and not _is_copy(name)]

    def age(self, name: bytes) -> float:
        """Return how many seconds ago a value of this host was written; 0 if it is not there."""
        return 0.0 if self._memory is None else self._memory.age(name)

    def on_host_only(self, names: Sequence[bytes]) -> dict[bytes, records.Manifest]:
        """Return those names whose records say that nothing but this host has the value, with what they say."""
        found: dict[bytes, records.Manifest] = {}
        for at in range(0, len(names), _FILES_A_SWEEP):
            part = names[at : at + _FILES_A_SWEEP]
            for name, known in zip(part, self.copies.look([name[:OBJECT_BYTES] for name in part]), strict=True):
                if known is not None and self.is_only_here(name, known[1]):
                    found[name] = known[1]
        return found

    def is_only_here(self, name: bytes, manifest: records.Manifest) -> bool:
        """True if this is what an object's record says of the value `name`, and nothing but this host has it."""
        return (
            manifest.is_on_host_only
            and manifest.host == self.host
            and manifest.session == self._session
            and manifest.token == name[OBJECT_BYTES:]
        )

    def copy(self, name: bytes) -> None:
        """Copy a value of this host into Redis, if its record still says that nothing else has it.

        Args:
            name: object id, and token; without a token, whatever value the object has.

        Raises:
            ObjectStoreFull: Redis has no room for it.
        """
        object_id = name[:OBJECT_BYTES]
        (known,) = self.copies.look([object_id])
        if known is None or not self.is_only_here(object_id + (name[OBJECT_BYTES:] or known[1].token), known[1]):
            return
        sealed, manifest = known
        views = self._here(object_id, manifest, keep=False)
        if views is None:
            self.copies.say_lost(object_id, sealed, manifest)
            return
        digest = _digest(views[0]) if manifest.outer else b""
        try:
            self.copies.make(object_id, sealed, manifest, views, digest)
        except ObjectStoreFull:
            if self._spill is None:
                raise
            url = self._spill.write((object_id + manifest.token).hex(), views)
            if not self.copies.spilled(object_id, sealed, manifest, url, digest):
                spill.delete(url)

    # -- letting go --------------------------------------------------------------------------------------------------

    def forget_here(self, object_id: bytes, manifest: records.Manifest) -> list[bytes]:
        """Delete a value's buffers on this host and its spill file; return the keys of its chunks, for the caller."""
        if self._memory is not None:
            names = [object_id + manifest.token]
            if not self._one_host:
                names.append(object_id + _copy_of(manifest.token))
            self._memory.delete(names)
        if manifest.spill:
            try:
                spill.delete(manifest.spill)
            except (OSError, StoreError) as error:
                log.warning("a spilled value was not deleted: %s", error)
        # A copy may be under way that the record does not know of yet.
        count = count_of(manifest.sizes) if manifest.is_on_host_only else manifest.chunks
        return self._chunks.keys(object_id, manifest.token, count)

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

    @property
    def shared(self) -> SharedMemoryStore | None:
        """The shared memory of this host; None if there is none."""
        return self._memory

    @property
    def viewed(self) -> Sequence[object]:
        """The same list at all times: as long as it is empty, `settle_views` has nothing to do."""
        return () if self._memory is None else self._memory.mappings.viewed

    def settle_views(self) -> None:
        """Values that were read may have gone since: whoever deletes them may use their memory again."""
        if self._memory is not None:
            self._memory.mappings.settle()

    def when_kept(self, start_to_trim: Callable[[], object]) -> None:
        """Have `start_to_trim` called whenever something is kept that `trim` must look after."""
        if self._memory is not None:
            self._memory.on_kept = start_to_trim

    def trim(self) -> None:
        """Delete spare files that were kept for reuse, and let go of mappings. Call it about once a second."""
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
            if time.monotonic() >= self._sessions_swept_at + _SESSIONS_SWEPT_SECONDS:
                # Where one node runs for weeks, no other session starts that would do it.
                self._sessions_swept_at = time.monotonic()
                sweep_dead_sessions(self._memory.directory)
            names = self._memory.names()
            self._recorded.intersection_update(names)
            removed += self._sweep(names, self._memory.age, self._memory.delete, self._memory.is_settled)
        if self._spill is not None:
            removed += self._sweep_spill(self._spill)
        return removed

    def _sweep(
        self,
        names: list[bytes],
        age: Callable[[bytes], float],
        delete: Callable[[list[bytes]], None],
        is_settled: Callable[[bytes], bool] = lambda name: False,
    ) -> int:
        names = [name for name in names if len(name) == OBJECT_BYTES + records.TOKEN_BYTES]
        if len(names) > _FILES_A_SWEEP:
            names.sort()
            after = [name for name in names if name.hex() > self._swept]
            names = (after or names)[:_FILES_A_SWEEP]
            self._swept = names[-1].hex()
        # Looked at before the records: what is settled in between is on record.
        settled = {name for name in names if is_settled(name)}
        recorded = self.recorded(names)
        doomed = [
            name
            for name in names
            if name not in recorded
            and (
                name in settled  # it was deleted, by another host
                or name in self._recorded  # the same
                or _is_copy(name)
                or not _writer_lives(name)
                or age(name) > _ORPHAN_SECONDS
            )
        ]
        delete(doomed)
        self._recorded.difference_update(names)
        self._recorded |= recorded
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
        heads = self._server.pipeline(
            [(b"GETRANGE", self._keys.object(name[:OBJECT_BYTES]), SIGNATURE_BYTES, _HEAD_END) for name in names]
        )
        return {
            name
            for name, head in zip(names, heads, strict=True)
            if head == records.LARGE + _original(name[OBJECT_BYTES:])
        }

    def close(self) -> None:
        """Let go of the session's files: the last process to leave deletes them."""
        self._chunks.close()
        if self._peers is not None:
            self._peers.close()
        self._copy_chunks.close()
        if self._memory is not None:
            self._memory.close()


def copies_are_eager(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether RABBITRY_VALUE_COPIES has large values written to Redis at once.

    Raises:
        ValueError: it says neither `lazy` nor `eager`.

    Example:
        >>> copies_are_eager({"RABBITRY_VALUE_COPIES": "eager"})
        True
    """
    text = (os.environ if environment is None else environment).get(COPIES_VARIABLE) or LAZY
    if text not in (LAZY, EAGER):
        raise ValueError(f"{COPIES_VARIABLE}={text!r} must be `{LAZY}` or `{EAGER}`")
    return text == EAGER


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
