"""Records: how an object's value stands in Redis and in completions.

The first byte says what follows; large values are described by a manifest (see `large`).

| byte | record |
|---|---|
| `N` | None; of the end of a stream also how many items it had: 8 bytes |
| `P` | a pickle |
| `C` | a pickle that contains refs: msgpack [[object id, ...], pickle] |
| `E` | an error, as `rabbitry.exceptions` stores it |
| `A` | the creation of an actor succeeded: its actor id |
| `L` | a large value: a token (8), msgpack `Manifest` |

The token of a large value is part of the names of its buffers: two runs of one task write different files and chunks,
so the record that stands always finds its own.
"""

from __future__ import annotations

from typing import Final

import msgspec

NONE: Final = b"N"
PLAIN: Final = b"P"
CONTAINING: Final = b"C"
ERROR: Final = b"E"
LARGE: Final = b"L"
ACTOR: Final = b"A"

NONE_TAG, PLAIN_TAG, CONTAINING_TAG, ERROR_TAG, LARGE_TAG, ACTOR_TAG = b"NPCELA"

INLINE_LIMIT_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 1024 * 1024
"""Of a large value in Redis: smaller ones cost more commands, larger ones more copies inside of Redis (measured)."""
TOKEN_BYTES: Final = 8

COPY_NEVER, COPY_ASKED, COPY_SOON = 0, 1, 2
"""When chunks are made of a value that only shared memory has: never (all readers are on its host), as soon as another
host asks for it, or soon after it was made by itself (it is to outlive its host)."""


class Manifest(msgspec.Struct, array_like=True, gc=False):
    """Where a large value is.

    Attributes:
        data: the pickle stream, without its out-of-band buffers (itself the first buffer if it is large).
        sizes: bytes of each out-of-band buffer.
        chunks: how many chunk keys hold the buffers, one after the other; 0 if only shared memory or a spill file does.
        host: id of the host whose shared memory has them (too), b"" if none: there its nodes and all other processes
            open it as object id + token in `session`. With neither chunks nor a spill file it has the only copy.
        session: the shared-memory session on that host.
        refs: object ids pickled inside.
        spill: URL of the file that holds the buffers instead of chunk keys, "" for none.
        outer: True if `data` is empty and the stream is the first buffer.
        digest: BLAKE2b of the stream if it is a buffer outside of shared memory: it is code, so it is authenticated.
        token: what the names of the buffers end with; stands before the manifest in the record, not in it.
        chunk_bytes: of each chunk but the last of a buffer.
        copy: when chunks are made, if there are none (`COPY_NEVER`, ...).
    """

    data: bytes
    sizes: list[int]
    chunks: int
    host: bytes
    session: str
    refs: list[bytes]
    spill: str = ""
    outer: bool = False
    digest: bytes = b""
    token: bytes = b""
    chunk_bytes: int = 8 * 1024 * 1024  # of records that do not say: written before it could vary
    copy: int = COPY_NEVER

    @property
    def is_on_host_only(self) -> bool:
        """True if nothing but the shared memory of its host has the buffers: chunks can be made of it there."""
        return self.copy != COPY_NEVER and not self.chunks and not self.spill


_encode = msgspec.msgpack.Encoder().encode
_decode_containing = msgspec.msgpack.Decoder(tuple[list[bytes], bytes]).decode
_decode_manifest = msgspec.msgpack.Decoder(Manifest).decode


def counted(count: int) -> bytes:
    """Return the record of a None that also tells how many items a stream had."""
    return NONE + count.to_bytes(8, "big")


def count_in(record: bytes) -> int:
    """Return the count in a `counted` record."""
    return int.from_bytes(record[1:], "big")


def plain(data: bytes) -> bytes:
    """Return the record of a small pickle without refs."""
    return PLAIN + data


def containing(refs: tuple[bytes, ...], data: bytes) -> bytes:
    """Return the record of a small pickle with refs inside."""
    return CONTAINING + _encode((refs, data))


def read_containing(record: bytes) -> tuple[list[bytes], bytes]:
    """Return (object ids, pickle) of a `C` record."""
    return _decode_containing(record[1:])


def large(manifest: Manifest) -> bytes:
    """Return the record of a large value."""
    token, manifest.token = manifest.token, b""
    record = LARGE + token + _encode(manifest)
    manifest.token = token
    return record


def read_manifest(record: bytes) -> Manifest:
    """Return the manifest of an `L` record."""
    manifest = _decode_manifest(record[1 + TOKEN_BYTES :])
    manifest.token = record[1 : 1 + TOKEN_BYTES]
    return manifest


def token_of(record: bytes) -> bytes:
    """Return the token of a large value, b"" for any other record."""
    return record[1 : 1 + TOKEN_BYTES] if record[0] == LARGE_TAG else b""


def without_data(record: bytes) -> bytes:
    """Return what of a record says which refs and buffers it has, without the value itself."""
    kind = record[0]
    if kind == CONTAINING_TAG:
        return containing(tuple(read_containing(record)[0]), b"")
    if kind == LARGE_TAG:
        manifest = read_manifest(record)
        manifest.data = b""
        return large(manifest)
    return record[:1]


def contained(record: bytes) -> list[bytes]:
    """Return the ids of the objects whose refs are inside a record's value."""
    kind = record[0] if record else 0
    if kind == CONTAINING_TAG:
        return _decode_containing(record[1:])[0]
    if kind == LARGE_TAG:
        return read_manifest(record).refs
    return []
