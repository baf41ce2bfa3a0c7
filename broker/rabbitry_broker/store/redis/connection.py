"""One blocking connection to Redis: a socket, hiredis to parse, and nothing else.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `get`): every sync call crosses this module several times.
Beside redis-py's own `Connection` it takes 60% of the processor time for a command alone, 40% for one of a
pipeline, and an eighth of the import (docs/decisions/001 has the numbers). What rabbitry does not use is left out: no
pool, no retry, no decoding (replies are `bytes`, `int`, `list` or `None`).

A connection belongs to one thread at a time. A lost one stays closed until its owner calls `reopen`: only the owner
knows which of its commands are safe to repeat.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

import hiredis

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, ConnectionLost, ReplyTimeout, StoreError, without_password
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis import cluster, opening, refusals
from rabbitry_broker.store.redis.address import Address, parse
from rabbitry_broker.store.redis.script import SOURCES, Argument, Command, Script, with_source

# How long a reply may take before the connection counts as lost. Far above any healthy pause of Redis (a fork for
# AOF rewriting, an fsync on a slow disk), and below what a person waits for.
REPLY_TIMEOUT_S: Final = 30.0
# A read buffer starts small, since a process has several connections, and grows when replies fill it.
_BUFFER_BYTES: Final = 16 * 1024
_LARGEST_BUFFER_BYTES: Final = 1024 * 1024
_RETRY_LOADING_S: Final = 0.05
# How error replies begin that say: this server is the wrong one now, or cannot serve this at the moment. Nothing has
# run. A master became a replica; a slot lives elsewhere, or moves; the cluster waits for a failover; a script of
# somebody else does not end.
_ELSEWHERE: Final = ("READONLY", "UNBLOCKED", "MOVED", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "BUSY ", "MASTERDOWN")

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
        "_name",
        "_open_timeout",
        "_owed",
        "_patience",
        "_recv_into",
        "_sendall",
        "_slot",
        "_sock",
        "_timeout",
        "_tls",
        "anchor",
        "loaded",
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
        self._patience = REPLY_TIMEOUT_S
        self.loaded: set[bytes] = set()
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
            timeout: seconds until it gives up, all told (a server that still loads its data, or runs a script, is
                waited for).
            name: what `CLIENT LIST` shows for this connection.
            at: in a Redis Cluster, host and port of the server; None for the one that has the endpoint's keys.

        Raises:
            ConnectError: not reachable, wrong password, too old a server, not a Redis at all.
        """
        connection = cls.unopened(endpoint_or_url, timeout=timeout, name=name, at=at)
        connection.reopen()
        return connection

    @classmethod
    def unopened(
        cls,
        endpoint_or_url: Endpoint | str,
        *,
        timeout: float = 5.0,
        name: str = "",
        at: tuple[str, int] | None = None,
    ) -> Connection:
        """Return a connection that `reopen` opens, in this process or in one forked from it. Arguments as of `open`."""
        if isinstance(endpoint_or_url, str):
            url, anchor = endpoint_or_url, b""
        else:
            url, anchor = endpoint_or_url.store_url, Keys.of(endpoint_or_url).prefix
        return cls(parse(url), timeout, "-".join(name.split()), anchor, at)

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
                occupied = self._greet()
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
            if not occupied:
                self._set_timeout(self._patience)
                return
            self.close()
            if time.monotonic() + _RETRY_LOADING_S > deadline:
                raise ConnectError(
                    self._address.url,
                    f"the server was still {occupied} after {timeout:g} s",
                    "Wait until it is ready, then try again.",
                )
            time.sleep(_RETRY_LOADING_S)

    def _connect(self, timeout: float) -> None:
        sock = opening.connect(self._address, timeout, slot=self._slot, at=self._at)
        self._sock = sock
        self._tls = self._address.tls and not self._address.path
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
        self.loaded.clear()

    def _greet(self) -> str:
        """Say hello; return what keeps the server from serving for the moment, "" for nothing."""
        replies = self._exchange(opening.greeting(self._address, self._name))
        assert self._sock is not None
        self.server_version, occupied = opening.judge(self._address, replies, self._sock)
        return occupied

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

    def limit_replies(self, seconds: float) -> None:
        """Let the connection count as lost when a reply takes longer than this, from now on; 30 s if never called."""
        self._patience = seconds  # the socket is told when something is sent: often that is said again before

    # -- commands

    def call(self, *args: Argument) -> Any:
        """Send one command and return its reply.

        Raises:
            StoreError: the server answered with an error.
            ConnectionLost: the connection is closed, broke, or gave no answer in time (see `limit_replies`).
        """
        self._set_timeout(self._patience)
        return self._call(args)

    def _call(self, args: tuple[Argument, ...], late: tuple[float, Callable[[], object]] | None = None) -> Any:
        if self._owed:
            raise RuntimeError(f"{self._owed} replies of earlier commands are unread")
        try:
            self._sendall(_pack(args))
            gets = self._gets
            reply = gets()
            if late is not None and not self._arrives_within(late[0]):
                late[1]()
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
            try:
                raise self._refused(reply)
            finally:
                del reply  # see `without_frames`
        return reply

    def _refused(self, reply: StoreError) -> StoreError:
        """Return what to raise for an error reply: a server that is not the one any more is as good as gone."""
        if str(reply).startswith(_ELSEWHERE):
            self.close()
            return ConnectionLost(f"{without_password(self._address.url)}: the server does not serve this now: {reply}")
        return reply

    def call_blocking(self, *args: Argument, timeout: float, on_late: Callable[[], object] | None = None) -> Any:
        """Send a command that the server itself holds back (`BLPOP`, `XREAD BLOCK`) and return its reply.

        An idle server looks at such limits ten times a second.

        Args:
            args: the command, with its own time limit inside.
            timeout: that limit in seconds; the connection waits for the reply that much longer, up to a second more. 0
                waits for ever.
            on_late: called if there is no reply by then: it may have the server reply at once.

        Raises:
            StoreError: as `call`.
        """
        # In whole seconds, and left so: the next such command wants the same, and each change takes two system calls.
        self._set_timeout(math.ceil(timeout) + self._patience if timeout > 0 else 0.0)
        return self._call(args, None if on_late is None else (timeout, on_late))

    def _arrives_within(self, seconds: float) -> bool:
        """True as soon as something has arrived."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(1000 * seconds))

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
        self._set_timeout(self._patience)
        replies = self._exchange(commands)
        forgotten = False
        for reply in replies:
            if reply.__class__ is StoreError:
                text = str(reply)
                if text.startswith(_ELSEWHERE):
                    raise self._refused(reply)
                forgotten = forgotten or text.startswith("NOSCRIPT")
        if forgotten:
            self._repeat_forgotten(commands, replies)
        return replies

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        pack = _pack
        replies: list[Any] = []
        try:
            self._sendall(b"".join([pack(command) for command in commands]))
            gets = self._gets
            for _ in commands:
                reply = gets()
                while reply is _NOT_YET:
                    self._receive()
                    reply = gets()
                replies.append(reply)
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise
        return replies

    def _repeat_forgotten(self, commands: Sequence[Command], replies: list[Any]) -> None:
        self.loaded.clear()
        again = [
            at
            for at, reply in enumerate(replies)
            if reply.__class__ is StoreError
            and str(reply).startswith("NOSCRIPT")
            and commands[at][0] == b"EVALSHA"
            and commands[at][1] in SOURCES
        ]
        if again:
            repeated = self.pipeline([with_source(commands[at]) for at in again])
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
        self._set_timeout(self._patience)
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
        self._set_timeout(self._patience)
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
                self._set_timeout(self._patience)
        if self._owed:
            self._owed -= 1
        if reply.__class__ is StoreError:
            try:
                raise self._refused(reply)
            finally:
                del reply  # see `without_frames`
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
