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
from typing import Any, Final, NamedTuple

from rabbitry_broker.messages import MalformedMessage

DIGEST: Final = b"\x01"
HASH_BYTES: Final = 16
CODE_BYTES: Final = len(DIGEST) + HASH_BYTES


class Record(NamedTuple):
    """An environment as it is kept.

    Attributes:
        env: its fields, in which nothing is of the machine of who wrote it any more.
        holds: hashes of what it needs from the store: packages and their pieces, a function.
    """

    env: dict[str, Any]
    holds: tuple[bytes, ...] = ()

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
