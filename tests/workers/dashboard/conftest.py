"""A dashboard of a fake cluster, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import free_port, wait_until

TOKEN = "the-token-of-these-tests"


class Served:
    """A dashboard that runs; see `serve.py` for what it can be told."""

    def __init__(self, tasks: int, token: str | None = TOKEN) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = token
        command = [sys.executable, "-m", "tests.workers.dashboard.serve", str(self.port), str(tasks)]
        self.process = subprocess.Popen(
            command + ([token] if token else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            wait_until(self._answers, "the dashboard answers", timeout=30)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the dashboard has ended"
        try:
            self.get("/login")
        except OSError:
            return False
        return True

    def tell(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        """Return (status, headers, text) of what a program that has the token gets; redirects are not followed."""
        shown = {"authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(self.url + path, headers={**shown, **headers})
        opener = urllib.request.build_opener(_Stay)
        try:
            answer = opener.open(request, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return (
                answer.status,
                {name.lower(): value for name, value in answer.headers.items()},
                answer.read().decode(),
            )

    def processor_seconds(self) -> float:
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A dashboard with a token, and 500 tasks to look at."""
    made = Served(500)
    yield made
    made.close()
