"""Packages and archives are fetched up to a limit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_workers.environments.cache import SetupError
from rabbitry_workers.environments.fetching import fetch

LIMIT = 100_000


class Endless(BaseHTTPRequestHandler):
    """Sends for as long as somebody reads."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(65536))
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x.zip"
    server.shutdown()
    server.server_close()
    thread.join()


def stored(size: int) -> Any:
    return SimpleNamespace(read=lambda uri: iter([bytes(1000)] * (size // 1000)))


def test_what_never_ends_is_not_fetched_for_ever(endless: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"has more than {LIMIT} bytes.*RABBITRY_ENVIRONMENTS_LIMIT"):
        fetch(endless, tmp_path / "archive", stored(0), limit=LIMIT)
    assert (tmp_path / "archive").stat().st_size <= LIMIT


@pytest.mark.parametrize("scheme", ["file", "gcs"])
def test_what_is_larger_than_the_limit_is_refused(scheme: str, tmp_path: Path) -> None:
    source = tmp_path / "source.zip"
    for size, fits in ((LIMIT, True), (LIMIT + 1000, False)):
        source.write_bytes(bytes(size))
        uri = source.as_uri() if scheme == "file" else "gcs://_ray_pkg_x.zip"
        if fits:
            fetch(uri, tmp_path / "archive", stored(size), limit=LIMIT)
            assert (tmp_path / "archive").stat().st_size == size
        else:
            with pytest.raises(SetupError, match="has more than"):
                fetch(uri, tmp_path / "archive", stored(size), limit=LIMIT)
