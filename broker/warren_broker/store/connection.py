"""One blocking connection to Redis: a socket, hiredis to parse, and nothing else.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `get`): every sync call crosses this module several times.
redis-py costs 30-50 microseconds a command and more than 0.2 s of import; this costs 3-5 beyond the system calls,
and needs no import that an interpreter does not already have. What warren does not use is left out: no pool, no retry,
no decoding (replies are `bytes`, `int`, `list` or `None`).

A connection belongs to one thread at a time. A lost one stays closed until its owner calls `reopen`: only the owner
knows which of its commands are safe to repeat.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

import hiredis

from warren_broker.endpoint import Endpoint
from warren_broker.errors import ConnectError, ConnectionLost, ReplyTimeout, StoreError, without_password
from warren_broker.store import cluster, refusals, sentinel
from warren_broker.store.address import Address, parse, wrap_tls
from warren_broker.store.keys import Keys

# How long a reply may take before the connection counts as lost. Far above any healthy pause of Redis (a fork for
# AOF rewriting, an fsync on a slow disk), and below what a person waits for.
REPLY_TIMEOUT_S: Final = 30.0
# A read buffer starts small, since a process has several connections, and grows when replies fill it.
_BUFFER_BYTES: Final = 64 * 1024
_LARGEST_BUFFER_BYTES: Final = 1024 * 1024
_KEEPALIVE_IDLE_S: Final = 30
_RETRY_LOADING_S: Final = 0.05
# How error replies begin that say: this server is the wrong one now, or cannot serve this at the moment. Nothing has
# run. A master became a replica; a slot lives elsewhere, or moves; the cluster waits for a failover.
_ELSEWHERE: Final = ("READONLY", "UNBLOCKED", "MOVED", "ASK ", "TRYAGAIN", "CLUSTERDOWN")

Argument = bytes | str | int | float | memoryview
Command = tuple[Argument, ...]

# hiredis' own annotation admits only tuples of one item.
_pack: Final[Callable[[Command], bytes]] = hiredis.pack_command  # type: ignore[assignment]


class _NotYet:
    """The sentinel of the parser: no whole reply has arrived."""


_NOT_YET: Final = _NotYet()


class Connection:
    """A connection to Redis. Make one with `Connection.open`.

    Commands answer in order. `send` owes a reply that `read` or `poll` must take before the next `call`.

    Example:
        >>> connection = Connection.open("unix:///run/redis.sock")   # doctest: +SKIP
        >>> connection.call("SET", b"key", b"value")                  # doctest: +SKIP
        b'OK'
    """

    __slots__ = (
        "_address",
        "_at",
        "_buffer",
        "_feed",
        "_gets",
        "_loaded",
        "_name",
        "_open_timeout",
        "_owed",
        "_recv_into",
        "_sendall",
        "_slot",
        "_sock",
        "_timeout",
        "_tls",
        "anchor",
        "server_version",
    )

    def __init__(
        self, address: Address, timeout: float, name: str, anchor: bytes = b"", at: tuple[str, int] | None = None
    ) -> None:
        self._address = address
        self._at = at
        self._slot = cluster.slot_of(anchor)
        self.anchor: tuple[bytes, ...] = (anchor,) if address.nodes else ()
        self._open_timeout = timeout
        self._name = name
        self._sock: socket.socket | None = None
        self._buffer = bytearray(_BUFFER_BYTES)
        self._tls = False
        self._owed = 0
        self._timeout = 0.0
        self._loaded: set[bytes] = set()
        self.server_version: tuple[int, ...] = ()
        self._sendall: Callable[[bytes], Any] = self._closed
        self._recv_into: Callable[..., int] = self._closed
        self._feed: Callable[..., None] = self._closed
        self._gets: Callable[[], Any] = self._closed

    # -- opening and closing

    @classmethod
    def open(
        cls,
        endpoint_or_url: Endpoint | str,
        *,
        timeout: float = 5.0,
        name: str = "",
        at: tuple[str, int] | None = None,
    ) -> Connection:
        """Connect, authenticate, select the database and check the server's version.

        Args:
            endpoint_or_url: an endpoint (its `store_url`) or a URL, see `address.parse`. TLS options stand in the
                query as in redis-py: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`.
            timeout: seconds until it gives up, all told (a server that still loads its data is waited for).
            name: what `CLIENT LIST` shows for this connection.
            at: in a Redis Cluster, host and port of the server; None for the one that has the endpoint's keys.

        Raises:
            ConnectError: not reachable, wrong password, too old a server, not a Redis at all.
        """
        if isinstance(endpoint_or_url, str):
            url, anchor = endpoint_or_url, b""
        else:
            url, anchor = endpoint_or_url.store_url, Keys.of(endpoint_or_url).prefix
        connection = cls(parse(url), timeout, "-".join(name.split()), anchor, at)
        connection.reopen()
        return connection

    def reopen(self, *, timeout: float | None = None) -> None:
        """Connect anew (closing first, if open). Unread replies are forgotten, scripts are sent again when used.

        Args:
            timeout: seconds until it gives up; None for what `open` was given.

        Raises:
            ConnectError: as `open`.
        """
        self.close()
        timeout = self._open_timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._connect(max(0.001, deadline - time.monotonic()))
                loading = self._greet()
            except OSError as error:
                self.close()
                if isinstance(error, ConnectError):
                    raise
                raise refusals.unreachable(self._address, error, timeout) from error
            except ConnectionLost as error:
                self.close()
                raise refusals.unreachable(self._address, error.__cause__, timeout) from error
            except StoreError as error:
                self.close()
                raise refusals.refused(self._address, str(error)) from error
            except BaseException:
                self.close()
                raise
            if not loading:
                self._set_timeout(REPLY_TIMEOUT_S)
                return
            self.close()
            if time.monotonic() + _RETRY_LOADING_S > deadline:
                raise ConnectError(
                    self._address.url,
                    f"the server was still loading its data after {timeout:g} s",
                    "Wait until it is ready, then try again.",
                )
            time.sleep(_RETRY_LOADING_S)

    def _connect(self, timeout: float) -> None:
        address = self._address
        if address.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout)
                sock.connect(address.path)
            except BaseException:
                sock.close()
                raise
        else:
            if self._at is not None:
                address = address._replace(host=self._at[0], port=self._at[1])
            elif address.sentinels:
                host, port = sentinel.find_master(address, timeout)
                address = address._replace(host=host, port=port)
            elif address.nodes:
                host, port = cluster.find_master(address, self._slot, timeout)
                address = address._replace(host=host, port=port)
            sock = socket.create_connection((address.host, address.port), timeout)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if hasattr(socket, "TCP_KEEPIDLE"):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
                if address.tls:
                    sock = wrap_tls(sock, address)
            except BaseException:
                sock.close()
                raise
        self._sock = sock
        self._tls = address.tls
        if not self._tls:
            # A blocking socket with timeouts kept by the kernel: settimeout() would add a poll() to every recv() and
            # send(). (A TLS socket has no choice: its reads would spin.)
            sock.settimeout(None)
        self._timeout = 0.0
        self._set_timeout(timeout)
        reader = hiredis.Reader(protocolError=hiredis.ProtocolError, replyError=StoreError, notEnoughData=_NOT_YET)
        self._feed, self._gets = reader.feed, reader.gets
        self._sendall, self._recv_into = sock.sendall, sock.recv_into
        self._owed = 0
        self._loaded.clear()

    def _greet(self) -> bool:
        """Say hello; return True if the server still loads its data."""
        address = self._address
        hello: list[Argument] = ["HELLO", 2]
        if address.password:
            hello += ["AUTH", address.username or "default", address.password]
        if self._name:
            hello += ["SETNAME", self._name]
        commands: list[Command] = [tuple(hello), ("PING",)]
        if address.database:
            commands.append(("SELECT", address.database))
        replies = self.pipeline(commands)
        greeting = replies[0]
        if isinstance(greeting, StoreError):
            raise greeting
        facts = dict(zip(greeting[::2], greeting[1::2], strict=True))
        version = facts.get(b"version", b"0").decode()
        self.server_version = tuple(int(part) for part in version.split(".") if part.isdigit())
        if self.server_version < refusals.OLDEST_REDIS:
            raise refusals.too_old(self._address, version)
        if facts.get(b"mode") == b"cluster" and not address.nodes:
            raise refusals.is_cluster(self._address)
        if facts.get(b"role") in (b"replica", b"slave"):
            assert self._sock is not None
            raise refusals.is_replica(self._address, *_peer(self._sock))
        for reply in replies[1:]:
            if isinstance(reply, StoreError):
                if str(reply).startswith("LOADING"):
                    return True
                raise reply
        return False

    @property
    def closed(self) -> bool:
        """True if closed by `close` or lost."""
        return self._sock is None

    def close(self) -> None:
        """Close the socket. May be called again."""
        sock, self._sock = self._sock, None
        self._sendall = self._recv_into = self._feed = self._gets = self._closed
        if sock is not None:
            sock.close()

    def _closed(self, *_: object) -> NoReturn:
        raise ConnectionLost(f"the connection to {without_password(self._address.url)} is closed")

    def _lost(self, error: BaseException | None) -> ConnectionLost:
        """Close, and return what to raise."""
        self.close()
        where = without_password(self._address.url)
        if error is None:
            return ConnectionLost(f"{where} closed the connection")
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return ConnectionLost(f"{where} did not answer within {self._timeout:g} s")
        if isinstance(error, hiredis.HiredisError):
            return ConnectionLost(f"{where} broke the protocol: {error}")
        return ConnectionLost(f"the connection to {where} broke: {error}")

    # -- commands

    def call(self, *args: Argument) -> Any:
        """Send one command and return its reply.

        Raises:
            StoreError: the server answered with an error.
            ConnectionLost: the connection is closed, broke, or gave no answer for 30 s.
        """
        if self._owed:
            raise RuntimeError(f"{self._owed} replies of earlier commands are unread")
        try:
            self._sendall(_pack(args))
            gets = self._gets
            reply = gets()
            while reply is _NOT_YET:
                self._receive()
                reply = gets()
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error
        except BaseException:
            # Interrupted (Ctrl-C) between the command and its reply: the next reader would take the wrong reply.
            self.close()
            raise
        if reply.__class__ is StoreError:
            raise self._refused(reply)
        return reply

    def _refused(self, reply: StoreError) -> StoreError:
        """Return what to raise for an error reply: a server that is not the one any more is as good as gone."""
        if str(reply).startswith(_ELSEWHERE):
            self.close()
            return ConnectionLost(f"{without_password(self._address.url)}: the server does not serve this now: {reply}")
        return reply

    def call_blocking(self, *args: Argument, timeout: float) -> Any:
        """Send a command that the server itself holds back (`BLPOP`, `XREAD BLOCK`) and return its reply.

        Args:
            args: the command, with its own time limit inside.
            timeout: that limit in seconds; the connection waits for the reply that much longer. 0 waits for ever.

        Raises:
            StoreError: as `call`.
        """
        self._set_timeout(timeout + REPLY_TIMEOUT_S if timeout > 0 else 0.0)
        try:
            return self.call(*args)
        finally:
            self._set_timeout(REPLY_TIMEOUT_S)

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Send all `commands` in one write and return their replies; error replies stand in the list as `StoreError`.

        A script that the server forgot (`SCRIPT FLUSH`) is sent again with its source, after the rest.

        Raises:
            ConnectionLost: as `call`.
        """
        if self._owed:
            raise RuntimeError(f"{self._owed} replies of earlier commands are unread")
        if not commands:
            return []
        pack = _pack
        replies: list[Any] = []
        forgotten = False
        try:
            self._sendall(b"".join([pack(command) for command in commands]))
            gets = self._gets
            for _ in commands:
                reply = gets()
                while reply is _NOT_YET:
                    self._receive()
                    reply = gets()
                if reply.__class__ is StoreError and str(reply).startswith("NOSCRIPT"):
                    forgotten = True
                replies.append(reply)
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise
        for reply in replies:
            if reply.__class__ is StoreError and str(reply).startswith(_ELSEWHERE):
                raise self._refused(reply)
        if forgotten:
            self._repeat_forgotten(commands, replies)
        return replies

    def _repeat_forgotten(self, commands: Sequence[Command], replies: list[Any]) -> None:
        self._loaded.clear()
        again = [
            at
            for at, reply in enumerate(replies)
            if reply.__class__ is StoreError
            and str(reply).startswith("NOSCRIPT")
            and commands[at][0] == b"EVALSHA"
            and commands[at][1] in _SOURCES
        ]
        if again:
            repeated = self.pipeline([_with_source(commands[at]) for at in again])
            for at, reply in zip(again, repeated, strict=True):
                replies[at] = reply

    def send(self, *args: Argument) -> None:
        """Send a command without reading: its reply is owed, see `read` and `poll`.

        Raises:
            ConnectionLost: as `call`.
        """
        self._write(_pack(args), 1)

    def send_many(self, commands: Sequence[Command]) -> None:
        """Send several commands in one write; one reply is owed for each.

        Raises:
            ConnectionLost: as `call`.
        """
        pack = _pack
        self._write(b"".join([pack(command) for command in commands]), len(commands))

    def _write(self, data: bytes, owed: int) -> None:
        try:
            self._sendall(data)
        except OSError as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()  # Half a command may be on the wire.
            raise
        self._owed += owed

    def send_parts(self, parts: Iterable[bytes | memoryview]) -> None:
        """Send one command that is packed already, piece by piece, without joining them; one reply is owed.

        For values of many MiB, which `send` would copy twice.

        Raises:
            ConnectionLost: as `call`.
        """
        sendall: Callable[[Any], Any] = self._sendall
        try:
            for part in parts:
                sendall(part)
        except OSError as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise
        self._owed += 1

    @property
    def owed(self) -> int:
        """How many replies of `send` and `send_many` have not been read."""
        return self._owed

    def read(self, timeout: float | None = None) -> Any:
        """Return the next reply (or pushed message), waiting for it.

        Args:
            timeout: seconds to wait; None for the 30 s after which a connection counts as lost.

        Raises:
            ReplyTimeout: nothing came within `timeout`; the connection stays usable.
            ConnectionLost: as `call`.
            StoreError: the reply is an error.
        """
        gets = self._gets
        waiting = False
        try:
            reply = gets()
            if reply is _NOT_YET:
                waiting = True
                if timeout is not None:
                    self._set_timeout(max(timeout, 1e-6))
                while reply is _NOT_YET:
                    self._receive()
                    reply = gets()
        except (BlockingIOError, TimeoutError) as error:
            if timeout is None:
                raise self._lost(error) from error
            raise ReplyTimeout(f"no reply within {timeout:g} s") from None
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error
        finally:
            if waiting and timeout is not None and self._sock is not None:
                self._set_timeout(REPLY_TIMEOUT_S)
        if self._owed:
            self._owed -= 1
        if reply.__class__ is StoreError:
            raise self._refused(reply)
        return reply

    def read_into(self, target: memoryview) -> bool:
        """Read the next reply, a string, straight into `target`, past the parser. No earlier reply may be unread.

        Returns:
            False if there is no such string, or one of another length (the connection is closed then).

        Raises:
            ConnectionLost: as `call`.
            StoreError: the reply is an error.
        """
        try:
            head = self._read_head()
            if head[:1] != b"$":
                self._feed(head)
                self.read()
                return False
            size = int(head[1:-2])
            self._owed -= 1
            if size != target.nbytes:
                if size >= 0:
                    self.close()
                return False
            at = 0
            while at < size:
                count = self._recv_into(target[at:])
                if not count:
                    raise self._lost(None)
                at += count
            end = bytearray(2)
            at = 0
            while at < 2:
                count = self._recv_into(memoryview(end)[at:])
                if not count:
                    raise self._lost(None)
                at += count
        except OSError as error:
            raise self._lost(error) from error
        except StoreError:
            raise
        except BaseException:
            self.close()
            raise
        return True

    def _read_head(self) -> bytes:
        """Read a reply's first line and nothing after it."""
        head = bytearray()
        byte = bytearray(1)
        while not head.endswith(b"\r\n"):
            if not self._recv_into(byte):
                raise self._lost(None)
            head += byte
        return bytes(head)

    def poll(self) -> list[Any]:
        """Return the replies that are here now, without waiting; error replies stand in the list as `StoreError`.

        Raises:
            ConnectionLost: closed or broken, and no reply left to return.
        """
        gets = self._gets
        replies: list[Any] = []
        try:
            more = True
            while more:
                more = self._receive_now()
                while (reply := gets()) is not _NOT_YET:
                    replies.append(reply)
        except (OSError, hiredis.HiredisError) as error:
            # If replies came before the end, they are good; the next poll meets the end again.
            if not replies:
                raise self._lost(error) from error
        self._owed = max(0, self._owed - len(replies))
        return replies

    def fileno(self) -> int:
        """The socket's descriptor, for selectors; -1 if closed."""
        return -1 if self._sock is None else self._sock.fileno()

    def script(self, source: str) -> Script:
        """Return `source` (Lua) as something to call over this connection."""
        return Script(self, source)

    # -- the socket

    def _set_timeout(self, seconds: float) -> None:
        """Limit each recv() and send() to `seconds`; 0 for no limit."""
        if seconds == self._timeout or self._sock is None:
            return
        if self._tls:
            self._sock.settimeout(seconds or None)
        else:
            whole = int(seconds)
            value = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._timeout = seconds

    def _receive(self) -> None:
        """Wait for bytes and feed them to the parser."""
        buffer = self._buffer
        size = self._recv_into(buffer)
        if not size:
            raise self._lost(None)
        self._feed(buffer, 0, size)
        if size == len(buffer) < _LARGEST_BUFFER_BYTES:
            self._buffer = bytearray(size * 2)

    def _receive_now(self) -> bool:
        """Feed the parser what has arrived; return True if there may be more."""
        buffer = self._buffer
        try:
            size = self._receive_tls_now(buffer) if self._tls else self._recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if not size:
            raise ConnectionResetError("closed by the server")
        self._feed(buffer, 0, size)
        # A short read has emptied the socket (but not a TLS record): spare the recv() that would say so.
        return self._tls or size == len(buffer)

    def _receive_tls_now(self, buffer: bytearray) -> int:
        import ssl

        sock = self._sock
        assert sock is not None  # Set together with _recv_into, which has been called.
        sock.settimeout(0.0)
        try:
            return sock.recv_into(buffer)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        finally:
            sock.settimeout(self._timeout or None)


def _peer(sock: socket.socket) -> tuple[str, int]:
    peer = sock.getpeername()
    return (peer[0], peer[1]) if isinstance(peer, tuple) else (str(peer), 0)


# Source of every script made in this process, by digest: what NOSCRIPT is answered with.
_SOURCES: Final[dict[bytes, str]] = {}


def _with_source(command: Command) -> Command:
    digest = command[1]
    assert isinstance(digest, bytes)  # Only called for commands that Script made.
    return (b"EVAL", _SOURCES[digest], *command[2:])


class Script:
    """A Lua script on one connection: its source crosses the wire once a connection, its digest afterwards."""

    __slots__ = ("_connection", "digest", "source")

    def __init__(self, connection: Connection, source: str) -> None:
        self._connection = connection
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode()
        _SOURCES[self.digest] = source

    def command(self, keys: Sequence[Argument] = (), args: Iterable[Argument] = ()) -> Command:
        """Return the command that runs the script, for `pipeline` and `send`.

        The first one on a connection carries the source (so that a pipeline keeps its order); send what you ask for.
        In a Redis Cluster the connection's anchor goes along as the key: a server that does not serve its slot, or is
        about to give it away, refuses before the script runs, and not in the middle of it.
        """
        keys = keys or self._connection.anchor
        loaded = self._connection._loaded
        if self.digest in loaded:
            return (b"EVALSHA", self.digest, len(keys), *keys, *args)
        loaded.add(self.digest)
        return (b"EVAL", self.source, len(keys), *keys, *args)

    def __call__(self, keys: Sequence[Argument] = (), args: Iterable[Argument] = ()) -> Any:
        """Run the script and return its reply.

        Raises:
            StoreError: as `Connection.call`; also errors that the script itself raises.
        """
        command = self.command(keys, args)
        try:
            return self._connection.call(*command)
        except StoreError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        # The server forgot it (SCRIPT FLUSH). Nothing has run, so it may be repeated.
        return self._connection.call(*_with_source(command))
