"""A TCP proxy that misbehaves on demand: between a node and a server it is the network.

Bytes that may not pass are kept and go on when the way is free again, as TCP does with lost packets: neither end sees
more than silence, until it loses patience. `reset` is the other kind of fault: both ends see it at once.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress

READ_BYTES = 1 << 16
KEPT_BYTES = 4 << 20  # what a stopped way takes in before its sender is held up


class _Way:
    """One direction of one connection: a thread that reads, and one that writes `delay` seconds later."""

    def __init__(self, proxy: Proxy, source: socket.socket, target: socket.socket, *, to_server: bool) -> None:
        self._proxy = proxy
        self._source = source
        self._target = target
        self._to_server = to_server
        self._kept: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._ended = False
        for body in (self._read, self._write):
            threading.Thread(target=body, name="chaos-proxy", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = self._source.recv(READ_BYTES)
            except OSError:
                data = b""
            with self._changed:
                self._kept.append((time.monotonic(), data))
                self._size += len(data)
                self._changed.notify_all()
                if not data:
                    return
                self._changed.wait_for(lambda: self._size < KEPT_BYTES or self._ended)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._kept)
                arrived, data = self._kept.popleft()
                self._size -= len(data)
                self._changed.notify_all()
            time.sleep(max(0.0, arrived + self._proxy.delay_of(to_server=self._to_server) - time.monotonic()))
            self._proxy.wait_until_open(to_server=self._to_server)
            try:
                if data:
                    self._target.sendall(data)
                    continue
                self._target.shutdown(socket.SHUT_WR)
            except OSError:
                with suppress(OSError):
                    self._source.shutdown(socket.SHUT_RD)
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            return


class Proxy:
    """Listens on a port of its own and passes on what it gets. Its methods may be called by any thread.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target_port: int) -> None:
        self._delays = {True: 0.0, False: 0.0}  # seconds that every byte takes: to the server, to the client
        self._target = ("127.0.0.1", target_port)
        self._state = threading.Condition()
        self._open = {True: True, False: True}  # to the server, to the client
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="chaos-proxy-accept", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._state:
                self._sockets.update((client, server))
            _Way(self, client, server, to_server=True)
            _Way(self, server, client, to_server=False)

    def wait_until_open(self, *, to_server: bool) -> None:
        """Return when bytes may pass."""
        with self._state:
            self._state.wait_for(lambda: self._open[to_server] or self._closed)

    def delay(self, *, to_server: float = 0.0, to_client: float = 0.0) -> None:
        """Let every byte take so many seconds from now on."""
        self._delays = {True: to_server, False: to_client}

    def delay_of(self, *, to_server: bool) -> float:
        """Return the seconds that a byte takes that way."""
        return self._delays[to_server]

    def cut(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing pass in these directions; connections stay, new ones are taken and silent."""
        with self._state:
            self._open = {True: not to_server, False: not to_client}

    def heal(self) -> None:
        """Let everything pass again, what was kept first."""
        with self._state:
            self._open = {True: True, False: True}
            self._state.notify_all()

    def reset(self) -> None:
        """Break all connections."""
        with self._state:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        """Take no more, and break what there is."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
