"""The benchmark of Ray's libraries: what it reads of answers, and what it says of times."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator

import pytest

from benchmarks.http_client import Clients
from benchmarks.libraries import BARS, table

ANSWERS = {
    "/whole": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    "/pieces": [b"HTTP/1.1 200 OK\r\nConten", b"t-length: 5\r\n\r\nhe", b"llo"],
    "/chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r", b"\n2\r\nlo\r\n0\r\n", b"\r\n"],
    "/error": [b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nhello"],
    "/closed": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b""],
}


class Answers(socketserver.StreamRequestHandler):
    """Answers in the pieces above."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                continue
            for piece in ANSWERS[line.split()[1].decode()]:
                if not piece:
                    return
                self.wfile.write(piece)
                self.wfile.flush()


@pytest.fixture
def port() -> Iterator[int]:
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/whole", "/pieces", "/chunks"])
def test_answers_are_read_however_they_arrive(port: int, path: str) -> None:
    with Clients("127.0.0.1", port, 3) as clients:
        assert clients.get(path, 20) == {b"hello"}


@pytest.mark.parametrize("path", ["/error", "/closed"])
def test_what_is_no_answer_is_said(port: int, path: str) -> None:
    with Clients("127.0.0.1", port, 1) as clients, pytest.raises(RuntimeError, match="HTTP"):
        clients.get(path, 1)


def test_ratios_are_of_medians_and_stand_beside_the_bar() -> None:
    found = {
        "ray": {"serve_http": [(4.0, 2.0), (6.0, 4.0), (5.0, 3.0)]},
        "embedded": {"serve_http": [(2.5, None)], "serve_new": [(1.0, 1.0)]},
    }
    _, known, new = table(found).splitlines()  # type: ignore[arg-type]
    assert known.split() == ["serve_http", "5.000", "3.000", "2.500", "-", "2.00", f"{BARS['serve_http']:g}"]
    assert new.split() == ["serve_new", "-", "-", "1.000", "1.000"]
