"""Large values: the parts that write, read, copy and sweep their buffers, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from rabbitry_broker import records
from rabbitry_broker.errors import StoreError
from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import spill
from rabbitry_broker.store.chunks import Chunks, count_of
from rabbitry_broker.store.copies import Copies
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.large.places import Places
from rabbitry_broker.store.large.reading import Reading, ReadsPeers
from rabbitry_broker.store.large.sweeping import Sweeping
from rabbitry_broker.store.large.tokens import copy_of
from rabbitry_broker.store.large.unkept import Unkept
from rabbitry_broker.store.large.writing import Writing
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server

log = logging.getLogger("rabbitry")


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
        join: take part in the session at once; else that is for `join` to do.

    Attributes:
        host: id of this host.
        places: where values may be.
        writing: writes them.
        unkept: those that are on this host only.
        copies: of those, in Redis.
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
        join: bool = True,
    ) -> None:
        memory = SharedMemoryStore(session, limit_bytes, join=join) if session else None
        self.host = host
        self.places = places = Places(
            host,
            session,
            server.traits.one_host,
            memory,
            Chunks(server, keys, room, ttl_milliseconds=ttl_milliseconds),
            spill.Spill(spill_url, session) if spill_url not in ("", spill.OFF) else None,
        )
        # Copies for others go their own way: what this process writes and reads itself does not wait for them.
        self._copy_chunks = Chunks(server, keys, room, ttl_milliseconds=ttl_milliseconds)
        self.copies = Copies(server, keys, signer, self._copy_chunks, ttl_milliseconds=ttl_milliseconds)
        self._peers = peers
        self.writing = writing = Writing(places, lambda: server.on_full(), eager=eager)
        reading = Reading(places, self.copies, peers)
        self.unkept = unkept = Unkept(places, self.copies, lambda: writing.left_here)
        sweeping = Sweeping(server, keys, places)
        self.describe, self.write = writing.describe, writing.write
        self.read, self.bring_here = reading.read, reading.bring_here
        self.look_after, self.stop_looking_after = unkept.look_after, unkept.stop_looking_after
        self.names_here, self.age, self.on_host_only = unkept.names_here, unkept.age, unkept.on_host_only
        self.is_only_here, self.copy, self.copy_unkept = unkept.is_only_here, unkept.copy, unkept.copy_unkept
        self.sweep, self.recorded = sweeping.sweep, sweeping.recorded

    def join(self) -> None:
        """Take part in the session of shared memory. Once a process, and before anything else."""
        if self.places.memory is not None:
            self.places.memory.join()

    @property
    def has_unkept(self) -> bool:
        """True if no node of this host looks any more after values that this process left in its shared memory."""
        return self.unkept.are_left

    def settle(self, object_id: bytes, record: bytes) -> None:
        """A value that this process wrote is on record now: where it is in shared memory, its host's nodes see that."""
        if self.places.memory is not None:
            self.places.memory.settle(object_id + records.token_of(record))

    def forget_here(self, object_id: bytes, manifest: records.Manifest) -> list[bytes]:
        """Delete a value's buffers on this host and its spill file; return the keys of its chunks, for the caller."""
        if self.places.memory is not None:
            names = [object_id + manifest.token]
            if not self.places.one_host:
                names.append(object_id + copy_of(manifest.token))
            self.places.memory.delete(names)
        if manifest.spill:
            try:
                spill.delete(manifest.spill)
            except (OSError, StoreError) as error:
                log.warning("a spilled value was not deleted: %s", error)
        # A copy may be under way that the record does not know of yet.
        count = count_of(manifest.sizes) if manifest.is_on_host_only else manifest.chunks
        return self.places.chunks.keys(object_id, manifest.token, count)

    def deletions(self, chunks: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """Return commands that delete chunks, by their keys, for a pipeline; see `Chunks.deletions`."""
        return self.places.chunks.deletions(chunks)

    def delete_chunks(self, chunks: Sequence[bytes]) -> None:
        """Delete chunks by their keys."""
        self.places.chunks.delete(chunks)

    def scan_chunks(self, client: bytes = b"") -> Iterator[list[bytes]]:
        """Yield the keys of all chunks of a client, or of all, in a Redis Cluster; see `Chunks.scan`."""
        return self.places.chunks.scan(client)

    def memory(self) -> tuple[int, int]:
        """Return the bytes of shared memory that objects of this host may take, and how many of them are free."""
        if self.places.memory is None:
            return 0, 0
        capacity = self.places.memory.capacity_bytes
        return capacity, max(0, capacity - self.places.memory.used_bytes)

    @property
    def shared(self) -> SharedMemoryStore | None:
        """The shared memory of this host; None if there is none."""
        return self.places.memory

    @property
    def viewed(self) -> Sequence[object]:
        """The same list at all times: as long as it is empty, `settle_views` has nothing to do."""
        return () if self.places.memory is None else self.places.memory.mappings.viewed

    def settle_views(self) -> None:
        """Values that were read may have gone since: whoever deletes them may use their memory again."""
        if self.places.memory is not None:
            self.places.memory.mappings.settle()

    def when_kept(self, start_to_trim: Callable[[], object]) -> None:
        """Have `start_to_trim` called whenever something is kept that `trim` must look after."""
        if self.places.memory is not None:
            self.places.memory.on_kept = start_to_trim

    def trim(self) -> None:
        """Delete spare files that were kept for reuse, and let go of mappings. Call it about once a second."""
        if self.places.memory is not None:
            self.places.memory.trim()

    def close(self) -> None:
        """Let go of the session's files: the last process to leave deletes them."""
        self.places.chunks.close()
        if self._peers is not None:
            self._peers.close()
        self._copy_chunks.close()
        if self.places.memory is not None:
            self.places.memory.close()
