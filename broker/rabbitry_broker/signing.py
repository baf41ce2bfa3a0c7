"""Keyed signatures: only those who hold the cluster's secret can write what rabbitry unpickles.

HOT PATH (called once per object and frame; watched by `benchmarks/`, workloads `async_*`): about 1 us for 100 bytes.
Hence one update of one concatenation instead of one update a part, and a keyed hash state that is copied, which saves
the key block's compression each time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from rabbitry_broker.errors import RabbitryBrokerError

SIGNATURE_BYTES: Final = 16
MIN_SECRET_BYTES: Final = 16

_KEY_PERSON: Final = b"rabbitry key v1"
# From here on a second `update` is cheaper than joining the payload to its frame.
_JOIN_LIMIT_BYTES: Final = 4096

# 4 bytes keep a short context and 100 bytes of payload within one block of the hash. Only leading parts (contexts, ids)
# are framed by it; the last part may be of any length.
_pack_length: Final = struct.Struct("<I").pack
_PAIR: Final = b"\x02"


class ForgedMessage(RabbitryBrokerError):
    """Bytes whose signature no secret of this process made: a wrong `RABBITRY_SECRET`, damage, or a forgery."""


class Signer:
    """Signs and verifies byte strings with the cluster's secrets. Any thread may use it.

    What is signed is a tuple of parts: `sign(b"ab", b"c")` differs from `sign(b"a", b"bc")`, and so a signature made in
    one context (say, one client's inbox) is worth nothing in another.

    Args:
        secrets: newest first. The first one signs; all of them verify, so that secrets can be changed in a running
            cluster. Any length from 16 bytes; each is stretched to a key of 64.

    Raises:
        ValueError: no secret, or one that is too short.

    >>> signer = Signer((b"0123456789abcdef",))
    >>> sealed = signer.seal(b"greeting", b"hello")
    >>> signer.open(b"greeting", sealed)
    b'hello'
    """

    __slots__ = ("_keyed", "_keyed_pair", "_older")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        if not secrets:
            raise ValueError("no secret given: messages cannot be signed; set RABBITRY_SECRET (16 characters or more)")
        for number, secret in enumerate(secrets, 1):
            check_secret(secret, number)
        # A part count at the head of the hash keeps (a, b) and (a, b, c) apart; pairs, the hot case, have it hashed in.
        self._keyed: Callable[[], blake2b] = _keyed_state(secrets[0], b"").copy
        self._keyed_pair: Callable[[], blake2b] = _keyed_state(secrets[0], _PAIR).copy
        self._older: tuple[Callable[[], blake2b], ...] = tuple(_keyed_state(s, b"").copy for s in secrets[1:])

    def __repr__(self) -> str:
        return f"Signer({1 + len(self._older)} secrets)"

    def sign(self, *parts: bytes) -> bytes:
        """Return the 16-byte signature of `parts`, made with the newest secret."""
        if len(parts) == 2:
            return self._sign_pair(*parts)
        return _digest(self._keyed(), parts)

    def verify(self, signature: bytes, *parts: bytes) -> bool:
        """Return True if `signature` was made of exactly these parts with any of the secrets (in constant time)."""
        if compare_digest(self.sign(*parts), signature):
            return True
        return any(compare_digest(_digest(keyed(), parts), signature) for keyed in self._older)

    def seal(self, context: bytes, payload: bytes) -> bytes:
        """Return the signature of (context, payload), followed by the payload. The context itself is not in it."""
        if len(payload) > _JOIN_LIMIT_BYTES:
            return self._sign_pair(context, payload) + payload
        state = self._keyed_pair()
        state.update(_pack_length(len(context)) + context + payload)
        return state.digest() + payload

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """Return the payload that `seal` was given with the same context.

        Raises:
            ForgedMessage: too short, changed, sealed in another context or with a secret we do not have.
        """
        payload = sealed[SIGNATURE_BYTES:]
        signature = sealed[:SIGNATURE_BYTES]
        if len(payload) > _JOIN_LIMIT_BYTES:
            expected = self._sign_pair(context, payload)
        else:
            state = self._keyed_pair()
            state.update(_pack_length(len(context)) + context + payload)
            expected = state.digest()
        if compare_digest(expected, signature):
            return payload
        for keyed in self._older:
            if compare_digest(_digest(keyed(), (context, payload)), signature):
                return payload
        raise ForgedMessage(
            f"signature of {len(sealed)} bytes does not match: written with another RABBITRY_SECRET, damaged, or forged"
        )

    def _sign_pair(self, context: bytes, payload: bytes) -> bytes:
        state = self._keyed_pair()
        state.update(_pack_length(len(context)) + context)
        state.update(payload)
        return state.digest()


def check_secret(secret: bytes, number: int = 1) -> None:
    """Refuse a secret that is too short to protect anything.

    Args:
        secret: the secret.
        number: its position among several, from 1, for the error.

    Raises:
        ValueError: shorter than 16 bytes. The secret itself is not in the message.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"secret number {number} has {len(secret)} characters, at least {MIN_SECRET_BYTES} are needed; make one "
            "by `python -c 'import secrets; print(secrets.token_hex(32))'` and set RABBITRY_SECRET to it everywhere"
        )


def _keyed_state(secret: bytes, head: bytes) -> blake2b:
    # Hashing the secret first makes a full-size key of any length, and a key used for nothing else.
    key = blake2b(secret, digest_size=64, person=_KEY_PERSON).digest()
    return blake2b(head, key=key, digest_size=SIGNATURE_BYTES)


def _digest(state: blake2b, parts: tuple[bytes, ...]) -> bytes:
    # Lengths of all parts but the last: the hash itself covers the total length, which leaves the last no choice.
    state.update(bytes((len(parts),)) + b"".join([_pack_length(len(part)) for part in parts[:-1]]))
    for part in parts:
        state.update(part)
    return state.digest()
