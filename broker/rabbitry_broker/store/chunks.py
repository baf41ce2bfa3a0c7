"""The bytes of large values in Redis: chunks of 1 MiB, sent from and received into the caller's memory without copies.

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
from typing import Any, Final, TypeVar

from rabbitry_broker import records
from rabbitry_broker.errors import ConnectError, ConnectionLost, StoreError, anew
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis import cluster
from rabbitry_broker.store.redis.address import parse
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.room import FULL_RETRY_SECONDS, Room
from rabbitry_broker.store.server import Server, is_full

_Result = TypeVar("_Result")

IN_FLIGHT: Final = 4
"""Chunks sent whose replies were not read yet."""

AWAY_RETRY_SECONDS: Final = 0.1

_KEYS_AT_ONCE: Final = 1000
_LOOK_UP_TIMEOUT_S: Final = 5.0


class Chunks:
    """Writes and reads chunks. Any thread may call anything; one transfer at a time."""

    def __init__(self, server: Server, keys: Keys, room: Room, *, ttl_milliseconds: int) -> None:
        self._server = server
        self._keys = keys
        self._room = room
        self._ttl = ttl_milliseconds
        self._lock = threading.Lock()
        self._address = parse(server.endpoint.store_url)
        self._connections: dict[tuple[str, int] | None, Connection] = {}
        self._shares: list[cluster.Share] = []
        self._owner_pid = os.getpid()

    def key(self, object_id: bytes, token: bytes, number: int) -> bytes:
        """Return the key of one chunk."""
        return self._keys.chunk(object_id, token, number)

    def keys(self, object_id: bytes, token: bytes, count: int) -> list[bytes]:
        """Return the keys of all chunks of an object."""
        return [self.key(object_id, token, number) for number in range(count)]

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(
        self, object_id: bytes, token: bytes, views: Sequence[memoryview], *, patience: float, unkept: int = 0
    ) -> int:
        """Store buffers; return how many chunks they took. If Redis is full, wait for room.

        Args:
            object_id: whose buffers they are.
            token: of this attempt.
            views: flat views of bytes.
            patience: seconds to wait for room.
            unkept: milliseconds after which chunks go that nobody keeps (see `keep`); those that are there already
                are left as they are. 0: what is there is replaced, and stays.

        Raises:
            ObjectStoreFull: no room within `patience`, or not in an empty Redis either; nothing is left of the attempt.
        """
        size = sum([view.nbytes for view in views])
        room, refused = self._room, False
        while True:
            full = room.lack(size, self._asker(object_id))
            if full is None:
                try:
                    written = self._persist(lambda: self._write_all(object_id, token, views, unkept))
                    if refused:
                        room.found()
                    return written
                except ConnectionLost:
                    raise
                except StoreError as error:
                    if not is_full(error):
                        raise
                    self.delete(self.keys(object_id, token, count_of([view.nbytes for view in views])))
                    full = room.refused(size, self._asker(object_id))
            refused = True
            if full.hopeless or time.monotonic() >= room.deadline(patience):
                raise anew(full)
            self._server.on_full()
            time.sleep(FULL_RETRY_SECONDS)

    def _write_all(self, object_id: bytes, token: bytes, views: Sequence[memoryview], unkept: int) -> int:
        tail, words = _options(unkept or self._ttl, only_new=bool(unkept))
        number = 0
        with self._lock:
            connection = self._open(self.key(object_id, token, 0))
            try:
                for piece in _pieces(views):
                    _send_set(connection, self.key(object_id, token, number), piece, tail, words)
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

    def keep(self, object_id: bytes, token: bytes, count: int, ttl_milliseconds: int) -> bool:
        """Let chunks that were written with an expiry stay, or for another while; False if some are gone already."""
        keys = self.keys(object_id, token, count)
        if ttl_milliseconds:
            commands: list[tuple[Any, ...]] = [(b"PEXPIRE", key, ttl_milliseconds) for key in keys]
        else:
            commands = [(b"PERSIST", key) for key in keys]
        commands += [(b"EXISTS", *keys[at : at + _KEYS_AT_ONCE]) for at in range(0, len(keys), _KEYS_AT_ONCE)]
        if not self._server.endpoint.spread:
            replies = self._server.pipeline(commands)
        else:
            replies = self._persist(partial(self._pipeline, keys[0], commands)) if keys else []
        return bool(sum(replies[len(keys) :]) == count)

    def _pipeline(self, key: bytes, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with self._lock:
            replies = self._open(key).pipeline(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_into(
        self, object_id: bytes, token: bytes, views: Sequence[memoryview], chunk_bytes: int = records.CHUNK_BYTES
    ) -> int | None:
        """Fill buffers from an object's chunks, which have `chunk_bytes` each (the last of a buffer may have less).

        Returns:
            None if all went well, else the number of the chunk that is missing (or has the wrong size).
        """
        return self._persist(lambda: self._read_all(object_id, token, list(_pieces(views, chunk_bytes))))

    def _read_all(self, object_id: bytes, token: bytes, wanted: list[memoryview]) -> int | None:
        asked = 0
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
                gives_up_at = gives_up_at or now + self._server.patience
                if now > gives_up_at or self._server.closed:
                    raise
                self._server.wait_for_server(error)
                if self._server.endpoint.spread:
                    # That was another server of the cluster.
                    self._shares = []
                    time.sleep(AWAY_RETRY_SECONDS)

    # -- the rest ----------------------------------------------------------------------------------------------------

    def delete(self, keys: Sequence[bytes]) -> None:
        """Delete chunks by their keys."""
        if not keys:
            return
        if not self._server.endpoint.spread:
            self._server.call(b"UNLINK", *keys)
            return
        by_slot: dict[int, list[bytes]] = {}
        for key in keys:
            by_slot.setdefault(cluster.slot_of(key), []).append(key)
        for same in by_slot.values():
            self._persist(partial(self._call, same[0], b"UNLINK", *same))

    def deletions(self, keys: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        """Return commands that delete chunks, for a pipeline of the store's; in a Redis Cluster, delete them here."""
        if self._server.endpoint.spread:
            self.delete(keys)
            return []
        return [(b"UNLINK", *keys[at : at + _KEYS_AT_ONCE]) for at in range(0, len(keys), _KEYS_AT_ONCE)]

    def scan(self, client: bytes = b"") -> Iterator[list[bytes]]:
        """Yield the keys of all chunks of a client (b"" for all clients) in a Redis Cluster, in parts.

        A part may be empty. Keys may come twice, and those that are written meanwhile not at all.
        """
        pattern = self._keys.chunk_pattern(client)
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
        if not self._server.endpoint.spread:
            return None
        key = self.key(object_id, b"", 0)
        return lambda *command: self._persist(lambda: self._call(key, *command))

    def _call(self, key: bytes, *command: bytes) -> Any:
        with self._lock:
            return self._open(key).call(*command)

    def _open(self, key: bytes) -> Connection:
        """Return a connection to the server of a chunk; hold the lock."""
        if not self._server.endpoint.spread:
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
            connection = self._connections[server] = self._server.open_connection("chunks", at=server)
        return connection

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


def count_of(sizes: Sequence[int], chunk_bytes: int = records.CHUNK_BYTES) -> int:
    """Return how many chunks buffers of these sizes take."""
    return sum([-(-size // chunk_bytes) for size in sizes])


def _pieces(views: Sequence[memoryview], chunk_bytes: int = records.CHUNK_BYTES) -> Iterator[memoryview]:
    for view in views:
        for start in range(0, view.nbytes, chunk_bytes):
            yield view[start : start + chunk_bytes]


def _options(ttl: int, *, only_new: bool) -> tuple[bytes, int]:
    """Return how a SET ends that lets its value live for `ttl` milliseconds (0: for ever), and of how many words."""
    words = [b"PX", b"%d" % ttl] if ttl else []
    if only_new:
        words.append(b"NX")
    return b"".join([b"\r\n", *[b"$%d\r\n%b\r\n" % (len(word), word) for word in words]]), len(words)


def _send_set(connection: Connection, key: bytes, value: memoryview, tail: bytes, words: int) -> None:
    """Send SET with the value straight from its memory; one reply is owed. `tail` and `words`: see `_options`."""
    head = b"*%d\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (3 + words, len(key), key, value.nbytes)
    connection.send_parts((head, value, tail))
