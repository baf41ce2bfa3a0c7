"""Somebody between two peers: records, changes and cuts what goes over their connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

PIECE_BYTES = 1 << 16


class Between:
    """Forwards connections to a port.

    Args:
        port: of the server, on this machine.

    Attributes:
        port: where it listens.
        to_server: what readers said, connection after connection.
        to_reader: what the server said.
        change: called with (whether it goes to the server, bytes that went that way before, bytes); returns what goes
            on instead, None to end the connection.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.to_server: list[bytes] = []
        self.to_reader: list[bytes] = []
        self.change: Callable[[bool, int, bytes], bytes | None] = lambda to_server, before, data: data
        self._start(self._accept)

    def _start(self, body: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=body, args=arguments, name="between", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                reader, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [reader, server]
                at = len(self.to_server)
                self.to_server.append(b"")
                self.to_reader.append(b"")
                self._start(self._forward, reader, server, self.to_server, at)
                self._start(self._forward, server, reader, self.to_reader, at)

    def _forward(self, source: socket.socket, target: socket.socket, heard: list[bytes], at: int) -> None:
        before = 0
        with suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                heard[at] += data
                passed = self.change(heard is self.to_server, before, data)
                before += len(data)
                if passed is None:
                    break
                target.sendall(passed)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()
