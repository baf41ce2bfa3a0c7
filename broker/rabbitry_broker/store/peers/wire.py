"""A socket to a peer, plain or TLS, whose operations have a limit of time. HOT PATH: the bytes of large values."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Final

from rabbitry_broker.errors import StoreError

# With TLS, each piece is encrypted into memory of the library's first.
_TLS_PIECE_BYTES: Final = 256 << 10
# The kernel takes less for no limit at all.
_SHORTEST_S: Final = 0.001


class PeerLost(StoreError):
    """A peer cannot be reached, is not who it should be, broke off or fell silent: go elsewhere for what it has."""


class Wire:
    """One connection. For one thread at a time.

    Args:
        sock: connected, and through its TLS handshake.
        tls: whether it is encrypted.
    """

    def __init__(self, sock: socket.socket, *, tls: bool) -> None:
        self._sock = sock
        self._tls = tls
        self._seconds = -1.0
        if not tls:
            # A blocking socket with limits kept by the kernel: a whole piece in one call, without a poll before it.
            sock.settimeout(None)

    def limit(self, seconds: float) -> None:
        """Let nothing take longer from now on that moves no byte."""
        seconds = max(seconds, _SHORTEST_S)
        if seconds == self._seconds:
            return
        self._seconds = seconds
        try:
            if self._tls:
                self._sock.settimeout(seconds)
            else:
                value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        except OSError as error:
            raise self._lost(error) from error

    def fill(self, target: memoryview) -> None:
        """Receive as many bytes as `target` has.

        Raises:
            PeerLost: the connection broke, ended or fell silent before.
        """
        flags = 0 if self._tls else socket.MSG_WAITALL
        at, size = 0, target.nbytes
        try:
            while at < size:
                count = self._sock.recv_into(target[at:], size - at, flags)
                if not count:
                    raise PeerLost("the peer closed the connection")
                at += count
        except OSError as error:
            raise self._lost(error) from error

    def read(self, size: int) -> bytes:
        """Receive so many bytes. See `fill`."""
        found = bytearray(size)
        self.fill(memoryview(found))
        return bytes(found)

    def read_within(self, size: int, deadline: float) -> bytes:
        """Receive so many bytes before a time on the monotonic clock, however slowly they come. See `fill`."""
        found = b""
        while len(found) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise PeerLost("the peer took too long")
            self.limit(left)
            try:
                part = self._sock.recv(size - len(found))
            except OSError as error:
                raise self._lost(error) from error
            if not part:
                raise PeerLost("the peer closed the connection")
            found += part
        return found

    def send(self, data: bytes | memoryview) -> None:
        """Send all of it.

        Raises:
            PeerLost: the connection broke, or the peer takes nothing.
        """
        try:
            if not self._tls:
                self._sock.sendall(data)
                return
            with memoryview(data) as whole:
                for at in range(0, whole.nbytes, _TLS_PIECE_BYTES):
                    self._sock.sendall(whole[at : at + _TLS_PIECE_BYTES])
        except OSError as error:
            raise self._lost(error) from error

    def is_usable(self) -> bool:
        """True if the peer, of whom nothing is awaited, has not closed the connection."""
        try:
            if self._tls:
                return self._is_quiet()
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return False  # the end, or what nobody asked for
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _is_quiet(self) -> bool:
        # What could come is the end (or a key update of TLS 1.3, which costs a new connection).
        return not select.select([self._sock], [], [], 0)[0]

    def close(self) -> None:
        """Close the socket. May be called again."""
        self._sock.close()

    def _lost(self, error: OSError) -> PeerLost:
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return PeerLost(f"the peer was silent for {self._seconds:g} s")
        return PeerLost(f"the connection to the peer broke: {error}")
