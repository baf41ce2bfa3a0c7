"""Remote functions and actor classes in Redis: who needs one, and when it goes.

Runtime environments, packages, and the records of jobs that detached work belongs to are kept in the same way.

| key | holds | goes |
|---|---|---|
| `f:<hash>` | the pickle (or else: `Kind`), sealed | when nobody holds it any more, after a while (`unheld.lua`) |
| `u:<hash>` | its holders: `c<client>`, `a<actor>` (a detached one), `d` (detached tasks) | with its last member |
| `u:{client}` | what a client holds | when it leaves, whether it says goodbye or is cleared away |

Tasks of a client end with it, and so do its actors, so that it is enough to know of these three. Detached tasks are
nowhere on record: what they may use is kept for a week after the last client that exported it has left.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Final

from rabbitry_broker.errors import StoreError
from rabbitry_broker.functions import HASH_BYTES
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.aside import Aside
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server

AT_ONCE: Final = 1000
LEFT_MILLISECONDS: Final = 900_000
"""How long a function stays whose last client has left."""
COLLECTED_MILLISECONDS: Final = 86_400_000
"""How long one stays that its client cannot use any more, since Python has collected it."""


class Kind(enum.Enum):
    """What is kept under its hash. Each is sealed for its own use: none can be passed off as another.

    The value is what it is called in errors, and what its signature is bound to.
    """

    FUNCTION = "function"
    ENVIRONMENT = "runtime environment"
    PACKAGE = "package"
    PIECE = "piece of a package"
    JOB = "record of a job"


class Functions:
    """Stores and reads functions, and what is kept like them. Any thread may call anything."""

    def __init__(self, server: Server, keys: Keys, signer: Signer, aside: Aside, room: Room) -> None:
        self._server = server
        self._keys = keys
        self._signer = signer
        self._aside = aside
        self._room = room

    def put(
        self,
        digest: bytes,
        pickled: bytes,
        client: bytes,
        *,
        detached: bool = False,
        kind: Kind = Kind.FUNCTION,
    ) -> None:
        """Store a pickled function under its content hash.

        Args:
            digest: the hash.
            pickled: the function.
            client: who needs it until it leaves.
            detached: it is for tasks that may run after that.
            kind: what it is, if it is no function.
        """
        keys = self._keys
        # Over one that is there: it is the same function, but may be signed with a secret that is being replaced, or
        # be about to end, which this takes back.
        sealed = self._signer.seal(_context(kind, digest), pickled)
        key = keys.function(digest)
        held = (
            keys.prefix, key, keys.function_holders(digest), keys.functions_of(client), keys.client(client), client,
            digest, b"1" if detached else b"0",
        )  # fmt: skip
        self._room.when_room(
            lambda: self._server.pipeline_of_scripts([("hold_function", held)], before=[(b"SET", key, sealed)]),
            size=len(pickled),
        )

    def hold(self, digests: Sequence[bytes], client: bytes, *, detached: bool = False) -> list[bytes]:
        """Hold what is in the store already; return what is not there, which has to be stored.

        Args:
            digests: hashes.
            client: who needs them until it leaves.
            detached: for tasks that may run after that.
        """
        keys = self._keys
        missing: list[bytes] = []
        for start in range(0, len(digests), AT_ONCE):
            found = self._server.script(
                "hold_again", keys.prefix, keys.functions_of(client), keys.client(client), client,
                b"1" if detached else b"0", *[each.hex() for each in digests[start : start + AT_ONCE]],
            )  # fmt: skip
            missing += [bytes.fromhex(each.decode()) for each in found]
        return missing

    def get(self, digest: bytes, kind: Kind = Kind.FUNCTION) -> bytes:
        """Return a pickled function, or what else it is.

        Raises:
            StoreError: it is not there.
            ForgedMessage: it is not signed with one of our secrets.
        """
        found = self.find(digest, kind)
        if found is None:
            raise StoreError(
                f"{kind.value} {digest.hex()} is not in the store any more: who submitted this has ended (what "
                "detached tasks use is kept for a week after that), or Redis was emptied. Submit it again."
            )
        return found

    def find(self, digest: bytes, kind: Kind) -> bytes | None:
        """Return what is kept under a hash; None if it is not there.

        Raises:
            ForgedMessage: it is not signed with one of our secrets.
        """
        stored = self._server.call(b"GET", self._keys.function(digest))
        if stored is None:
            return None
        try:
            return self._signer.open(_context(kind, digest), stored)
        except ForgedMessage as error:
            self._aside.put(f"{kind.value} {digest.hex()}", stored, str(error))
            raise

    def release(self, client: bytes, digests: Sequence[bytes]) -> None:
        """A client has no use for some of its functions any more."""
        self._release(client, digests, COLLECTED_MILLISECONDS)

    def leave(self, client: bytes) -> None:
        """A client leaves, or has left. May run twice."""
        digests = self._server.call(b"SMEMBERS", self._keys.functions_of(client))
        self._release(client, digests, LEFT_MILLISECONDS)

    def _release(self, client: bytes, digests: Sequence[bytes], milliseconds: int) -> None:
        keys = self._keys
        for start in range(0, len(digests), AT_ONCE):
            part = digests[start : start + AT_ONCE]
            # On record until it is done: who dies in between is cleared away.
            self._server.script(
                "release_functions", keys.prefix, b"c" + client, milliseconds, *[each.hex() for each in part]
            )
            self._server.call(b"SREM", keys.functions_of(client), *part)


def job_digest(job: bytes) -> bytes:
    """Return the hash under which the record of a job is kept."""
    return hashlib.blake2b(b"job" + job, digest_size=HASH_BYTES).digest()


def open_kept(signer: Signer, kind: Kind, digest: bytes, sealed: bytes) -> bytes:
    """Return what is kept under its hash, as it came from the store.

    Raises:
        ForgedMessage: it is not signed with one of our secrets, for that use.
    """
    return signer.open(_context(kind, digest), sealed)


def _context(kind: Kind, digest: bytes) -> bytes:
    return kind.value.encode() + digest
