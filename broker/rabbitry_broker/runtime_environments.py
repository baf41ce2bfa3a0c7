"""What stands in the header of a task for its environment, and the record that a hash there leads to.

| in the header | what it is |
|---|---|
| nothing | the environment of the node itself |
| JSON | the environment variables that make up the whole of it |
| `DIGEST`, then a hash | the hash of a record in the store (`Kind.ENVIRONMENT`) |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rabbitry_broker.messages import MalformedMessage

DIGEST: Final = b"\x01"
HASH_BYTES: Final = 16
CODE_BYTES: Final = len(DIGEST) + HASH_BYTES

LIBRARIES: Final = "_libraries"
"""A field that users neither give nor see: what is imported before executors are forked (`Libraries`)."""


class Libraries(NamedTuple):
    """What is imported for executors of a library's functions.

    Attributes:
        modules: their names; one that cannot be imported is left out.
        threads: what OMP_NUM_THREADS says meanwhile, which some of them read then and never again.
    """

    modules: tuple[str, ...] = ()
    threads: int = 1

    @classmethod
    def of(cls, env: Mapping[str, Any]) -> Libraries:
        """Return what an environment has in `LIBRARIES`.

        Raises:
            ValueError: that makes no sense.
        """
        given = env.get(LIBRARIES)
        if given is None:
            return cls()
        try:
            modules, threads = given
            if not isinstance(threads, int) or not all(isinstance(each, str) for each in modules):
                raise TypeError("names and a number of threads are wanted")
        except (TypeError, ValueError) as error:
            raise ValueError(f"field {LIBRARIES!r} of a runtime environment: {error}") from error
        return cls(tuple(modules), threads)


class Record(NamedTuple):
    """An environment as it is kept.

    Attributes:
        env: its fields, in which nothing is of the machine of who wrote it any more.
        holds: hashes of what it needs from the store: packages and their pieces, a function.
    """

    env: dict[str, Any]
    holds: tuple[bytes, ...] = ()

    @property
    def given(self) -> dict[str, Any]:
        """The fields that users gave."""
        return {field: value for field, value in self.env.items() if field != LIBRARIES}

    def pack(self) -> bytes:
        """Return this as bytes, the same for the same content."""
        # Not by msgspec: variables may hold what is no text, which only the standard library's JSON carries.
        return json.dumps([self.env, [each.hex() for each in self.holds]], sort_keys=True).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Return the record that `pack` wrote.

        Raises:
            MalformedMessage: it is none.
        """
        try:
            env, holds = json.loads(data)
            if not isinstance(env, dict):
                raise TypeError(f"an environment is a dict, and this is a {type(env).__name__}")
            return cls(env, tuple(bytes.fromhex(each) for each in holds))
        except (ValueError, TypeError, RecursionError) as error:
            raise MalformedMessage(f"record of a runtime environment: {error}") from error


def record_digest(packed: bytes) -> bytes:
    """Return the hash under which a packed record is kept."""
    return hashlib.blake2b(packed, digest_size=HASH_BYTES).digest()


def digest_code(digest: bytes) -> bytes:
    """Return how a record's hash stands in headers."""
    return DIGEST + digest


def digest_of(code: bytes) -> bytes | None:
    """Return the hash in a header; None if the environment stands there itself."""
    return code[1:] if len(code) == CODE_BYTES and code.startswith(DIGEST) else None
