"""The bytes of large values in Redis: chunks of 8 MiB, sent from and received into the caller's memory without copies.

HOT PATH (`benchmarks/`: `put_64mib` on the cluster engine). Packing a chunk into a command copies it twice, parsing a
reply three times; here a chunk goes from the value's own memory to the socket and from the socket into its place. A few
chunks are on their way at once. A connection of its own keeps other threads' commands from waiting behind gigabytes.

In a Redis Cluster the chunks of one object lie on one server, those of all objects on all servers: there is a
connection to each.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from warren_broker import records
from warren_broker.errors import ConnectError, ConnectionLost, StoreError
from warren_broker.store import cluster
from warren_broker.store.address import parse
from warren_broker.store.connection import Connection

if TYPE_CHECKING:
    from warren_broker.store.object_store import ObjectStore

_Result = TypeVar("_Result")

IN_FLIGHT: Final = 4
"""Chunks sent whose replies were not read yet."""

FULL_RETRY_SECONDS: Final = 0.05
AWAY_RETRY_SECONDS: Final = 0.1

_KEYS_AT_ONCE: Final = 1000
_LOOK_UP_TIMEOUT_S: Final = 5.0


class Chunks:
    """Writes and reads chunks. Any thread may call anything; one transfer at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._address = parse(store.endpoint.store_url)
        self._connections: dict[tuple[str, int] | None, Connection] = {}
        self._shares: list[cluster.Share] = []
        self._owner_pid = os.getpid()

    def key(self, object_id: bytes, token: bytes, number: int) -> bytes:
        """Return the key of one chunk."""
        return self._store.keys.chunk(object_id, token, number)

    def keys(self, object_id: bytes, token: bytes, count: int) -> list[bytes]:
        """Return the keys of all chunks of an object."""
        return [self.key(object_id, token, number) for number in range(count)]

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, object_id: bytes, token: bytes, views: Sequence[memoryview], *, patience: float) -> int:
        """Store buffers; return how many chunks they took. If Redis is full, wait for room.

        Args:
            object_id: whose buffers they are.
            token: of this attempt.
            views: flat views of bytes.
            patience: seconds to wait for room.

        Raises:
            ObjectStoreFull: no room within `patience`, or not in an empty Redis either; nothing is left of the attempt.
        """
        size = sum([view.nbytes for view in views])
        deadline = time.monotonic() + patience
        while True:
            full = self._store.room.lack(size, self._asker(object_id))
            if full is None:
                try:
                    return self._persist(lambda: self._write_all(object_id, token, views))
                except ConnectionLost:
                    raise
                except StoreError as error:
                    if not str(error).startswith("OOM"):
                        raise
                    self.delete(self.keys(object_id, token, _count(views)))
                    full = self._store.room.refused(size, self._asker(object_id))
            if time.monotonic() >= deadline or full.hopeless:
                raise full
            self._store.on_full()
            time.sleep(FULL_RETRY_SECONDS)

    def _write_all(self, object_id: bytes, token: bytes, views: Sequence[memoryview]) -> int:
        ttl = self._store.ttl_milliseconds
        number = 0
        with self._lock:
            connection = self._open(self.key(object_id, token, 0))
            try:
                for view in views:
                    for start in range(0, view.nbytes, records.CHUNK_BYTES):
                        piece = view[start : start + records.CHUNK_BYTES]
                        _send_set(connection, self.key(object_id, token, number), piece, ttl)
                        number += 1
                        if connection.owed >= IN_FLIGHT:
                            connection.read()
                while connection.owed:
                    connection.read()
            except BaseException:
                # Interrupted, or refused with more on its way: what is owed would be taken for later replies.
                connection.close()
                raise
        return number

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_into(self, object_id: bytes, token: bytes, views: Sequence[memoryview]) -> int | None:
        """Fill buffers from an object's chunks.

        Returns:
            None if all went well, else the number of the chunk that is missing (or has the wrong size).
        """
        return self._persist(lambda: self._read_all(object_id, token, views))

    def _read_all(self, object_id: bytes, token: bytes, views: Sequence[memoryview]) -> int | None:
        asked = 0
        wanted = list(_pieces(views))
        with self._lock:
            connection = self._open(self.key(object_id, token, 0))
            try:
                for number, piece in enumerate(wanted):
                    while asked < len(wanted) and asked < number + IN_FLIGHT:
                        connection.send(b"GET", self.key(object_id, token, asked))
                        asked += 1
                    if not connection.read_into(piece):
                        connection.close()
                        return number
            except BaseException:
                connection.close()
                raise
        return None

    def _persist(self, transfer: Callable[[], _Result]) -> _Result:
        """Run a transfer (all of it may run twice); if the server goes away under it, wait for that and start over.

        Raises:
            ConnectionLost: the server stayed away, or breaks every transfer, for the store's patience.
            ConnectError: the same.
        """
        gives_up_at = 0.0
        while True:
            try:
                return transfer()
            except (ConnectionLost, ConnectError) as error:
                now = time.monotonic()
                gives_up_at = gives_up_at or now + self._store.patience
                if now > gives_up_at or self._store.closed:
                    raise
                self._store.wait_for_server(error)
                if self._store.endpoint.spread:
                    # That was another server of the cluster.
                    self._shares = []
                    time.sleep(AWAY_RETRY_SECONDS)

    # -- the rest ----------------------------------------------------------------------------------------------------

    def delete(self, keys: Sequence[bytes]) -> None:
        """Delete chunks by their keys."""
        if not keys:
            return
        if not self._store.endpoint.spread:
            self._store.call(b"UNLINK", *keys)
            return
        by_slot: dict[int, list[bytes]] = {}
        for key in keys:
            by_slot.setdefault(cluster.slot_of(key), []).append(key)
        for same in by_slot.values():
            self._persist(partial(self._call, same[0], b"UNLINK", *same))

    def deletions(self, keys: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """Return commands that delete chunks, for a pipeline of the store's; in a Redis Cluster, delete them here."""
        if self._store.endpoint.spread:
            self.delete(keys)
            return []
        return [(b"UNLINK", *keys[at : at + _KEYS_AT_ONCE]) for at in range(0, len(keys), _KEYS_AT_ONCE)]

    def scan(self, client: bytes = b"") -> Iterator[list[bytes]]:
        """Yield the keys of all chunks of a client (b"" for all clients) in a Redis Cluster, in parts.

        A part may be empty. Keys may come twice, and those that are written meanwhile not at all.
        """
        pattern = self._store.keys.chunk_pattern(client)
        done: set[tuple[str, int]] = set()
        # Masters may change meanwhile: one that a replica has taken over from is given up, and the replica scanned.
        while left := [server for server in self._persist(self._masters) if server not in done]:
            cursor: bytes | None = None
            while cursor != b"0":
                cursor, keys = self._persist(partial(self._scan, left[0], cursor or b"0", pattern))
                yield keys
            done.add(left[0])

    def _masters(self) -> list[tuple[str, int]]:
        return sorted({(share.host, share.port) for share in self._looked_up()})

    def _scan(self, server: tuple[str, int], cursor: bytes, pattern: bytes) -> tuple[bytes, list[bytes]]:
        with self._lock:
            if server not in self._masters():
                return b"0", []
            command = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _KEYS_AT_ONCE)
            reply: tuple[bytes, list[bytes]] = self._connect(server).call(*command)
            return reply

    # -- connections -------------------------------------------------------------------------------------------------

    def _asker(self, object_id: bytes) -> Callable[..., Any] | None:
        """Return what sends a command to the server of an object's chunks; None for the only server there is."""
        if not self._store.endpoint.spread:
            return None
        key = self.key(object_id, b"", 0)
        return lambda *command: self._persist(lambda: self._call(key, *command))

    def _call(self, key: bytes, *command: bytes) -> Any:
        with self._lock:
            return self._open(key).call(*command)

    def _open(self, key: bytes) -> Connection:
        """Return a connection to the server of a chunk; hold the lock."""
        if not self._store.endpoint.spread:
            return self._connect(None)
        return self._connect(cluster.master_of(self._address, self._looked_up(), cluster.slot_of(key)))

    def _looked_up(self) -> list[cluster.Share]:
        if not self._shares:
            self._shares = cluster.shares(self._address, _LOOK_UP_TIMEOUT_S)
        return self._shares

    def _connect(self, server: tuple[str, int] | None) -> Connection:
        if self._owner_pid != os.getpid():
            self._connections.clear()
            self._owner_pid = os.getpid()
        connection = self._connections.get(server)
        if connection is None or connection.closed:
            connection = self._connections[server] = self._store.open_connection("chunks", at=server)
        return connection

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


def _count(views: Sequence[memoryview]) -> int:
    return sum([-(-view.nbytes // records.CHUNK_BYTES) for view in views])


def count_of(sizes: Sequence[int]) -> int:
    """Return how many chunks buffers of these sizes take."""
    return sum([-(-size // records.CHUNK_BYTES) for size in sizes])


def _pieces(views: Sequence[memoryview]) -> Iterator[memoryview]:
    for view in views:
        for start in range(0, view.nbytes, records.CHUNK_BYTES):
            yield view[start : start + records.CHUNK_BYTES]


def _send_set(connection: Connection, key: bytes, value: memoryview, ttl: int) -> None:
    """Send SET with the value straight from its memory; one reply is owed."""
    milliseconds = b"%d" % ttl
    tail = b"\r\n$2\r\nPX\r\n$%d\r\n%b\r\n" % (len(milliseconds), milliseconds) if ttl else b"\r\n"
    head = b"*%d\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (5 if ttl else 3, len(key), key, value.nbytes)
    connection.send_parts((head, value, tail))
