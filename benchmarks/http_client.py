"""Clients of an HTTP server that cost so little that what is measured is the server."""

from __future__ import annotations

import re
import selectors
import socket
from types import TracebackType

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TIMEOUT_SECONDS = 60.0


class Clients:
    """Some connections that are kept, each with one request at a time; all on one thread."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self._connections = [socket.create_connection((host, port), _TIMEOUT_SECONDS) for _ in range(count)]
        self._host = host

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in self._connections:
            each.close()

    def get(self, path: str, count: int) -> set[bytes]:
        """Ask so many times; return all different answers.

        Raises:
            RuntimeError: an answer was not 200, or the connection was closed.
            TimeoutError: no answer came for a minute.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        answers: set[bytes] = set()
        asked = done = 0
        with selectors.DefaultSelector() as selector:
            for each in self._connections[:count]:
                selector.register(each, selectors.EVENT_READ, bytearray())
                each.sendall(request)
                asked += 1
            while done < count:
                ready = selector.select(_TIMEOUT_SECONDS)
                if not ready:
                    raise TimeoutError(f"no answer for {_TIMEOUT_SECONDS:g} s")
                for key, _ in ready:
                    connection, received = key.fileobj, key.data
                    assert isinstance(connection, socket.socket)
                    part = connection.recv(65536)
                    received += part
                    answer = _body(received, ended=not part)
                    if answer is None:
                        continue
                    answers.add(answer)
                    received.clear()
                    done += 1
                    if asked < count:
                        connection.sendall(request)
                        asked += 1
        return answers


def _body(received: bytearray, *, ended: bool) -> bytes | None:
    """Return the body of an answer, None if it is not all there."""
    head, found, body = bytes(received).partition(b"\r\n\r\n")
    if ended or (found and b" 200 " not in head[:20]):
        raise RuntimeError(f"not an answer: {bytes(received[:500])!r}")
    if not found:
        return None
    length = _LENGTH.search(head)
    if length is not None:
        return body if len(body) >= int(length[1]) else None
    return _of_chunks(body)


def _of_chunks(body: bytes) -> bytes | None:
    """Return what the chunks of a body hold, None if the last one is not here yet."""
    parts = []
    while True:
        size, found, body = body.partition(b"\r\n")
        if not found:
            return None
        length = int(size, 16)
        if len(body) < length + 2:
            return None
        if not length:
            return b"".join(parts)
        parts.append(body[:length])
        body = body[length + 2 :]
