"""The node's side: a thread that accepts, and one for each connection, none of which is the agent's loop.

A thread waits in the kernel nearly all the time: it sends a value from its mapping in one call. So the agent's loop
loses the interpreter for some microseconds a value. There is room for so many connections; who finds none makes room
by ending one that nobody uses just now, and else is turned away: there is Redis.

Readers can name nothing but an object and its token, which become the name of one file of this session (see
`shared_memory`): who has the secret reads values of this host, and nothing else of it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.records import TOKEN_BYTES
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.peers.session import GREETING_SECONDS, Impostor, Session, as_server
from rabbitry_broker.store.peers.wire import PeerLost, Wire
from rabbitry_broker.store.redis.address import parse

if TYPE_CHECKING:
    from rabbitry_broker.store.peers.security import ServerSecurity

CONNECTIONS: Final = 64
IDLE_SECONDS: Final = 15.0
"""A connection on which nothing is asked for so long ends."""
STALLED_SECONDS: Final = 30.0
"""A reader that takes nothing for so long has gone."""

_BACKLOG: Final = 128
_ACCEPT_PAUSE_S: Final = 0.1
_TOLD_SECONDS: Final = 60.0  # between two log entries on people without the secret

log = logging.getLogger("rabbitry.node")


class HasValues(Protocol):
    """Shared memory of this host; see `SharedMemoryStore`."""

    def body(self, object_id: bytes) -> tuple[list[int], memoryview]:
        """Return the sizes of an object's buffers, and its bytes; FileNotFoundError if it is not there."""


class _State(Enum):
    """Of a connection: GREETING -> IDLE <-> SENDING, from each to its end."""

    GREETING = "greeting"
    IDLE = "idle"
    SENDING = "sending"


class _Connection:
    """One connection, for those who look for one to end."""

    __slots__ = ("since", "sock", "state", "thread")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.state = _State.GREETING
        self.since = time.monotonic()
        self.thread: threading.Thread | None = None

    def move(self, state: _State) -> None:
        self.state = state
        self.since = time.monotonic()

    def cut(self) -> None:
        with suppress(OSError):  # it has ended
            # Of the socket itself: that of a TLS socket goes on plainly until it is shut down.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        address: one of this machine's, or "0.0.0.0" or "::" for all.
        port: 0 for any that is free.

    Raises:
        OSError: the address is none of this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=_BACKLOG)


def security_for(store_url: str) -> ServerSecurity | None:
    """Return what a node needs for TLS; None if the store's address asks for none.

    Raises:
        ValueError: it names no certificate that a node could show, or none is in the file.
        OSError: a file cannot be read, or is not what it should be.
    """
    address = parse(store_url)
    if not address.tls:
        return None
    from rabbitry_broker.store.peers.security import ServerSecurity  # imports ssl, which is slow

    return ServerSecurity(address)


class PeerServer:
    """Serves the values of one host. `start`, `close`; any thread may call both.

    Args:
        listener: from `listen`.
        memory: where the values are.
        signer: of the cluster.
        host: id of this host.
        security: None to speak without TLS.
        connections: how many there may be at a time.

    Attributes:
        port: where it listens.
        sent: values sent, those included of which the end did not arrive.
        sent_bytes: of them.
    """

    def __init__(
        self,
        listener: socket.socket,
        memory: HasValues,
        signer: Signer,
        host: bytes,
        security: ServerSecurity | None = None,
        *,
        connections: int = CONNECTIONS,
    ) -> None:
        self._listener = listener
        self.port = int(listener.getsockname()[1])
        self._memory = memory
        self._signer = signer
        self._host = host
        self._security = security
        self._limit = connections
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._closed = False
        self._told_at = -_TOLD_SECONDS
        self._thread = threading.Thread(target=self._accept, name="rabbitry-peers", daemon=True)
        self.sent = 0
        self.sent_bytes = 0

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def close(self) -> None:
        """End all connections, whatever goes over them. May be called again."""
        self._closed = True
        with suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for connection in left:
            connection.cut()
        for thread in (self._thread, *[each.thread for each in left]):
            if thread is not None and thread.is_alive() and thread is not threading.current_thread():
                thread.join(GREETING_SECONDS)

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                log.warning("no connection of a peer can be accepted now: %s", error)
                time.sleep(_ACCEPT_PAUSE_S)  # too many open files, or the like: it passes
                continue
            connection = _Connection(sock)
            if not self._admit(connection):
                sock.close()
                continue
            try:
                connection.thread = threading.Thread(
                    target=self._serve, args=(connection,), name="rabbitry-peer", daemon=True
                )
                connection.thread.start()
            except RuntimeError as error:
                log.warning("no peer can be served now: %s", error)  # too many threads
                self._forget(connection)

    def _admit(self, connection: _Connection) -> bool:
        """Count a connection in; False if there are too many, of which none can be ended."""
        with self._lock:
            if self._closed:
                return False
            if len(self._open) >= self._limit:
                now = time.monotonic()
                useless = [
                    each
                    for each in self._open
                    if each.state is _State.IDLE
                    or (each.state is _State.GREETING and now - each.since > GREETING_SECONDS)
                ]
                if not useless:
                    return False
                oldest = min(useless, key=lambda each: each.since)
                self._open.discard(oldest)
                oldest.cut()
            self._open.add(connection)
            return True

    def _forget(self, connection: _Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.sock.close()

    def _serve(self, connection: _Connection) -> None:
        """Body of a connection's thread."""
        try:
            session = self._greet(connection)
            while True:
                connection.move(_State.IDLE)
                session.wire.limit(IDLE_SECONDS)
                ask = session.next_ask()
                connection.move(_State.SENDING)
                session.wire.limit(STALLED_SECONDS)
                self._answer(session, ask.name, digest=ask.digest)
        except Impostor as error:
            self._tell(error)
        except (PeerLost, OSError) as error:
            log.debug("a connection of a peer ended: %s", error)
        except Exception:
            log.exception("a connection of a peer ended by a fault of this node's")
        finally:
            self._forget(connection)

    def _greet(self, connection: _Connection) -> Session:
        sock = connection.sock
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        certificate = b""
        if self._security is not None:
            # The plain one is used up; who looks for a connection to end finds this one before it shakes hands.
            connection.sock = sock = secured = self._security.wrap(sock)
            secured.do_handshake()
            certificate = self._security.certificate
        wire = Wire(sock, tls=self._security is not None)
        return as_server(wire, self._signer, self._host, certificate)

    def _answer(self, session: Session, name: bytes, *, digest: bool) -> None:
        if len(name) != OBJECT_BYTES + TOKEN_BYTES:
            session.answer_absent()
            return
        try:
            sizes, body = self._memory.body(name)
        except OSError:
            session.answer_absent()  # deleted meanwhile, or no more files can be opened
            return
        # As long as it is mapped it is locked: nobody writes another object there.
        with body:
            self.sent += 1
            self.sent_bytes += body.nbytes
            session.answer(sizes, body, digest=digest)

    def _tell(self, error: Impostor) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TOLD_SECONDS:
            self._told_at = now
            log.warning("a connection to this node's port for peers was refused: %s", error)
