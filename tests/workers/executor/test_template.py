"""The template process when it cannot fork: it must not end, for all executors would with it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rabbitry_workers.channel import Splitter, pack_message
from rabbitry_workers.executor.template import FORK, FORKED
from tests.end_to_end.conftest import node_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")


@pytest.fixture
def template() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "rabbitry_workers.executor.template"],
        stdin=theirs.fileno(),
        stderr=subprocess.PIPE,
        env=node_environment(),
    )
    theirs.close()
    yield process, ours
    ours.close()
    process.communicate(timeout=20)


def ask(sock: socket.socket) -> int:
    """Ask for an executor, which ends at once since nothing is known of it; return its process id."""
    sock.sendall(pack_message([FORK, 0, {}]))
    return answer(sock)


def answer(sock: socket.socket) -> int:
    sock.settimeout(20)
    splitter = Splitter()
    while True:
        data, fds, _, _ = socket.recv_fds(sock, 65536, 16)
        for fd in fds:
            os.close(fd)
        assert data, "the template has ended"
        for word, pid, *_ in splitter.feed(data):
            if word == FORKED:
                return int(pid)


def test_it_waits_until_it_may_open_files_again(template: tuple[subprocess.Popen[bytes], socket.socket]):
    process, sock = template
    assert ask(sock)
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (7, limits[1]))
    sock.sendall(pack_message([FORK, 0, {}]))
    assert process.stderr is not None
    while b"no executor can be started" not in (line := process.stderr.readline()):
        assert line, "the template has ended"
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
    assert answer(sock)
