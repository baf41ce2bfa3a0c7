"""Names of the buffers of large values: an attempt to store one has a token."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from rabbitry_broker import records
from rabbitry_broker.ids import OBJECT_BYTES

# A copy that this host made of a value it read: the highest bit of the process id in the token.
_COPY_BIT: Final = 0x80

NAME_BYTES: Final = OBJECT_BYTES + records.TOKEN_BYTES
"""A name is an object's id and a token."""


def new_token() -> bytes:
    """Return a token for an attempt of this process to store a value."""
    return os.getpid().to_bytes(4, "big") + os.urandom(records.TOKEN_BYTES - 4)


def copy_of(token: bytes) -> bytes:
    """Return the token under which this host keeps a copy of a value that another one made."""
    return bytes((token[0] | _COPY_BIT,)) + token[1:]


def original(token: bytes) -> bytes:
    """Return the token of the value that a copy is of; others stay as they are."""
    return bytes((token[0] & ~_COPY_BIT,)) + token[1:]


def is_copy(name: bytes) -> bool:
    """True for the name of a copy of what another host made."""
    return bool(name[OBJECT_BYTES] & _COPY_BIT)


def writer_lives(name: bytes) -> bool:
    """True if the process that wrote what has this name is there, or one with its number."""
    try:
        os.kill(int.from_bytes(name[OBJECT_BYTES : OBJECT_BYTES + 4], "big"), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def digest_of(view: memoryview) -> bytes:
    """Return what a record says of a pickle that is not kept in it."""
    return hashlib.blake2b(view, digest_size=16).digest()
