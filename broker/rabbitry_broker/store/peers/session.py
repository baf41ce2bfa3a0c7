"""What peers say to each other: who they are, what is asked for, what comes. The picture stands in `__init__`."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from rabbitry_broker.signing import SIGNATURE_BYTES, Signer
from rabbitry_broker.store.peers.wire import PeerLost, Wire

MAGIC: Final = b"RBP1"
NONCE_BYTES: Final = 16
DIGEST_BYTES: Final = 16
GREETING_SECONDS: Final = 5.0
"""For all that is said before both know who the other is."""

HERE: Final = "here"
ABSENT: Final = "absent"

_ASK_LIMIT: Final = 1024
_ANSWER_LIMIT: Final = 16 << 20
_LENGTH_BYTES: Final = 4

_READER, _SERVER = b"peer reader", b"peer server"
_ASK, _ANSWER, _END = b"peer ask", b"peer answer", b"peer end"


class Ask(msgspec.Struct, array_like=True, gc=False):
    """What a reader wants.

    Attributes:
        name: id of the object, then its token.
        digest: the first buffer is a pickle: its digest is to come in the end.
    """

    name: bytes
    digest: bool = False


class Answer(msgspec.Struct, array_like=True, gc=False):
    """What comes.

    Attributes:
        state: HERE, or ABSENT: there is no such object on this host.
        sizes: bytes of each buffer.
        size: of all that follows, with what lies between the buffers.
    """

    state: str
    sizes: list[int] = []
    size: int = 0


_Message = TypeVar("_Message", Ask, Answer)
_encode = msgspec.msgpack.Encoder().encode
_decode_ask = msgspec.msgpack.Decoder(Ask).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


class Impostor(PeerLost):
    """Somebody without the cluster's secret, or whose messages were changed on their way."""


class Session:
    """A connection of which both sides know who the other is. For one thread at a time.

    Make it with `as_reader` or `as_server`.
    """

    def __init__(self, wire: Wire, signer: Signer, nonces: bytes) -> None:
        self.wire = wire
        self._signer = signer
        self._nonces = nonces
        self._number = 0

    # -- reader ------------------------------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> Answer:
        """Ask for an object; if it is HERE, `answer.size` bytes are to be read from the wire next, then `read_end`.

        Raises:
            PeerLost: no answer, or none that can be trusted.
        """
        self._number += 1
        self._send(_ASK, _encode(ask))
        return _decoded(self._receive(_ANSWER, _ANSWER_LIMIT), _decode_answer)

    def read_end(self, digest: bytes) -> None:
        """Read the end of what came.

        Args:
            digest: of the first buffer as it came, if that was asked for, else b"".

        Raises:
            PeerLost: it did not end as it should, or the digest is another: all of it is to be forgotten.
        """
        if self._receive(_END, DIGEST_BYTES) != digest:
            raise Impostor("the pickle of a value was changed on its way from a peer; it is not opened")

    # -- server ------------------------------------------------------------------------------------------------------

    def next_ask(self) -> Ask:
        """Return what is asked for next.

        Raises:
            PeerLost: nothing comes any more.
        """
        self._number += 1
        return _decoded(self._receive(_ASK, _ASK_LIMIT), _decode_ask)

    def answer(self, sizes: list[int], body: memoryview, *, digest: bool) -> None:
        """Send an object.

        Args:
            sizes: of its buffers.
            body: all of them, with what lies between.
            digest: send the digest of the first buffer at the end.

        Raises:
            PeerLost: the reader does not take it.
        """
        self._send(_ANSWER, _encode(Answer(HERE, sizes, body.nbytes)))
        self.wire.send(body)
        self._send(_END, digest_of(body[: sizes[0]]) if digest and sizes else b"")

    def answer_absent(self) -> None:
        """Say that there is no such object. See `answer`."""
        self._send(_ANSWER, _encode(Answer(ABSENT)))

    # -- both --------------------------------------------------------------------------------------------------------

    def _send(self, kind: bytes, payload: bytes) -> None:
        signature = self._signer.sign(kind, self._nonces, self._number.to_bytes(8, "big"), payload)
        self.wire.send(len(payload).to_bytes(_LENGTH_BYTES, "big") + signature + payload)

    def _receive(self, kind: bytes, limit: int) -> bytes:
        head = self.wire.read(_LENGTH_BYTES + SIGNATURE_BYTES)
        length = int.from_bytes(head[:_LENGTH_BYTES], "big")
        if length > limit:
            raise Impostor(f"a message of {length:,} bytes, {limit:,} at most make sense")
        payload = self.wire.read(length)
        if not self._signer.verify(head[_LENGTH_BYTES:], kind, self._nonces, self._number.to_bytes(8, "big"), payload):
            raise Impostor("a message whose signature does not match: damaged, forged, or from another place")
        return payload


def _decoded(payload: bytes, decode: Callable[[bytes], _Message]) -> _Message:
    try:
        return decode(payload)
    except msgspec.MsgspecError as error:
        raise PeerLost(f"a peer of another version: {error}") from error


def digest_of(buffer: memoryview) -> bytes:
    """Return the digest of a pickle."""
    return hashlib.blake2b(buffer, digest_size=DIGEST_BYTES).digest()


def as_reader(wire: Wire, signer: Signer, host: bytes, certificate: bytes) -> Session:
    """Introduce this process to a node, and have that prove who it is.

    Args:
        wire: to it.
        signer: of the cluster.
        host: id of the host that the node should be on.
        certificate: what it showed for TLS, b"" without.

    Raises:
        PeerLost: it did not answer, has another secret, or is on another host.
    """
    deadline = time.monotonic() + GREETING_SECONDS
    greeting = wire.read_within(len(MAGIC) + NONCE_BYTES, deadline)
    if not greeting.startswith(MAGIC):
        raise Impostor("what answers there is no node of this version")
    nonce = os.urandom(NONCE_BYTES)
    nonces = greeting[len(MAGIC) :] + nonce
    about = (nonces, _bound(certificate), host)
    wire.send(MAGIC + nonce + signer.sign(_READER, *about))
    if not signer.verify(wire.read_within(SIGNATURE_BYTES, deadline), _SERVER, *about):
        raise Impostor("the peer does not have the cluster's secret")
    return Session(wire, signer, nonces + _bound(certificate))


def as_server(wire: Wire, signer: Signer, host: bytes, certificate: bytes) -> Session:
    """Have whoever has connected prove who they are, and only then prove who we are. See `as_reader`.

    Args:
        wire: to them.
        signer: of the cluster.
        host: id of this host.
        certificate: what we showed for TLS, b"" without.
    """
    deadline = time.monotonic() + GREETING_SECONDS
    nonce = os.urandom(NONCE_BYTES)
    wire.limit(GREETING_SECONDS)
    wire.send(MAGIC + nonce)
    greeting = wire.read_within(len(MAGIC) + NONCE_BYTES + SIGNATURE_BYTES, deadline)
    theirs = greeting[len(MAGIC) :]
    nonces = nonce + theirs[:NONCE_BYTES]
    about = (nonces, _bound(certificate), host)
    if not greeting.startswith(MAGIC) or not signer.verify(theirs[NONCE_BYTES:], _READER, *about):
        raise Impostor("whoever connected does not have the cluster's secret, or means another host")
    wire.send(signer.sign(_SERVER, *about))
    return Session(wire, signer, nonces + _bound(certificate))


def _bound(certificate: bytes) -> bytes:
    """Return what binds proofs to a certificate: who stands in between has another one."""
    return hashlib.blake2b(certificate, digest_size=DIGEST_BYTES).digest() if certificate else b""
