"""Reading the buffers of large values: mapped if they are on this host, else from a node there, Redis or a file.

HOT PATH (`benchmarks/`: `get_64mib`, `task_64mib_argument`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final, Protocol

from rabbitry_broker import records
from rabbitry_broker.serialization import unpack
from rabbitry_broker.shared_memory import ObjectStoreFull, in_body
from rabbitry_broker.store import spill
from rabbitry_broker.store.copies import Copies, ObjectLost
from rabbitry_broker.store.large.places import Places
from rabbitry_broker.store.large.tokens import copy_of, digest_of
from rabbitry_broker.store.peers.wire import PeerLost

log = logging.getLogger("rabbitry")

# Another process of this host brings a value; if that takes longer, it may be stopped.
_CLAIM_SECONDS: Final = 60.0


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


class Reading:
    """Reads the buffers of large values from wherever they are. Any thread may call anything.

    Args:
        places: where they may be.
        copies: has a copy made of what is on another host only.
        peers: reads values of other hosts from their nodes; None to read them from Redis alone.
    """

    def __init__(self, places: Places, copies: Copies, peers: ReadsPeers | None) -> None:
        self._places = places
        self._copies = copies
        self._peers = peers

    def read(self, object_id: bytes, manifest: records.Manifest) -> Any:
        """Return the value that `manifest` describes; buffers on this host are mapped, not copied.

        Raises:
            ObjectLost: its buffers are gone.
            ObjectStoreFull: they are on another host, and Redis has no room for a copy.
        """
        buffers = self._places.mapped(object_id, manifest)
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
        if self._places.memory is None or manifest.spill or self._places.one_host:
            return
        if self._places.mapped(object_id, manifest) is None:
            self._fetched(object_id, manifest)

    def _fetched(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview]:
        """Read the buffers from wherever they are; keep a copy of what another host has for this one."""
        if manifest.spill:
            return self._from_file(object_id, manifest)
        if self._places.one_host:
            return self._from_redis(object_id, manifest)
        with ExitStack() as held:
            if self._places.memory is not None:
                with suppress(OSError):  # no descriptor or no room for a file: then several may do the same
                    held.enter_context(self._places.memory.claim(object_id + copy_of(manifest.token), _CLAIM_SECONDS))
                views = self._places.mapped(object_id, manifest)
                if views is not None:
                    return views  # it came while we waited
            views = self._from_peer(object_id, manifest)
            if views is not None:
                return views
            if manifest.is_on_host_only:
                manifest = self._copies.ask(object_id, manifest)
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
        missing = self._places.chunks.read_into(object_id, manifest.token, wholes, manifest.chunk_bytes)
        if missing is not None:
            raise ObjectLost(f"object {object_id.hex()}: chunk {missing} of its value is gone from Redis")
        return self._opened(object_id, manifest, [whole.toreadonly() for whole in wholes])

    def _from_peer(self, object_id: bytes, manifest: records.Manifest) -> list[memoryview] | None:
        """Read the buffers from a node of the host that made them; None if they cannot be had there."""
        peers, host, sizes = self._peers, manifest.host, manifest.sizes
        if peers is None or not host or host == self._places.host or not any(sizes) or not peers.can_ask(host):
            return None
        copy = object_id + copy_of(manifest.token)
        private: list[memoryview] = []

        def keep(fill: Callable[[memoryview], None]) -> None:
            if self._places.memory is not None:
                touched = False

                def first(target: memoryview) -> None:
                    nonlocal touched
                    touched = True
                    fill(target)

                try:
                    self._places.memory.receive(copy, sizes, first)
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
        if private or self._places.memory is None:
            return private
        try:
            return self._places.memory.open(copy)[1]
        except (OSError, FileNotFoundError):
            return None  # deleted meanwhile, or no more files can be opened

    def _opened(self, object_id: bytes, manifest: records.Manifest, buffers: list[memoryview]) -> list[memoryview]:
        """Return buffers that nobody vouches for, if the pickle among them is the one that was stored."""
        if manifest.outer and digest_of(buffers[0]) != manifest.digest:
            raise ObjectLost(f"object {object_id.hex()}: its pickle was changed in the store; it is not opened")
        return buffers

    def _copied(self, object_id: bytes, manifest: records.Manifest, buffers: list[memoryview]) -> list[memoryview]:
        """Keep a copy for the other readers of this host, and return views of it."""
        if self._places.memory is None:
            return buffers
        name = object_id + copy_of(manifest.token)
        try:
            self._places.memory.create(name, buffers, b"")
            _, views = self._places.memory.open(name)
        except (ObjectStoreFull, OSError):
            return buffers
        return views
