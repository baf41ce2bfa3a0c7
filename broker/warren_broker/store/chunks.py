"""The bytes of large values in Redis: chunks of 8 MiB, sent from and received into the caller's memory without copies.

HOT PATH (`benchmarks/`: `put_64mib` on the cluster engine). Packing a chunk into a command copies it twice, parsing a
reply three times; here a chunk goes from the value's own memory to the socket and from the socket into its place. A few
chunks are on their way at once. A connection of its own keeps other threads' commands from waiting behind gigabytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from warren_broker import records
from warren_broker.errors import ConnectError, ConnectionLost, StoreError
from warren_broker.store.connection import Connection

if TYPE_CHECKING:
    from warren_broker.store.object_store import ObjectStore

_Result = TypeVar("_Result")

IN_FLIGHT: Final = 4
"""Chunks sent whose replies were not read yet."""

FULL_RETRY_SECONDS: Final = 0.05


class Chunks:
    """Writes and reads chunks. Any thread may call anything; one transfer at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._connection: Connection | None = None
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
            full = self._store.room.lack(size)
            if full is None:
                try:
                    return self._persist(lambda: self._write_all(object_id, token, views))
                except ConnectionLost:
                    raise
                except StoreError as error:
                    if not str(error).startswith("OOM"):
                        raise
                    self.delete(self.keys(object_id, token, _count(views)))
                    full = self._store.room.refused(size)
            if time.monotonic() >= deadline or full.hopeless:
                raise full
            self._store.on_full()
            time.sleep(FULL_RETRY_SECONDS)

    def _write_all(self, object_id: bytes, token: bytes, views: Sequence[memoryview]) -> int:
        ttl = self._store.ttl_milliseconds
        number = 0
        with self._lock:
            connection = self._open()
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
            connection = self._open()
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

    # -- the rest ----------------------------------------------------------------------------------------------------

    def delete(self, keys: Sequence[bytes]) -> None:
        """Delete chunks by their keys."""
        if keys:
            self._store.call(b"UNLINK", *keys)

    def _open(self) -> Connection:
        connection = self._connection
        if connection is None or connection.closed or self._owner_pid != os.getpid():
            connection = self._connection = self._store.open_connection("chunks")
            self._owner_pid = os.getpid()
        return connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


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
