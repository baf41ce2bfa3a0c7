"""The reader's side: connections to the hosts whose values this process reads, and which of them are of no use.

    host:  UNKNOWN --connected--> REACHED --cannot be connected to--> AWAY, for `AWAY_SECONDS`, then twice that, ...

A host that cannot be reached costs the time to notice it once in a while. Where several in a row cannot (a firewall
lies between), none is tried for as long.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from rabbitry_broker.environment import switch
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.peers.directory import Place
from rabbitry_broker.store.peers.session import DIGEST_BYTES, GREETING_SECONDS, HERE, Ask, Session, as_reader
from rabbitry_broker.store.peers.wire import PeerLost, Wire
from rabbitry_broker.store.redis.address import Address

if TYPE_CHECKING:
    from rabbitry_broker.store.peers.security import ReaderSecurity

CONNECT_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 10.0
"""A node that sends nothing for so long has gone, or hangs."""
AWAY_SECONDS: Final = 15.0
LONGEST_AWAY_SECONDS: Final = 600.0
IN_A_ROW: Final = 3
"""So many hosts that cannot be reached, one after the other: then it is not they."""
AWAY_KEPT: Final = 1000
"""Hosts that are remembered as away; beyond, the first of them are tried anew."""
IDLE_KEPT: Final = 16
"""Connections that are kept for the next value."""

SWITCH: Final = "RABBITRY_PEERS"

log = logging.getLogger("rabbitry")

Fill = Callable[[memoryview], None]


class FindsHosts(Protocol):
    """Knows where hosts serve; see `Directory`."""

    def find(self, host: bytes) -> Place | None:
        """Return where a node of that host serves."""

    def forget(self, host: bytes, place: Place) -> None:
        """Nobody serves there."""


def are_on() -> bool:
    """Return False if the environment says that large values go through Redis alone.

    Raises:
        ValueError: the variable is neither on nor off.
    """
    return switch(SWITCH)


class _Away:
    """What cannot be reached, and when it is tried again."""

    def __init__(self) -> None:
        self.until = 0.0
        self._seconds = AWAY_SECONDS

    def again(self) -> None:
        self.until = time.monotonic() + self._seconds
        self._seconds = min(2 * self._seconds, LONGEST_AWAY_SECONDS)

    def lasts(self) -> bool:
        return time.monotonic() < self.until


class PeerReader:
    """Reads values of other hosts from their nodes. Any thread may call anything; a forked child begins anew.

    Args:
        directory: says where hosts serve.
        signer: of the cluster.
        address: of the store, whose TLS options count here as well.
    """

    def __init__(self, directory: FindsHosts, signer: Signer, address: Address) -> None:
        self._directory = directory
        self._signer = signer
        self._address = address
        self._security: ReaderSecurity | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._idle: dict[bytes, list[Session]] = {}
        self._away: dict[bytes, _Away] = {}
        self._all_away: _Away | None = None
        self._in_a_row = 0

    def can_ask(self, host: bytes) -> bool:
        """True if it is worth a try to read values of that host from its nodes."""
        if self._pid != os.getpid():
            self._begin()
        away, everybody = self._away.get(host), self._all_away
        if (away is not None and away.lasts()) or (everybody is not None and everybody.lasts()):
            return False
        return self._directory.find(host) is not None

    def read(
        self, host: bytes, name: bytes, sizes: Sequence[int], keep: Callable[[Fill], None], *, digest: bool
    ) -> bool:
        """Read one value.

        Args:
            host: that made it.
            name: id of the object, then its token.
            sizes: bytes of each of its buffers.
            keep: called with what fills memory with the value's bytes (see `SharedMemoryStore.body`), piece after
                piece. That raises PeerLost at the last piece if the whole is not to be trusted.
            digest: the first buffer is a pickle, whose digest must be right.

        Returns:
            False if the host does not have it.

        Raises:
            PeerLost: it could not be read, or not to its end.
        """
        session = self._take(host)
        again = session is not None
        if session is None:
            session = self._connect(host)
        try:
            try:
                answer = session.ask(Ask(name, digest))
            except PeerLost:
                if not again:
                    raise
                # It was idle, and its end was on the way.
                session.wire.close()
                session = self._connect(host)
                answer = session.ask(Ask(name, digest))
            if answer.state == HERE:
                if answer.sizes != list(sizes):
                    raise PeerLost("a value of other sizes than its record says")
                body = _Body(session, answer.size, sizes[0] if digest and sizes else 0)
                if not answer.size:
                    session.read_end(b"")
                keep(body.fill)
                if body.left:
                    raise PeerLost("a value that is laid out in another way")
        except BaseException:
            session.wire.close()  # what is on its way would be taken for the next answer
            raise
        self._put(host, session)
        return answer.state == HERE

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept, self._idle = self._idle, {}
        if self._pid == os.getpid():
            for sessions in kept.values():
                for session in sessions:
                    session.wire.close()

    # -- connections -------------------------------------------------------------------------------------------------

    def _take(self, host: bytes) -> Session | None:
        """Return a connection that is kept and has not ended meanwhile."""
        while True:
            with self._lock:
                kept = self._idle.get(host)
                if not kept:
                    return None
                session = kept.pop()
                if not kept:
                    del self._idle[host]
            if session.wire.is_usable():
                return session
            session.wire.close()

    def _put(self, host: bytes, session: Session) -> None:
        with self._lock:
            self._idle.setdefault(host, []).append(session)
            if sum(map(len, self._idle.values())) <= IDLE_KEPT:
                return
            longest = next(iter(self._idle))
            excess = self._idle[longest].pop(0)
            if not self._idle[longest]:
                del self._idle[longest]
        excess.wire.close()

    def _connect(self, host: bytes) -> Session:
        place = self._directory.find(host)
        if place is None:
            raise PeerLost("no node of that host serves peers")
        try:
            session = self._greet(host, place)
        except (PeerLost, OSError) as error:
            self._note_away(host, place, error)
            raise PeerLost(f"the node at {place[0]}:{place[1]} cannot be reached: {error}") from error
        with self._lock:
            self._in_a_row = 0
            self._all_away = None
            self._away.pop(host, None)
        return session

    def _greet(self, host: bytes, place: Place) -> Session:
        sock = socket.create_connection(place, CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            certificate = b""
            if self._address.tls:
                sock, certificate = self._secure(sock)
            wire = Wire(sock, tls=self._address.tls)
            wire.limit(GREETING_SECONDS)
            session = as_reader(wire, self._signer, host, certificate)
            wire.limit(STALLED_SECONDS)
        except BaseException:
            sock.close()
            raise
        return session

    def _secure(self, sock: socket.socket) -> tuple[socket.socket, bytes]:
        if self._security is None:
            from rabbitry_broker.store.peers.security import ReaderSecurity  # imports ssl, which is slow

            self._security = ReaderSecurity(self._address)
        return self._security.wrap(sock)

    def _note_away(self, host: bytes, place: Place, error: Exception) -> None:
        self._directory.forget(host, place)
        with self._lock:
            first = host not in self._away
            if first and len(self._away) >= AWAY_KEPT:
                del self._away[next(iter(self._away))]
            self._away.setdefault(host, _Away()).again()
            self._in_a_row += 1
            if self._in_a_row >= IN_A_ROW:
                self._all_away = self._all_away or _Away()
                self._all_away.again()
        log.log(
            logging.INFO if first else logging.DEBUG,
            "large values of the host at %s:%s come through Redis for now: its node cannot be reached (%s)",
            *place,
            error,
        )


class _Body:
    """The bytes of one value as they come.

    Attributes:
        left: bytes that have not come.
    """

    def __init__(self, session: Session, size: int, pickle_bytes: int) -> None:
        self._session = session
        self._unhashed = pickle_bytes
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES) if pickle_bytes else None
        self.left = size

    def fill(self, target: memoryview) -> None:
        """Fill memory with what comes next; after the last of it, make sure that it is whole.

        Raises:
            PeerLost: it is not, or the connection broke.
        """
        size = target.nbytes
        if size > self.left:
            raise PeerLost("a value that is laid out in another way")
        self._session.wire.fill(target)
        if self._hash is not None and self._unhashed:
            self._hash.update(target[: self._unhashed])
            self._unhashed -= min(size, self._unhashed)
        self.left -= size
        if not self.left:
            self._session.read_end(self._hash.digest() if self._hash is not None else b"")
