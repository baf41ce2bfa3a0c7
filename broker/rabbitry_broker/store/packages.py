"""Packages: what users' code comes in (a working directory, a module, a wheel), in Redis under its name.

A package is a list of pieces, each kept under the hash of its content, and so once however many packages have it. The
list is kept under the hash of the package's name, sealed: pieces are compared with it, and so nothing of a package is
used that is not authenticated. All of these are held and let go of like functions (`functions.py`).

    gcs://_ray_pkg_<hash>.zip  ->  f:<hash of the name>: [size, [hash of a piece, ...]]  ->  f:<hash of the piece>

The names are Ray's: a client of Ray that submits a job to us makes them itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO, Final

import msgspec

from rabbitry_broker.errors import StoreError
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.store.functions import Functions, Kind

SCHEME: Final = "gcs://"
PIECE_BYTES: Final = 4 << 20
HASH_BYTES: Final = 16

_Manifest = tuple[int, list[bytes]]


class Packages:
    """Stores and reads packages. Any thread may call anything.

    Args:
        functions: where what is kept under its hash is.
    """

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    def put(
        self,
        uri: str,
        content: IO[bytes],
        client: bytes,
        *,
        detached: bool = False,
    ) -> list[bytes]:
        """Store a package; what the store has of it already is not sent again.

        Args:
            uri: `gcs://<name>`.
            content: it, read from where it stands to its end.
            client: who needs it until it leaves.
            detached: it is for work that may run after that.

        Returns:
            The hashes under which it is kept.
        """
        functions, pieces, size = self._functions, [], 0
        while data := content.read(PIECE_BYTES):
            digest = hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
            if functions.hold([digest], client, detached=detached):
                functions.put(digest, data, client, detached=detached, kind=Kind.PIECE)
            pieces.append(digest)
            size += len(data)
        name = digest_of(uri)
        functions.put(name, encode((size, pieces)), client, detached=detached, kind=Kind.PACKAGE)
        return [name, *pieces]

    def hold(self, uri: str, client: bytes, *, detached: bool = False) -> list[bytes] | None:
        """Hold a package that is in the store; return the hashes under which it is kept, None if it is not there."""
        name = digest_of(uri)
        if self._functions.hold([name], client, detached=detached):
            return None
        try:
            _, pieces = self._manifest(uri)
        except StoreError:
            return None  # it went just now
        return None if self._functions.hold(pieces, client, detached=detached) else [name, *pieces]

    def size(self, uri: str) -> int:
        """Return how many bytes a package has.

        Raises:
            StoreError: it is not there.
            ForgedMessage: nobody who knows the secret wrote it.
        """
        return self._manifest(uri)[0]

    def read(self, uri: str) -> Iterator[bytes]:
        """Yield a package piece by piece; nothing that was not stored by one of us is ever yielded.

        Raises:
            StoreError: it is not there, or not all of it.
            ForgedMessage: nobody who knows the secret wrote it.
        """
        for digest in self._manifest(uri)[1]:
            data = self._functions.get(digest, Kind.PIECE)
            if hashlib.blake2b(data, digest_size=HASH_BYTES).digest() != digest:
                raise StoreError(f"package {uri}: a piece of it is not what its hash says")
            yield data

    def _manifest(self, uri: str) -> _Manifest:
        stored = self._functions.get(digest_of(uri), Kind.PACKAGE)
        try:
            found: _Manifest = msgspec.convert(decode(stored), _Manifest)
            return found
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise StoreError(f"package {uri}: what stands for it in the store is no list of its pieces") from error


def digest_of(uri: str) -> bytes:
    """Return the hash under which a package of this name is kept."""
    return hashlib.blake2b(b"package " + uri.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
